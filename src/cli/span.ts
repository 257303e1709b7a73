/** A time that may be long, as a person writes it: `60s`, `10m`, `2h`, `7d`. */
import { UsageError, usageProblem } from "./refusal.ts";

/** Milliseconds. Throws UsageError. */
export function parseSpan(option: string, text: unknown, mostMs: number): number {
  const match = /^(\d{1,7})([smhd])$/.exec(String(text));
  const ms = match === null ? 0 : Number(match[1]) * UNIT_MS[match[2] as keyof typeof UNIT_MS];
  if (ms >= 1 && ms <= mostMs) return ms;
  const message = `${option} ${JSON.stringify(String(text).slice(0, 80))} is not a time`;
  throw new UsageError([usageProblem(message, `Write 60s, 10m or 2h; at most ${mostMs / 3_600_000} h.`)]);
}

const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
