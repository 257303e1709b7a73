/**
 * Bytes that many streams share, so that one far side cannot make this node hold the sum of all their limits. Budgets nest:
 * what a node's streams hold also counts for all. Invariant: `heldBytes` is what was reserved and not released.
 */
export class MemoryBudget {
  readonly #limitBytes: number;
  readonly #parent: MemoryBudget | undefined;
  #heldBytes = 0;

  constructor(limitBytes: number, parent?: MemoryBudget) {
    this.#limitBytes = limitBytes;
    this.#parent = parent;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  get freeBytes(): number {
    const own = Math.max(0, this.#limitBytes - this.#heldBytes);
    return this.#parent === undefined ? own : Math.min(own, this.#parent.freeBytes);
  }

  /** The caller has looked at `freeBytes`, or has a reason to go beyond it. */
  reserve(bytes: number): void {
    this.#heldBytes += bytes;
    this.#parent?.reserve(bytes);
  }

  release(bytes: number): void {
    this.#heldBytes -= bytes;
    this.#parent?.release(bytes);
  }
}
