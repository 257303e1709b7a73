/**
 * CoDel, the delay control of one queue (RFC 8289 §5): when what leaves the queue has waited longer than TARGET_MS for a
 * whole INTERVAL_MS, one packet is to be dropped, and then more of them, each sooner after the last by the square root of
 * their number, until the wait is short again. A burst that drains within an interval loses nothing.
 */
import { after, type Instant, instant } from "../base/instant.ts";

export class CoDel {
  /** When the wait will have been too long for an interval; undefined while it is short. */
  #dueAt: Instant | undefined;
  #dropping = false;
  #nextDropAt = instant(0);
  #count = 0;
  #lastCount = 0;

  /** Whether the packet that leaves the queue now, after this wait, is to be dropped (or marked) instead of sent. */
  shouldDrop(now: Instant, waitedMs: number, bytesLeft: number): boolean {
    const tooLong = this.#isTooLong(now, waitedMs, bytesLeft);
    if (!tooLong) {
      this.#dropping = false;
      return false;
    }
    if (!this.#dropping) return this.#begin(now);
    if (now < this.#nextDropAt) return false;
    this.#count++;
    this.#nextDropAt = this.#following(this.#nextDropAt);
    return true;
  }

  /** Less than a packet left is no queue, however slow the network is. */
  #isTooLong(now: Instant, waitedMs: number, bytesLeft: number): boolean {
    if (waitedMs < TARGET_MS || bytesLeft <= LARGEST_PACKET_BYTES) {
      this.#dueAt = undefined;
      return false;
    }
    this.#dueAt ??= after(now, INTERVAL_MS);
    return now >= this.#dueAt;
  }

  /** Goes on near the rate of the last time, if that is not long ago: it was nearly right. */
  #begin(now: Instant): true {
    const added = this.#count - this.#lastCount;
    const isRecent = now < after(this.#nextDropAt, MEMORY_INTERVALS * INTERVAL_MS);
    this.#dropping = true;
    this.#count = added > 1 && isRecent ? added : 1;
    this.#lastCount = this.#count;
    this.#nextDropAt = this.#following(now);
    return true;
  }

  #following(from: Instant): Instant {
    return after(from, INTERVAL_MS / Math.sqrt(this.#count));
  }
}

/** As RFC 8289 §4 recommends them: for round trips of up to some hundred milliseconds. */
export const TARGET_MS = 5;
export const INTERVAL_MS = 100;
const MEMORY_INTERVALS = 16;
const LARGEST_PACKET_BYTES = 1_500;
