/**
 * The beacon: tells nodes the endpoint it sees them at, brings two nodes together for a punch, and relays frames
 * (pilot protocol §5). One datagram in, at most two out. It sends only to endpoints that wrote to it first, never much
 * more than it got, and never faster for one source than the limits say. Nodes that never prove their numbers are served
 * as the protocol has it, on trust; a proven number can be neither moved nor used as a sender from elsewhere.
 *
 * Not spoken: sync between beacons (07). A datagram of that type from anybody could redirect relayed frames.
 */
import { type Endpoint, sameEndpoint } from "../base/endpoint.ts";
import { type Instant, instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import {
  encodeDiscoverReply,
  encodeNotify,
  encodeProofAccepted,
  encodeProofWanted,
  encodePunchCommand,
  type NodeToBeacon,
  type ProofClaim,
  parseNodeToBeacon,
  relayToDelivery,
} from "../wire/beacon.ts";
import { type ProbeRequest, parseProbe } from "../wire/beacon-probe.ts";
import type { NodeId } from "../wire/ids.ts";
import { BeaconNodes, type ClaimOutcome, PROOF_LIFE_MS } from "./beacon-nodes.ts";
import { KnownSources } from "./known-sources.ts";
import { type NodeProofParts, NodeProofs } from "./node-proofs.ts";
import { RelayLedger } from "./relay-ledger.ts";
import { type RateLimit, SourceLimits, sourceKey } from "./source-limits.ts";

/** Each per source; a node that proved its number is a source of its own. */
export interface BeaconLimits {
  /** Frames relayed for a node that proved its number. */
  readonly relay: RateLimit;
  /** Bytes relayed for it, with what stands in front of the frames. */
  readonly relayBytes: RateLimit;
  /** Frames relayed for an address that proved nothing. */
  readonly unprovenRelay: RateLimit;
  readonly unprovenRelayBytes: RateLimit;
  /** Discoveries and punch requests together. */
  readonly control: RateLimit;
  /** Discoveries that carry a signature, by address also for proven nodes. */
  readonly proofs: RateLimit;
  /** Discoveries and punch requests of all sources together that may be made up. */
  readonly strangers: RateLimit;
}

/**
 * Relaying is bounded by the fair queue first; these limits keep one source from filling the machine's link. Who proved
 * nothing can be anybody who made up a number, and gets what a single processor relays beside all else.
 */
export const DEFAULT_BEACON_LIMITS: BeaconLimits = {
  relay: { perSecond: 1_000_000, burst: 200_000 },
  relayBytes: { perSecond: 1_250_000_000, burst: 250_000_000 },
  unprovenRelay: { perSecond: 25_000, burst: 5000 },
  unprovenRelayBytes: { perSecond: 25_000_000, burst: 5_000_000 },
  control: { perSecond: 500, burst: 2000 },
  proofs: { perSecond: 100, burst: 1000 },
  strangers: { perSecond: 10_000, burst: 20_000 },
};

export interface BeaconOptions {
  readonly limits?: Partial<BeaconLimits>;
  /** Lets nodes prove their numbers. */
  readonly proofs?: NodeProofParts;
  /** Whether a node asked not to be told to others: then nobody is punched towards it. */
  readonly hides?: (node: NodeId) => boolean;
  /** Relays only from and to nodes that did. The reference's daemons cannot. */
  readonly provenOnly?: boolean;
}

export interface BeaconDatagram {
  readonly to: Endpoint;
  readonly bytes: Uint8Array;
  /** Of a relayed frame: whose share of the way out it uses. Others are sent at once. */
  readonly flow?: string;
}

/** Where a relayed frame goes, in which form, and in whose share. */
export interface RelayRoute {
  readonly to: Endpoint;
  readonly extended: boolean;
  readonly flow: string;
  /** The frame's source may be made up: it gives way to others. */
  readonly isStranger: boolean;
}

export interface BeaconCounters {
  received: number;
  malformed: number;
  /** The sum of the five below it. */
  limited: number;
  limitedFrames: number;
  limitedBytes: number;
  limitedControl: number;
  limitedProofs: number;
  limitedStrangers: number;
  relayed: number;
  relayedBytes: number;
  unknownTarget: number;
  /** Frames and punch requests in the name of a number that is proven at another endpoint. */
  forgedSender: number;
  /** Discoveries that would have moved a proven number. */
  unprovenMove: number;
  /** Claims of numbers that nobody registered, while very many are claimed. */
  claimsFull: number;
  /** Frames from or to an unproven number where the operator wants proofs. */
  proofMissing: number;
  /** Punches towards or of a node that wants to be reached through the relay only. */
  relayOnly: number;
  proofs: number;
  proofsRefused: number;
}

export class BeaconServer {
  readonly counters: BeaconCounters = { ...NO_COUNTS };
  readonly ledger = new RelayLedger();
  /** Those that nobody made up. The registry's part of them is noted by who has both. */
  readonly sources = new KnownSources();
  /** Set by who has further ports: what this port answers, if it is the one to answer. */
  answerProbe: ((request: ProbeRequest, source: Endpoint) => Uint8Array | undefined) | undefined;
  readonly #provenLimits: RelayLimits;
  readonly #unprovenLimits: RelayLimits;
  readonly #strangers: StrangerLimits;
  readonly #controlLimits: SourceLimits;
  readonly #proofLimits: SourceLimits;
  readonly #proofs: NodeProofs | undefined;
  readonly #provenOnly: boolean;
  readonly #hides: (node: NodeId) => boolean;
  readonly #nodes: BeaconNodes;

  constructor(options: BeaconOptions = {}) {
    const limits = { ...DEFAULT_BEACON_LIMITS, ...options.limits };
    this.#provenLimits = relayLimits(limits.relay, limits.relayBytes);
    this.#unprovenLimits = relayLimits(limits.unprovenRelay, limits.unprovenRelayBytes);
    this.#strangers = strangerLimits(limits);
    this.#controlLimits = new SourceLimits(limits.control);
    this.#proofLimits = new SourceLimits(limits.proofs);
    this.#proofs = options.proofs === undefined ? undefined : new NodeProofs(options.proofs);
    const { proofs } = options;
    this.#nodes = new BeaconNodes((node) => proofs === undefined || proofs.keyOf(node) !== undefined);
    this.#hides = options.hides ?? (() => false);
    this.#provenOnly = options.provenOnly ?? false;
  }

  get nodeCount(): number {
    return this.#nodes.size;
  }

  get provenCount(): number {
    return this.#nodes.provenCount;
  }

  /**
   * Whether anything but frames is still looked at that comes from sources which may be made up. Who can ask before he
   * knows the source asks this first, and says how many he drops.
   */
  admitsStrangers(now: Instant): boolean {
    return this.#strangers.control.has(now);
  }

  /** What was dropped because of that. */
  noteDroppedStranger(): void {
    this.counters.received++;
    this.#overLimit("limitedStrangers", 1);
  }

  /** Takes ownership of `datagram`: a relayed frame is sent on in the same bytes. */
  handleDatagram(datagram: Uint8Array, source: Endpoint, now: Instant): readonly BeaconDatagram[] {
    const message = parseNodeToBeacon(datagram);
    if (message?.kind === "relay") return this.#relay(datagram, message, source, now);
    this.counters.received++;
    const key = sourceKey(source.address);
    const isStranger = !isConnection(source) && !this.sources.has(key, now);
    const limits = isStranger ? this.#strangers.controlOfEach : this.#controlLimits;
    if (!limits.take(key, now)) return this.#limited("limitedControl");
    if (isStranger && !this.#strangers.control.take(now)) return this.#limited("limitedStrangers");
    if (message === undefined) return this.#probe(datagram, source);
    return message.kind === "discover"
      ? this.#discover(message, source, now)
      : this.#punch(message.requester, message.target, source, now);
  }

  /**
   * Decides about `frames` frames of one sender for one destination that came together, of `bytes` in all. Undefined:
   * dropped, and counted. Who sends them on asks once for the whole run.
   */
  routeRelay(
    { sender, destination }: Pick<Relay, "sender" | "destination">,
    sourceOf: () => Endpoint | undefined,
    { frames, bytes }: { readonly frames: number; readonly bytes: number },
    now: Instant,
  ): RelayRoute | undefined {
    this.counters.received += frames;
    // The cheapest test first: a flood from made-up sources must not keep others waiting.
    const to = this.#nodes.find(destination, now);
    if (to === undefined) return this.#refused("unknownTarget", frames);
    const from = this.#nodes.find(sender, now);
    const isProven = from?.provenAt !== undefined;
    if (this.#provenOnly && !(isProven && to.provenAt !== undefined)) return this.#refused("proofMissing", frames);
    const source = sourceOf();
    if (source === undefined) return this.#refused("malformed", frames);
    if (isProven && !sameEndpoint(from.endpoint, source)) return this.#refused("forgedSender", frames);
    const flow = isProven ? `node ${sender}` : sourceKey(source.address);
    const isStranger = !isProven && !this.sources.has(flow, now);
    const limits = isProven ? this.#provenLimits : isStranger ? this.#strangers.relayOfEach : this.#unprovenLimits;
    if (!limits.frames.take(flow, now, frames)) return this.#overLimit("limitedFrames", frames);
    if (!limits.bytes.take(flow, now, bytes)) return this.#overLimit("limitedBytes", frames);
    // Of addresses that may be made up it means nothing that each has a limit of its own.
    if (isStranger && !this.#strangers.frames.take(now, frames)) return this.#overLimit("limitedFrames", frames);
    if (isStranger && !this.#strangers.bytes.take(now, bytes)) return this.#overLimit("limitedBytes", frames);
    this.counters.relayed += frames;
    this.counters.relayedBytes += bytes;
    if (isStranger) this.ledger.addToOthers(frames, bytes);
    else this.ledger.add(sender, destination, frames, bytes);
    return { to: to.endpoint, extended: to.extended, flow: isStranger ? shareOf(flow) : flow, isStranger };
  }

  /** A node that proved its number by other means, over a connection that stands behind `endpoint`. */
  admitProven(node: NodeId, endpoint: Endpoint, now: Instant): void {
    this.#nodes.prove(node, endpoint, true, now);
  }

  /** That connection ended: nothing can be sent there any more. */
  forgetProven(node: NodeId, endpoint: Endpoint, now: Instant): void {
    if (sameEndpoint(this.#nodes.find(node, now)?.endpoint, endpoint)) this.#nodes.unprove(node);
  }

  /** What tells a node of a notice, if it is known and understands that. */
  notify(node: NodeId, notice: number, now: Instant): BeaconDatagram | undefined {
    const known = this.#nodes.find(node, now);
    return known?.extended ? { to: known.endpoint, bytes: encodeNotify(notice) } : undefined;
  }

  #probe(datagram: Uint8Array, source: Endpoint): readonly BeaconDatagram[] {
    const request = parseProbe(datagram);
    if (request === undefined || isConnection(source)) return this.#dropped("malformed");
    return datagrams([[source, this.answerProbe?.(request, source)]]);
  }

  #relay(datagram: Uint8Array, message: Relay, source: Endpoint, now: Instant): readonly BeaconDatagram[] {
    const route = this.routeRelay(message, () => source, { frames: 1, bytes: datagram.length }, now);
    if (route === undefined) return NOTHING;
    return [{ to: route.to, bytes: relayToDelivery(datagram, route.extended), flow: route.flow }];
  }

  #discover(message: Discover, source: Endpoint, now: Instant): readonly BeaconDatagram[] {
    const reply: [Endpoint, Uint8Array | undefined] = [source, encodeDiscoverReply(source)];
    const { node, claim } = message;
    if (node === 0) return datagrams([reply]);
    const answer = claim === undefined ? undefined : this.#answerClaim(node, claim, source, now);
    this.#noteClaim(this.#nodes.claim(node, source, message.extended, now));
    return datagrams([reply, [source, answer]]);
  }

  #noteClaim(outcome: ClaimOutcome): void {
    if (outcome === "proven-elsewhere") this.counters.unprovenMove++;
    else if (outcome === "full") this.counters.claimsFull++;
  }

  /** What a node that would prove its number gets besides the reply; a proof that holds is entered. */
  #answerClaim(node: NodeId, claim: ProofClaim, source: Endpoint, now: Instant): Uint8Array | undefined {
    if (this.#proofs === undefined) return undefined;
    if (this.#isFreshlyProven(node, source, now)) return encodeProofAccepted();
    if (claim.signature !== undefined && !this.#proofLimits.take(sourceKey(source.address), now)) {
      this.#limited("limitedProofs");
      return undefined;
    }
    const verdict = this.#proofs.check(node, claim, source, now);
    if (verdict === "proven") {
      this.counters.proofs++;
      this.#nodes.prove(node, source, true, now);
      if (!isConnection(source)) this.sources.noteProof(source.address, now);
      return encodeProofAccepted();
    }
    if (verdict === "unsigned" || verdict === "stale-cookie") {
      return encodeProofWanted(this.#proofs.cookie(node, source, now));
    }
    this.counters.proofsRefused++;
    return undefined;
  }

  /** A proof is good for its life, and renewed in the second half of it. */
  #isFreshlyProven(node: NodeId, source: Endpoint, now: Instant): boolean {
    const known = this.#nodes.find(node, now);
    if (known?.provenAt === undefined || !sameEndpoint(known.endpoint, source)) return false;
    return now - known.provenAt < PROOF_LIFE_MS / 2;
  }

  /** The requester's endpoint is learned as in a discovery. Neither side is told when the target is not known. */
  #punch(requester: NodeId, target: NodeId, source: Endpoint, now: Instant): readonly BeaconDatagram[] {
    const claimed = requester === 0 ? "entered" : this.#nodes.claim(requester, source, false, now);
    if (claimed === "proven-elsewhere") return this.#dropped("forgedSender");
    this.#noteClaim(claimed);
    const known = this.#nodes.find(target, now);
    if (known === undefined) return this.#dropped("unknownTarget");
    if (this.#hides(target) || this.#hides(requester)) return this.#dropped("relayOnly");
    if (isConnection(source) || isConnection(known.endpoint)) return NOTHING; // there is no NAT to open
    return datagrams([
      [source, encodePunchCommand(known.endpoint)],
      [known.endpoint, encodePunchCommand(source)],
    ]);
  }

  #limited(reason: LimitReason): readonly BeaconDatagram[] {
    this.#overLimit(reason, 1);
    return NOTHING;
  }

  #overLimit(reason: LimitReason, count: number): undefined {
    this.counters.limited += count;
    this.counters[reason] += count;
    return undefined;
  }

  #dropped(reason: DropReason): readonly BeaconDatagram[] {
    this.counters[reason]++;
    return NOTHING;
  }

  #refused(reason: DropReason, count: number): undefined {
    this.counters[reason] += count;
    return undefined;
  }
}

