/**
 * Puts received segments in order: what is next becomes readable, what came early is kept, what was seen is dropped.
 * Memory is bounded in bytes and in segments, and what does not fit is dropped, so that the far side sends it again; a
 * receiver that waited instead would stop its whole node (pilot protocol §11.19).
 * Invariant: kept segments are disjoint, in order, and all after `next`.
 */
import { BLOCK_BYTES, type BlockPool } from "../base/block-pool.ts";
import { MAX_SACK_BLOCKS, type SackBlock } from "../wire/stream-sack.ts";
import { Fifo } from "./fifo.ts";
import { MemoryBudget } from "./memory-budget.ts";
import { sequenceAdd, sequenceAfter, sequenceBefore, sequenceDistance } from "./sequence.ts";

/** `filled`: in order, and a gap before kept segments closed or narrowed. */
export type Placement = "in-order" | "filled" | "early" | "seen" | "no-room";

export class Reassembly {
  readonly #limitBytes: number;
  readonly #blocks: BlockPool;
  #budget: MemoryBudget;
  readonly #readable = new Fifo<Uint8Array>();
  #early: EarlySegment[] = [];
  #next: number;
  #readableBytes = 0;
  #earlyBytes = 0;

  constructor(next: number, limitBytes: number, budget: MemoryBudget, blocks: BlockPool) {
    this.#next = next;
    this.#limitBytes = limitBytes;
    this.#budget = budget;
    this.#blocks = blocks;
  }

  /** The sequence number expected next. */
  get next(): number {
    return this.#next;
  }

  get readableBytes(): number {
    return this.#readableBytes;
  }

