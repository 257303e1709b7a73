/**
 * Where the beacon finds each node, and who may change that. Anybody may claim a number that never proved itself, as
 * everywhere in this protocol (§5). A number whose owner proved it stays at the endpoint that the proof came from: until
 * the proof ends, a claim from elsewhere changes nothing. Proven numbers are kept apart, so that no flood of made-up
 * numbers can push one out.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import { type Endpoint, sameEndpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import type { NodeId } from "../wire/ids.ts";

export interface KnownNode {
  readonly node: NodeId;
  readonly endpoint: Endpoint;
  /** Understands the newer delivery form and notices. */
  extended: boolean;
  heardAt: Instant;
  /** When its number was last proved from this endpoint; undefined for a mere claim. */
  provenAt: Instant | undefined;
}

/** `full`: so many numbers are claimed that new ones must be known to the registry. */
export type ClaimOutcome = "entered" | "proven-elsewhere" | "full";

export class BeaconNodes {
  /**
   * By node number; bounded, the node heard of longest ago is evicted, and silence ends an entry's use. Its second half is
   * for registered numbers only: those can be made up, too, but not more of them than there are.
   */
  readonly #claimed = new BoundedMap<NodeId, KnownNode>(MAX_CLAIMED);
  /** The same for proven numbers; only registered nodes can get in. */
  readonly #proven = new BoundedMap<NodeId, KnownNode>(MAX_PROVEN);

  readonly #isRegistered: (node: NodeId) => boolean;

  /** `isRegistered` is asked only while many numbers are claimed. */
  constructor(isRegistered: (node: NodeId) => boolean) {
    this.#isRegistered = isRegistered;
  }

  get size(): number {
    return this.#claimed.size + this.#proven.size;
  }

  get provenCount(): number {
    return this.#proven.size;
  }

  /** Undefined for a node that is not known, or was silent for too long. */
  find(node: NodeId, now: Instant): KnownNode | undefined {
    return this.#alive(this.#proven, node, now) ?? this.#alive(this.#claimed, node, now);
  }

  /** A node that once used the extended form keeps it at that endpoint. */
  claim(node: NodeId, endpoint: Endpoint, extended: boolean, now: Instant): ClaimOutcome {
    const known = this.find(node, now);
    const isSame = known !== undefined && sameEndpoint(known.endpoint, endpoint);
    if (known?.provenAt !== undefined) {
      if (isSame) this.#refresh(known, extended, now);
      return isSame ? "entered" : "proven-elsewhere";
    }
    if (known === undefined && this.#claimed.size >= MAX_CLAIMED / 2 && !this.#isRegistered(node)) return "full";
    const isExtended = extended || (isSame && known.extended);
    this.#claimed.set(node, { node, endpoint, extended: isExtended, heardAt: now, provenAt: undefined });
    return "entered";
  }

  prove(node: NodeId, endpoint: Endpoint, extended: boolean, now: Instant): void {
    this.#claimed.delete(node);
    this.#proven.set(node, { node, endpoint, extended, heardAt: now, provenAt: now });
  }

  /** The owner may still be there by its own claim, but the proof is worth nothing any more. */
  unprove(node: NodeId): void {
    this.#proven.delete(node);
  }

  #refresh(known: KnownNode, extended: boolean, now: Instant): void {
    known.heardAt = now;
    known.extended ||= extended;
    this.#proven.touch(known.node);
  }

  #alive(nodes: BoundedMap<NodeId, KnownNode>, node: NodeId, now: Instant): KnownNode | undefined {
    const known = nodes.get(node);
    if (known === undefined) return undefined;
    const isProofOver = known.provenAt !== undefined && now - known.provenAt >= PROOF_LIFE_MS;
    if (!isProofOver && now - known.heardAt < ENTRY_LIFE_MS) return known;
    nodes.delete(node);
    return undefined;
  }
}

const MAX_CLAIMED = 100_000;
const MAX_PROVEN = 100_000;
const ENTRY_LIFE_MS = 10 * 60_000;
export const PROOF_LIFE_MS = 10 * 60_000;
