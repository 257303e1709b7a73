/**
 * The policy's files: FILE, then every `*.policy` of the folder FILE.d in the order of their names, as one list of rules.
 * Whoever may write them decides what passes, so a file that others than root may write is refused.
 */
import { readdirSync, readFileSync, renameSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { WallClock } from "../base/instant.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { PolicySource } from "../policy/parse-policy.ts";

/** Undefined when there is neither FILE nor a folder with rules. Throws PilotError `policy_unreadable`. */
export function readPolicyFiles(file: string): PolicySource[] | undefined {
  const main = readSource(file);
  const more = namesIn(`${file}.d`).map((name) => readSource(join(`${file}.d`, name)));
  const sources = [main, ...more].filter((source) => source !== undefined);
  if (sources.reduce((sum, source) => sum + source.text.length, 0) > MAX_TEXT_LENGTH) throw tooLong(file);
  return sources.length === 0 ? undefined : sources;
}

/** What would be in force if `candidate` stood in the place of `file`. Throws when there is no such file. */
export function readCandidate(candidate: string, file: string): PolicySource[] {
  const main = readSource(candidate);
  if (main === undefined) {
    throw new PilotError("policy_unreadable", `There is no file ${candidate}`, "Name the file with the new policy.");
  }
  const more = namesIn(`${file}.d`).flatMap((name) => readSource(join(`${file}.d`, name)) ?? []);
  return candidate === file ? (readPolicyFiles(file) ?? []) : [main, ...more];
}

/** Whole or not at all, with its time, from which `for` counts. Throws PilotError `policy_unwritable`. */
export function writePolicyFile(file: string, { text, writtenAt }: PolicySource): void {
  const next = `${file}.next`;
  try {
    writeFileSync(next, text, { mode: 0o600, flush: true });
    utimesSync(next, writtenAt / 1000, writtenAt / 1000);
    renameSync(next, file);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new PilotError(
      "policy_unwritable",
      `Cannot write ${file}: ${code}`,
      `Nothing was changed. Make ${dirname(file)} writable for the daemon and try again.`,
      error,
    );
  }
}

export function missingPolicy(path: string): PilotError {
  return new PilotError(
    "policy_missing",
    `There is no policy at ${path}`,
    "Write one. To let trusted peers do everything: allow in any from trusted, and allow out any to trusted.",
  );
}

function readSource(path: string): PolicySource | undefined {
  try {
    const { mtimeMs, mode, size } = statSync(path);
    if ((mode & OTHERS_MAY_WRITE) !== 0) {
      throw new PilotError("policy_unreadable", `Everybody may write ${path}`, `chmod o-w ${path}`);
    }
    if (size > MAX_TEXT_LENGTH) throw tooLong(path);
    return { file: path, text: readFileSync(path, "utf8"), writtenAt: Math.floor(mtimeMs) as WallClock };
  } catch (error) {
    if (error instanceof PilotError) throw error;
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    if (code === "ENOENT") return undefined;
    throw new PilotError(
      "policy_unreadable",
      `Cannot read ${path}: ${code}`,
      "Make it a file that root can read.",
      error,
    );
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith(".policy"))
      .sort();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    if (code === "ENOENT") return [];
    throw new PilotError(
      "policy_unreadable",
      `Cannot read ${folder}: ${code}`,
      "Make it a folder that root can read.",
      error,
    );
  }
}

function tooLong(path: string): PilotError {
  return new PilotError("policy_unreadable", `${path} is too long`, "A policy has at most 4 MiB of text.");
}

const OTHERS_MAY_WRITE = 0o002;
const MAX_TEXT_LENGTH = 4 * 1024 * 1024;
