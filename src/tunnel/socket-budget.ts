/**
 * How many bytes may lie in the underlay socket: as many as the network takes in TARGET_MS. What lies there has left its
 * flow's queue for good, and everything that follows waits for it; but when it runs empty, the network idles.
 *
 * The rate is measured each time the socket was full and has room again. Too little is seen as the kernel's byte queue
 * limits see it: what was there had gone before anybody came to add to it. Then the budget doubles, up to MOST_MS, and does
 * not shrink for a while, so a machine that wakes us late, or a device that takes its bytes in bursts, costs some delay
 * rather than throughput.
 */
import { after, type Instant, instant } from "../base/instant.ts";

export class SocketBudget {
  #bytes = INITIAL_BYTES;
  /** When the socket was full, and what it held then; undefined while it has room. */
  #full: { readonly at: Instant; readonly unsentBytes: number } | undefined;
  /** Bytes a millisecond. */
  #rate: number | undefined;
  #mayShrinkAt = instant(0);

  get bytes(): number {
    return this.#bytes;
  }

  /** The socket takes no more, and holds this much. */
  noteFull(unsentBytes: number, now: Instant): void {
    this.#full ??= { at: now, unsentBytes };
  }

  /** It takes more, and still holds this much. True when `bytes` is another from now on. */
  noteRoom(unsentBytes: number, now: Instant): boolean {
    const full = this.#full;
    this.#full = undefined;
    if (full === undefined) return false;
    const drained = full.unsentBytes - unsentBytes;
    if (now <= full.at || drained <= 0) return false;
    if (unsentBytes < this.#bytes * STARVED_SHARE) return this.#grow(now);
    const rate = drained / (now - full.at);
    this.#rate = this.#rate === undefined ? rate : this.#rate + (rate - this.#rate) * RATE_GAIN;
    return this.#approach(this.#rate * TARGET_MS, now);
  }

  #grow(now: Instant): boolean {
    this.#mayShrinkAt = after(now, HOLD_MS);
    const most = this.#rate === undefined ? MAX_BYTES : this.#rate * MOST_MS;
    return this.#set(Math.min(this.#bytes * 2, most));
  }

  #approach(wanted: number, now: Instant): boolean {
    if (wanted < this.#bytes && now < this.#mayShrinkAt) return false;
    if (Math.abs(wanted - this.#bytes) < this.#bytes * LEAST_CHANGE) return false;
    return this.#set(wanted);
  }

  #set(wanted: number): boolean {
    const bytes = Math.round(Math.min(MAX_BYTES, Math.max(MIN_BYTES, wanted)));
    if (bytes === this.#bytes) return false;
    this.#bytes = bytes;
    return true;
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
const STARVED_SHARE = 1 / 16;
const RATE_GAIN = 1 / 4;
const LEAST_CHANGE = 1 / 8;
const HOLD_MS = 1_000;
