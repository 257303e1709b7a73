/** The one place that reads clocks. */
import type { Instant, WallClock } from "../base/instant.ts";

/** Milliseconds, with fraction, since the process started; never goes back. */
export function now(): Instant {
  return performance.now() as Instant;
}

export function wallNow(): WallClock {
  return Date.now() as WallClock;
}
