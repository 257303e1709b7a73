/**
 * Life on an idle stream (pilot protocol §4.8): an empty ACK after 25 s of silence keeps the reference from closing after
 * 120 s, and is answered at most once per 5 s, or two such nodes would answer each other for ever.
 * The reference answers no empty ACK. After a minute without a word the probe therefore carries one byte that the far side
 * has already: every version drops it and acknowledges.
 */
import { after, type Deadline, type Instant } from "../base/instant.ts";

export type KeepaliveAction = "announce" | "provoke" | "dead";

export class Keepalive {
  readonly #idleLimitMs: number;
  #heardAt: Instant;
  #sentAt: Instant;

  constructor(idleLimitMs: number, now: Instant) {
    this.#idleLimitMs = idleLimitMs;
    this.#heardAt = now;
    this.#sentAt = now;
  }

  get heardAt(): Instant {
    return this.#heardAt;
  }

  handleHeard(now: Instant): void {
    this.#heardAt = now;
  }

  handleSent(now: Instant): void {
    this.#sentAt = now;
  }

  /** Whether an empty ACK that arrived now is a question nobody has answered by other means. */
  shouldAnswer(now: Instant): boolean {
    return now - this.#sentAt >= ANSWER_INTERVAL_MS;
  }

  handleTimeout(now: Instant): KeepaliveAction | undefined {
    const silenceMs = now - this.#heardAt;
    if (silenceMs >= this.#idleLimitMs) return "dead";
    if (now < this.#announceAt) return undefined;
    return silenceMs >= PROVOKE_AFTER_MS ? "provoke" : "announce";
  }

  deadline(): Deadline {
    const deadAt = after(this.#heardAt, this.#idleLimitMs);
    return this.#announceAt < deadAt
      ? { at: this.#announceAt, reason: "keepalive" }
      : { at: deadAt, reason: "idle-limit" };
  }

  get #announceAt(): Instant {
    return after(Math.max(this.#heardAt, this.#sentAt) as Instant, ANNOUNCE_AFTER_MS);
  }
}

const ANNOUNCE_AFTER_MS = 25_000;
const PROVOKE_AFTER_MS = 60_000;
const ANSWER_INTERVAL_MS = 5_000;
