/**
 * When a file that is always written as a whole is written: at once if it was left alone lately, else together with what
 * changes until its turn comes. With thousands of peers a write for each thing learned would be all that the daemon does.
 */
import { inNobodysName } from "../control/caller.ts";
import { now } from "../io/clock.ts";

export class PacedWrite {
  readonly #write: () => void;
  readonly #timed = inNobodysName(() => this.atOnce());
  #timer: NodeJS.Timeout | undefined;
  #nextAt = Number.NEGATIVE_INFINITY;

  constructor(write: () => void) {
    this.#write = write;
  }

  /** It is written when this returns, with all that waited. */
  atOnce(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const startedAt = now();
    try {
      this.#write();
    } finally {
      const endedAt = now();
      this.#nextAt = endedAt + Math.max(LEAST_GAP_MS, (endedAt - startedAt) * GAP_PER_WRITE);
    }
  }

  soon(): void {
    if (this.#timer !== undefined) return;
    const waitMs = this.#nextAt - now();
    if (waitMs <= 0) return this.atOnce();
    this.#timer = setTimeout(this.#timed, waitMs);
  }

  /** What waits is written. */
  close(): void {
    if (this.#timer !== undefined) this.atOnce();
  }
}

const LEAST_GAP_MS = 1_000;
/** Writing takes a twentieth of the time at most. */
const GAP_PER_WRITE = 20;
