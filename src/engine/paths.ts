/**
 * What the node as a whole does about paths: who may name an endpoint of a peer and which of those are tried, punches,
 * where the beacon is, how this node is seen from outside, and what happens when the underlay changes. Which way one
 * peer's frames go is decided by its link (tunnel/path.ts).
 *
 * No amplification: a punch is three empty datagrams, limited per target and in all; private targets only where a peer
 * may be by our own knowledge (pilot protocol §11.15).
 */
import { BoundedMap } from "../base/bounded-map.ts";
import { type Endpoint, formatEndpoint, type LocalAddress, sameEndpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import type { BeaconClient } from "../beacon/client.ts";
import type { ListenAddresses, RegistryClient } from "../registry/client.ts";
import type { DataPlane } from "../tunnel/data-plane.ts";
import type { Link } from "../tunnel/link.ts";
import type { LinkTable, Transmit } from "../tunnel/link-table.ts";
import type { RelayKind } from "../tunnel/path.ts";
import { encodePilp } from "../wire/frame.ts";
import type { NodeId } from "../wire/ids.ts";
import { ipScope, isUnicast, parseIp } from "../wire/underlay-address.ts";

export interface PathsParts {
  readonly dataPlane: DataPlane;
  readonly registry: RegistryClient;
  readonly beacon: BeaconClient | undefined;
  /** Port of the tunnel socket. */
  readonly listenPort: number;
  links(): LinkTable;
}

export class Paths {
  readonly #parts: PathsParts;
  #beaconEndpoint: Endpoint | undefined;
  #relayKind: RelayKind = "relay";
  #local: readonly LocalAddress[] = [];
  #observed: Endpoint | undefined;
  #recheckedAt: Instant | undefined;
  readonly #punches: TokenBucket;
  /** How often this node may be seen somewhere else. */
  readonly #moves: TokenBucket;
  /** Key: target endpoint. Bound: MAX_TARGETS, oldest out; every target that is forgotten was limited by `#punches`. */
  readonly #targets = new BoundedMap<string, TokenBucket>(MAX_TARGETS);
  /** When a punch towards a node was asked for. Key: node. Bound: MAX_REQUESTS, oldest out. */
  readonly #requested = new BoundedMap<NodeId, Instant>(MAX_REQUESTS);
  readonly #transmits: Transmit[] = [];

  constructor(parts: PathsParts, beaconEndpoint: Endpoint | undefined, now: Instant) {
    this.#parts = parts;
    this.#beaconEndpoint = beaconEndpoint;
    this.#punches = new TokenBucket(PUNCHES_PER_SECOND, PUNCH_BURST, now);
    this.#moves = new TokenBucket(MOVES_PER_SECOND, MOVE_BURST, now);
    parts.dataPlane.setRelay(beaconEndpoint);
  }

  /** Where beacon messages and relayed frames go to and must come from. */
  get beaconEndpoint(): Endpoint | undefined {
    return this.#beaconEndpoint;
  }

  get relayKind(): RelayKind {
    return this.#relayKind;
  }

  /** This node's own underlay addresses, as the edge last told them. */
  get localAddresses(): readonly LocalAddress[] {
    return this.#local;
  }

  /** The tunnel socket as the beacon sees it. */
  get observed(): Endpoint | undefined {
    return this.#observed;
  }

  /** `tcp`: the endpoint is a forwarder on this machine that carries datagrams to the beacon through TCP. */
  setBeacon(endpoint: Endpoint, transport: "udp" | "tcp", now: Instant): void {
    const kind = transport === "tcp" ? "tcp" : "relay";
    if (sameEndpoint(this.#beaconEndpoint, endpoint) && this.#relayKind === kind) return;
    this.#beaconEndpoint = endpoint;
    this.#relayKind = kind;
    this.#parts.dataPlane.setRelay(endpoint);
    for (const link of this.#parts.links().links()) link.handleRelayChange();
    this.#tellRegistry();
    this.#parts.beacon?.rediscover(now);
  }

  /**
   * The machine's addresses or routes changed, or it slept (`resumed`): what was known of NAT mappings is void. True when
   * it matters, so that the edge renews its own connections too.
   */
  handleUnderlay(local: readonly LocalAddress[], resumed: boolean, now: Instant): boolean {
    const changed = !sameAddresses(this.#local, local);
    const isFirst = this.#local.length === 0 && this.#observed === undefined;
    this.#local = local.slice(0, MAX_LOCAL);
    if (changed) this.#tellRegistry();
    if (isFirst || !(changed || resumed)) return false;
    this.#parts.beacon?.rediscover(now);
    this.#recheckLinks(now);
    return true;
  }

  /** This node's identity key is another: peers that are connected see it at once, and under the exchange key they have. */
  reintroduce(now: Instant): void {
    for (const link of this.#parts.links().links()) {
      const to = link.path.isRelayed ? this.#beaconEndpoint : link.path.direct;
      if (link.isUp && to !== undefined) link.requestExchange(to, link.path.isRelayed, now, true);
    }
  }

  /**
   * The beacon told how the tunnel socket looks from outside. Each change has the registry told, the beacon asked and
   * links looked at, and whoever can send in the beacon's name can say so at any rate: false when it is one too many; the
   * next reply says it again.
   */
  handleObserved(endpoint: Endpoint, now: Instant): boolean {
    const before = this.#observed;
    if (before !== undefined && !sameEndpoint(before, endpoint) && !this.#moves.take(now)) return false;
    this.#observed = endpoint;
    this.#tellRegistry();
    if (before === undefined || sameEndpoint(before, endpoint)) return true;
    // It may have been the answer to a probe that named no node: the beacon must learn where this one is now.
    this.#parts.beacon?.rediscover(now);
    this.#recheckLinks(now);
    return true;
  }

  /** What was asked through the relay before the beacon knew our new place was not passed on. */
  handleAccepted(now: Instant): void {
    if (this.#recheckedAt !== undefined && now - this.#recheckedAt < ACCEPTED_WITHIN_MS) this.#recheckLinks(now);
    this.#recheckedAt = undefined;
  }

  /** What the registry says of where a peer is; LAN addresses count only where they can mean the same network. */
  handleResolved(node: NodeId, endpoint: Endpoint | undefined, lan: readonly Endpoint[], now: Instant): void {
    const link = this.#parts.links().get(node);
    if (link === undefined || this.#isRelayOnly) return;
    if (endpoint !== undefined && !this.#isOwn(endpoint)) link.suggestEndpoint(endpoint, "registry", now);
    const behindOurNat = endpoint !== undefined && endpoint.address === this.#observed?.address;
    let taken = 0;
    for (const candidate of lan) {
      if (taken >= MAX_LAN || this.#isOwn(candidate) || !this.#mayBeNear(candidate, behindOurNat)) continue;
      taken++;
      link.suggestEndpoint(candidate, "lan", now);
    }
  }

  /** The peer is wanted: its side of the NATs must open too. */
  requestPunch(node: NodeId, now: Instant): void {
    this.#parts.beacon?.suspect(now);
    if (this.#isRelayOnly) return;
    this.#requested.set(node, now);
    this.#parts.beacon?.requestPunch(node);
  }

  /** The beacon says that somebody at `endpoint` and we want to reach each other; it does not say who. */
  handlePunch(endpoint: Endpoint, now: Instant): void {
    if (this.#isRelayOnly) return;
    const links = this.#linksAt(endpoint, now);
    if (!this.#mayPunch(endpoint, links) || !this.#takePunch(endpoint, now)) return;
    for (let i = 0; i < PUNCH_DATAGRAMS; i++) this.#transmits.push({ to: endpoint, datagram: encodePilp() });
    for (const link of links) link.suggestEndpoint(endpoint, "punch", now);
  }

  pollTransmit(): Transmit | undefined {
    return this.#transmits.shift();
  }

  get #isRelayOnly(): boolean {
    return this.#parts.links().relayOnly;
  }

  #tellRegistry(): void {
    const { registry, listenPort } = this.#parts;
    if (this.#isRelayOnly) return registry.setListen(HIDDEN);
    const lan = this.#local
      .map(({ address }) => ({ address, port: listenPort }))
      .filter((endpoint) => !sameEndpoint(endpoint, this.#observed));
    registry.setListen({
      port: listenPort,
      lan,
      ...(this.#observed === undefined ? {} : { observed: this.#observed }),
      // Where UDP is blocked no direct way can be found, from either side.
      ...(this.#relayKind === "tcp" ? { relayOnly: true } : {}),
    });
  }

  /** The first links ask at once, the others within a second, so that a node with many peers sends no burst. */
  #recheckLinks(now: Instant): void {
    this.#recheckedAt = now;
    let position = 0;
    for (const link of this.#parts.links().links()) {
      link.handleUnderlayChange(Math.min(position++ * RECHECK_STEP_MS, RECHECK_SPREAD_MS), now);
    }
  }

  /** Links that this endpoint may belong to: known at that address, or those we just asked a punch for. */
  #linksAt(endpoint: Endpoint, now: Instant): Link[] {
    const known: Link[] = [];
    for (const link of this.#parts.links().links()) {
      if (link.path.targets().some((candidate) => candidate.address === endpoint.address)) known.push(link);
      if (known.length >= MAX_PUNCHED) return known;
    }
    if (known.length > 0) return known;
    for (const [node, at] of this.#requested.entries()) {
      const link = this.#parts.links().get(node);
      if (link !== undefined && now - at < PUNCH_WAIT_MS) known.push(link);
    }
    return known.slice(-MAX_PUNCHED);
  }

  #mayPunch(endpoint: Endpoint, links: readonly Link[]): boolean {
    const bytes = parseIp(endpoint.address);
    if (bytes === undefined || !isUnicast(endpoint) || this.#isOwn(endpoint)) return false;
    if (ipScope(bytes) === "global" || this.#isOnLink(endpoint)) return true;
    return links.some((link) => link.path.targets().some((candidate) => candidate.address === endpoint.address));
  }

  #takePunch(endpoint: Endpoint, now: Instant): boolean {
    const key = formatEndpoint(endpoint);
    let bucket = this.#targets.get(key);
    if (bucket === undefined) {
      bucket = new TokenBucket(PUNCHES_PER_TARGET_SECOND, PUNCH_TARGET_BURST, now);
      this.#targets.set(key, bucket);
    }
    return bucket.take(now) && this.#punches.take(now);
  }

  #mayBeNear(candidate: Endpoint, behindOurNat: boolean): boolean {
    const bytes = parseIp(candidate.address);
    if (bytes === undefined) return false;
    const scope = ipScope(bytes);
    if (scope === "global") return bytes.length === 4 || this.#local.some(({ address }) => isGlobalIpv6(address));
    return scope === "private" && (behindOurNat || this.#isOnLink(candidate));
  }

  #isOnLink(endpoint: Endpoint): boolean {
    return this.#local.some((local) => inSamePrefix(endpoint.address, local));
  }

  #isOwn(endpoint: Endpoint): boolean {
    if (sameEndpoint(endpoint, this.#observed)) return true;
    const { listenPort } = this.#parts;
    return endpoint.port === listenPort && this.#local.some((local) => local.address === endpoint.address);
  }
}

function inSamePrefix(address: string, local: LocalAddress): boolean {
  const a = parseIp(address);
  const b = parseIp(local.address);
  if (a === undefined || b === undefined || a.length !== b.length) return false;
  for (let bit = 0; bit < local.prefixLength; bit += 8) {
    const mask = (0xff00 >> Math.min(8, local.prefixLength - bit)) & 0xff;
    if (((a[bit >> 3]! ^ b[bit >> 3]!) & mask) !== 0) return false;
  }
  return true;
}

function isGlobalIpv6(address: string): boolean {
  const bytes = parseIp(address);
  return bytes?.length === 16 && ipScope(bytes) === "global";
}

function sameAddresses(a: readonly LocalAddress[], b: readonly LocalAddress[]): boolean {
  return a.length === b.length && a.every((local, i) => local.address === b[i]!.address);
}

/** What a relay-only node tells of its endpoints. */
export const HIDDEN: ListenAddresses = { port: 0, lan: [], relayOnly: true };
const MAX_LOCAL = 8;
/** LAN addresses of one peer that are tried; with the registry's and what was heard they fill the candidates. */
const MAX_LAN = 3;
const PUNCH_DATAGRAMS = 3;
/** In all, and towards one endpoint: a link that looks for a direct way asks every few seconds at most. */
const PUNCHES_PER_SECOND = 4;
const PUNCH_BURST = 24;
const PUNCHES_PER_TARGET_SECOND = 0.2;
const PUNCH_TARGET_BURST = 4;
const MOVES_PER_SECOND = 0.2;
const MOVE_BURST = 8;
const MAX_TARGETS = 256;
const MAX_REQUESTS = 64;
/** Links that one punch command may concern. */
const MAX_PUNCHED = 4;
const PUNCH_WAIT_MS = 3_000;
const ACCEPTED_WITHIN_MS = 2_000;
const RECHECK_STEP_MS = 5;
const RECHECK_SPREAD_MS = 1_000;
