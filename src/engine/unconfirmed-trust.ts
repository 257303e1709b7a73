/**
 * Trust that only the registry's letters brought. An approval that was held back, here or there, may answer an ask that was taken
 * back since: then this side believes in trust that the other denies, and as that one is silent to whom it does not trust nobody
 * would ever say so. Until the peer itself has spoken for it (a hello, its accept on port 444) the registry is asked now and then
 * whether the two are a pair, for each side tells it at once what ends there. Its "no" opens our ask again. And the peer is sought,
 * for the letter that it needs may be one that never came, or that it took for an old one: in the session it hears at once that we
 * consent. Trust that the peer has spoken for is not asked about: a registry may have forgotten.
 *
 * A peer that says it consents no longer, without having revoked, has no request of ours any more: our ask is made again.
 */
import { after, type Deadline, type Instant } from "../base/instant.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { RegistryEvent } from "../registry/events.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { isConfirmed } from "../trust/trust-record.ts";
import type { NodeId } from "../wire/ids.ts";

export interface UnconfirmedTrustParts {
  readonly book: TrustBook;
  readonly registry: Pick<RegistryClient, "checkTrust">;
  /** The registry knows of no trust between the peer and us, and the peer never spoke for it. */
  denied(node: NodeId, now: Instant): void;
  /** Makes our ask again, if it is open. */
  askAgain(node: NodeId, now: Instant): void;
  /** A session with the peer is wanted, if there is none. */
  seek(node: NodeId, now: Instant): void;
}

export class UnconfirmedTrust {
  readonly #parts: UnconfirmedTrustParts;
  /** When each is asked about. Key: node. Bound: trust records; an entry goes when the peer has spoken or trust has ended. */
  readonly #due = new Map<NodeId, { at: Instant; pauseMs: number }>();
  #nextAt: Instant | undefined;

  constructor(parts: UnconfirmedTrustParts) {
    this.#parts = parts;
  }

  /** Trust with the peer begins, or began in an earlier run. */
  note(node: NodeId, now: Instant): void {
    if (this.#isDoubtful(node)) this.#ask(node, FIRST_PAUSE_MS, now);
  }

  /** What the peer said has opened our ask again; a word of revocation may be on its way behind it. */
  reopened(node: NodeId, now: Instant): void {
    this.#ask(node, FIRST_PAUSE_MS, now);
  }

  /** The registry is there (again), and before long it will know what others held back. */
  registered(now: Instant): void {
    for (const node of [...this.#due.keys()]) this.#ask(node, FIRST_PAUSE_MS, now);
  }

  handleChecked({ node, isPair }: Extract<RegistryEvent, { kind: "trust-checked" }>, now: Instant): void {
    if (isPair === false && this.#due.has(node) && this.#isDoubtful(node)) this.#parts.denied(node, now);
  }

  handleTimeout(now: Instant): void {
    if (this.#nextAt === undefined || this.#nextAt > now) return;
    for (const [node, pauseMs] of this.#takeDue(now)) {
      this.#parts.askAgain(node, now);
      if (!this.#isDoubtful(node)) continue;
      this.#doubt(node, now);
      this.#ask(node, Math.min(2 * pauseMs, LONGEST_PAUSE_MS), now);
    }
  }

  /** With the last pause of each. Of thousands that are doubtful the others stay due, and nothing is made of them. */
  #takeDue(now: Instant): [node: NodeId, pauseMs: number][] {
    const taken: [NodeId, number][] = [];
    let doubtful = 0;
    this.#nextAt = undefined;
    for (const [node, { at, pauseMs }] of this.#due) {
      if (at > now) this.#nextAt = sooner(this.#nextAt, at);
      else if (this.#isDoubtful(node) && ++doubtful > MAX_AT_ONCE)
        this.#nextAt = sooner(this.#nextAt, after(now, FIRST_PAUSE_MS));
      else taken.push([node, pauseMs]);
    }
    for (const [node] of taken) this.#due.delete(node);
    return taken;
  }

  pollTimeout(): Deadline | undefined {
    return this.#nextAt === undefined ? undefined : { at: this.#nextAt, reason: "unconfirmed trust" };
  }

  #doubt(node: NodeId, now: Instant): void {
    this.#parts.registry.checkTrust(node);
    this.#parts.seek(node, now);
  }

  #ask(node: NodeId, pauseMs: number, now: Instant): void {
    const at = after(now, pauseMs);
    this.#due.set(node, { at, pauseMs });
    this.#nextAt = sooner(this.#nextAt, at);
  }

  #isDoubtful(node: NodeId): boolean {
    const record = this.#parts.book.get(node);
    return record?.state === "mutual" && !isConfirmed(record);
  }
}

function sooner(one: Instant | undefined, other: Instant): Instant {
  return one === undefined || other < one ? other : one;
}

/** Both sides must have had time to tell the registry of a trust just made. */
const FIRST_PAUSE_MS = 6_000;
/** A peer may be away for weeks. */
const LONGEST_PAUSE_MS = 3_600_000;
/** Of the questions of one moment; the others come a pause later. */
const MAX_AT_ONCE = 64;
