/**
 * The deadlines of one link, by name. A timer that is not set does not exist; the smallest of all links' is the one
 * thing the edge arms a real timer for.
 */
import { type Deadline, type Instant, instant } from "../base/instant.ts";
import type { Link } from "./link.ts";
import type { LinkContext } from "./link-context.ts";

export const LINK_TIMERS = [
  /** Repeat our key exchange: no answer so far. */
  "exchange-retry",
  /** Nobody answered our key exchange, and no late answer is likely any more: what was made for it goes. */
  "exchange-expires",
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
  readonly #link: Link;
  readonly #context: Pick<LinkContext, "timersAt" | "timersChanged">;
  /** Where those of this link begin in the array that all links share: it costs them no memory while none is set. */
  readonly #first: number;

  constructor(context: Pick<LinkContext, "timersAt" | "timersChanged">, link: Link) {
    this.#context = context;
    this.#link = link;
    this.#first = link.index * LINK_TIMERS.length;
    this.#clear();
  }

  set(timer: LinkTimer, at: Instant): void {
    this.#context.timersAt[this.#first + PLACES[timer]] = at;
    this.#context.timersChanged(this.#link);
  }

  /** Sets the timer only if it is not running: the first cause counts, later ones do not push it away. */
  setIfStopped(timer: LinkTimer, at: Instant): void {
    if (!this.isSet(timer)) this.set(timer, at);
  }

  stop(timer: LinkTimer): void {
    if (this.isSet(timer)) this.set(timer, STOPPED);
  }

  stopAll(): void {
    this.#clear();
    this.#context.timersChanged(this.#link);
  }

  isSet(timer: LinkTimer): boolean {
    return this.#context.timersAt[this.#first + PLACES[timer]] !== STOPPED;
  }

  next(): Deadline | undefined {
    const place = this.#firstPlace();
    return place === undefined ? undefined : { at: this.#at(place), reason: LINK_TIMERS[place]! };
  }

  /** Takes one timer that is due, the earliest first; undefined when none is. */
  takeDue(now: Instant): LinkTimer | undefined {
    const place = this.#firstPlace();
    if (place === undefined || this.#at(place) > now) return undefined;
    const timer = LINK_TIMERS[place]!;
    this.stop(timer);
    return timer;
  }

  #firstPlace(): number | undefined {
    let first: number | undefined;
    for (let place = 0; place < LINK_TIMERS.length; place++) {
      if (this.#at(place) < (first === undefined ? STOPPED : this.#at(first))) first = place;
    }
    return first;
  }

  #at(place: number): Instant {
    return this.#context.timersAt[this.#first + place]! as Instant;
  }

  #clear(): void {
    this.#context.timersAt.fill(STOPPED, this.#first, this.#first + LINK_TIMERS.length);
  }
}

const STOPPED = instant(Number.POSITIVE_INFINITY);
const PLACES = Object.fromEntries(LINK_TIMERS.map((timer, place) => [timer, place])) as Record<LinkTimer, number>;
