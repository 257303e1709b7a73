/**
 * One search for the largest datagram that a path carries, by probes that the far side acknowledges (RFC 8899, without
 * its dependence on ICMP). Sizes are whole IP packets on the underlay.
 *
 * Rounds: the sizes that would be enough; then the plateaus below them (RFC 1191 §7.1), all at once; then ever narrower
 * gaps. A size nobody acknowledged after PROBE_TRIES does not pass. Invariant: `low` was acknowledged, or was known
 * before; `high` was not acknowledged. An acknowledgement that comes late still counts.
 */
import { after, type Instant } from "../base/instant.ts";

export interface MtuSearchGoal {
  /** Sizes of the first round. */
  readonly first: readonly number[];
  /** Passing this ends the search: no packet needs more. */
  readonly enough: number;
  /** A size that is known to pass, 0 for none. With one, a first round without an answer ends the search. */
  readonly known: number;
  /** How long an acknowledgement may take before the next try. */
  readonly waitMs: number;
}

export class MtuSearch {
  readonly #goal: MtuSearchGoal;
  #low: number;
  #high = Number.POSITIVE_INFINITY;
  /** Largest first. BOUNDED by the plateaus and SPREAD. */
  #sizes: readonly number[];
  #round = 0;
  #tries = 0;
  #deadline: Instant | undefined;
  #probes: number[] = [];

  constructor(goal: MtuSearchGoal, now: Instant) {
    this.#goal = goal;
    this.#low = goal.known;
    this.#sizes = largestFirst(goal.first);
    this.#try(now);
  }

  /** When to call `handleTimeout`; undefined when the search is over. */
  get deadline(): Instant | undefined {
    return this.#deadline;
  }

  /** The largest size that passes as far as is known; undefined while nothing does. */
  get found(): number | undefined {
    return this.#low === 0 ? undefined : this.#low;
  }

  /** True once a size that `size` includes was tried in vain. */
  hasRefused(size: number): boolean {
    return this.#high <= size;
  }

  /** Size of the next probe to send, until undefined. */
  pollProbe(): number | undefined {
    return this.#probes.shift();
  }

  /** The far side has received a probe of this size. */
  handleAnswer(size: number, now: Instant): void {
    if (this.#deadline === undefined || size <= this.#low) return;
    this.#low = size;
    if (size >= this.#sizes[0]!) this.#conclude(now);
  }

  handleTimeout(now: Instant): void {
    if (this.#deadline === undefined || this.#deadline > now) return;
    if (this.#tries < PROBE_TRIES) this.#try(now);
    else this.#conclude(now);
  }

  #try(now: Instant): void {
    this.#tries++;
    this.#probes = this.#sizes.filter((size) => size > this.#low);
    this.#deadline = after(now, this.#goal.waitMs);
  }

  /** The round is over: the next, or the end. */
  #conclude(now: Instant): void {
    const refused = this.#sizes.filter((size) => size > this.#low);
    this.#high = Math.min(this.#high, ...refused);
    this.#sizes = largestFirst(this.#nextSizes());
    this.#round++;
    this.#tries = 0;
    if (this.#sizes.length > 0) return this.#try(now);
    this.#deadline = undefined;
    this.#probes = [];
  }

  #nextSizes(): readonly number[] {
    const { enough, known } = this.#goal;
    if (this.#low >= enough) return [];
    if (this.#low > 0) return this.#low === known ? [] : spread(this.#low, this.#high);
    return this.#round === 0 ? PLATEAUS.filter((size) => size < this.#high) : [];
  }
}

function largestFirst(sizes: readonly number[]): readonly number[] {
  return [...new Set(sizes)].sort((a, b) => b - a);
}

/** Sizes between two others, evenly. */
function spread(low: number, high: number): number[] {
  const step = Math.max(1, Math.ceil((high - low) / (SPREAD + 1)));
  const sizes: number[] = [];
  for (let size = low + step; size < high; size += step) sizes.push(size);
  return sizes;
}

/** MTUs that occur: Ethernet, PPPoE, tunnels of several kinds, IPv6's minimum, X.25 and radio, IPv4's minimum. */
export const PLATEAUS = [1500, 1492, 1480, 1400, 1280, 1100, 1006, 576] as const;
/** RFC 8899 §5.1.2 MAX_PROBES. */
const PROBE_TRIES = 3;
const SPREAD = 7;
