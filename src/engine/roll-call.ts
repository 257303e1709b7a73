/**
 * Peers that shall be reached without anybody asking for them: all that are trusted, after the start and whenever the registry
 * took this node. A few are called at once, the others in turn, so that thousands cost neither a burst of key exchanges nor
 * a queue of questions that the registry cannot hold. Who sends or receives a packet does not wait for his turn: that
 * reaches the peer by itself.
 */
import { after, type Deadline, type Instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import type { NodeId } from "../wire/ids.ts";

export interface Call {
  /** Agree on keys. */
  readonly connects: boolean;
  /** Ask the registry where the peer is, and what is not known of it. */
  readonly locates: boolean;
}

export class RollCall {
  readonly #call: (node: NodeId, call: Call, now: Instant) => void;
  /** Key: node. Bound: trust records; in the order in which they were added. */
  readonly #waiting = new Map<NodeId, Call>();
  readonly #turns: TokenBucket;
  #nextAt: Instant | undefined;

  constructor(call: (node: NodeId, call: Call, now: Instant) => void, now: Instant) {
    this.#call = call;
    this.#turns = new TokenBucket(CALLS_PER_SECOND, CALLS_AT_ONCE, now);
  }

  /** Those who wait already keep their place. */
  add(node: NodeId, { connects, locates }: Call): void {
    const known = this.#waiting.get(node);
    this.#waiting.set(node, {
      connects: connects || known?.connects === true,
      locates: locates || known?.locates === true,
    });
  }

  /** Calls those whose turn it is. */
  handleTimeout(now: Instant): void {
    this.#nextAt = undefined;
    for (const [node, call] of this.#waiting) {
      if (!this.#turns.take(now)) {
        this.#nextAt = after(now, TURN_MS);
        return;
      }
      this.#waiting.delete(node);
      this.#call(node, call, now);
    }
  }

  pollTimeout(): Deadline | undefined {
    return this.#nextAt && { at: this.#nextAt, reason: "the next peers" };
  }
}

/** Each costs about half a millisecond of work here; ten thousand are reached in under two minutes. */
const CALLS_PER_SECOND = 100;
const CALLS_AT_ONCE = 64;
const TURN_MS = 100;
