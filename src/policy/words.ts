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

/** As a hint names them. */
export function either(words: readonly string[]): string {
  return words.length < 3 ? words.join(" or ") : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

/** What somebody wrote, as a message repeats it. */
export function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 80));
}
