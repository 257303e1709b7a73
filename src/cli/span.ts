/** Amounts as a person writes them: times that may be long (`60s`, `10m`, `2h`, `7d`) and sizes (`500KB`, `50MB`, `2GiB`). */
import { UsageError, usageProblem } from "./refusal.ts";

/** Milliseconds. Throws UsageError. */
export function parseSpan(option: string, text: unknown, mostMs: number): number {
  const match = /^(\d{1,7})([smhd])$/.exec(String(text));
  const ms = match === null ? 0 : Number(match[1]) * UNIT_MS[match[2] as keyof typeof UNIT_MS];
  if (ms >= 1 && ms <= mostMs) return ms;
  const message = `${option} ${JSON.stringify(String(text).slice(0, 80))} is not a time`;
  throw new UsageError([usageProblem(message, `Write 60s, 10m or 2h; at most ${mostMs / 3_600_000} h.`)]);
}

/** Bytes; K, M and G are thousands, with an i they are 1024s. Throws UsageError. */
export function parseSize(option: string, text: unknown, most: number): number {
  const match = /^(\d{1,12})([KMG]i?)?B$/.exec(String(text));
  const bytes = match === null ? 0 : Number(match[1]) * scaleOf(match[2]);
  if (bytes >= 1 && bytes <= most) return bytes;
  const message = `${option} ${JSON.stringify(String(text).slice(0, 80))} is not a size`;
  throw new UsageError([usageProblem(message, "Write 500KB, 50MB or 2GB.")]);
}

function scaleOf(prefix: string | undefined): number {
  if (prefix === undefined) return 1;
  return (prefix.endsWith("i") ? 1024 : 1000) ** ("KMG".indexOf(prefix.charAt(0)) + 1);
}

const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