/** A connection stands behind this endpoint, not a UDP port: its number is one that no port has. */
export function isConnection(endpoint: Endpoint): boolean {
  return endpoint.port > MAX_PORT;
}

/** The endpoint that stands for the connection `number` of a node at `address`. */
export function connectionEndpoint(address: string, number: number): Endpoint {
  return { address, port: MAX_PORT + number };
}

/** Inverse of `connectionEndpoint`. */
export function connectionNumber(endpoint: Endpoint): number {
  return endpoint.port - MAX_PORT;
}

interface RelayLimits {
  readonly frames: SourceLimits;
  readonly bytes: SourceLimits;
}

function relayLimits(frames: RateLimit, bytes: RateLimit, maxSources?: number): RelayLimits {
  return { frames: new SourceLimits(frames, maxSources), bytes: new SourceLimits(bytes, maxSources) };
}

/** Of sources that may be made up: what each of them has, and what they have together. */
interface StrangerLimits {
  readonly relayOfEach: RelayLimits;
  readonly controlOfEach: SourceLimits;
  readonly frames: TokenBucket;
  readonly bytes: TokenBucket;
  readonly control: TokenBucket;
}

function strangerLimits({ unprovenRelay, unprovenRelayBytes, control, strangers }: BeaconLimits): StrangerLimits {
  return {
    relayOfEach: relayLimits(unprovenRelay, unprovenRelayBytes, MAX_STRANGERS),
    controlOfEach: new SourceLimits(control, MAX_STRANGERS),
    frames: bucketOf(unprovenRelay, RELAY_SHARES),
    bytes: bucketOf(unprovenRelayBytes, RELAY_SHARES),
    control: bucketOf(strangers, 1),
  };
}

