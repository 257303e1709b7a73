/**
 * Lines for a terminal: colours, names, JSON, and tables with aligned columns. What is not known is `-`.
 * Text that came from elsewhere (names, reasons, notes) goes through `printable`: it must not drive the terminal.
 */
import { UNPRINTABLE } from "../base/readable.ts";

export { ago, bytes, counted, duration, printable, roundTrip, UNKNOWN } from "../base/readable.ts";
export { hostName, peerName } from "../control/peer-name.ts";

export type Colour = "green" | "yellow" | "red" | "dim" | "bold";

/** Colours a text, or returns it as it is when the output is no terminal. */
export type Paint = (colour: Colour, text: string) => string;

const CODES: Readonly<Record<Colour, number>> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 };

export const plain: Paint = (_colour, text) => text;

export const coloured: Paint = (colour, text) => `\x1b[${CODES[colour]}m${text}\x1b[0m`;

/** One object on one line; what a terminal might obey is escaped. */
export function jsonLine(value: object): string {
  const text = JSON.stringify(value);
  return text.replace(UNPRINTABLE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

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

/** Nearly all of the cells, of which there are a hundred thousand where there are ten thousand peers. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: the range is all of ASCII
const ASCII = /^[\u0000-\u007f]*$/;

function widthOf(cell: Cell): number {
  const text = textOf(cell);
  return ASCII.test(text) ? text.length : [...text].length;
}
