/** The commands of docs/quick-start.md, as they stand there. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface DocumentedCommand {
  /** `one`, `two` or `both`. */
  readonly prompt: string;
  readonly text: string;
  /** It ends with `&`. */
  readonly goesOn: boolean;
}

/** Every line with a root prompt, in order. */
export function commandsOf(document: string): DocumentedCommand[] {
  const text = readFileSync(fileURLToPath(new URL(`../../${document}`, import.meta.url)), "utf8");
  return [...text.matchAll(/^(one|two|both)# +(.*?)( &)?(?: +#.*)?$/gm)].map((match) => ({
    prompt: match[1]!,
    text: match[2]!,
    goesOn: match[3] !== undefined,
  }));
}