function bucketOf({ perSecond, burst }: RateLimit, shares: number): TokenBucket {
  return new TokenBucket(shares * perSecond, shares * burst, instant(0));
}

/** Made-up addresses must not be ten thousand flows that each have their turn: all of them have so many shares at most. */
function shareOf(source: string): string {
  let hash = 0;
  for (let i = 0; i < source.length; i++) hash = (Math.imul(hash, 31) + source.charCodeAt(i)) | 0;
  return `share ${(hash >>> 0) % STRANGER_FLOWS}`;
}

type Relay = Extract<NodeToBeacon, { kind: "relay" }>;
type Discover = Extract<NodeToBeacon, { kind: "discover" }>;
type LimitReason = "limitedFrames" | "limitedBytes" | "limitedControl" | "limitedProofs" | "limitedStrangers";
type DropReason = "malformed" | "relayOnly" | "unknownTarget" | "forgedSender" | "proofMissing";

function datagrams(parts: readonly (readonly [Endpoint, Uint8Array | undefined])[]): BeaconDatagram[] {
  return parts.flatMap(([to, bytes]) => (bytes === undefined ? [] : [{ to, bytes }]));
}

const NOTHING: readonly BeaconDatagram[] = [];
const MAX_PORT = 65_535;
/** All sources that may be made up have the limits of so many together. */
const RELAY_SHARES = 4;
const STRANGER_FLOWS = 64;
/** Who is over his limit comes again so soon that many others in between do not push him out. */
const MAX_STRANGERS = 256;
const NO_COUNTS: BeaconCounters = {
  received: 0,
  malformed: 0,
  limited: 0,
  limitedFrames: 0,
  limitedBytes: 0,
  limitedControl: 0,
  limitedProofs: 0,
  limitedStrangers: 0,
  relayed: 0,
  relayedBytes: 0,
  unknownTarget: 0,
  forgedSender: 0,
  unprovenMove: 0,
  claimsFull: 0,
  proofMissing: 0,
  relayOnly: 0,
  proofs: 0,
  proofsRefused: 0,
};
