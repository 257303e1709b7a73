/**
 * Flows that wait to hear whose local socket theirs is. Only the edge can find out, and to look through a host's processes
 * takes longer than packets may be held up by: so the question goes out as an event, the packets that began the flow wait
 * here, and with the answer they come again as if for the first time.
 *
 * A flow is asked about only when the policy's answer depends on it. No answer in time means that nobody knows, and then
 * no rule by owner applies.
 */
import { after, type Deadline, type Instant } from "../base/instant.ts";
import { type FlowKey, transportOf } from "../policy/flow-key.ts";
import type { Direction } from "../policy/rule.ts";
import type { SocketOwner } from "../policy/socket-owner.ts";
import type { StagedPacket } from "../tunnel/data-plane.ts";
import type { NodeId } from "../wire/ids.ts";

export interface OwnerQuestion {
  readonly id: number;
  /** Who began: the peer (`in`) or a program here (`out`). */
  readonly direction: Direction;
  /** Next-header number of the transport. */
  readonly protocol: number;
  /** 16 bytes each. */
  readonly local: Uint8Array;
  readonly remote: Uint8Array;
  /** Of an echo its identifier. */
  readonly localPort: number;
  readonly remotePort: number;
  /** More is asked than the socket's user. */
  readonly asksForPrograms: boolean;
}

/** A packet of a peer that waited, already authenticated. Its bytes are a copy. */
export interface WaitingInbound {
  readonly node: NodeId;
  readonly packet: Uint8Array;
  readonly byRelay: boolean;
  /** It was made out of what a plain agent sent. */
  readonly isTranslated: boolean;
}

interface Asked {
  readonly name: string;
  readonly node: NodeId;
  /** Undefined while it is not answered. */
  answer: { readonly owner: SocketOwner | undefined } | undefined;
  until: Instant;
  readonly outbound: StagedPacket[];
  readonly inbound: WaitingInbound[];
}

export class OwnerQuestions {
  /** Key: flow and who began it. Bound: MAX_ASKED, and MAX_ASKED_EACH of one peer; an entry goes when its time is over. */
  readonly #byName = new Map<string, Asked>();
  /** The same by the question's id. */
  readonly #byId = new Map<number, Asked>();
  /** Key: node. Bound: the entries above. */
  readonly #askedOf = new Map<NodeId, number>();
  /** Bound: the entries; emptied after each input. */
  readonly #questions: OwnerQuestion[] = [];
  readonly #outbound: StagedPacket[] = [];
  readonly #inbound: WaitingInbound[] = [];
  /** What `ask` was called for last. */
  #last: Asked | undefined;
  #heldBytes = 0;
  /** When the first entry's time is over, or earlier. */
  #wakeAt: Instant | undefined;
  #lastId = 0;

  /** What was answered of late; undefined: ask. */
  answerFor(key: FlowKey, direction: Direction): { readonly owner: SocketOwner | undefined } | undefined {
    return this.#byName.get(nameOf(key, direction))?.answer;
  }

