/**
 * How large an inner packet may be for each peer: the smaller of both interfaces, and what the path between carries,
 * found by probes (tunnel/mtu-search.ts). The result stands in two arrays that the packet path reads.
 *
 * A search begins when the peer shows that it is a pilot-tun, when frames take another way, when the socket refuses a
 * datagram, and when big packets may be getting lost: while data flows, one probe of the size in use goes out at growing
 * intervals, and at once when the flow breaks down. A path that carries full packets costs nothing else.
 * Invariant: an inner packet of 1,280 bytes always passes (RFC 8200 §5): where frames are smaller it is cut.
 */

import type { Endpoint } from "../base/endpoint.ts";
import { after, type Instant } from "../base/instant.ts";
import { KEY_STAT, MAX_LINKS } from "../tunnel/data-plane.ts";
import type { Link } from "../tunnel/link.ts";
import { MtuSearch, PLATEAUS } from "../tunnel/mtu-search.ts";
import { RELAY_PREFIX_BYTES } from "../wire/beacon.ts";
import { BRIDGE_OVERHEAD_BYTES, type BridgeMessage, FEATURE } from "../wire/bridge.ts";
import { underlayHeaderBytes } from "../wire/underlay-address.ts";

export interface PathMtuParts {
  /** Of this node's interface. */
  readonly mtuBytes: number;
  readonly send: (link: Link, message: BridgeMessage) => void;
  readonly rttMs: (link: Link) => number | undefined;
  readonly relay: () => Endpoint | undefined;
}

interface PeerPath {
  /** Of the peer's interface. */
  peerMtuBytes: number;
  takesFragments: boolean;
  /** What the size was found for. */
  way: string;
  /** IP bytes that pass, as far as is known; undefined: nobody knows, full packets are tried. */
  sizeBytes: number | undefined;
  search: MtuSearch | undefined;
  /** In each probe; an answer that names another is about another way. */
  probeId: number;
  checkedAt: Instant;
  checkIntervalMs: number;
  raisedAt: Instant;
  raiseIntervalMs: number;
  /** At the last look at the traffic. */
  lookedAt: Instant;
  sentBytes: number;
  bytesPerMs: number;
}

export class PathMtus {
  /** Per link index: the largest inner packet for the peer. A local program is told when its packet is larger. */
  readonly peerMtu: Int32Array;
  /** Per link index: the largest inner packet that goes in one frame; longer ones are cut. */
  readonly frameBytes: Int32Array;
  readonly #parts: PathMtuParts;
  /** Key: link index. Bound: the links; removed with `forget`. */
  readonly #paths = new Map<number, PeerPath>();

  constructor(parts: PathMtuParts) {
    this.#parts = parts;
    this.peerMtu = new Int32Array(MAX_LINKS).fill(parts.mtuBytes);
    this.frameBytes = new Int32Array(MAX_LINKS).fill(parts.mtuBytes);
  }

  /** IP bytes that the way to the peer is known to carry. */
  underlayBytes(link: Link): number | undefined {
    return this.#paths.get(link.index)?.sizeBytes;
  }

  /** The session ended: the next may find another path. */
  forget(link: Link): void {
    this.#paths.delete(link.index);
    this.peerMtu[link.index] = this.#parts.mtuBytes;
    this.frameBytes[link.index] = this.#parts.mtuBytes;
  }

  /** The peer said what its interface takes and what it can do. */
  heardHello(link: Link, peerMtuBytes: number, features: number, now: Instant): void {
    const path = this.#paths.get(link.index) ?? newPath(now, link);
    this.#paths.set(link.index, path);
    path.peerMtuBytes = peerMtuBytes;
    path.takesFragments = (features & FEATURE.FRAGMENTS) !== 0;
    this.#publish(link, path);
    this.#follow(link, path, now);
  }

  /** Frames go another way, perhaps. */
  moved(link: Link, now: Instant): void {
    const path = this.#paths.get(link.index);
    if (path !== undefined) this.#follow(link, path, now);
  }

  /** The socket refused a datagram as too long for the way to this peer. */
  refusedAsTooLong(link: Link, now: Instant): void {
    const path = this.#paths.get(link.index);
    if (path === undefined || path.search !== undefined || after(path.checkedAt, MIN_CHECK_MS) > now) return;
    this.#check(link, path, now);
  }

