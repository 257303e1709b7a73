/** The demo's paper: each command is printed before it runs, its output below it, and what was expected is checked. */
import { LAUNCHER, type Lab, waitUntil } from "../helpers/lab.ts";
import type { LabProcess, SpawnOptions } from "../helpers/lab-process.ts";

export interface Expectation {
  /** Unless told, the command must succeed. */
  readonly fails?: boolean;
  /** Must occur in what it prints. */
  readonly prints?: RegExp;
  readonly input?: string;
  /** Which of the lines are shown; all unless told. */
  readonly show?: (lines: readonly string[]) => readonly string[];
}

export interface Outcome {
  readonly output: string;
  readonly elapsedMs: number;
}

export class Transcript {
  readonly #lab: Lab;
  #step = 0;

  constructor(lab: Lab) {
    this.#lab = lab;
  }

  title(text: string): void {
    this.#step++;
    print("", `── ${this.#step}. ${text}`);
  }

  note(...lines: readonly string[]): void {
    print(...lines.map((line) => (line === "" ? "" : `   ${line}`)));
  }

  /** A command of pilot-tun, on the socket of that host's daemon. */
  async pilot(host: string, args: readonly string[], expectation: Expectation = {}): Promise<Outcome> {
    const shown = ["pilot-tun", ...args];
    return await this.#run(host, shown, [LAUNCHER, "--control", this.controlOf(host), ...args], expectation);
  }

  /** The same, once what it tells of has happened: asks quietly until then. */
  async pilotOnce(host: string, args: readonly string[], prints: RegExp): Promise<Outcome> {
    const words = ["--control", this.controlOf(host), ...args];
    await waitUntil(`${host} to say ${prints}`, async () => {
      return prints.test((await this.#lab.exec(host, LAUNCHER, words)).stdout);
    });
    return await this.pilot(host, args, { prints });
  }

  async run(host: string, words: readonly string[], expectation: Expectation = {}): Promise<Outcome> {
    return await this.#run(host, words, words, expectation);
  }

  /** Starts a program that goes on, and shows its first line that matches. */
  async start(host: string, words: readonly string[], ready: RegExp, options: StartOptions = {}): Promise<LabProcess> {
    this.#prompt(host, words, " &");
    const [program, ...args] = options.actually ?? words;
    const child = this.#lab.spawn(host, program!, args);
    print(await child.waitForLine(ready, START_TIMEOUT_MS));
    return child;
  }

  /** The same for one that says nothing when it is ready: waits until it listens. */
  async startServer(
    host: string,
    words: readonly string[],
    listens: string,
    options: StartOptions = {},
  ): Promise<LabProcess> {
    this.#prompt(host, words, " &", options.input);
    const [program, ...args] = words;
    const child = this.#lab.spawn(host, program!, args, options);
    await waitUntil(`${words.join(" ")} to listen`, async () => {
      if (!child.isRunning) throw new Error(`it ended: ${child.report()}`);
      return (await this.#lab.exec(host, "ss", ["-Hnltu"])).stdout.includes(listens);
    });
    return child;
  }

  controlOf(host: string): string {
    return `${this.#lab.folder}/${host}.sock`;
  }

  #prompt(host: string, words: readonly string[], suffix = "", input?: string): void {
    const echo = input === undefined ? "" : `echo ${quoted(input.trimEnd())} | `;
    print("", `${host}# ${echo}${words.map(quoted).join(" ")}${suffix}`);
  }

  async #run(host: string, shown: readonly string[], words: readonly string[], wish: Expectation): Promise<Outcome> {
    this.#prompt(host, shown, "", wish.input);
    const [program, ...args] = words;
    const startedAt = performance.now();
    const options = { timeoutMs: RUN_TIMEOUT_MS, ...(wish.input === undefined ? {} : { input: wish.input }) };
    const { code, stdout, stderr } = await this.#lab.exec(host, program!, args, options);
    const elapsedMs = performance.now() - startedAt;
    const output = stdout + stderr;
    const lines = output.trimEnd().split("\n");
    print(...(wish.show?.(lines) ?? lines));
    const wanted = wish.fails === true ? "to fail" : "to succeed";
    if ((code !== 0) !== (wish.fails === true)) throw new Error(`that was expected ${wanted}, and ended with ${code}`);
    if (wish.prints !== undefined && !wish.prints.test(output))
      throw new Error(`that was expected to print ${wish.prints}`);
    return { output, elapsedMs };
  }
}

export interface StartOptions extends SpawnOptions {
  /** What is run, where that is longer than what a reader needs. */
  readonly actually?: readonly string[];
}

export function print(...lines: readonly string[]): void {
  process.stdout.write(`${lines.join("\n")}\n`);
}

/** As a person would type it. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`;
}

const START_TIMEOUT_MS = 15_000;
const RUN_TIMEOUT_MS = 30_000;
