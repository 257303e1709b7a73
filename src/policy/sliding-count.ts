/**
 * How much there was in the last stretch of time, in SLOTS pieces, so that it needs no memory of single events. A piece
 * counts until all of it is older than the window: what it answers is never too little, and at most one piece too much.
 */
import type { Instant } from "../base/instant.ts";
import type { Quota } from "./quantities.ts";

export class SlidingCount {
  readonly #most: number;
  readonly #slotMs: number;
  /** SLOTS whole pieces and the one that runs. */
  readonly #counts = new Float64Array(SLOTS + 1);
  #total = 0;
  /** Number of the piece that runs, counted from time zero. */
  #current = 0;

  constructor({ most, windowMs }: Quota) {
    this.#most = most;
    this.#slotMs = windowMs / SLOTS;
  }

  /** True when this much more stays within the quota. */
  fits(amount: number, now: Instant): boolean {
    this.#advance(now);
    return this.#total + amount <= this.#most;
  }

  add(amount: number, now: Instant): void {
    this.#advance(now);
    this.#counts[this.#current % (SLOTS + 1)]! += amount;
    this.#total += amount;
  }

  used(now: Instant): number {
    this.#advance(now);
    return this.#total;
  }

  #advance(now: Instant): void {
    const current = Math.max(this.#current, Math.floor(now / this.#slotMs));
    for (let slot = Math.max(this.#current + 1, current - SLOTS); slot <= current; slot++) {
      this.#total -= this.#counts[slot % (SLOTS + 1)]!;
      this.#counts[slot % (SLOTS + 1)] = 0;
    }
    this.#current = current;
  }
}

const SLOTS = 32;
