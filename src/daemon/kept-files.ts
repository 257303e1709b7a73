/**
 * The files that change while the daemon runs. A write that the disk refuses is a problem to show, not the end of the packet
 * path, and is tried again until the disk takes it: what was in force when room came back is there after a crash.
 */
import type { Problem } from "../base/error-code.ts";
import { PilotError } from "../base/pilot-error.ts";

export type KeptFile = "trust.json" | "node.json";

export class KeptFiles {
  readonly #problems: Map<string, Problem>;
  /** How to write what is not on the disk as it is by then. Bound: the files there are; gone when the disk took it. */
  readonly #unwritten = new Map<KeptFile, () => void>();
  #retry: NodeJS.Timeout | undefined;

  constructor(problems: Map<string, Problem>) {
    this.#problems = problems;
  }

  /** `change` throws PilotError when it is not on the disk; `write` then brings the whole file there. */
  keep(file: KeptFile, change: () => void, write: () => void = change): void {
    try {
      change();
      this.#unwritten.delete(file);
    } catch (error) {
      if (!(error instanceof PilotError)) throw error;
      const { code, message, hint } = error;
      this.#problems.set(PROBLEM, { code, message, hint });
      this.#unwritten.set(file, write);
    }
    if (this.#unwritten.size === 0) this.#problems.delete(PROBLEM);
    else this.#retry ??= setTimeout(() => this.#again(), RETRY_MS).unref();
  }

  /** Throws PilotError `state_unwritable` when a word of the operator would be lost with this process. */
  demandWritten(file: KeptFile): void {
    if (!this.#unwritten.has(file)) return;
    throw new PilotError(
      PROBLEM,
      `Done, and lost if the daemon ends now. ${this.#problems.get(PROBLEM)?.message ?? `Cannot write ${file}`}`,
      "Make room where the state folder is, or give the daemon's user the right to write there; it is written by itself then.",
    );
  }

  close(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
  }

  #again(): void {
    this.#retry = undefined;
    for (const [file, write] of [...this.#unwritten]) this.keep(file, write);
  }
}

const PROBLEM = "state_unwritable";
const RETRY_MS = 2_000;