  /** False when there is no room for another flow that waits. */
  ask(key: FlowKey, direction: Direction, node: NodeId, asksForPrograms: boolean, now: Instant): boolean {
    const name = nameOf(key, direction);
    this.#last = this.#byName.get(name);
    if (this.#last !== undefined) return true;
    const ofPeer = this.#askedOf.get(node) ?? 0;
    if (this.#byName.size >= MAX_ASKED || ofPeer >= MAX_ASKED_EACH) return false;
    const id = ++this.#lastId;
    const until = after(now, PATIENCE_MS);
    const asked: Asked = { name, node, answer: undefined, until, outbound: [], inbound: [] };
    this.#last = asked;
    this.#byName.set(name, asked);
    this.#byId.set(id, asked);
    this.#askedOf.set(node, ofPeer + 1);
    this.#wakeBy(asked.until);
    this.#questions.push({ id, ...placesOf(key, direction), direction, asksForPrograms });
    return true;
  }

  /** Keeps a packet of the flow that `ask` was called for last; false when there is no room. Its bytes are borrowed. */
  hold(packet: StagedPacket | WaitingInbound): boolean {
    const asked = this.#last;
    const isOutbound = "bytes" in packet;
    const length = isOutbound ? packet.bytes.length : packet.packet.length;
    if (asked === undefined || asked.outbound.length + asked.inbound.length >= MAX_PACKETS_EACH) return false;
    if (this.#heldBytes + length > MAX_HELD_BYTES) return false;
    this.#heldBytes += length;
    if (isOutbound) asked.outbound.push({ ...packet, bytes: packet.bytes.slice() });
    else asked.inbound.push({ ...packet, packet: packet.packet.slice() });
    return true;
  }

  pollQuestion(): OwnerQuestion | undefined {
    return this.#questions.shift();
  }

  /** Undefined: nobody knows. An answer that comes too late, or twice, is nothing. */
  answer(id: number, owner: SocketOwner | undefined, now: Instant): void {
    const asked = this.#byId.get(id);
    if (asked === undefined || asked.answer !== undefined) return;
    asked.answer = { owner };
    asked.until = after(now, ANSWER_LIFE_MS);
    this.#wakeBy(asked.until);
    for (const packet of asked.outbound.splice(0)) this.#outbound.push(packet);
    for (const packet of asked.inbound.splice(0)) this.#inbound.push(packet);
  }

  /** A packet of a program that may come again now. */
  takeOutbound(): StagedPacket[] {
    const packets = this.#outbound.splice(0, MAX_BATCH);
    for (const { bytes } of packets) this.#heldBytes -= bytes.length;
    return packets;
  }

  pollInbound(): WaitingInbound | undefined {
    const waiting = this.#inbound.shift();
    if (waiting !== undefined) this.#heldBytes -= waiting.packet.length;
    return waiting;
  }

  pollTimeout(): Deadline | undefined {
    return this.#wakeAt === undefined ? undefined : { at: this.#wakeAt, reason: "whose socket" };
  }

  handleTimeout(now: Instant): void {
    if (this.#wakeAt === undefined || this.#wakeAt > now) return;
    this.#wakeAt = undefined;
    for (const [id, asked] of [...this.#byId]) {
      if (asked.until > now) this.#wakeBy(asked.until);
      else if (asked.answer === undefined) this.answer(id, undefined, now);
      else this.#forget(id, asked);
    }
  }

  #wakeBy(at: Instant): void {
    if (this.#wakeAt === undefined || at < this.#wakeAt) this.#wakeAt = at;
  }

  #forget(id: number, { name, node }: Asked): void {
    this.#byName.delete(name);
    this.#byId.delete(id);
    const left = this.#askedOf.get(node)! - 1;
    if (left === 0) this.#askedOf.delete(node);
    else this.#askedOf.set(node, left);
  }
}

function nameOf({ view, remoteOffset, localOffset, ports, protocol }: FlowKey, direction: Direction): string {
  const words: (number | string)[] = [direction, protocol, ports];
  for (let i = 0; i < 16; i += 4) words.push(view.getInt32(remoteOffset + i), view.getInt32(localOffset + i));
  return words.join();
}

function placesOf({ view, remoteOffset, localOffset, ports, protocol }: FlowKey, direction: Direction) {
  const address = (offset: number) => new Uint8Array(view.buffer, view.byteOffset + offset, 16).slice();
  const transport = transportOf(protocol);
  const isEcho = protocol !== transport; // its "ports" are the identifier alone
  return {
    protocol: transport,
    local: address(localOffset),
    remote: address(remoteOffset),
    localPort: isEcho ? ports & 0xffff : ports >>> 16,
    remotePort: isEcho ? 0 : ports & 0xffff,
    direction,
  };
}

const MAX_ASKED = 4_096;
const MAX_ASKED_EACH = 256;
const MAX_PACKETS_EACH = 8;
const MAX_HELD_BYTES = 8 << 20;
/** Packets that come again in one batch. */
const MAX_BATCH = 64;
/** A program repeats a SYN after a second; an answer takes milliseconds. */
const PATIENCE_MS = 2_000;
/** For the packets that waited, and for repeats of a refused beginning. */
const ANSWER_LIFE_MS = 1_000;
