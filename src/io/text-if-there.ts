/** A file whose absence is an answer, too. */
import { readFileSync } from "node:fs";

/** Empty when it is not there, or not to be read. */
export function textIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
