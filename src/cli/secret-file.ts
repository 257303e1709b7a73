/** A token out of a file: arguments and environments are seen by others on this host. */
import { readFileSync } from "node:fs";
import { UsageError, usageProblem } from "./refusal.ts";

/** Without the line feed that editors put at the end; undefined without the option. Throws a UsageError. */
export function secretIn(option: string, file: unknown): string | undefined {
  if (file === undefined) return undefined;
  let text: string;
  try {
    text = readFileSync(String(file), "utf8").trim();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UsageError([usageProblem(`${option}: ${reason}`, "Name a file that this user may read.")]);
  }
  if (text !== "") return text;
  throw new UsageError([usageProblem(`${option}: ${file} is empty`, "Write the token into it.")]);
}
