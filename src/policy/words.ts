/** A policy's text as words with their places. */
export interface Word {
  readonly text: string;
  /** From 1. */
  readonly column: number;
}

/** The words of a line; from `#` on it is a comment. */
export function wordsOf(line: string): Word[] {
  const end = line.indexOf("#");
  const code = end < 0 ? line : line.slice(0, end);
  return [...code.matchAll(/\S+/g)].map((match) => ({ text: match[0], column: match.index + 1 }));
}
