/** How long this thread had to wait for a processor, as the scheduler counts it (/proc/PID/task/TID/schedstat of proc(5)). */
import { textIfThere } from "./text-if-there.ts";

/** Since the thread began. */
export interface Turns {
  readonly waitedMs: number;
  readonly count: number;
}

/** Undefined where the kernel does not count. */
export function ownTurns(): Turns | undefined {
  return parseTurns(textIfThere("/proc/thread-self/schedstat"));
}

/** Nanoseconds run, nanoseconds waited, times run. */
export function parseTurns(text: string): Turns | undefined {
  const [, waitedNs, count] = text.trim().split(" ").map(Number);
  return Number.isFinite(waitedNs) && Number.isFinite(count) ? { waitedMs: waitedNs! / 1e6, count: count! } : undefined;
}
