/**
 * Values as people read them: sizes, times, names, and tables with aligned columns. What is not known is `-`.
 * Text that came from elsewhere (names, reasons, notes) goes through `printable`: it must not drive the terminal.
 */
import type { PeerIdentity } from "../control/api.ts";

export type Colour = "green" | "yellow" | "red" | "dim" | "bold";

/** Colours a text, or returns it as it is when the output is no terminal. */
export type Paint = (colour: Colour, text: string) => string;

export const UNKNOWN = "-";

const CODES: Readonly<Record<Colour, number>> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 };

export const plain: Paint = (_colour, text) => text;

export const coloured: Paint = (colour, text) => `\x1b[${CODES[colour]}m${text}\x1b[0m`;

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

/** `b.pilot`, or the Pilot address of a peer without a name. */
export function peerName(peer: PeerIdentity): string {
  return hostName(peer.hostname) ?? peer.pilot;
}

export function hostName(hostname: string | null): string | undefined {
  return hostname === null || hostname === "" ? undefined : printable(`${hostname}.pilot`);
}

/** Control characters and marks that turn the direction of writing, made visible as `?`. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, "?");
}

/** One object on one line; what a terminal might obey is escaped. */
export function jsonLine(value: object): string {
  const text = JSON.stringify(value);
  return text.replace(UNPRINTABLE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// C0, DEL, C1; bidirectional marks, line and paragraph separators (Unicode categories Cc, Zl, Zp and UAX 9).
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

export type Cell = string | { readonly text: string; readonly colour: Colour };

/** Lines of left-aligned columns, two blanks apart, without blanks at the end. */
export function table(rows: readonly (readonly Cell[])[], paint: Paint): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, widthOf(cell));
    });
  }
  return rows.map((row) => tableLine(row, widths, paint));
}

function tableLine(row: readonly Cell[], widths: readonly number[], paint: Paint): string {
  let line = "";
  let owedBlanks = 0; // held back, so that an empty end of line leaves none
  row.forEach((cell, column) => {
    const text = textOf(cell);
    if (text !== "") {
      line += " ".repeat(owedBlanks) + (typeof cell === "string" ? text : paint(cell.colour, text));
      owedBlanks = 0;
    }
    owedBlanks += widths[column]! - widthOf(cell) + 2;
  });
  return line;
}

function textOf(cell: Cell): string {
  return typeof cell === "string" ? cell : cell.text;
}

function widthOf(cell: Cell): number {
  return [...textOf(cell)].length;
}
