/**
 * What code an input reaches, as V8 itself counts it: block coverage of every script of `src/`, taken since the last time.
 * Reading it costs a few milliseconds, whatever ran, so many inputs share one reading until something new shows.
 */
import { type Profiler, Session } from "node:inspector";

export class CodeCoverage {
  readonly #session = new Session();
  /** Per function of a script, the characters of it that were ever reached. Bound: the functions of src/. */
  readonly #reached = new Map<string, Uint8Array>();
  #count = 0;

  constructor() {
    this.#session.connect();
    this.#session.post("Profiler.enable");
    this.#session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
  }

  /** Characters of source code that were ever reached. */
  get reached(): number {
    return this.#count;
  }

  /** Forgets what ran since the last time. */
  reset(): void {
    this.#take();
  }

  /** How many characters ran since the last time that never ran before; from now on they did. */
  newlyReached(): number {
    const fresh = this.#addAll(this.#take(), true);
    this.#count += fresh;
    return fresh;
  }

  /** The same of many inputs together, and nothing is noted: `takeIn` what is returned, or run each of them again. */
  lookAhead(): { readonly fresh: number; readonly takeIn: () => void } {
    const taken = this.#take();
    const takeIn = () => {
      this.#count += this.#addAll(taken, true);
    };
    return { fresh: this.#addAll(taken, false), takeIn };
  }

  #addAll(taken: readonly Profiler.ScriptCoverage[], isNoted: boolean): number {
    let fresh = 0;
    for (const { url, functions } of taken) {
      if (!url.includes("/src/")) continue;
      for (const { ranges } of functions) fresh += this.#add(url, ranges, isNoted);
    }
    return fresh;
  }

  #add(url: string, ranges: readonly Profiler.CoverageRange[], isNoted: boolean): number {
    const [whole] = ranges;
    if (whole === undefined || whole.count === 0) return 0;
    const length = whole.endOffset - whole.startOffset;
    const now = new Uint8Array(length);
    // Outer ranges come first, and inner ones say what is different in them.
    for (const { startOffset, endOffset, count } of ranges) {
      now.fill(count > 0 ? 1 : 0, startOffset - whole.startOffset, endOffset - whole.startOffset);
    }
    const name = `${url} ${whole.startOffset}`;
    const before = this.#reached.get(name);
    if (before === undefined) {
      if (isNoted) this.#reached.set(name, now);
      return now.reduce((sum, one) => sum + one, 0);
    }
    let fresh = 0;
    for (let i = 0; i < length; i++) {
      if (now[i] === 0 || before[i] === 1) continue;
      fresh++;
      if (isNoted) before[i] = 1;
    }
    return fresh;
  }

  #take(): Profiler.ScriptCoverage[] {
    let taken: Profiler.ScriptCoverage[] = [];
    // The session answers before `post` returns.
    this.#session.post("Profiler.takePreciseCoverage", (_error, reply) => {
      taken = reply.result;
    });
    return taken;
  }
}