  handleAnswer(link: Link, size: number, id: number, now: Instant): void {
    const path = this.#paths.get(link.index);
    if (path?.search === undefined || id !== path.probeId) return;
    path.search.handleAnswer(size + this.#overheadBytes(link), now);
    this.#advance(link, path, now);
  }

  /** Data has been flowing for a while: does the size in use still pass, and perhaps more? */
  handleCheckDue(link: Link, now: Instant): void {
    const path = this.#paths.get(link.index);
    if (path === undefined) return;
    const isStalled = this.#lookAtTraffic(link, path, now);
    if (path.search !== undefined) return;
    const isNarrow = path.sizeBytes !== undefined && path.sizeBytes < this.#enoughBytes(link, path);
    if (isStalled || after(path.checkedAt, path.checkIntervalMs) <= now) this.#check(link, path, now);
    else if (isNarrow && after(path.raisedAt, path.raiseIntervalMs) <= now) this.#raise(link, path, now);
  }

  /** The link's timer for the search. */
  handleProbeDue(link: Link, now: Instant): void {
    const path = this.#paths.get(link.index);
    if (path?.search === undefined) return;
    path.search.handleTimeout(now);
    this.#advance(link, path, now);
  }

  /** What was found for one way says nothing of another; until the search is over the smaller of both is likely right. */
  #follow(link: Link, path: PeerPath, now: Instant): void {
    const way = this.#wayOf(link);
    if (way === path.way || !link.isUp) return;
    path.way = way;
    path.checkIntervalMs = FIRST_CHECK_MS;
    path.raiseIntervalMs = FIRST_RAISE_MS;
    this.#publish(link, path); // a frame's overhead may be another
    this.#begin(link, path, this.#sizesWorthTrying(link, path), 0, now);
  }

