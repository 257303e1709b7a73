/**
 * Seals and opens PILS frames (pilot protocol §3.2): magic | sender node | nonce | AES-256-GCM ciphertext and tag.
 * The sender node is authenticated as additional data, except under a key of generation G1, which had none.
 * Invariant: the nonce is prefix | counter, and the caller never uses a counter twice under one key and prefix.
 */
import { gcm } from "@noble/ciphers/aes.js";
import { readU32, writeU32 } from "../base/bytes.ts";
import type { NodeId } from "../wire/ids.ts";

export const SEALED_MAGIC = 0x50494c53;
export const NONCE_PREFIX_BYTES = 4;
/** Magic, sender and nonce in front, tag behind. */
export const SEALED_OVERHEAD_BYTES = 36;

/** What seals or opens frames of one session. */
export interface FrameKey {
  /** 32 bytes. */
  readonly key: Uint8Array;
  /** False for generation G1. */
  readonly bindSender: boolean;
}

/** The nonce of a frame: four bytes of prefix, then the counter (at most 2^53 - 1). */
export function encodeNonce(prefix: Uint8Array, counter: number): Uint8Array {
  const nonce = new Uint8Array(12);
  nonce.set(prefix);
  writeU32(nonce, 4, Math.floor(counter / 0x1_0000_0000));
  writeU32(nonce, 8, counter);
  return nonce;
}

export function sealFrame(frameKey: FrameKey, sender: NodeId, nonce: Uint8Array, plaintext: Uint8Array): Uint8Array {
  const frame = new Uint8Array(plaintext.length + SEALED_OVERHEAD_BYTES);
  writeU32(frame, 0, SEALED_MAGIC);
  writeU32(frame, SENDER_OFFSET, sender);
  frame.set(nonce, NONCE_OFFSET);
  frame.set(cipherOf(frameKey, frame).encrypt(plaintext), CIPHERTEXT_OFFSET);
  return frame;
}

/** The plaintext of a frame for which `isSealedFrame` holds; undefined when key and frame do not belong together. */
export function openFrame(frameKey: FrameKey, frame: Uint8Array): Uint8Array | undefined {
  try {
    return cipherOf(frameKey, frame).decrypt(frame.subarray(CIPHERTEXT_OFFSET));
  } catch {
    return undefined; // a wrong tag is the only thing decrypt throws on a frame of sufficient length
  }
}

export function isSealedFrame(datagram: Uint8Array): boolean {
  return datagram.length >= SEALED_OVERHEAD_BYTES && readU32(datagram, 0) === SEALED_MAGIC;
}

export function senderOf(frame: Uint8Array): NodeId {
  return readU32(frame, SENDER_OFFSET) as NodeId;
}

export function prefixOf(frame: Uint8Array): number {
  return readU32(frame, NONCE_OFFSET);
}

/** The 64-bit counter, in halves. */
export function counterOf(frame: Uint8Array): { high: number; low: number } {
  return { high: readU32(frame, NONCE_OFFSET + 4), low: readU32(frame, NONCE_OFFSET + 8) };
}

const SENDER_OFFSET = 4;
const NONCE_OFFSET = 8;
const CIPHERTEXT_OFFSET = 20;

function cipherOf({ key, bindSender }: FrameKey, frame: Uint8Array) {
  const nonce = frame.subarray(NONCE_OFFSET, CIPHERTEXT_OFFSET);
  return bindSender ? gcm(key, nonce, frame.subarray(SENDER_OFFSET, NONCE_OFFSET)) : gcm(key, nonce);
}
