/**
 * Blocks of memory that are used again. Every large array allocated anew costs a share of a full garbage collection, which at
 * a hundred megabytes a second is most of what a stream costs. A block is lent for so many bytes; whoever is done with some
 * of them says so, and when all have been said the block is free. Bytes that nobody gives back are left to the garbage
 * collector: forgetting is safe, saying it twice is not.
 */
export const BLOCK_BYTES = 64 << 10;

export class BlockPool {
  /** Bound: KEPT_BLOCKS. */
  readonly #free: Uint8Array[] = [];
  /** Key: memory of a block; bytes that have not been given back. An entry goes with its block. */
  readonly #lent = new WeakMap<ArrayBufferLike, number>();

  /** A block to fill, BLOCK_BYTES long; its content is arbitrary. */
  take(): Uint8Array {
    return this.#free.pop() ?? new Uint8Array(BLOCK_BYTES);
  }

  /** The first `bytes` of a block that was taken, from now on lent to whom they are passed on to. */
  lend(block: Uint8Array, bytes: number): Uint8Array {
    this.#lent.set(block.buffer, bytes);
    return block.subarray(0, bytes);
  }

  /** So many bytes of what lies in this memory are done with; memory of no block is ignored. */
  giveBack(memory: ArrayBufferLike, bytes: number): void {
    const held = this.#lent.get(memory);
    if (held === undefined) return;
    if (held > bytes) {
      this.#lent.set(memory, held - bytes);
      return;
    }
    this.#lent.delete(memory);
    if (this.#free.length < KEPT_BLOCKS) this.#free.push(new Uint8Array(memory));
  }
}

const KEPT_BLOCKS = 64;
