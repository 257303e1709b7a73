/**
 * The key slots of the portable data plane: seals outbound virtual packets and opens inbound frames.
 * Invariant of opening, in this order: the tag is right, the virtual packet is whole, its inner addresses are those of
 * the frame's sender and of this node, its counter was not seen before (pilot protocol §2.1, §3.9, §11.5, §11.7).
 * Nothing is remembered of a frame that fails one of them.
 */

import { readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import { crc32 } from "../base/crc32.ts";
import type { NodeId } from "../wire/ids.ts";
import { COUNTER, type KeySpec } from "./data-plane.ts";
import {
  counterOf,
  encodeNonce,
  type FrameKey,
  NONCE_PREFIX_BYTES,
  openFrame,
  prefixOf,
  sealFrame,
  senderOf,
} from "./portable-frame.ts";
import { ReplayWindow } from "./replay-window.ts";

export const MAX_KEYS_TRIED = 4;
/** The current prefix of a peer and four older ones. */
export const MAX_PREFIXES_PER_KEY = 5;
export const VIRTUAL_HEADER_BYTES = 34;

export interface OpenedFrame {
  readonly slot: number;
  readonly sender: NodeId;
  /** The virtual packet without what followed its payload. */
  readonly virtualPacket: Uint8Array;
  readonly isBridgeData: boolean;
}

/** The counter of the reason why a frame was refused. */
export type OpenFailure =
  | typeof COUNTER.BAD_TAG
  | typeof COUNTER.BAD_VIRTUAL_PACKET
  | typeof COUNTER.INNER_MISMATCH
  | typeof COUNTER.REPLAYED;

export class PortableKeys {
  /** Key: slot. Bound: the data plane's number of key slots; `remove` evicts. */
  readonly #slots = new Map<number, InstalledKey>();
  /** Keys to try for a sender, newest first. Key: peer node. Bound: the slots in use. */
  readonly #byNode = new Map<NodeId, InstalledKey[]>();

  /** Replaces what was in the slot. Of more than MAX_KEYS_TRIED keys that may open a frame the oldest are not tried. */
  install(slot: number, spec: KeySpec): void {
    checkSpec(spec);
    this.remove(slot);
    const installed = new InstalledKey(slot, spec);
    this.#slots.set(slot, installed);
    const sameNode = this.#byNode.get(spec.peerNode) ?? [];
    this.#byNode.set(spec.peerNode, [installed, ...sameNode]);
  }

  /** The counter the next frame would have had; 0, which no key may start with, when the slot is empty. */
  remove(slot: number): number {
    const installed = this.#slots.get(slot);
    if (installed === undefined) return 0;
    this.#slots.delete(slot);
    const others = (this.#byNode.get(installed.peerNode) ?? []).filter((other) => other !== installed);
    if (others.length > 0) this.#byNode.set(installed.peerNode, others);
    else this.#byNode.delete(installed.peerNode);
    return installed.wipe();
  }

  /** Undefined when the slot is empty or its counter is used up. */
  seal(slot: number, virtualPacket: Uint8Array): Uint8Array | undefined {
    return this.#slots.get(slot)?.seal(virtualPacket);
  }

  /** The same for a packet whose CRC is missing, and filled in. */
  sealWithCrc(slot: number, packet: Uint8Array): Uint8Array | undefined {
    writeU32(packet, CRC, virtualPacketCrc(packet));
    return this.seal(slot, packet);
  }

  /** Seals an inner IP packet as bridge data; undefined as for `seal`, or when no virtual packet can hold it. */
  sealBridgeData(slot: number, packet: Uint8Array): Uint8Array | undefined {
    const installed = this.#slots.get(slot);
    if (installed === undefined || packet.length > 0xffff) return undefined;
    return installed.seal(installed.wrap(packet));
  }

  knows(sender: NodeId): boolean {
    return this.#byNode.has(sender);
  }

  /** For frames of a sender that `knows` is true of. */
  open(frame: Uint8Array): OpenedFrame | OpenFailure {
    for (const installed of this.#candidates(frame)) {
      const plaintext = openFrame(installed.opening, frame);
      if (plaintext !== undefined) return installed.check(frame, plaintext);
    }
    return COUNTER.BAD_TAG;
  }

  /** Keys that have seen the frame's nonce prefix come first: the others are tried only if those fail. */
  #candidates(frame: Uint8Array): InstalledKey[] {
    const prefix = prefixOf(frame);
    const all = this.#byNode.get(senderOf(frame)) ?? [];
    const keys = all.filter((key) => key.mayOpen(prefix)).slice(0, MAX_KEYS_TRIED);
    return [...keys.filter((key) => key.hasSeen(prefix)), ...keys.filter((key) => !key.hasSeen(prefix))];
  }
}

class InstalledKey {
  readonly opening: FrameKey;
  readonly peerNode: NodeId;
  readonly #sealing: FrameKey;
  /** The only one that the peer's nonces have, if it is known. */
  readonly #receivePrefix: number | undefined;
  readonly #slot: number;
  readonly #localNode: NodeId;
  readonly #sendPrefix: Uint8Array;
  readonly #sendHeader: Uint8Array;
  readonly #receiveHeader: Uint8Array;
  #nextCounter: number;
  /** Bound: MAX_PREFIXES_PER_KEY; the window that accepted longest ago is evicted. Last used last. */
  #windows: { readonly prefix: number; readonly window: ReplayWindow }[] = [];

  constructor(slot: number, spec: KeySpec) {
    this.#sealing = { key: spec.key.slice(), bindSender: spec.bindSender };
    this.opening = { key: (spec.receive?.key ?? spec.key).slice(), bindSender: spec.bindSender };
    this.#receivePrefix = spec.receive && readU32(spec.receive.prefix, 0);
    this.peerNode = spec.peerNode;
    this.#slot = slot;
    this.#localNode = spec.localNode;
    this.#sendPrefix = spec.sendPrefix.slice();
    this.#sendHeader = spec.sendHeader.slice();
    this.#receiveHeader = spec.receiveHeader.slice();
    this.#nextCounter = spec.firstCounter;
  }

  wipe(): number {
    this.#sealing.key.fill(0);
    this.opening.key.fill(0);
    return this.#nextCounter;
  }

  seal(virtualPacket: Uint8Array): Uint8Array | undefined {
    if (this.#nextCounter >= Number.MAX_SAFE_INTEGER) return undefined;
    const nonce = encodeNonce(this.#sendPrefix, this.#nextCounter++);
    return sealFrame(this.#sealing, this.#localNode, nonce, virtualPacket);
  }

  wrap(packet: Uint8Array): Uint8Array {
    const virtualPacket = new Uint8Array(VIRTUAL_HEADER_BYTES + packet.length);
    virtualPacket.set(this.#sendHeader);
    writeU16(virtualPacket, PAYLOAD_LENGTH, packet.length);
    virtualPacket.set(packet, VIRTUAL_HEADER_BYTES);
    writeU32(virtualPacket, CRC, virtualPacketCrc(virtualPacket));
    return virtualPacket;
  }

  mayOpen(prefix: number): boolean {
    return this.#receivePrefix === undefined || this.#receivePrefix === prefix;
  }

  hasSeen(prefix: number): boolean {
    return this.#windows.some((known) => known.prefix === prefix);
  }

  check(frame: Uint8Array, plaintext: Uint8Array): OpenedFrame | OpenFailure {
    const virtualPacket = wholeVirtualPacket(plaintext);
    if (virtualPacket === undefined) return COUNTER.BAD_VIRTUAL_PACKET;
    if (readU32(virtualPacket, SOURCE_NODE) !== this.peerNode) return COUNTER.INNER_MISMATCH;
    if (readU32(virtualPacket, DESTINATION_NODE) !== this.#localNode) return COUNTER.INNER_MISMATCH;
    if (!this.#acceptCounter(frame)) return COUNTER.REPLAYED;
    return {
      slot: this.#slot,
      sender: this.peerNode,
      virtualPacket,
      isBridgeData: this.#isBridgeData(virtualPacket),
    };
  }

  #acceptCounter(frame: Uint8Array): boolean {
    const prefix = prefixOf(frame);
    const { high, low } = counterOf(frame);
    const known = this.#windows.find((entry) => entry.prefix === prefix) ?? { prefix, window: new ReplayWindow() };
    if (!known.window.accept(high, low)) return false;
    this.#windows = [...this.#windows.filter((entry) => entry !== known), known].slice(-MAX_PREFIXES_PER_KEY);
    return true;
  }

  /** The header announced for bridge data and an IPv6 packet in it; bridge messages start with a zero nibble. */
  #isBridgeData(virtualPacket: Uint8Array): boolean {
    for (let at = 0; at < SEQUENCE; at++) {
      const isLength = at === PAYLOAD_LENGTH || at === PAYLOAD_LENGTH + 1;
      if (!isLength && virtualPacket[at] !== this.#receiveHeader[at]) return false;
    }
    return virtualPacket.length > VIRTUAL_HEADER_BYTES && virtualPacket[VIRTUAL_HEADER_BYTES]! >>> 4 === 6;
  }
}

function wholeVirtualPacket(plaintext: Uint8Array): Uint8Array | undefined {
  if (plaintext.length < VIRTUAL_HEADER_BYTES || plaintext[0]! >>> 4 !== 1) return undefined;
  const length = VIRTUAL_HEADER_BYTES + readU16(plaintext, PAYLOAD_LENGTH);
  if (length > plaintext.length) return undefined;
  const virtualPacket = plaintext.subarray(0, length);
  return readU32(virtualPacket, CRC) === virtualPacketCrc(virtualPacket) ? virtualPacket : undefined;
}

/** Over header and payload, as if the CRC field were zero. */
function virtualPacketCrc(virtualPacket: Uint8Array): number {
  const header = crc32(ZERO_CRC_FIELD, crc32(virtualPacket.subarray(0, CRC)));
  return crc32(virtualPacket.subarray(VIRTUAL_HEADER_BYTES), header);
}

/** What no caller may get wrong without the nonces or the key being wrong. */
function checkSpec(spec: KeySpec): void {
  if (spec.key.length !== 32) throw new RangeError(`a key has 32 bytes, not ${spec.key.length}`);
  if (spec.sendPrefix.length !== NONCE_PREFIX_BYTES) throw new RangeError("a nonce prefix has 4 bytes");
  if (spec.receive !== undefined && spec.receive.key.length !== 32) throw new RangeError("a key has 32 bytes");
  if (spec.receive !== undefined && spec.receive.prefix.length !== NONCE_PREFIX_BYTES) {
    throw new RangeError("a nonce prefix has 4 bytes");
  }
  if (!Number.isSafeInteger(spec.firstCounter) || spec.firstCounter < 1) {
    throw new RangeError(`not a first counter: ${spec.firstCounter}`);
  }
  if (spec.sendHeader.length !== VIRTUAL_HEADER_BYTES || spec.receiveHeader.length !== VIRTUAL_HEADER_BYTES) {
    throw new RangeError("a virtual header has 34 bytes");
  }
}

const PAYLOAD_LENGTH = 2;
const SOURCE_NODE = 6;
const DESTINATION_NODE = 12;
const SEQUENCE = 20;
const CRC = 30;
const ZERO_CRC_FIELD = new Uint8Array(4);
