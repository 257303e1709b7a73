/**
 * How a command says no: what went wrong, the code that programs go by, and what to do; on stderr for people, as one
 * object on stdout with --json. The exit code follows from the code.
 */
import { CommanderError } from "commander";
import { PilotError } from "../base/pilot-error.ts";
import { EXIT, exitCodeOf, type Problem, SCHEMA } from "../control/api.ts";
import type { Environment } from "./context.ts";
import { coloured, jsonLine, type Paint, plain, printable } from "./format.ts";

/** Everything that is wrong with a command line, found in one go. */
export class UsageError extends Error {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    super(problems.map((problem) => problem.message).join("; "));
    this.name = "UsageError";
    this.problems = problems;
  }
}

export function usageProblem(message: string, hint: string): Problem {
  return { code: "usage", message, hint };
}

/** Prints the failure and returns the exit code. Help and version asked for are no failure. */
export function refuse(environment: Environment, error: unknown, how: { json: boolean; colour: boolean }): number {
  if (error instanceof CommanderError && error.exitCode === 0) return EXIT.ok;
  const problems = problemsOf(error);
  const first = problems[0]!;
  if (how.json) {
    const more = problems.length > 1 ? { problems } : {};
    environment.stdout(`${jsonLine({ schema: SCHEMA, error: first, ...more })}\n`);
  } else {
    const paint = how.colour && environment.colourWanted && environment.stderrIsTerminal ? coloured : plain;
    environment.stderr(problems.flatMap((problem) => problemLines(problem, paint)).join("\n") + "\n");
  }
  if (isBug(error)) environment.stderr(`${(error as Error).stack ?? error}\n`);
  return first.code === "interrupted" ? INTERRUPTED : exitCodeOf(first.code);
}

/** The three lines of a refusal. */
export function problemLines(problem: Problem, paint: Paint): string[] {
  return [
    `${paint("red", "error:")} ${printableLines(problem.message)}`,
    `code:  ${printable(problem.code)}`,
    `fix:   ${printable(problem.hint)}`,
  ];
}

/** A message with several mistakes has one on each line. */
export function printableLines(message: string): string {
  return message.split("\n").map(printable).join("\n  ");
}

/** 128 + SIGINT, as shells have it. */
const INTERRUPTED = 130;

function problemsOf(error: unknown): readonly Problem[] {
  if (error instanceof UsageError) return error.problems;
  if (error instanceof PilotError) return [{ code: error.code, message: error.message, hint: error.hint }];
  if (error instanceof CommanderError) return [commanderProblem(error)];
  const message = error instanceof Error ? error.message : String(error);
  return [{ code: "internal", message, hint: "This is a bug of pilot-tun: report it with the lines below." }];
}

function isBug(error: unknown): boolean {
  return !(error instanceof UsageError || error instanceof PilotError || error instanceof CommanderError);
}

/** commander writes `error: unknown command 'statsu'`, and below it `(Did you mean status?)`. */
function commanderProblem(error: CommanderError): Problem {
  // `trust` alone: the help is on stderr already.
  if (error.code === "commander.help") return usageProblem("A command is missing", "Choose one of those listed above.");
  const [message = "", suggestion] = error.message.replace(/^error: /, "").split("\n");
  const hint = suggestion?.replace(/^\(|\)$/g, "") ?? "Run `pilot-tun --help`, or the command with --help.";
  return usageProblem(message.charAt(0).toUpperCase() + message.slice(1), hint);
}
