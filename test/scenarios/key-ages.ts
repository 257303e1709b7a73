/** How long keys of sessions go on sealing packets although they should have been replaced. */
import type { LinkFacts } from "../../src/engine/engine-ports.ts";
import { seconds, Violated } from "./violated.ts";

export class KeyAges {
  readonly #rekeyMs: number;
  /** By direction: since when the keys are what they are, and when they were first used though too old. */
  readonly #overdue = new Map<string, { since: number; atMs: number }>();

  constructor(rekeyMs: number) {
    this.#rekeyMs = rekeyMs;
  }

  /** A packet was sealed, or waits; `nowMs` on the sender's clock. */
  noteSent(direction: string, facts: LinkFacts | undefined, nowMs: number): void {
    const { level, since } = facts?.security ?? {};
    if (level !== "noise" || since === undefined || nowMs - since <= this.#rekeyMs) {
      this.#overdue.delete(direction);
      return;
    }
    const known = this.#overdue.get(direction);
    if (known?.since !== since) this.#overdue.set(direction, { since, atMs: nowMs });
    else if (nowMs - known.atMs > MOST_OVERDUE_MS) {
      throw new Violated("keys are replaced in time", `${direction}: in use since ${seconds(since)}`);
    }
  }
}

/** The peer is asked a minute long, and then for everything anew; and what the repeats of both take. */
const MOST_OVERDUE_MS = 75_000;
