/**
 * How many bytes may lie in the underlay socket: as many as the network takes in TARGET_MS. What lies there has left its
 * flow's queue for good, and everything that follows waits for it; but when it runs empty, the network idles.
 *
 * The rate is measured each time the socket was full and has room again. Too little is seen as the kernel's byte queue
 * limits see it: what was there had gone before anybody came to add to it. Then the budget grows by a fifth, up to MOST_MS, and
 * else it shrinks with time towards TARGET_MS. So being woken late now and then costs neither delay nor much throughput, and a
 * machine that always wakes us late, or a device that takes its bytes in bursts, costs delay rather than throughput.
 */
import type { Instant } from "../base/instant.ts";

export class SocketBudget {
  #bytes = INITIAL_BYTES;
  /** As the socket knows it. */
  #told = INITIAL_BYTES;
  /** When the socket was full, and what it held then; undefined while it has room. */
  #full: { readonly at: Instant; readonly unsentBytes: number } | undefined;
  /** Bytes a millisecond. */
  #rate: number | undefined;

  get bytes(): number {
    return this.#told;
  }

  /** The socket takes no more, and holds this much. */
  noteFull(unsentBytes: number, now: Instant): void {
    this.#full ??= { at: now, unsentBytes };
  }

  /** It takes more, and still holds this much. True when `bytes` is another from now on. */
  noteRoom(unsentBytes: number, now: Instant): boolean {
    const full = this.#full;
    this.#full = undefined;
    if (full === undefined || now <= full.at || unsentBytes >= full.unsentBytes) return false;
    const wasEmpty = unsentBytes < this.#told * EMPTY_SHARE;
    const elapsedMs = now - full.at;
    if (!wasEmpty) this.#learnRate((full.unsentBytes - unsentBytes) / elapsedMs);
    this.#bytes = this.#within(this.#bytes * (wasEmpty ? GROWTH : 1 - Math.min(0.5, elapsedMs / SHRINKING_MS)));
    if (Math.abs(this.#bytes - this.#told) < this.#told * LEAST_CHANGE) return false;
    this.#told = Math.round(this.#bytes);
    return true;
  }

  #learnRate(rate: number): void {
    this.#rate = this.#rate === undefined ? rate : this.#rate + (rate - this.#rate) * RATE_GAIN;
  }

  #within(wanted: number): number {
    const rate = this.#rate ?? MAX_BYTES;
    const least = Math.max(MIN_BYTES, Math.min(MAX_BYTES, rate * TARGET_MS));
    const most = Math.max(MIN_BYTES, Math.min(MAX_BYTES, rate * MOST_MS));
    return Math.min(most, Math.max(least, wanted));
  }
}

export const TARGET_MS = 2;
/** Who is woken later than this after the socket ran empty has other troubles. */
export const MOST_MS = 8;
/** Until something is known: 4 ms at 1 Gbit/s. */
export const INITIAL_BYTES = 512 * 1024;
/** Some packets: on a slower network one packet alone takes longer than TARGET_MS. */
export const MIN_BYTES = 8 * 1024;
export const MAX_BYTES = 4 * 1024 * 1024;
/** The kernel tells of room when half is free: if only this is left then, we came too late. */
const EMPTY_SHARE = 1 / 16;
const RATE_GAIN = 1 / 4;
const GROWTH = 1.2;
/** The time in which it would be a third. */
const SHRINKING_MS = 50;
/** Of what the socket was told last: less is not worth a call. */
const LEAST_CHANGE = 1 / 16;
