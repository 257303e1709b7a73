/**
 * What a command works with. `Environment` is the process as the program sees it, so that tests can be another one;
 * `Context` is one invocation: its global options, its way to print and its way to the daemon.
 * stdout carries the answer and nothing else, stderr the talk.
 */
import type { Command } from "commander";
import type { ControlMethod, ExitCode, ReplyOf, RequestOf, Sealed } from "../control/api.ts";
import { ControlClient } from "../control/client.ts";
import { coloured, jsonLine, type Paint, plain } from "./format.ts";
import type { GlobalOptions } from "./parse-options.ts";
import type { DeclaredOption, Variables } from "./settings.ts";

export interface Environment {
  stdout(text: string): void;
  stderr(text: string): void;
  readonly stdoutIsTerminal: boolean;
  readonly stderrIsTerminal: boolean;
  /** False by NO_COLOR or a dumb terminal. */
  readonly colourWanted: boolean;
  /** The environment's variables. */
  readonly variables: Variables;
  /** Calls the listener for each arrival of the signal, which no longer ends the process; returns how to stop that. */
  onSignal(signal: StopSignal, listener: () => void): () => void;
  /** What a person types without its being shown; undefined where nobody can: no terminal. Throws when he breaks it off. */
  askSecret(question: string): Promise<string | undefined>;
  /** Becomes another program, with these arguments (its name first) and variables; does not return. */
  become(file: string, args: readonly string[], variables: Variables): void;
  /** Ends the process at once. */
  exit(code: number): void;
  /** From now on a reader of stdout that goes away does not end the process. */
  outliveReader(): void;
}

export type StopSignal = "SIGINT" | "SIGTERM";

export class Context {
  readonly environment: Environment;
  readonly options: GlobalOptions;
  readonly paint: Paint;

  constructor(environment: Environment, options: GlobalOptions) {
    this.environment = environment;
    this.options = options;
    const colour = options.colour && environment.colourWanted && environment.stdoutIsTerminal;
    this.paint = colour ? coloured : plain;
  }

  /** The answer: the reply itself with --json, else the lines for people. */
  answer(reply: object, lines: () => readonly string[]): void {
    if (this.options.json) this.environment.stdout(`${jsonLine(reply)}\n`);
    else this.print(lines());
  }

  print(lines: readonly string[]): void {
    if (lines.length > 0) this.environment.stdout(`${lines.join("\n")}\n`);
  }

  /** Advice for a person at a terminal; programs and pipes are spared it. */
  advise(line: string): void {
    if (!this.options.json && this.environment.stderrIsTerminal) this.environment.stderr(`${line}\n`);
  }

  /** `extraMs` is time that the method itself is asked to wait. */
  call<M extends ControlMethod>(
    method: M,
    request: RequestOf<M>,
    wait: { readonly extraMs?: number; readonly signal?: AbortSignal } = {},
  ): Promise<Sealed<ReplyOf<M>>> {
    const timeoutMs = (this.options.timeoutMs ?? CALL_TIMEOUT_MS) + (wait.extraMs ?? 0);
    const client = new ControlClient(this.options.control);
    return client.call(method, request, wait.signal === undefined ? { timeoutMs } : { timeoutMs, signal: wait.signal });
  }
}

/** Local answers come at once; a few ask the registry first. */
const CALL_TIMEOUT_MS = 10_000;

/** What a person wrote after the command's name. */
export interface Input {
  readonly args: readonly string[];
  readonly options: Readonly<Record<string, unknown>>;
  /** What the command takes, also from a configuration file and from the environment. */
  readonly declared: readonly DeclaredOption[];
  /** Attributes of the options that stand on the command line itself. */
  readonly written: ReadonlySet<string>;
}

export type Action = (context: Context, input: Input) => Promise<ExitCode>;

/** Adds one command to the program. `perform` wraps its action into what commander calls. */
export type Declare = (program: Command, perform: Perform) => void;

export type Perform = (action: Action) => (...args: unknown[]) => Promise<void>;

/** The end of a help text. */
export function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ ${line}`).join("\n")}`;
}
