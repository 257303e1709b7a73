/** Moments as text, for files and people; the pure middle may not ask `Date`, which also tells the time. */
import type { WallClock } from "./instant.ts";

/** `2030-12-31T18:00:00.000Z`; a moment outside of the years 0 to 9999 is shown as the nearest one inside. */
export function isoUtc(at: WallClock): string {
  const ms = Math.min(Math.max(Math.floor(at), EARLIEST_MS), LATEST_MS);
  const days = Math.floor(ms / DAY_MS);
  const rest = ms - days * DAY_MS;
  const time = [rest / 3_600_000, (rest / 60_000) % 60, (rest / 1_000) % 60].map((part) => digits(Math.floor(part), 2));
  return `${isoDay(days)}T${time.join(":")}.${digits(rest % 1_000, 3)}Z`;
}

/**
 * Days since 1970 → `YYYY-MM-DD`. Years are counted from March here, so that the leap day ends one, and in eras of 400
 * years, which all have the same number of days.
 */
function isoDay(days: number): string {
  const shifted = days + DAYS_TO_1970_MARCH_ERA;
  const era = Math.floor(shifted / ERA_DAYS);
  const dayOfEra = shifted - era * ERA_DAYS;
  const leaps = Math.floor(dayOfEra / 1_460) - Math.floor(dayOfEra / 36_524) + Math.floor(dayOfEra / 146_096);
  const yearOfEra = Math.floor((dayOfEra - leaps) / 365);
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const march = Math.floor((5 * dayOfYear + 2) / 153); // 0 is March
  const day = dayOfYear - Math.floor((153 * march + 2) / 5) + 1;
  const month = march < 10 ? march + 3 : march - 9;
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0);
  return `${digits(year, 4)}-${digits(month, 2)}-${digits(day, 2)}`;
}

function digits(value: number, width: number): string {
  return String(value).padStart(width, "0");
}

const DAY_MS = 86_400_000;
const ERA_DAYS = 146_097;
/** From 1 March of the year 0 to 1 January 1970. */
const DAYS_TO_1970_MARCH_ERA = 719_468;
const EARLIEST_MS = -62_167_219_200_000;
const LATEST_MS = 253_402_300_799_999;
