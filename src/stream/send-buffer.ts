/**
 * Bytes the program wrote and the stream has not sent yet, and where the next segment ends.
 * A segment never looks like a SACK: the reference tells SACK from data by content alone and would swallow it (pilot
 * protocol §4.3), so "SACK" at the head of such a segment is sent as four bytes of their own.
 */
import type { BlockPool } from "../base/block-pool.ts";
import { looksLikeSack } from "../wire/stream-sack.ts";
import { Fifo } from "./fifo.ts";
import { NO_PAYLOAD } from "./stream-packet.ts";

export class SendBuffer {
  readonly #blocks: BlockPool;
  readonly #chunks = new Fifo<Uint8Array>();
  #bytes = 0;

  constructor(blocks: BlockPool) {
    this.#blocks = blocks;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Takes the chunk over: it must not be written to afterwards. */
  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  /** The next segment's payload, at most `limitBytes`, without a copy when it lies in one chunk. */
  take(limitBytes: number): Uint8Array {
    const segment = this.#takeUpTo(Math.min(limitBytes, this.#bytes));
    if (!looksLikeSack(segment)) return segment;
    this.#giveBack(segment.subarray(SACK_MARK_BYTES));
    return segment.subarray(0, SACK_MARK_BYTES);
  }

  /** Two or more whole segments, at most so many, when they lie in one chunk and none of them may look like a SACK. */
  takeRun(segmentBytes: number, most: number): Uint8Array | undefined {
    const first = this.#chunks.peek();
    if (first === undefined) return undefined;
    const whole = Math.min(most, Math.floor(first.length / segmentBytes));
    let count = 0;
    while (count < whole && !startsLikeSack(first, count * segmentBytes)) count++;
    return count < 2 ? undefined : this.#takeUpTo(count * segmentBytes);
  }

  clear(): void {
    this.#chunks.clear();
    this.#bytes = 0;
  }

  #takeUpTo(length: number): Uint8Array {
    const first = this.#chunks.peek();
    if (first === undefined) return NO_PAYLOAD;
    this.#bytes -= length;
    if (first.length > length) {
      this.#chunks.replaceFirst(first.subarray(length));
      return first.subarray(0, length);
    }
    this.#chunks.shift();
    return first.length === length ? first : this.#join(first, length);
  }

  #join(first: Uint8Array, length: number): Uint8Array {
    const joined = new Uint8Array(length);
    joined.set(first);
    this.#blocks.giveBack(first.buffer, first.length);
    for (let filled = first.length; filled < length; ) {
      const chunk = this.#chunks.peek()!;
      const part = chunk.subarray(0, length - filled);
      joined.set(part, filled);
      this.#blocks.giveBack(part.buffer, part.length);
      filled += part.length;
      if (part.length === chunk.length) this.#chunks.shift();
      else this.#chunks.replaceFirst(chunk.subarray(part.length));
    }
    return joined;
  }

  #giveBack(rest: Uint8Array): void {
    this.#chunks.unshift(rest);
    this.#bytes += rest.length;
  }
}

/** "SACK": cheaper than looking closer, and rare. */
function startsLikeSack(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === 0x53 && bytes[at + 1] === 0x41 && bytes[at + 2] === 0x43 && bytes[at + 3] === 0x4b;
}

const SACK_MARK_BYTES = 4;
