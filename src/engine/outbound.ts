/**
 * A packet's way out, TUN → UDP, read from top to bottom: `decide` is called with the rows that the data plane read and
 * writes into each the key slot to seal with and the endpoint slot to send to, or DROP. Nothing here copies a packet that
 * can go at once.
 */
import { readU32 } from "../base/bytes.ts";
import type { DropCounters, DropReason } from "../base/drop-reason.ts";
import type { Instant } from "../base/instant.ts";
import { emptyFlowKey, type FlowKey, portsOf, readFlowKey, SHAPE } from "../policy/flow-key.ts";
import type { FlowTable } from "../policy/flow-table.ts";
import type { Routes } from "../routing/routes.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import {
  type DataPlane,
  DROP,
  LOOPBACK,
  OUT,
  packetOfRow,
  ROW_WORDS,
  type StagedPacket,
} from "../tunnel/data-plane.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import { networkAt } from "../wire/address.ts";
import type { NodeId } from "../wire/ids.ts";
import { IPV6, IPV6_HEADER_BYTES, NEXT_HEADER } from "../wire/ipv6.ts";
import { clampMss, MIN_TCP_HEADER_BYTES, TCP, TCP_FLAG } from "../wire/tcp.ts";
import type { Admission } from "./admission.ts";
import type { AuditTrail } from "./audit-trail.ts";
import type { Governor } from "./governor.ts";
import type { Leases } from "./leases.ts";
import type { Networks } from "./networks.ts";
import type { OwnerQuestions } from "./owner-questions.ts";
import type { PacketSizes } from "./packet-sizes.ts";
import { MODE, type PlainAgents } from "./plain/plain-agents.ts";
import type { NatBinding } from "./plain/tcp-nat.ts";
import type { Refusals } from "./refusals.ts";
import type { RelatedPackets } from "./related-packets.ts";

export interface OutboundParts {
  readonly dataPlane: DataPlane;
  readonly flows: FlowTable;
  readonly admission: Admission;
  readonly governor: Governor;
  readonly leases: Leases;
  readonly related: RelatedPackets;
  readonly owners: OwnerQuestions;
  readonly links: LinkTable;
  readonly routes: Routes;
  readonly networks: Networks;
  readonly trust: TrustBook;
  readonly refusals: Refusals;
  readonly plain: PlainAgents;
  readonly drops: DropCounters;
  readonly sizes: PacketSizes;
  readonly trail: AuditTrail | undefined;
  /** Whether a stranger's node exists at all is only known to the registry; the answer decides what programs are told. */
  refuseStranger(packet: Uint8Array, node: NodeId, now: Instant): void;
}

export class Outbound {
  readonly #parts: OutboundParts;
  readonly #rows: Int32Array;
  readonly #arena: Uint8Array;
  readonly #view: DataView;
  readonly #key: FlowKey;
  /** Link index that was last told about a sent packet, and when: one call per link and batch is enough. */
  #notedLink = -1;
  #notedAt = -1;

  constructor(parts: OutboundParts) {
    this.#parts = parts;
    this.#rows = parts.dataPlane.outbound.rows;
    this.#arena = parts.dataPlane.outbound.arena;
    this.#view = new DataView(this.#arena.buffer, this.#arena.byteOffset, this.#arena.byteLength);
    this.#key = emptyFlowKey(this.#view);
  }

  /** `nowS`: the time of flows. */
  decide(count: number, now: Instant, nowS: number): void {
    for (let row = 0; row < count * ROW_WORDS; row += ROW_WORDS) {
      this.#rows[row + OUT.KEY_SLOT] = DROP;
      const refused = this.#decideOne(row, now, nowS);
      if (refused !== undefined) this.#refused(row, refused);
    }
  }

