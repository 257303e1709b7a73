/** The one place that reads clocks. */
import type { Instant, WallClock } from "../base/instant.ts";

const START_NS = process.hrtime.bigint();

/** Milliseconds, with fraction, since the process started; never goes back. */
export function now(): Instant {
  return (Number(process.hrtime.bigint() - START_NS) / 1e6) as Instant;
}

export function wallNow(): WallClock {
  return Date.now() as WallClock;
}
