/**
 * When the registry is asked for waiting handshakes: every half minute, every two seconds while an answer is awaited, and at once
 * when the beacon says that some wait. Anybody can say that in a beacon's name, so such polls are rationed.
 */
import { after, type Instant, instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";

export class HandshakePolls {
  #at: Instant = instant(0);
  #expectUntil: Instant = instant(0);
  readonly #noticed = new TokenBucket(1_000 / NOTICE_GAP_MS, NOTICE_BURST, instant(0));
  /** Of notices since the last poll was sent: one of them has paid for the next, or that pays for itself. */
  #notice: "none" | "paid" | "owed" = "none";

  /** When the next is due. */
  get at(): Instant {
    return this.#at;
  }

  handleRegistered(now: Instant): void {
    this.#at = now;
  }

  /** One is on its way. What is noticed from now on may be too late for its answer, so that leads to another one. */
  handleSent(now: Instant): void {
    if (this.#notice === "owed") this.#noticed.take(now);
    this.#notice = "none";
    this.#at = NEVER;
  }

  handleAnswered(now: Instant): void {
    this.#notAfter(after(now, now < this.#expectUntil ? EXPECTING_PAUSE_MS : PAUSE_MS));
  }

  handleRefused(now: Instant): void {
    this.#notAfter(after(now, PAUSE_MS));
  }

  /** Somebody says that handshakes wait: now, or soon when he says so often. */
  notice(now: Instant): void {
    if (this.#notice !== "none") return;
    this.#notice = this.#noticed.take(now) ? "paid" : "owed";
    this.#notAfter(this.#notice === "paid" ? now : after(now, NOTICE_GAP_MS));
  }

  /** An answer is awaited until then. */
  expect(until: Instant, now: Instant): void {
    if (until > this.#expectUntil) this.#expectUntil = until;
    this.#notAfter(after(now, EXPECTING_PAUSE_MS));
  }

  #notAfter(at: Instant): void {
    if (at < this.#at) this.#at = at;
  }
}

const NEVER = instant(Number.MAX_SAFE_INTEGER);
const PAUSE_MS = 30_000;
const EXPECTING_PAUSE_MS = 2_000;
/** Between polls that somebody's word leads to, when there were many. */
const NOTICE_GAP_MS = 500;
const NOTICE_BURST = 4;
