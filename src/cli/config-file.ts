/**
 * A configuration file in TOML: its keys are the command's options, written with `_` in place of `-`, all at the top
 * level. Read whole: every unknown key, every value of a wrong kind and the place of each are reported at once.
 */
import { readFileSync } from "node:fs";
import { parse, TomlError } from "smol-toml";
import { nearestWord } from "../base/nearest-word.ts";
import type { Problem } from "../control/api.ts";
import type { DeclaredOption } from "./settings.ts";

export interface ConfigFile {
  readonly path: string;
  /** Key: attribute of the option, as commander has it. Bound: the declared options. */
  readonly entries: ReadonlyMap<string, ConfigEntry>;
}

export interface ConfigEntry {
  /** As commander would have read it from the command line: text, or a switch. */
  readonly value: string | boolean;
  /** From 1; 0 when it cannot be told. */
  readonly line: number;
}

export type ReadConfig = { readonly file: ConfigFile } | { readonly problems: readonly Problem[] };

/** Undefined when there is no such file. */
export function readConfigFile(path: string, declared: readonly DeclaredOption[]): ReadConfig | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    const hint = "Make it readable to the user that runs pilot-tun, or name another file by --config.";
    return { problems: [configProblem(`${path} cannot be read: ${(error as Error).message}`, hint)] };
  }
  return parseConfig(path, text, declared);
}

export function parseConfig(path: string, text: string, declared: readonly DeclaredOption[]): ReadConfig {
  let table: Record<string, unknown>;
  try {
    table = parse(text);
  } catch (error) {
    return { problems: [syntaxProblem(path, error)] };
  }
  const problems: Problem[] = [];
  const entries = new Map<string, ConfigEntry>();
  for (const [key, value] of Object.entries(table)) {
    const line = lineOf(text, key);
    const place = line === 0 ? path : `${path}:${line}`;
    const option = declared.find((candidate) => candidate.key === key);
    if (option === undefined) {
      problems.push(unknownKey(place, key, declared));
      continue;
    }
    const taken = takeValue(option, value);
    if (taken === undefined) problems.push(wrongKind(place, option));
    else entries.set(option.attribute, { value: taken, line });
  }
  return problems.length > 0 ? { problems } : { file: { path, entries } };
}

/** Undefined when the value is of a kind that the option does not take. */
function takeValue(option: DeclaredOption, value: unknown): string | boolean | undefined {
  if (typeof value === "boolean") {
    if (option.takesValue && !(option.canBeOff && value === false)) return undefined;
    return value;
  }
  if (!option.takesValue) return undefined;
  if (typeof value === "string") return value;
  return typeof value === "number" || typeof value === "bigint" ? String(value) : undefined;
}

function unknownKey(place: string, key: string, declared: readonly DeclaredOption[]): Problem {
  const keys = declared.map((option) => option.key);
  const near = nearestWord(key.replaceAll("-", "_"), keys);
  const hint = near === undefined ? `Known are: ${keys.join(", ")}.` : `Write ${near}.`;
  return configProblem(`${place}: there is no key ${JSON.stringify(key.slice(0, MAX_SHOWN))}`, hint);
}

function wrongKind(place: string, option: DeclaredOption): Problem {
  const hint = option.takesValue
    ? `Write ${option.key} = "…"${option.canBeOff ? `, or ${option.key} = false` : ""}.`
    : `Write ${option.key} = true or ${option.key} = false.`;
  return configProblem(`${place}: ${option.key} takes ${option.takesValue ? "a text" : "true or false"}`, hint);
}

function syntaxProblem(path: string, error: unknown): Problem {
  const hint = 'A line is key = "text", key = 1360, key = true, or a comment after #.';
  if (!(error instanceof TomlError)) return configProblem(`${path}: ${String(error)}`, hint);
  const [reason = ""] = error.message.replace(/^Invalid TOML document: /, "").split("\n");
  return configProblem(`${path}:${error.line}:${error.column}: ${reason}`, hint);
}

/** Keys stand at the top level, each once: the first line that begins with it is the one. */
function lineOf(text: string, key: string): number {
  const bare = /^[A-Za-z0-9_-]+$/.test(key) ? key : JSON.stringify(key);
  const lines = text.split("\n");
  return lines.findIndex((line) => line.trimStart().replace(/^\[/, "").startsWith(bare)) + 1;
}

function configProblem(message: string, hint: string): Problem {
  return { code: "config_invalid", message, hint };
}

const MAX_SHOWN = 60;
