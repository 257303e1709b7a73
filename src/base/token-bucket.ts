import type { Instant } from "./instant.ts";

/** A token bucket: `ratePerSecond` on average, `burst` at once. Time is passed in. */
export class TokenBucket {
  readonly #ratePerMs: number;
  readonly #burst: number;
  #tokens: number;
  #filledAt: Instant;

  constructor(ratePerSecond: number, burst: number, now: Instant) {
    this.#ratePerMs = ratePerSecond / 1000;
    this.#burst = burst;
    this.#tokens = burst;
    this.#filledAt = now;
  }

  /** Takes `cost` tokens if they are there. */
  take(now: Instant, cost = 1): boolean {
    if (!this.has(now, cost)) return false;
    this.#tokens -= cost;
    return true;
  }

  /** Whether `take` would succeed. */
  has(now: Instant, cost = 1): boolean {
    this.#fill(now);
    return this.#tokens >= cost;
  }

  /**
   * Takes `cost` tokens if any are there, and owes what is missing: for things of very different cost, of which the large
   * ones must not wait forever behind the small ones. On average the rate is kept all the same.
   */
  takeOnCredit(now: Instant, cost: number): boolean {
    this.#fill(now);
    if (this.#tokens <= 0) return false;
    this.#tokens -= cost;
    return true;
  }

  /** True when nobody took anything for so long that the bucket is full again: it may be forgotten. */
  isFull(now: Instant): boolean {
    return this.#tokens + Math.max(0, now - this.#filledAt) * this.#ratePerMs >= this.#burst;
  }

  #fill(now: Instant): void {
    const elapsedMs = Math.max(0, now - this.#filledAt);
    this.#tokens = Math.min(this.#burst, this.#tokens + elapsedMs * this.#ratePerMs);
    this.#filledAt = now;
  }
}
