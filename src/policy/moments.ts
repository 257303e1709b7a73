/** The ends that rules name: `2030-12-31`, `2030-12-31T18:00Z`, `90s`, `30m`, `2h`, `7d`. Always UTC. */
import type { WallClock } from "../base/instant.ts";

/** A day without a time means its end. Undefined for what is no date. */
export function parseDate(text: string): WallClock | undefined {
  const match = /^(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d))?Z)?$/.exec(text);
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1).map((part) => Number(part ?? 0));
  if (month! < 1 || month! > 12 || day! < 1 || day! > daysIn(year!, month!)) return undefined;
  if (hour! > 23 || minute! > 59 || second! > 59) return undefined;
  const isWholeDay = match[4] === undefined;
  return Date.UTC(year!, month! - 1, isWholeDay ? day! + 1 : day!, hour, minute, second) as WallClock;
}

/** Counted from `start`. */
export function parseRuleDuration(text: string, start: WallClock): WallClock | undefined {
  const match = /^(\d{1,6})([smhd])$/.exec(text);
  if (match === null || Number(match[1]) === 0) return undefined;
  return (start + Number(match[1]) * UNIT_MS[match[2] as keyof typeof UNIT_MS]) as WallClock;
}

function daysIn(year: number, month: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

export const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
