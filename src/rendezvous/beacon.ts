/**
 * The beacon: tells nodes the endpoint it sees them at, brings two nodes together for a punch, and relays frames
 * (pilot protocol §5). One datagram in, at most two out. It authenticates nobody, because the protocol gives it nothing
 * to check; what it guarantees is that it sends only to endpoints that wrote to it first, never much more than it got,
 * and never faster for one source than the limits say.
 *
 * Not spoken: sync between beacons (07). A datagram of that type from anybody could redirect relayed frames.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import { type Endpoint, sameEndpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import {
  encodeDiscoverReply,
  encodeNotify,
  encodePunchCommand,
  type NodeToBeacon,
  parseNodeToBeacon,
  relayToDelivery,
} from "../wire/beacon.ts";
import type { NodeId } from "../wire/ids.ts";
import { type RateLimit, SourceLimits, sourceKey } from "./source-limits.ts";

export interface BeaconLimits {
  /** Frames relayed, per source. */
  readonly relay: RateLimit;
  /** Discoveries and punch requests together, per source. */
  readonly control: RateLimit;
}

/** The newest reference relays 4,000 frames a second per source; a bulk transfer at 1 Gbit/s needs some 90,000. */
export const DEFAULT_BEACON_LIMITS: BeaconLimits = {
  relay: { perSecond: 100_000, burst: 50_000 },
  control: { perSecond: 500, burst: 2000 },
};

export interface BeaconDatagram {
  readonly to: BeaconSource;
  readonly bytes: Uint8Array;
}

export interface BeaconCounters {
  received: number;
  malformed: number;
  limited: number;
  relayed: number;
  unknownTarget: number;
}

/** Where a datagram came from: an address, or a byte stream, which can be answered but not punched. */
export interface BeaconSource extends Endpoint {
  /** Number of the stream that carries the datagrams of this node; undefined for UDP. */
  readonly stream?: number;
}

interface KnownNode {
  readonly endpoint: BeaconSource;
  /** Understands the newer delivery form and notices. */
  readonly extended: boolean;
  readonly heardAt: Instant;
}

export class BeaconServer {
  readonly counters: BeaconCounters = { received: 0, malformed: 0, limited: 0, relayed: 0, unknownTarget: 0 };
  readonly #relayLimits: SourceLimits;
  readonly #controlLimits: SourceLimits;
  /** By node number; bounded, the node heard of longest ago is evicted, and silence ends an entry's use. */
  readonly #nodes = new BoundedMap<NodeId, KnownNode>(MAX_NODES);

  constructor(limits: Partial<BeaconLimits> = {}) {
    this.#relayLimits = new SourceLimits(limits.relay ?? DEFAULT_BEACON_LIMITS.relay);
    this.#controlLimits = new SourceLimits(limits.control ?? DEFAULT_BEACON_LIMITS.control);
  }

  get nodeCount(): number {
    return this.#nodes.size;
  }

  /** Takes ownership of `datagram`: a relayed frame is sent on in the same bytes. */
  handleDatagram(datagram: Uint8Array, source: BeaconSource, now: Instant): readonly BeaconDatagram[] {
    this.counters.received++;
    const message = parseNodeToBeacon(datagram);
    if (message === undefined) return this.#dropped("malformed");
    const limits = message.kind === "relay" ? this.#relayLimits : this.#controlLimits;
    if (!limits.take(sourceKey(source.address), now)) return this.#dropped("limited");
    switch (message.kind) {
      case "relay":
        return this.#relay(datagram, message.destination, now);
      case "discover":
        return this.#discover(message, source, now);
      case "punch-request":
        return this.#punch(message.requester, message.target, source, now);
    }
  }

  /** What tells a node of a notice, if it is known and understands that. */
  notify(node: NodeId, notice: number, now: Instant): BeaconDatagram | undefined {
    const known = this.#known(node, now);
    return known?.extended ? { to: known.endpoint, bytes: encodeNotify(notice) } : undefined;
  }

  /** The stream has ended: its node is not reached by it any more. */
  forgetStream(node: NodeId, stream: number): void {
    if (this.#nodes.get(node)?.endpoint.stream === stream) this.#nodes.delete(node);
  }

  #relay(datagram: Uint8Array, destination: NodeId, now: Instant): readonly BeaconDatagram[] {
    const known = this.#known(destination, now);
    if (known === undefined) return this.#dropped("unknownTarget");
    this.counters.relayed++;
    return [{ to: known.endpoint, bytes: relayToDelivery(datagram, known.extended) }];
  }

  #discover(
    message: Extract<NodeToBeacon, { kind: "discover" }>,
    source: BeaconSource,
    now: Instant,
  ): readonly BeaconDatagram[] {
    if (message.node !== 0) this.#learn(message.node, source, message.extended, now);
    return datagrams([[source, encodeDiscoverReply(source)]]);
  }

  /** The requester's endpoint is learned as in a discovery. Neither side is told when the target is not known. */
  #punch(requester: NodeId, target: NodeId, source: BeaconSource, now: Instant): readonly BeaconDatagram[] {
    if (requester !== 0) this.#learn(requester, source, false, now);
    const known = this.#known(target, now);
    if (known === undefined) return this.#dropped("unknownTarget");
    if (source.stream !== undefined || known.endpoint.stream !== undefined) return NOTHING; // no NAT to open
    return datagrams([
      [source, encodePunchCommand(known.endpoint)],
      [known.endpoint, encodePunchCommand(source)],
    ]);
  }

  /** A node that once used the extended form keeps it while it stays at the same endpoint. */
  #learn(node: NodeId, endpoint: BeaconSource, extended: boolean, now: Instant): void {
    const known = this.#nodes.get(node);
    const isSame =
      known !== undefined && sameEndpoint(known.endpoint, endpoint) && known.endpoint.stream === endpoint.stream;
    this.#nodes.set(node, { endpoint, extended: extended || (isSame && known.extended), heardAt: now });
  }

  #known(node: NodeId, now: Instant): KnownNode | undefined {
    const known = this.#nodes.get(node);
    if (known === undefined || now - known.heardAt < ENTRY_LIFE_MS) return known;
    this.#nodes.delete(node);
    return undefined;
  }

  #dropped(reason: "malformed" | "limited" | "unknownTarget"): readonly BeaconDatagram[] {
    this.counters[reason]++;
    return NOTHING;
  }
}

function datagrams(parts: readonly (readonly [BeaconSource, Uint8Array | undefined])[]): BeaconDatagram[] {
  return parts.flatMap(([to, bytes]) => (bytes === undefined ? [] : [{ to, bytes }]));
}

const NOTHING: readonly BeaconDatagram[] = [];
const MAX_NODES = 100_000;
const ENTRY_LIFE_MS = 10 * 60_000;
