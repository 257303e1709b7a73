/**
 * What peers have used of the amounts that rules grant them: one meter for each rule and peer, shared by all flows of the
 * peer under the rule, kept while the rule stays in the policy word for word.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import type { Instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import type { NodeId } from "../wire/ids.ts";
import type { Rule, Terms } from "./rule.ts";
import { SlidingCount } from "./sliding-count.ts";

/** Why a meter lets nothing more pass; also the reason under which the packet is counted. */
export type Spent = "over-limit" | "over-budget" | "over-flows";

export type Heading = "out" | "in";

export class Meter {
  readonly #buckets: Readonly<Record<Heading, TokenBucket>> | undefined;
  readonly #budget: SlidingCount | undefined;
  /** Bytes of the budget that must be left for a flow to begin: the largest run of packets, if so much was granted at all. */
  readonly #leastLeft: number;
  readonly #flows: SlidingCount | undefined;

  constructor({ limitBytesPerS, budget, flows }: Terms, now: Instant) {
    this.#buckets =
      limitBytesPerS === undefined ? undefined : { out: bucket(limitBytesPerS, now), in: bucket(limitBytesPerS, now) };
    this.#budget = budget && new SlidingCount(budget);
    this.#leastLeft = Math.min(LARGEST_RUN_BYTES, (budget?.most ?? 0) / 16);
    this.#flows = flows && new SlidingCount(flows);
  }

  /** A packet, or a run of them, of `bytes` wants to pass; it counts only when it does. */
  pass(heading: Heading, bytes: number, now: Instant): Spent | undefined {
    if (this.#budget?.fits(bytes, now) === false) return "over-budget";
    if (this.#buckets?.[heading].takeOnCredit(now, bytes) === false) return "over-limit";
    this.#budget?.add(bytes, now);
    return undefined;
  }

  /** A flow wants to begin, with a packet of `bytes`; nothing is counted yet. */
  mayBegin(now: Instant): Spent | undefined {
    if (this.#flows?.fits(1, now) === false) return "over-flows";
    return this.#budget?.fits(this.#leastLeft, now) === false ? "over-budget" : undefined;
  }

  noteBegun(now: Instant): void {
    this.#flows?.add(1, now);
  }
}

export class Meters {
  /** By rule number; undefined where the rule has no terms. */
  #byRule: readonly (RuleMeters | undefined)[] = [];

  /** Rules that stay keep their meters. */
  replace(rules: readonly Rule[]): void {
    const known = new Map<string, RuleMeters>();
    for (const meters of this.#byRule) if (meters !== undefined) known.set(meters.rule.text, meters);
    this.#byRule = rules.map((rule) => {
      if (rule.terms === undefined) return undefined;
      const meters = known.get(rule.text) ?? new RuleMeters(rule);
      known.delete(rule.text); // of two rules of the same words only the first ever decides
      return meters;
    });
  }

  /** Undefined: the rule grants without measure. */
  of(rule: number, node: NodeId, now: Instant): Meter | undefined {
    return this.#byRule[rule]?.of(node, now);
  }
}

class RuleMeters {
  readonly rule: Rule;
  /** Key: node. Bound: MAX_PEERS, the one whose first flow was longest ago goes. */
  readonly #meters = new BoundedMap<NodeId, Meter>(MAX_PEERS);

  constructor(rule: Rule) {
    this.rule = rule;
  }

  of(node: NodeId, now: Instant): Meter {
    const known = this.#meters.get(node);
    if (known !== undefined) return known;
    const meter = new Meter(this.rule.terms!, now);
    this.#meters.set(node, meter);
    return meter;
  }
}

function bucket(bytesPerS: number, now: Instant): TokenBucket {
  return new TokenBucket(bytesPerS, Math.max(bytesPerS * BURST_S, LEAST_BURST_BYTES), now);
}

/**
 * Over a short way TCP loses all that is under way when it meets a limit, and is silent for 200 ms at least before it sends
 * again (TCP_RTO_MIN of Linux): a bucket that is full sooner gives away what it was granted meanwhile.
 */
const BURST_S = 0.3;
const LARGEST_PACKET_BYTES = 65_536;
/** A superpacket on the way: each of its packets, 200 at most, has headers of its own. */
const LARGEST_RUN_BYTES = LARGEST_PACKET_BYTES + 16_384;
const LEAST_BURST_BYTES = LARGEST_PACKET_BYTES;
/** As many as there can be links. */
const MAX_PEERS = 16_384;
