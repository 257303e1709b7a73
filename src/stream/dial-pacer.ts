/**
 * When the next SYN may go to one node. The reference drops more than 10 per second from one source without a word, and
 * each that is dropped costs a second (pilot protocol §4.9); §14 point 14 asks for 8.
 * The generic cell rate algorithm (ITU-T I.371): a bucket that can say when it will have a token.
 */
import type { Instant } from "../base/instant.ts";

export class DialPacer {
  #intervalMs = 1_000 / REFERENCE_PER_SECOND;
  #burst = REFERENCE_PER_SECOND;
  #theoreticalAt: number = Number.NEGATIVE_INFINITY;

  /** What a handshake showed of the far side; before the first one it is taken for the reference. */
  adapt(isReference: boolean): void {
    this.#intervalMs = 1_000 / (isReference ? REFERENCE_PER_SECOND : RELAXED_PER_SECOND);
    this.#burst = isReference ? REFERENCE_PER_SECOND : RELAXED_BURST;
  }

  /** A moment that may lie in the past. */
  get nextAt(): Instant {
    return (this.#theoreticalAt - (this.#burst - 1) * this.#intervalMs) as Instant;
  }

  take(now: Instant): boolean {
    if (now < this.nextAt) return false;
    this.#theoreticalAt = Math.max(this.#theoreticalAt, now) + this.#intervalMs;
    return true;
  }

  /** True when it remembers nothing that matters. */
  isIdle(now: Instant): boolean {
    return this.#theoreticalAt <= now;
  }
}

const REFERENCE_PER_SECOND = 8;
const RELAXED_PER_SECOND = 180;
const RELAXED_BURST = 900;
