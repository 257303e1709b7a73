/** Values as people read them, on a terminal and on a page: sizes, times, amounts. What is not known is `-`. */

export const UNKNOWN = "-";

/** `512 B`, `88.1 KiB`, `1.2 MiB`. */
export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  let value = count;
  let unit = -1;
  // 1023.95 would print as 1024.0.
  while (value >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value.toFixed(value < 99.95 ? 1 : 0)} ${UNITS[Math.max(unit, 0)]}`;
}

const UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB"] as const;

/** `0.42 ms`, `4.1 ms`, `61 ms`, `1.2 s`. */
export function roundTrip(ms: number | null): string {
  if (ms === null) return UNKNOWN;
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** `12 s`, `3 min`, `2 h 5 min`, `3 d 4 h`. */
export function duration(seconds: number): string {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** `12 s ago`. */
export function ago(seconds: number | null): string {
  return seconds === null ? UNKNOWN : `${duration(seconds)} ago`;
}

/** `1 request`, `2 requests`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Control characters and marks that turn the direction of writing, made visible as `?`. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, "?");
}

// C0, DEL, C1; bidirectional marks, line and paragraph separators (Unicode categories Cc, Zl, Zp and UAX 9).
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
export const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
