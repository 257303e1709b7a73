/**
 * How many flows get records of their own: so many at once and then so many a second, for each peer and for all together.
 * Those beyond are added up (audit/tally.ts), so that a peer with a thousand short connections a second fills neither the
 * disk nor the daemon's time, and pushes out no more of what the log remembers.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import type { Instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";

export class FlowQuota {
  readonly #all: TokenBucket;
  /** Key: peer's node. Bound: MAX_PEERS; the one that began longest ago is forgotten, and starts with a full bucket. */
  readonly #peers = new BoundedMap<number, TokenBucket>(MAX_PEERS);

  constructor(now: Instant) {
    this.#all = new TokenBucket(ALL_PER_SECOND, ALL_AT_ONCE, now);
  }

  /** Whether the flow that begins now is told by itself. */
  take(node: number, now: Instant): boolean {
    let peer = this.#peers.get(node);
    if (peer === undefined) {
      peer = new TokenBucket(PEER_PER_SECOND, PEER_AT_ONCE, now);
      this.#peers.set(node, peer);
    }
    return peer.take(now) && this.#all.take(now);
  }
}

export const PEER_AT_ONCE = 500;
export const PEER_PER_SECOND = 10;
export const ALL_AT_ONCE = 2_000;
export const ALL_PER_SECOND = 40;
const MAX_PEERS = 1_024;
