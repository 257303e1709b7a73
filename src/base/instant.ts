/**
 * Time as data. The pure middle never asks what time it is: every input carries `now`.
 */

/** Milliseconds on the monotonic clock; zero is the daemon's start. */
export type Instant = number & { readonly unit: "ms" };

/** Milliseconds since the Unix epoch, for what other machines must understand (signatures, files, logs). */
export type WallClock = number & { readonly unit: "unix-ms" };

export function instant(ms: number): Instant {
  return ms as Instant;
}

export function after(now: Instant, ms: number): Instant {
  return (now + ms) as Instant;
}

/** A moment at which somebody wants to be woken, and why: "why did it wake" is then one log field. */
export interface Deadline {
  readonly at: Instant;
  readonly reason: string;
}

export function earlier(a: Deadline | undefined, b: Deadline | undefined): Deadline | undefined {
  if (a === undefined) return b;
  if (b === undefined) return a;
  return b.at < a.at ? b : a;
}