  /** The row whose words begin at `at` will turn around: TCP with a plain agent ends at the daemon's own sockets. */
  staysHere(at: number): boolean {
    const offset = this.#rows[at + OUT.OFFSET]!;
    const length = this.#rows[at + OUT.LENGTH]!;
    if (length < IPV6_HEADER_BYTES || this.#arena[offset + IPV6.NEXT_HEADER] !== NEXT_HEADER.TCP) return false;
    const node = this.#parts.routes.ownerOf(this.#arena, offset + IPV6.DESTINATION);
    return node !== undefined && this.#parts.plain.endsTcp(node);
  }

  #decideOne(row: number, now: Instant, nowS: number): DropReason | undefined {
    const { flows, links, trust, admission, governor, leases, refusals, related, owners } = this.#parts;
    const offset = this.#rows[row + OUT.OFFSET]!;
    const length = this.#rows[row + OUT.LENGTH]!;

    // 1. An IPv6 packet to one address.
    if (length < IPV6_HEADER_BYTES || this.#arena[offset]! >> 4 !== 6) return "not-ipv6";
    if (this.#arena[offset + 24] === 0xff) return "multicast";

    // 2. A flow we know under today's trust, or one we look at now.
    const key = this.#key;
    const shape = readFlowKey(this.#arena, offset, length, SIDE, key);
    if (shape === SHAPE.MALFORMED) return "malformed-packet";
    const binding = shape === SHAPE.FLOW ? this.#findConnection(offset) : undefined;
    if (binding?.side === "daemon") return this.#sendToProgram(row, offset, binding, now, nowS);
    let flow = -1;
    if (this.#inPrefix(offset)) {
      if (shape === SHAPE.FLOW) flow = flows.find(key);
      else flow = related.find(shape, this.#arena, offset, length, SIDE, key, nowS);
    }
    if (flow < 0 || !flows.isLive(flow, trust.epoch, nowS, key.opens, false)) {
      const admitted = this.#admit(offset, length, now);
      if (admitted === "waits") return owners.hold(this.#packetOf(row)) ? undefined : "owner-queue-full";
      if (typeof admitted === "string") {
        if (binding !== undefined) this.#parts.plain.connections.cutOne(binding.id, now);
        return admitted;
      }
      flow = admitted;
    }
    const bytes = this.#bytesOnTheWay(row);
    const isGoverned = flows.isGoverned(flow);
    const beyond = isGoverned
      ? governor.passOut(flow, this.#arena.subarray(offset, offset + length), bytes, now)
      : undefined;
    if (beyond !== undefined) return beyond;
    if (!leases.spend(flows.linkOf(flow), bytes)) {
      refusals.leaseEnded(this.#arena.subarray(offset, offset + length), now);
      return "lease-ended";
    }
    const way = isGoverned ? governor.wayOf(flow) : undefined;
    const link = flows.noteSent(flow, bytes, nowS);
    if (shape === SHAPE.FIRST_FRAGMENT) related.noteFirstFragment(this.#arena, offset, length, SIDE, key, flow, nowS);

    // 3. It must fit the far interface and the path, segment by segment; what fits no frame but may be cut is.
    const segmentBytes =
      this.#rows[row + OUT.GSO_TYPE] === 0
        ? length
        : this.#rows[row + OUT.HEADER_LENGTH]! + this.#rows[row + OUT.GSO_SIZE]!;
    const frameBytes = this.#parts.sizes.mtus.frameBytes[link]!;
    const isLong = segmentBytes > frameBytes;
    if (isLong && segmentBytes > this.#parts.sizes.mtus.peerMtu[link]!) {
      const mtuBytes = this.#parts.sizes.mtus.peerMtu[link]!;
      this.#parts.refusals.packetTooBig(this.#arena.subarray(offset, offset + length), mtuBytes, now);
      return "too-big";
    }
    if (this.#arena[offset + IPV6.NEXT_HEADER] === NEXT_HEADER.TCP) {
      admission.noteTcpEnd(this.#arena, offset, flow, SIDE);
      this.#followTcp(row, offset, flow, frameBytes);
    }

    // 4. A plain agent takes no packets: translated for it, or copied as long as nobody knows whether it is one.
    if (this.#parts.plain.modes[link] !== MODE.WHOLE) {
      const verdict = this.#parts.plain.handlePacket(links.at(link)!, this.#packetOf(row, way), now);
      if (verdict === "loopback") this.#rows[row + OUT.KEY_SLOT] = LOOPBACK;
      if (verdict === "loopback" || verdict === "taken") return undefined;
      if (verdict !== "whole") return verdict;
    }

    // 5. A key to seal with, or a place to wait for one.
    const keySlot = links.sendKey[link]!;
    if (keySlot < 0) return this.#stage(row, link, way, now);
    const ownSlot = links.sendEndpoint[link]!;
    const endpointSlot = way === undefined ? ownSlot : links.at(link)!.slotFor(way, now);
    // What must be cut goes the link's own way and no other.
    if (endpointSlot === undefined || (isLong && endpointSlot !== ownSlot)) {
      governor.refuseDetour(links.at(link)!, this.#arena.subarray(offset, offset + length), now);
      return "wrong-path";
    }
    if (isLong) {
      this.#parts.sizes.long.send(links.at(link)!, keySlot, this.#packetOf(row), frameBytes);
    } else {
      this.#rows[row + OUT.KEY_SLOT] = keySlot;
      this.#rows[row + OUT.ENDPOINT_SLOT] = endpointSlot;
    }
    if (this.#notedLink !== link || this.#notedAt !== now) {
      this.#notedLink = link;
      this.#notedAt = now;
      links.at(link)!.noteSent(now);
    }
    return undefined;
  }

  /** A superpacket's headers go with each of its segments. */
  #bytesOnTheWay(row: number): number {
    const length = this.#rows[row + OUT.LENGTH]!;
    if (this.#rows[row + OUT.GSO_TYPE] === 0) return length;
    const headers = this.#rows[row + OUT.HEADER_LENGTH]!;
    return length + (Math.ceil((length - headers) / this.#rows[row + OUT.GSO_SIZE]!) - 1) * headers;
  }

  #refused(row: number, reason: DropReason): void {
    const { drops, trail, routes } = this.#parts;
    drops.count(reason);
    const offset = this.#rows[row + OUT.OFFSET]!;
    if (trail === undefined || this.#rows[row + OUT.LENGTH]! < IPV6_HEADER_BYTES) return;
    trail.denied(reason, "out", routes.ownerOf(this.#arena, offset + 24), this.#key);
  }

  /** The flow table compares the last 12 bytes of addresses; the first 4 are the same for all of them. */
  #inPrefix(offset: number): boolean {
    const word = this.#parts.routes.prefixWord;
    return this.#view.getInt32(offset + 8) === word && this.#view.getInt32(offset + 24) === word;
  }

  /** The slow way, once per flow and epoch: ours to send, somebody's to receive, and both consent. */
  #admit(offset: number, length: number, now: Instant): number | DropReason | "waits" {
    const { routes, trust, refusals, links, admission } = this.#parts;
    const packet = this.#arena.subarray(offset, offset + length);
    if (!routes.isLocal(this.#arena, offset + 8)) {
      refusals.foreignSource(packet, now);
      return "spoofed-source";
    }
    const node = routes.ownerOf(this.#arena, offset + 24);
    if (node === undefined || routes.isLocal(this.#arena, offset + 24)) {
      return this.#parts.networks.refuseUnrouted(packet, now);
    }
    const state = trust.stateOf(node);
    if (state === "none") {
      this.#parts.refuseStranger(packet, node, now);
      return "not-trusted";
    }
    if (state === "lease-ended") {
      refusals.leaseEnded(packet, now);
      return "lease-ended";
    }
    if (state !== "mutual") {
      refusals.prohibited(packet, now);
      return state === "revoked" || state === "revoked-by-peer" ? "revoked" : "not-trusted";
    }
    const membership = this.#parts.networks.admits(this.#arena, offset + 24, offset + 8, node, now);
    if (membership !== "yes") {
      if (membership === "no") refusals.noRoute(packet, now);
      return "not-member"; // while nobody knows, the program asks again by itself
    }
    const link = links.get(node);
    if (link === undefined) {
      refusals.unreachable(packet, now);
      return "no-path";
    }
    const opened = admission.open(this.#key, link, SIDE, now);
    if (typeof opened === "string" && opened !== "waits") refusals.prohibited(packet, now);
    return opened;
  }

  /** Keeps what a reset needs, and keeps the peer's segments within its interface and our frames. */
  #followTcp(row: number, offset: number, flow: number, mtuBytes: number): void {
    const tcp = offset + IPV6_HEADER_BYTES;
    const flags = this.#arena[tcp + TCP.FLAGS]!;
    if (flags & TCP_FLAG.ACK) this.#parts.flows.noteAckSent(flow, this.#view.getInt32(tcp + TCP.ACKNOWLEDGEMENT));
    else if (flags & TCP_FLAG.SYN) this.#parts.flows.noteSynSent(flow, this.#view.getInt32(tcp + TCP.SEQUENCE));
    if (flags & TCP_FLAG.SYN) {
      const partial = this.#rows[row + OUT.CSUM_START] !== 0;
      const end = offset + this.#rows[row + OUT.LENGTH]!;
      clampMss(this.#arena.subarray(0, end), offset, tcp, mtuBytes - TCP_OVERHEAD_BYTES, partial);
    }
  }

  #stage(row: number, linkIndex: number, way: StagedPacket["way"], now: Instant): DropReason | undefined {
    const packet = this.#packetOf(row, way);
    const evicted = this.#parts.links.at(linkIndex)!.stage({ ...packet, bytes: packet.bytes.slice() }, now);
    if (evicted > 0) this.#parts.drops.count("staging-full", evicted);
    return undefined;
  }

  /** Its bytes are borrowed. */
  #packetOf(row: number, way?: StagedPacket["way"]): StagedPacket {
    return packetOfRow(this.#parts.dataPlane.outbound, row, way);
  }

  /**
   * The connection to a plain agent that a packet belongs to. On the daemon's side of it no program sent the packet, so
   * nobody need be allowed to.
   */
  #findConnection(offset: number): NatBinding | undefined {
    const { plain, routes } = this.#parts;
    if (this.#key.protocol !== NEXT_HEADER.TCP || plain.connections.nat.isEmpty) return undefined;
    const node = routes.ownerOf(this.#arena, offset + 24);
    if (node === undefined || !routes.isLocal(this.#arena, offset + 8)) return undefined;
    const network = networkAt(this.#arena, offset + 24);
    if (network !== networkAt(this.#arena, offset + 8)) return undefined;
    const binding = plain.connections.nat.find(node, network, this.#key.ports >>> 16, this.#key.ports & 0xffff);
    const isStrange = binding?.side === "daemon" && this.#key.opens && !plain.connections.isOwnSyn(binding);
    return isStrange ? undefined : binding;
  }

  /**
   * Turned around, and what a later reset of the program must carry is kept. The first packet of a connection that the
   * agent begins is where that is judged.
   */
  #sendToProgram(row: number, offset: number, binding: NatBinding, now: Instant, nowS: number): DropReason | undefined {
    const { flows, governor, leases, owners, plain } = this.#parts;
    const packet = this.#packetOf(row);
    const key = this.#key;
    const before = key.opens ? { ...packet, bytes: packet.bytes.slice() } : packet;
    plain.turnAround(packet.bytes, binding, packet.csumStart !== 0);
    key.remoteOffset = offset + 8;
    key.localOffset = offset + 24;
    key.ports = portsOf(this.#view, offset, packet.bytes.length, key.protocol, "source-is-remote");
    const flow = key.opens ? this.#openFor(offset, now) : flows.find(key);
    if (flow === "waits") return owners.hold(before) ? undefined : "owner-queue-full";
    if (typeof flow === "string") {
      plain.connections.refuse(binding.id, now);
      return flow;
    }
    this.#rows[row + OUT.KEY_SLOT] = LOOPBACK;
    if (flow < 0) return undefined;
    if (key.opens) plain.connections.setWay(binding.id, governor.wayOf(flow));
    const bytes = this.#bytesOnTheWay(row);
    const beyond = flows.isGoverned(flow) ? governor.passTranslated(flow, bytes, now) : undefined;
    const refused = beyond ?? (leases.spend(flows.linkOf(flow), bytes) ? undefined : "lease-ended");
    if (refused !== undefined) {
      this.#rows[row + OUT.KEY_SLOT] = DROP;
      return refused;
    }
    flows.noteNextSeq(flow, nextSequence(packet.bytes));
    flows.noteReceived(flow, bytes, nowS);
    return undefined;
  }

  /** A plain agent begins a connection: its first packet stands at `offset`, as the program will see it. */
  #openFor(offset: number, now: Instant): number | DropReason | "waits" {
    const { routes, links, trust, admission } = this.#parts;
    const node = routes.ownerOf(this.#arena, offset + 8);
    const link = node === undefined ? undefined : links.get(node);
    if (link === undefined || trust.stateOf(link.node) !== "mutual") return "not-trusted";
    return admission.open(this.#key, link, "source-is-remote", now);
  }
}

/** What follows this TCP packet; also of a superpacket. */
function nextSequence(packet: Uint8Array): number {
  const tcp = IPV6_HEADER_BYTES;
  const headerBytes = (packet[tcp + TCP.DATA_OFFSET]! >>> 4) * 4;
  const flags = packet[tcp + TCP.FLAGS]!;
  const ends = (flags & TCP_FLAG.SYN ? 1 : 0) + (flags & TCP_FLAG.FIN ? 1 : 0);
  return (readU32(packet, tcp + TCP.SEQUENCE) + packet.length - tcp - headerBytes + ends) | 0;
}

/** Of every packet that comes this way. */
const SIDE = "source-is-local";
/** IPv6 and TCP headers without options: what a segment costs beyond its payload. */
const TCP_OVERHEAD_BYTES = IPV6_HEADER_BYTES + MIN_TCP_HEADER_BYTES;