  get freeBytes(): number {
    return Math.max(0, Math.min(this.#limitBytes - this.#readableBytes - this.#earlyBytes, this.#budget.freeBytes));
  }

  get hasEarly(): boolean {
    return this.#early.length > 0;
  }

  /** The payload is borrowed and copied. `beyondLimit` lets a segment that is next in past the limit. */
  place(sequence: number, payload: Uint8Array, beyondLimit = false): Placement {
    const skipBytes = sequenceDistance(sequence, this.#next);
    if (skipBytes >= payload.length) return "seen";
    if (skipBytes < 0) return this.#keepEarly(sequence, payload);
    if (!beyondLimit && this.#readableBytes + payload.length > this.#limitBytes) return "no-room";
    if (payload.length > this.#budget.freeBytes) return "no-room";
    this.#budget.reserve(payload.length - skipBytes);
    this.#deliver(this.#copyOf(payload.subarray(skipBytes)));
    if (this.#early.length === 0) return "in-order";
    this.#deliverEarly();
    return "filled";
  }

  read(): Uint8Array | undefined {
    const chunk = this.#readable.shift();
    if (chunk === undefined) return undefined;
    this.#readableBytes -= chunk.length;
    this.#budget.release(chunk.length);
    return chunk;
  }

  /** Steps over the FIN, which takes a sequence number and carries nothing. */
  passFin(): void {
    this.#next = sequenceAdd(this.#next, 1);
  }

  /** Drops what lies at or after the end the far side declared. */
  dropFrom(end: number): void {
    const beyond = this.#early.findIndex((segment) => !sequenceBefore(segment.sequence, end));
    if (beyond < 0) return;
    for (const { payload } of this.#early.splice(beyond)) this.#releaseEarly(payload.length);
  }

  discardReadable(): void {
    for (let chunk = this.#readable.shift(); chunk !== undefined; chunk = this.#readable.shift()) {
      this.#blocks.giveBack(chunk.buffer, chunk.length);
    }
    this.#budget.release(this.#readableBytes);
    this.#readableBytes = 0;
  }

  /** What is left may still be read, but counts no longer: the stream is over, and the program may never ask. */
  leaveBudget(): void {
    this.#budget.release(this.#readableBytes + this.#earlyBytes);
    this.#budget = new MemoryBudget(Number.POSITIVE_INFINITY);
    this.#budget.reserve(this.#readableBytes + this.#earlyBytes);
  }

  /** Gives everything back: nobody will read any more. */
  clear(): void {
    this.discardReadable();
    for (const { payload } of this.#early.splice(0)) this.#releaseEarly(payload.length);
  }

  /** Kept segments in order, adjacent ones as one block, the first four (pilot protocol §4.3). */
  sackBlocks(): SackBlock[] {
    const blocks: { left: number; right: number }[] = [];
    for (const { sequence, payload } of this.#early) {
      const last = blocks.at(-1);
      const right = sequenceAdd(sequence, payload.length);
      if (last !== undefined && last.right === sequence) last.right = right;
      else if (blocks.length === MAX_SACK_BLOCKS) break;
      else blocks.push({ left: sequence, right });
    }
    return blocks;
  }

  #deliver(bytes: Uint8Array): void {
    this.#readable.push(bytes);
    this.#readableBytes += bytes.length;
    this.#next = sequenceAdd(this.#next, bytes.length);
  }

  #deliverEarly(): void {
    let taken = 0;
    for (const { sequence, payload } of this.#early) {
      if (sequenceAfter(sequence, this.#next)) break;
      taken += 1;
      this.#earlyBytes -= payload.length;
      const skipBytes = Math.min(sequenceDistance(sequence, this.#next), payload.length);
      this.#budget.release(skipBytes);
      if (skipBytes < payload.length) this.#deliver(skipBytes === 0 ? payload : payload.subarray(skipBytes));
    }
    this.#early.splice(0, taken);
  }

  #keepEarly(sequence: number, payload: Uint8Array): Placement {
    if (sequenceDistance(this.#next, sequence) > this.#limitBytes * 2) return "no-room";
    if (this.#early.length >= MAX_EARLY_SEGMENTS || payload.length > this.freeBytes) return "no-room";
    const index = this.#earlyIndex(sequence);
    const before = this.#early[index - 1];
    const from = before === undefined ? sequence : laterOf(sequence, endOf(before));
    const after = this.#early[index];
    const to = after === undefined ? sequenceAdd(sequence, payload.length) : earlierOf(sequence, payload, after);
    const lengthBytes = sequenceDistance(from, to);
    if (lengthBytes <= 0) return "seen";
    const offset = sequenceDistance(sequence, from);
    this.#early.splice(index, 0, {
      sequence: from,
      payload: this.#copyOf(payload.subarray(offset, offset + lengthBytes)),
    });
    this.#earlyBytes += lengthBytes;
    this.#budget.reserve(lengthBytes);
    return "early";
  }

  /** In a block when it fills most of it. */
  #copyOf(bytes: Uint8Array): Uint8Array {
    if (bytes.length < LEAST_BLOCK_BYTES || bytes.length > BLOCK_BYTES) return new Uint8Array(bytes);
    const block = this.#blocks.take();
    block.set(bytes);
    return this.#blocks.lend(block, bytes.length);
  }

  #releaseEarly(bytes: number): void {
    this.#earlyBytes -= bytes;
    this.#budget.release(bytes);
  }

  /** Where a segment belongs; the search runs from the end, because that is where nearly all belong. */
  #earlyIndex(sequence: number): number {
    let index = this.#early.length;
    while (index > 0 && sequenceAfter(this.#early[index - 1]!.sequence, sequence)) index -= 1;
    return index;
  }
}

interface EarlySegment {
  readonly sequence: number;
  readonly payload: Uint8Array;
}

function endOf(segment: EarlySegment): number {
  return sequenceAdd(segment.sequence, segment.payload.length);
}

/** Not `slice`, which is a view and no copy when the bytes are a Node buffer. */
function laterOf(a: number, b: number): number {
  return sequenceAfter(a, b) ? a : b;
}

/** Where the new segment ends, or the next kept one begins, whichever is first. */
function earlierOf(sequence: number, payload: Uint8Array, following: EarlySegment): number {
  const end = sequenceAdd(sequence, payload.length);
  return sequenceBefore(following.sequence, end) ? following.sequence : end;
}

const MAX_EARLY_SEGMENTS = 1024;
const LEAST_BLOCK_BYTES = BLOCK_BYTES / 2;
