/**
 * Where an option of a command that stays may stand. Later wins: its default, the configuration file, a variable of the
 * environment (PILOT_TUN_ and the option in capitals), the command line. The options declared to commander are the one
 * list from which keys and variables follow, so that none of the three can lag behind.
 */
import type { Command } from "commander";
import type { Problem } from "../control/api.ts";
import { type ConfigFile, readConfigFile } from "./config-file.ts";
import type { Input } from "./context.ts";
import { UsageError } from "./refusal.ts";

export interface DeclaredOption {
  /** As commander names it: `registryTls`. */
  readonly attribute: string;
  /** `--registry-tls`. */
  readonly flag: string;
  /** In the configuration file: `registry_tls`. */
  readonly key: string;
  /** `PILOT_TUN_REGISTRY_TLS`. */
  readonly variable: string;
  readonly takesValue: boolean;
  /** There is a `--no-` form, and `false` in the file and the environment says the same. */
  readonly canBeOff: boolean;
}

/** What wrote a value. */
export type Origin =
  | { readonly kind: "default" }
  | { readonly kind: "file"; readonly path: string; readonly line: number }
  | { readonly kind: "variable"; readonly name: string }
  | { readonly kind: "flag" };

export interface Settings {
  /** Key: attribute. Bound: the declared options and what commander adds. */
  readonly values: Readonly<Record<string, unknown>>;
  readonly origins: ReadonlyMap<string, Origin>;
  readonly declared: readonly DeclaredOption[];
  readonly configPath: string | undefined;
}

export type Variables = Readonly<Record<string, string | undefined>>;

/** The options a configuration file may hold: all but hidden ones and those that say which file it is. */
export function declaredOptions(command: Command): DeclaredOption[] {
  const found = new Map<string, DeclaredOption>();
  for (const option of command.options) {
    if (option.hidden || option.long === undefined || NOT_IN_FILES.has(option.attributeName())) continue;
    const attribute = option.attributeName();
    const flag = option.negate ? option.long.replace("--no-", "--") : option.long;
    const key = flag.slice(2).replaceAll("-", "_");
    const before = found.get(attribute);
    found.set(attribute, {
      ...{ attribute, flag, key, variable: `PILOT_TUN_${key.toUpperCase()}` },
      takesValue: (before?.takesValue ?? false) || option.required || option.optional,
      canBeOff: (before?.canBeOff ?? false) || option.negate,
    });
  }
  return [...found.values()];
}

const NOT_IN_FILES: ReadonlySet<string> = new Set(["config", "check"]);

/**
 * `input` as commander read it. `config`: the file, and whether it must exist. Throws a UsageError with every problem
 * of the file and the environment.
 */
export function layerSettings(
  input: Input,
  variables: Variables,
  config: { readonly path: string; readonly mustExist: boolean },
): Settings {
  const problems: Problem[] = [];
  const read = readConfigFile(config.path, input.declared);
  if (read === undefined && config.mustExist) problems.push(missingFile(config.path));
  if (read !== undefined && "problems" in read) problems.push(...read.problems);
  const file = read !== undefined && "file" in read ? read.file : undefined;

  const values: Record<string, unknown> = { ...input.options };
  const origins = new Map<string, Origin>();
  for (const option of input.declared) {
    const [value, origin] = chosen(option, input, variables, file, problems);
    origins.set(option.attribute, origin);
    if (value !== undefined) values[option.attribute] = value;
  }
  if (problems.length > 0) throw new UsageError(problems);
  return { values, origins, declared: input.declared, configPath: file?.path };
}

function chosen(
  option: DeclaredOption,
  input: Input,
  variables: Variables,
  file: ConfigFile | undefined,
  problems: Problem[],
): readonly [unknown, Origin] {
  const { attribute } = option;
  if (input.written.has(attribute)) return [input.options[attribute], { kind: "flag" }];
  const variable = variables[option.variable];
  if (variable !== undefined && variable !== "") {
    const value = variableValue(option, variable);
    if (value === undefined) problems.push(badSwitch(option, variable));
    return [value, { kind: "variable", name: option.variable }];
  }
  const entry = file?.entries.get(attribute);
  if (entry !== undefined) return [entry.value, { kind: "file", path: file!.path, line: entry.line }];
  return [input.options[attribute], { kind: "default" }];
}

/** Undefined when a switch is neither on nor off. */
function variableValue(option: DeclaredOption, text: string): string | boolean | undefined {
  if (option.takesValue) return option.canBeOff && OFF.has(text.toLowerCase()) ? false : text;
  if (OFF.has(text.toLowerCase())) return false;
  return ON.has(text.toLowerCase()) ? true : undefined;
}

const ON: ReadonlySet<string> = new Set(["1", "true", "yes", "on"]);
const OFF: ReadonlySet<string> = new Set(["0", "false", "no", "off"]);

function badSwitch(option: DeclaredOption, text: string): Problem {
  const message = `${option.variable} ${JSON.stringify(text.slice(0, 60))} is neither true nor false`;
  return { code: "usage", message, hint: `Write ${option.variable}=true or ${option.variable}=false.` };
}

function missingFile(path: string): Problem {
  const hint = "Copy the commented example config.toml there, or leave --config away.";
  return { code: "config_missing", message: `There is no configuration file ${path}`, hint };
}

/**
 * A problem that a parser found in `--mtu` says where the value really stands. Parsers begin their message with the
 * option's name.
 */
export function problemInPlace(problem: Problem, { declared, origins }: Settings): Problem {
  const flag = /^--[a-z0-9-]+/.exec(problem.message)?.[0];
  const option = declared.find((candidate) => candidate.flag === flag);
  const origin = option && origins.get(option.attribute);
  if (option === undefined || origin === undefined) return problem;
  const rest = problem.message.slice(option.flag.length);
  if (origin.kind === "file") {
    const example = new RegExp(`${option.flag} '?(\\S+?)'?([.,;]?)(?=\\s|$)`, "g");
    const hint = problem.hint.replace(example, (_, value, end) => `${option.key} = "${value}"${end}`);
    return { code: "config_invalid", message: `${origin.path}:${origin.line}: ${option.key}${rest}`, hint };
  }
  if (origin.kind === "variable") {
    const hint = problem.hint.replaceAll(`${option.flag} `, `${option.variable}=`);
    return { ...problem, message: `${option.variable}${rest}`, hint };
  }
  return problem;
}

/** What is in force, as text by key: for `config show`, and to see what a changed file changes. */
export function effectiveSettings({ declared, values }: Settings): ReadonlyMap<string, string> {
  return new Map(declared.map(({ key, attribute }) => [key, textOf(values[attribute])]));
}

function textOf(value: unknown): string {
  return value === undefined ? "" : String(value);
}
