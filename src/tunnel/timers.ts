/**
 * The deadlines of one link, by name. A timer that is not set does not exist; the smallest of all links' is the one
 * thing the edge arms a real timer for.
 */
import type { Deadline, Instant } from "../base/instant.ts";

export const LINK_TIMERS = [
  /** Repeat our key exchange: no answer so far. */
  "exchange-retry",
  /** Tell local programs that the peer does not answer: they have waited long enough. */
  "exchange-refuse",
  /** Say hello again: a hello got lost, or the peer is a plain agent. */
  "hello-retry",
  /** We received and sent nothing since: show the peer that its packets arrive, and see that it is there. */
  "keepalive",
  /** We sent and received nothing since: one-way traffic, the peer may have lost its keys or moved. */
  "reply-due",
  /** A new key was never proved by a frame. */
  "next-expires",
  /** Frames sealed under the old key are no longer in flight. */
  "previous-expires",
  /** Frames go through the relay: try the direct way again. */
  "direct-retry",
  /** The peer should have the key by now, though nothing was heard under it. */
  "held",
  /** Agree on keys: our turn, or a message of ours was not answered. */
  "agree",
  /** The keys in use have been for long enough, or have sealed enough. */
  "rekey",
  /** Sessions that only carried an agreement are of no more use. */
  "carriers-expire",
  /** Look whether the link is in use: keep its NAT mappings open, or let it doze. */
  "upkeep",
  /** Repeat a revocation notice that was not acknowledged. */
  "notice-retry",
  /** The answers to path-MTU probes should be here. */
  "mtu-probe",
  /** Data has been flowing: look whether big packets get through. */
  "mtu-check",
] as const;

export type LinkTimer = (typeof LINK_TIMERS)[number];

export class LinkTimers {
  readonly #at = new Map<LinkTimer, Instant>();
  readonly #changed: () => void;

  /** `changed`: the table keeps links in the order of their first deadline. */
  constructor(changed: () => void) {
    this.#changed = changed;
  }

  set(timer: LinkTimer, at: Instant): void {
    this.#at.set(timer, at);
    this.#changed();
  }

  /** Sets the timer only if it is not running: the first cause counts, later ones do not push it away. */
  setIfStopped(timer: LinkTimer, at: Instant): void {
    if (!this.#at.has(timer)) this.set(timer, at);
  }

  stop(timer: LinkTimer): void {
    if (this.#at.delete(timer)) this.#changed();
  }

  stopAll(): void {
    this.#at.clear();
    this.#changed();
  }

  isSet(timer: LinkTimer): boolean {
    return this.#at.has(timer);
  }

  next(): Deadline | undefined {
    let first: Deadline | undefined;
    for (const [reason, at] of this.#at) if (first === undefined || at < first.at) first = { at, reason };
    return first;
  }

  /** Takes one timer that is due; undefined when none is. */
  takeDue(now: Instant): LinkTimer | undefined {
    for (const [timer, at] of this.#at) {
      if (at > now) continue;
      this.stop(timer);
      return timer;
    }
    return undefined;
  }
}
