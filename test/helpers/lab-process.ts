/**
 * One program that a test started: its output as it comes, its end as a promise, and a sure way to end it. Each runs in
 * a process group of its own, so that what it starts ends with it. Output is kept up to a bound, oldest bytes first out.
 */
import { type ChildProcess, spawn } from "node:child_process";

export interface SpawnOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Written to its standard input, which is then closed; without it the input is empty. */
  readonly input?: string;
  readonly cwd?: string;
}

export interface Ending {
  /** Exit status; null when a signal ended it, or when it could not be started. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export type OutputStream = "stdout" | "stderr";

export class LabProcess {
  readonly title: string;
  /** Settles once it has ended and all its output was read. */
  readonly ended: Promise<Ending>;
  readonly #child: ChildProcess;
  readonly #text: Record<OutputStream, string> = { stdout: "", stderr: "" };
  /** Called after each piece of output and at the end. BOUNDED by the waits that are under way. */
  readonly #watchers = new Set<() => void>();
  #ending: Ending | undefined;

  constructor(title: string, program: string, args: readonly string[], options: SpawnOptions = {}) {
    this.title = title;
    this.#child = spawn(program, args, {
      detached: true,
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    this.#child.stdin?.on("error", () => undefined); // a program that does not read its input is no failure
    this.#child.stdin?.end(options.input ?? "");
    this.#collect("stdout");
    this.#collect("stderr");
    this.ended = new Promise((resolve) => {
      const end = (ending: Ending): void => {
        if (this.#ending !== undefined) return;
        this.#ending = ending;
        LIVE.delete(this);
        this.#wake();
        resolve(ending);
      };
      this.#child.once("close", (code, signal) => end({ code, signal }));
      this.#child.once("error", (error) => {
        this.#text.stderr += `${error.message}\n`;
        end({ code: null, signal: null });
      });
    });
    if (this.#child.pid !== undefined) LIVE.add(this);
  }

  /** Undefined when it could not be started. Also the id of its process group. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  get stdout(): string {
    return this.#text.stdout;
  }

  get stderr(): string {
    return this.#text.stderr;
  }

  get isRunning(): boolean {
    return this.#ending === undefined;
  }

  /** The first line that matches, of either stream or of the one named; looks at what was printed before, too. */
  async waitForLine(pattern: RegExp, timeoutMs = LINE_TIMEOUT_MS, stream?: OutputStream): Promise<string> {
    const streams: readonly OutputStream[] = stream === undefined ? ["stdout", "stderr"] : [stream];
    const find = (): string | undefined =>
      streams.flatMap((name) => wholeLines(this.#text[name])).find((line) => pattern.test(line));
    await this.#waitUntil(() => find() !== undefined, timeoutMs, `a line like ${pattern}`);
    return find()!;
  }

  /** To the whole group; false when it has gone. */
  kill(signal: NodeJS.Signals): boolean {
    if (this.pid === undefined) return false;
    try {
      return process.kill(-this.pid, signal);
    } catch {
      return false; // ESRCH: nobody is left in the group
    }
  }

  /** Asks it to end, and ends it if it does not. Safe to call again. */
  async stop(graceMs = 5_000): Promise<Ending> {
    this.kill("SIGTERM");
    if ((await this.#endsWithin(graceMs)) !== undefined) return await this.ended;
    this.kill("SIGKILL");
    const ending = await this.#endsWithin(graceMs);
    if (ending === undefined) throw new Error(`${this.title} does not end, even by SIGKILL`);
    return ending;
  }

  /** Undefined when it still runs after that time. */
  async #endsWithin(timeoutMs: number): Promise<Ending | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), timeoutMs);
    });
    const ending = await Promise.race([this.ended, late]);
    clearTimeout(timer);
    return ending;
  }

  /** Its end, for a program that ends by itself; throws when it takes longer. */
  async waitForEnd(timeoutMs: number): Promise<Ending> {
    const ending = await this.#endsWithin(timeoutMs);
    if (ending === undefined) throw new Error(`${this.title} still runs after ${timeoutMs} ms\n${this.report()}`);
    return ending;
  }

  /** What a person wants to read when it failed. */
  report(): string {
    return [this.#text.stdout, this.#text.stderr]
      .map((text) => text.trimEnd().slice(-REPORT_CHARACTERS))
      .filter((text) => text !== "")
      .join("\n");
  }

  #collect(stream: OutputStream): void {
    this.#child[stream]?.setEncoding("utf8").on("data", (text: string) => {
      this.#text[stream] = (this.#text[stream] + text).slice(-KEPT_CHARACTERS);
      this.#wake();
    });
  }

  #wake(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }

  async #waitUntil(isTrue: () => boolean, timeoutMs: number, what: string): Promise<void> {
    if (isTrue()) return;
    await new Promise<void>((resolve, reject) => {
      const finish = (error?: Error): void => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        if (error === undefined) resolve();
        else reject(error);
      };
      const look = (): void => {
        if (isTrue()) finish();
        else if (!this.isRunning) finish(new Error(`${this.title} ended before it printed ${what}\n${this.report()}`));
      };
      const timer = setTimeout(
        () => finish(new Error(`${this.title} did not print ${what} within ${timeoutMs} ms\n${this.report()}`)),
        timeoutMs,
      );
      this.#watchers.add(look);
      look();
    });
  }
}

/** Lines that have ended. */
function wholeLines(text: string): string[] {
  return text.slice(0, text.lastIndexOf("\n") + 1).split("\n");
}

/** Of a slow machine. */
const LINE_TIMEOUT_MS = 20_000;
const KEPT_CHARACTERS = 4 * 1024 * 1024;
const REPORT_CHARACTERS = 4_000;

/** BOUNDED by the programs that run now; each leaves at its end. */
const LIVE = new Set<LabProcess>();

// A test run that is broken off takes along what it started.
process.once("exit", () => {
  for (const program of LIVE) program.kill("SIGKILL");
});
