/**
 * The clock that leases end by. While the machine is up it is the kernel's clock since boot, which counts sleep and knows
 * nothing of the time of day: setting the wall clock neither lengthens nor shortens a lease, and a restart of the daemon
 * does not either. Over a reboot there is nothing but the wall clock: what it says has passed since the last mark counts,
 * and never less than nothing. So a clock set back while the machine was off cannot give back time that was seen to pass.
 */
import type { WallClock } from "../base/instant.ts";
import type { LeaseTime } from "./lease.ts";

/** Kept with the leases. */
export interface LeaseMark {
  readonly at: LeaseTime;
  /** Names one boot of the machine. */
  readonly boot: string;
  /** Milliseconds since that boot, sleep included. */
  readonly sinceBootMs: number;
  readonly wall: WallClock;
}

export type Moment = Omit<LeaseMark, "at">;

/** The clock's reading now, by the last mark; undefined: there was none, a new clock begins. */
export function leaseTimeAt(mark: LeaseMark | undefined, now: Moment): LeaseTime {
  if (mark === undefined) return 0 as LeaseTime;
  const isSameBoot = mark.boot === now.boot && now.sinceBootMs >= mark.sinceBootMs;
  const passedMs = isSameBoot ? now.sinceBootMs - mark.sinceBootMs : Math.max(0, now.wall - mark.wall);
  return (mark.at + passedMs) as LeaseTime;
}

export function parseLeaseMark(json: unknown): LeaseMark | undefined {
  if (typeof json !== "object" || json === null) return undefined;
  const { at_ms, boot, since_boot_ms, wall } = json as Record<string, unknown>;
  const isTime = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value) && value >= 0;
  if (!isTime(at_ms) || !isTime(since_boot_ms) || !isTime(wall) || typeof boot !== "string") return undefined;
  return { at: at_ms as LeaseTime, boot, sinceBootMs: since_boot_ms, wall: wall as WallClock };
}

export function leaseMarkToJson({ at, boot, sinceBootMs, wall }: LeaseMark): object {
  return { at_ms: at, boot, since_boot_ms: sinceBootMs, wall };
}
