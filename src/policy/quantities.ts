/**
 * Amounts as rules name them: rates (`5MB/s`, `8Mbit/s`), bytes in a time (`50MB/h`, `1GB/10m`), counts in a time (`20/m`).
 * K, M and G are thousands; with an i (KiB) they are 1024s. Undefined for what is no such amount.
 */
import { UNIT_MS } from "./moments.ts";

/** At most this many in any stretch of `windowMs`. */
export interface Quota {
  readonly most: number;
  readonly windowMs: number;
}

/** Bytes a second. */
export function parseRate(text: string): number | undefined {
  const match = /^(\d{1,12})([kKMG]i?)?(B|bit)\/s$/.exec(text);
  if (match === null) return undefined;
  const amount = (Number(match[1]) * scaleOf(match[2])) / (match[3] === "bit" ? 8 : 1);
  return amount >= 1 && amount <= MAX_BYTES ? amount : undefined;
}

export function parseBytesPerTime(text: string): Quota | undefined {
  const match = /^(\d{1,12})([kKMG]i?)?B\/(.+)$/.exec(text);
  return match === null ? undefined : quota(Number(match[1]) * scaleOf(match[2]), match[3]!, MAX_BYTES);
}

export function parseCountPerTime(text: string): Quota | undefined {
  const match = /^(\d{1,7})\/(.+)$/.exec(text);
  return match === null ? undefined : quota(Number(match[1]), match[2]!, MAX_COUNT);
}

/** `h` is one hour, `10m` ten minutes. */
function quota(most: number, time: string, limit: number): Quota | undefined {
  const match = /^(\d{1,4})?([smhd])$/.exec(time);
  if (match === null || most < 1 || most > limit) return undefined;
  const windowMs = Number(match[1] ?? 1) * UNIT_MS[match[2] as keyof typeof UNIT_MS];
  return windowMs > 0 && windowMs <= MAX_WINDOW_MS ? { most, windowMs } : undefined;
}

function scaleOf(prefix: string | undefined): number {
  if (prefix === undefined) return 1;
  const power = { k: 1, K: 1, M: 2, G: 3 }[prefix[0] as "k" | "K" | "M" | "G"];
  return (prefix.endsWith("i") ? 1024 : 1000) ** power;
}

/** A petabyte: far above what passes, far below where sums lose bytes. */
const MAX_BYTES = 1e15;
const MAX_COUNT = 1_000_000;
const MAX_WINDOW_MS = 366 * 86_400_000;