  #check(link: Link, path: PeerPath, now: Instant): void {
    path.checkIntervalMs = Math.min(2 * path.checkIntervalMs, MAX_CHECK_MS);
    const sizes = path.sizeBytes === undefined ? this.#sizesWorthTrying(link, path) : [path.sizeBytes];
    this.#begin(link, path, sizes, 0, now);
  }

  #raise(link: Link, path: PeerPath, now: Instant): void {
    path.raisedAt = now;
    path.raiseIntervalMs = Math.min(2 * path.raiseIntervalMs, MAX_RAISE_MS);
    const known = path.sizeBytes!;
    const sizes = [...this.#sizesWorthTrying(link, path), ...PLATEAUS].filter((size) => size > known);
    this.#begin(link, path, sizes, known, now);
  }

  #begin(link: Link, path: PeerPath, first: readonly number[], known: number, now: Instant): void {
    path.probeId = (path.probeId + 1) >>> 0;
    path.checkedAt = now;
    const rttMs = this.#parts.rttMs(link) ?? DEFAULT_RTT_MS;
    const waitMs = Math.min(MAX_WAIT_MS, Math.max(MIN_WAIT_MS, 3 * rttMs));
    const isCheck = first.length === 1 && first[0] === path.sizeBytes;
    const enough = isCheck ? path.sizeBytes! : this.#enoughBytes(link, path);
    path.search = new MtuSearch({ first, enough, known, waitMs }, now);
    this.#advance(link, path, now);
  }

  #advance(link: Link, path: PeerPath, now: Instant): void {
    const search = path.search!;
    const overhead = this.#overheadBytes(link);
    for (let size = search.pollProbe(); size !== undefined; size = search.pollProbe()) {
      this.#parts.send(link, { kind: "mtu-probe", size: size - overhead, id: path.probeId });
    }
    this.#learn(link, path, search, now);
    if (search.deadline === undefined) path.search = undefined;
    else link.schedule("mtu-probe", search.deadline);
  }

  /** While nothing at all is answered, the peer is silent, not the path narrow: what was known stays. */
  #learn(link: Link, path: PeerPath, search: MtuSearch, now: Instant): void {
    const found = search.found;
    if (found === undefined || found === path.sizeBytes) return;
    // In the first round only what would be enough is asked for; a smaller answer is not yet the last word.
    if (path.sizeBytes !== undefined && found < path.sizeBytes && !search.hasRefused(path.sizeBytes)) return;
    if (path.sizeBytes !== undefined && found > path.sizeBytes) path.raiseIntervalMs = FIRST_RAISE_MS;
    path.raisedAt = now;
    path.sizeBytes = found;
    this.#publish(link, path);
  }

  #publish(link: Link, path: PeerPath): void {
    const innerBytes = this.#innerBytes(path);
    const fits = path.sizeBytes === undefined ? innerBytes : path.sizeBytes - this.#overheadBytes(link);
    const peerMtu = Math.max(MIN_MTU_BYTES, Math.min(innerBytes, fits));
    this.peerMtu[link.index] = peerMtu;
    this.frameBytes[link.index] = path.takesFragments ? Math.min(peerMtu, fits) : peerMtu;
  }

  /** True when a stream of data has just broken down: big packets may be getting lost. */
  #lookAtTraffic(link: Link, path: PeerPath, now: Instant): boolean {
    const sentBytes = link.traffic()[KEY_STAT.TX_BYTES]!;
    const bytesPerMs = (sentBytes - path.sentBytes) / Math.max(1, now - path.lookedAt);
    const isStalled = path.bytesPerMs > STALL_MIN_BYTES_PER_MS && bytesPerMs < path.bytesPerMs / STALL_RATIO;
    path.sentBytes = sentBytes;
    path.bytesPerMs = bytesPerMs;
    path.lookedAt = now;
    return isStalled;
  }

  #innerBytes(path: PeerPath): number {
    return Math.max(MIN_MTU_BYTES, Math.min(path.peerMtuBytes, this.#parts.mtuBytes));
  }

  #enoughBytes(link: Link, path: PeerPath): number {
    return this.#innerBytes(path) + this.#overheadBytes(link);
  }

  /** Full packets, and whole Ethernet frames, which tells the operator more. */
  #sizesWorthTrying(link: Link, path: PeerPath): number[] {
    const enough = this.#enoughBytes(link, path);
    return [enough, Math.max(enough, PLATEAUS[0])];
  }

  /** What an inner packet costs on the way to the peer: frame, relay's wrapper, UDP, IP. */
  #overheadBytes(link: Link): number {
    const { isRelayed, direct } = link.path;
    const endpoint = isRelayed ? this.#parts.relay() : direct;
    return BRIDGE_OVERHEAD_BYTES + (isRelayed ? RELAY_PREFIX_BYTES : 0) + underlayHeaderBytes(endpoint);
  }

  /** A new port at the same address is no other path. */
  #wayOf({ path }: Link): string {
    const endpoint = path.isRelayed ? this.#parts.relay() : path.direct;
    return `${path.kind} ${endpoint?.address}`;
  }
}

function newPath(now: Instant, link: Link): PeerPath {
  return {
    peerMtuBytes: 0,
    takesFragments: false,
    way: "",
    sizeBytes: undefined,
    search: undefined,
    probeId: 0,
    checkedAt: now,
    checkIntervalMs: FIRST_CHECK_MS,
    raisedAt: now,
    raiseIntervalMs: FIRST_RAISE_MS,
    lookedAt: now,
    sentBytes: link.traffic()[KEY_STAT.TX_BYTES]!,
    bytesPerMs: 0,
  };
}

const MIN_MTU_BYTES = 1_280; // RFC 8200 §5

/** How long a probe's answer may take: three round trips, within reason. */
const DEFAULT_RTT_MS = 100;
const MIN_WAIT_MS = 100;
const MAX_WAIT_MS = 1_500;
/** While data flows, the size in use is confirmed after these times, doubling. */
const FIRST_CHECK_MS = 2_000;
const MAX_CHECK_MS = 30_000;
const MIN_CHECK_MS = 1_000;
/** A narrow path is asked for more after these times, doubling; the longest is RFC 8899's PMTU_RAISE_TIMER. */
const FIRST_RAISE_MS = 10_000;
const MAX_RAISE_MS = 600_000;
/** A flow of 50 KB/s that falls to an eighth has stalled or ended. */
const STALL_MIN_BYTES_PER_MS = 50;
const STALL_RATIO = 8;
