/**
 * Selective acknowledgements of Pilot streams: ASCII `SACK`, a count of 1 to 4, then that many blocks of first sequence
 * number and the one after the last (pilot protocol §4.3). They travel as the payload of an ACK and are told from data by
 * content alone, so a sender must never let data out for which `looksLikeSack` holds: the receiver would swallow it.
 */
import { readU32, utf8, writeU32 } from "../base/bytes.ts";

export const MAX_SACK_BLOCKS = 4;

export interface SackBlock {
  /** First sequence number held. */
  readonly left: number;
  /** The one after the last held; smaller than `left` where the sequence wraps. */
  readonly right: number;
}

/** The first four blocks; undefined without any, which has no encoding. */
export function encodeSack(blocks: readonly SackBlock[]): Uint8Array | undefined {
  const count = Math.min(blocks.length, MAX_SACK_BLOCKS);
  if (count === 0) return undefined;
  const bytes = new Uint8Array(HEADER_BYTES + count * BLOCK_BYTES);
  bytes.set(LABEL);
  bytes[COUNT] = count;
  for (let i = 0; i < count; i++) {
    writeU32(bytes, HEADER_BYTES + i * BLOCK_BYTES, blocks[i]!.left);
    writeU32(bytes, HEADER_BYTES + i * BLOCK_BYTES + 4, blocks[i]!.right);
  }
  return bytes;
}

/** The rule by which every implementation takes a payload for a selective acknowledgement. */
export function looksLikeSack(payload: Uint8Array): boolean {
  if (payload.length < HEADER_BYTES) return false;
  for (let i = 0; i < LABEL.length; i++) if (payload[i] !== LABEL[i]) return false;
  const count = payload[COUNT]!;
  return count >= 1 && count <= MAX_SACK_BLOCKS && payload.length >= HEADER_BYTES + count * BLOCK_BYTES;
}

/** The blocks of a payload for which `looksLikeSack` holds; bytes after them are ignored. */
export function parseSack(payload: Uint8Array): SackBlock[] | undefined {
  if (!looksLikeSack(payload)) return undefined;
  const blocks: SackBlock[] = [];
  for (let i = 0; i < payload[COUNT]!; i++) {
    const at = HEADER_BYTES + i * BLOCK_BYTES;
    blocks.push({ left: readU32(payload, at), right: readU32(payload, at + 4) });
  }
  return blocks;
}

/**
 * Stricter than the rule, against data that somebody made to look like one (§11.20): nothing after the blocks, and every
 * block holds something and lies within what was sent and not yet acknowledged, `[unacknowledged, next)`.
 */
export function isPlausibleSack(
  payload: Uint8Array,
  blocks: readonly SackBlock[],
  unacknowledged: number,
  next: number,
): boolean {
  if (payload.length !== HEADER_BYTES + blocks.length * BLOCK_BYTES) return false;
  const sent = distance(unacknowledged, next);
  return blocks.every(({ left, right }) => {
    const from = distance(unacknowledged, left);
    const to = distance(unacknowledged, right);
    return from < to && to <= sent;
  });
}

/** How far `to` lies after `from`, modulo 2^32. */
function distance(from: number, to: number): number {
  return (to - from) >>> 0;
}

const LABEL = utf8("SACK");
const COUNT = 4;
const HEADER_BYTES = 5;
const BLOCK_BYTES = 8;
