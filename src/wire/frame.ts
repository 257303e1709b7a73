/**
 * Tunnel frames: what a datagram on the underlay carries (pilot protocol §3.1, §3.2). This file knows where the fields
 * stand; keys, nonces and signatures are made and checked in `tunnel/`.
 *
 *     PILT  magic 4 | virtual packet                                                plaintext
 *     PILS  magic 4 | sender 4 | nonce 12 | ciphertext n | tag 16                   sealed
 *     PILK  magic 4 | sender 4 | X25519 key 32                                      key exchange, anonymous
 *     PILA  magic 4 | sender 4 | X25519 key 32 | Ed25519 key 32 | signature 64      key exchange, signed
 *     PILP  magic 4                                                                 punch
 */
import { readU32, utf8, writeU32 } from "../base/bytes.ts";
import { type NodeId, nodeId } from "./ids.ts";

export type DatagramKind = "beacon" | "pilt" | "pils" | "pilk" | "pila" | "pilp" | "unknown";

/** By the first byte or the magic alone: the frame may still be too short. */
export function classifyDatagram(datagram: Uint8Array): DatagramKind {
  if (datagram.length < 1) return "unknown";
  if (datagram[0]! < FIRST_BYTE_OF_NO_BEACON) return "beacon";
  if (datagram.length < MAGIC_BYTES) return "unknown";
  switch (readU32(datagram, 0)) {
    case MAGIC.PILS:
      return "pils";
    case MAGIC.PILA:
      return "pila";
    case MAGIC.PILP:
      return "pilp";
    case MAGIC.PILK:
      return "pilk";
    case MAGIC.PILT:
      return "pilt";
    default:
      return "unknown";
  }
}

export const MAGIC = {
  PILT: 0x50494c54,
  PILS: 0x50494c53,
  PILK: 0x50494c4b,
  PILA: 0x50494c41,
  PILP: 0x50494c50,
} as const;

export const MAGIC_BYTES = 4;

// PILA.

export interface Pila {
  readonly sender: NodeId;
  /** X25519 public key, 32 bytes. */
  readonly exchangeKey: Uint8Array;
  /** Ed25519 public key, 32 bytes. */
  readonly identityKey: Uint8Array;
  /** Ed25519, 64 bytes, over `pilaSignatureInput`. */
  readonly signature: Uint8Array;
  /** What follows the 136 bytes. Not signed; most implementations ignore it. */
  readonly trailer: Uint8Array;
}

export const PILA_BYTES = 136;

/** The caller appends a trailer if it wants one. */
export function encodePila(pila: Omit<Pila, "trailer">): Uint8Array {
  const frame = encodeExchange(MAGIC.PILA, PILA_BYTES, pila);
  frame.set(pila.identityKey.subarray(0, KEY_BYTES), IDENTITY_KEY);
  frame.set(pila.signature.subarray(0, SIGNATURE_BYTES), SIGNATURE);
  return frame;
}

/** Who a PILA says it is of, without copying the rest. */
export function exchangeSender(datagram: Uint8Array): NodeId | undefined {
  return datagram.length < PILA_BYTES ? undefined : senderOf(datagram);
}

/** The fields are copies: keys outlive the buffer a datagram was received in. */
export function parsePila(datagram: Uint8Array): Pila | undefined {
  if (datagram.length < PILA_BYTES || readU32(datagram, 0) !== MAGIC.PILA) return undefined;
  return {
    sender: senderOf(datagram),
    exchangeKey: datagram.slice(EXCHANGE_KEY, EXCHANGE_KEY + KEY_BYTES),
    identityKey: datagram.slice(IDENTITY_KEY, IDENTITY_KEY + KEY_BYTES),
    signature: datagram.slice(SIGNATURE, PILA_BYTES),
    trailer: datagram.slice(PILA_BYTES),
  };
}

/** The 40 bytes a PILA's signature covers. Neither receiver nor time is among them. */
export function pilaSignatureInput(sender: NodeId, exchangeKey: Uint8Array): Uint8Array {
  const input = new Uint8Array(SIGNATURE_INPUT_BYTES);
  input.set(SIGNATURE_LABEL);
  writeU32(input, 4, sender);
  input.set(exchangeKey.subarray(0, KEY_BYTES), 8);
  return input;
}

// PILK.

export interface Pilk {
  readonly sender: NodeId;
  readonly exchangeKey: Uint8Array;
}

export const PILK_BYTES = 40;

export function encodePilk(pilk: Pilk): Uint8Array {
  return encodeExchange(MAGIC.PILK, PILK_BYTES, pilk);
}

/** The key is a copy. */
export function parsePilk(datagram: Uint8Array): Pilk | undefined {
  if (datagram.length < PILK_BYTES || readU32(datagram, 0) !== MAGIC.PILK) return undefined;
  return { sender: senderOf(datagram), exchangeKey: datagram.slice(EXCHANGE_KEY, PILK_BYTES) };
}

// PILP.

/** Four bytes: the node that documents speak of is neither sent nor read by any implementation (§15). */
export function encodePilp(): Uint8Array {
  const frame = new Uint8Array(MAGIC_BYTES);
  writeU32(frame, 0, MAGIC.PILP);
  return frame;
}

// PILS.

export interface PilsHeader {
  readonly sender: NodeId;
  /** 12 bytes: prefix 4, counter 8. */
  readonly nonce: Uint8Array;
}

export interface Pils extends PilsHeader {
  /** Ciphertext and tag. */
  readonly sealed: Uint8Array;
}

export const PILS_HEADER_BYTES = 20;
export const PILS_OVERHEAD_BYTES = 36;

export function encodePilsHeader({ sender, nonce }: PilsHeader): Uint8Array {
  const header = new Uint8Array(PILS_HEADER_BYTES);
  writeU32(header, 0, MAGIC.PILS);
  writeU32(header, SENDER, sender);
  header.set(nonce.subarray(0, NONCE_BYTES), NONCE);
  return header;
}

/** Nonce and ciphertext are borrowed from the datagram. */
export function parsePils(datagram: Uint8Array): Pils | undefined {
  if (datagram.length < PILS_OVERHEAD_BYTES || readU32(datagram, 0) !== MAGIC.PILS) return undefined;
  return {
    sender: senderOf(datagram),
    nonce: datagram.subarray(NONCE, PILS_HEADER_BYTES),
    sealed: datagram.subarray(PILS_HEADER_BYTES),
  };
}

function encodeExchange(magic: number, length: number, { sender, exchangeKey }: Pilk): Uint8Array {
  const frame = new Uint8Array(length);
  writeU32(frame, 0, magic);
  writeU32(frame, SENDER, sender);
  frame.set(exchangeKey.subarray(0, KEY_BYTES), EXCHANGE_KEY);
  return frame;
}

function senderOf(datagram: Uint8Array): NodeId {
  return nodeId(readU32(datagram, SENDER));
}

/** Beacon messages have types up to 0x0f; every magic begins with 0x50. */
const FIRST_BYTE_OF_NO_BEACON = 0x10;
const SENDER = 4;
const NONCE = 8;
const NONCE_BYTES = 12;
const EXCHANGE_KEY = 8;
const IDENTITY_KEY = 40;
const SIGNATURE = 72;
const KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;
const SIGNATURE_INPUT_BYTES = 40;
const SIGNATURE_LABEL = utf8("auth");
