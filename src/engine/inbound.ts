/**
 * A packet's way in, UDP → TUN, read from top to bottom: the data plane has authenticated each frame, then checked its
 * counter, and hands up rows; `decide` tells for each inner packet (or run of segments of one flow) whether the peer
 * that sent it may, and passes everything else on to whom it concerns.
 */
import { readU16, readU32 } from "../base/bytes.ts";
import type { DropCounters, DropReason } from "../base/drop-reason.ts";
import type { Endpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import { emptyFlowKey, type FlowKey, readFlowKey, SHAPE } from "../policy/flow-key.ts";
import type { FlowTable } from "../policy/flow-table.ts";
import type { Routes } from "../routing/routes.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { ACCEPT, type DataPlane, DROP, IN, ROW_FLAG, ROW_KIND, ROW_WORDS } from "../tunnel/data-plane.ts";
import type { Link } from "../tunnel/link.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import { IPV6, IPV6_HEADER_BYTES, NEXT_HEADER } from "../wire/ipv6.ts";
import { clampMss, MIN_TCP_HEADER_BYTES, TCP, TCP_FLAG } from "../wire/tcp.ts";
import type { Admission } from "./admission.ts";
import type { AuditTrail } from "./audit-trail.ts";
import type { Governor } from "./governor.ts";
import type { Leases } from "./leases.ts";
import type { Networks } from "./networks.ts";
import type { OwnerQuestions, WaitingInbound } from "./owner-questions.ts";
import type { PacketSizes } from "./packet-sizes.ts";
import { MODE, type PlainAgents } from "./plain/plain-agents.ts";
import type { RelatedPackets } from "./related-packets.ts";

export interface InboundParts {
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
  readonly plain: PlainAgents;
  readonly trust: TrustBook;
  readonly drops: DropCounters;
  readonly mtuBytes: number;
  readonly sizes: PacketSizes;
  readonly trail: AuditTrail | undefined;
  /** The peer sends packets though it was not taken for a pilot-tun; false when this node takes none. */
  heardPacket(link: Link, now: Instant): boolean;
  /**
   * A whole virtual packet of an authenticated peer that is not bridge data; borrowed. `segmentBytes`: it holds a run of
   * stream packets with so much payload each; 0 when it is one.
   */
  handleVirtual(link: Link, packet: Uint8Array, segmentBytes: number, now: Instant): DropReason | undefined;
  /** A datagram that is no opened frame; borrowed. `relayed`: the wrapper was taken off. */
  handleDatagram(
    datagram: Uint8Array,
    sourceOf: () => Endpoint,
    relayed: boolean,
    now: Instant,
  ): DropReason | undefined;
}

export class Inbound {
  readonly #parts: InboundParts;
  readonly #rows: Int32Array;
  /** What is being looked at: the batch's arena, for a moment a packet that came in pieces. */
  #arena: Uint8Array;
  #view: DataView;
  readonly #key: { -readonly [K in keyof FlowKey]: FlowKey[K] };
  /** Of the batch. */
  #nowS = 0;
  /** The packet that is looked at came through the relay. */
  #byRelay = false;

  constructor(parts: InboundParts) {
    this.#parts = parts;
    this.#rows = parts.dataPlane.inbound.rows;
    this.#arena = parts.dataPlane.inbound.arena;
    this.#view = new DataView(this.#arena.buffer, this.#arena.byteOffset, this.#arena.byteLength);
    this.#key = emptyFlowKey(this.#view);
  }

  /** `nowS`: the time of flows. */
  decide(count: number, now: Instant, nowS: number): void {
    this.#nowS = nowS;
    for (let row = 0; row < count * ROW_WORDS; row += ROW_WORDS) {
      this.#rows[row + IN.VERDICT] = DROP;
      const refused =
        this.#rows[row + IN.KIND] === ROW_KIND.OTHER ? this.#passOn(row, now) : this.#decideOpened(row, now);
      if (refused !== undefined) this.#parts.drops.count(refused, Math.max(1, this.#rows[row + IN.SEGMENTS]!));
    }
  }

  #passOn(row: number, now: Instant): DropReason | undefined {
    const offset = this.#rows[row + IN.OFFSET]!;
    const datagram = this.#arena.subarray(offset, offset + this.#rows[row + IN.LENGTH]!);
    const slot = this.#rows[row + IN.SOURCE]!;
    const relayed = (this.#rows[row + IN.FLAGS]! & ROW_FLAG.RELAYED) !== 0;
    return this.#parts.handleDatagram(datagram, () => this.#parts.dataPlane.source(slot), relayed, now);
  }

  #decideOpened(row: number, now: Instant): DropReason | undefined {
    // 1. Whose key opened it. (A key removed earlier in this batch has no link any more.)
    const keySlot = this.#rows[row + IN.KEY_SLOT]!;
    const link = this.#parts.links.ofKey(keySlot);
    if (link === undefined) return "no-session";

    // 2. The peer lives, and this is where.
    const flags = this.#rows[row + IN.FLAGS]!;
    if (this.#parts.links.relayOnly && (flags & ROW_FLAG.RELAYED) === 0) return "direct-refused";
    const isPacket = this.#rows[row + IN.KIND] === ROW_KIND.PACKET;
    const moved = (flags & ROW_FLAG.MOVED) !== 0;
    const source = moved ? this.#parts.dataPlane.source(this.#rows[row + IN.SOURCE]!) : undefined;
    this.#byRelay = (flags & ROW_FLAG.RELAYED) !== 0;
    link.handleOpened(keySlot, source, this.#byRelay, isPacket, now);

    if (isPacket && this.#parts.links.onlyAgrees[keySlot] === 1) return "base-session";

    const offset = this.#rows[row + IN.OFFSET]!;
    const length = this.#rows[row + IN.LENGTH]!;
    if (!isPacket) {
      const segmentBytes = this.#rows[row + IN.SEGMENTS]! > 1 ? this.#rows[row + IN.SEGMENT_BYTES]! : 0;
      return this.#parts.handleVirtual(link, this.#arena.subarray(offset, offset + length), segmentBytes, now);
    }
    const totalBytes = this.#rows[row + IN.TOTAL_BYTES]!;
    const refused = this.#decidePacket(link, offset, length, totalBytes, this.#rows[row + IN.NEXT_SEQ]!, now);
    if (refused === undefined) this.#rows[row + IN.VERDICT] = ACCEPT;
    return refused === "waits" ? undefined : refused;
  }

  /** A packet of the peer that came in pieces: may it pass? Called while a batch is being decided. */
  decideReassembled(link: Link, packet: Uint8Array, now: Instant): DropReason | "waits" | undefined {
    if (!isWholeIpv6(packet)) return "malformed-packet";
    this.#lookInto(packet);
    const refused = this.#decidePacket(link, 0, packet.length, packet.length, nextSequenceOf(packet), now);
    this.#lookInto(this.#parts.dataPlane.inbound.arena);
    return refused;
  }

  /** A packet that waited to hear whose socket it is for. */
  decideHeld(link: Link, { packet, byRelay }: WaitingInbound, now: Instant, nowS: number): DropReason | undefined {
    this.#nowS = nowS;
    this.#byRelay = byRelay;
    const refused = this.decideReassembled(link, packet, now);
    return refused === "waits" ? "owner-queue-full" : refused;
  }

  #lookInto(bytes: Uint8Array): void {
    this.#arena = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#key.view = this.#view;
  }

  #decidePacket(
    link: Link,
    offset: number,
    length: number,
    totalBytes: number,
    nextSequence: number,
    now: Instant,
  ): DropReason | "waits" | undefined {
    const refused = this.#judgePacket(link, offset, length, totalBytes, nextSequence, now);
    if (refused !== undefined && refused !== "waits") this.#parts.trail?.denied(refused, "in", link.node, this.#key);
    return refused;
  }

  #judgePacket(
    link: Link,
    offset: number,
    length: number,
    totalBytes: number,
    nextSequence: number,
    now: Instant,
  ): DropReason | "waits" | undefined {
    const { flows, trust, admission, governor, related, owners, leases } = this.#parts;
    const nowS = this.#nowS;
    if (length < IPV6_HEADER_BYTES) return "malformed-packet";
    if (length > this.#parts.mtuBytes) return "too-big";

    const { modes, connections } = this.#parts.plain;
    if (modes[link.index] !== MODE.WHOLE && !this.#parts.heardPacket(link, now)) return "peer-kind";

    // 3. A flow of this very peer that we know under today's trust, or one we look at now.
    const key = this.#key;
    const shape = readFlowKey(this.#arena, offset, length, SIDE, key);
    if (shape === SHAPE.MALFORMED) return "malformed-packet";
    // Only our own NAT may reach the listener behind which connections to plain agents end.
    if (key.protocol === NEXT_HEADER.TCP && key.ports >>> 16 === connections.listenerPort) return "peer-kind";
    let flow = -1;
    if (this.#inPrefix(offset)) {
      if (shape === SHAPE.FLOW) flow = flows.find(key);
      else flow = related.find(shape, this.#arena, offset, length, SIDE, key, nowS);
    }
    const isKnown = flow >= 0 && flows.linkOf(flow) === link.index;
    if (!isKnown || !flows.isLive(flow, trust.epoch, nowS, key.opens, true)) {
      const admitted = this.#admit(link, offset, now);
      if (admitted === "waits") {
        // Of a run that begins a flow the first packet waits: a sender that says more at once repeats itself.
        const packet = this.#arena.subarray(offset, offset + length);
        const waiting = { node: link.node, packet, byRelay: this.#byRelay, isTranslated: false };
        return owners.hold(waiting) ? "waits" : "owner-queue-full";
      }
      if (typeof admitted === "string") return admitted;
      flow = admitted;
    }
    if (flows.isGoverned(flow) || this.#byRelay !== link.path.isRelayed) {
      const beyond = governor.passIn(flow, link, this.#byRelay, totalBytes, now);
      if (beyond !== undefined) return beyond;
    }
    if (!leases.spend(link.index, totalBytes)) return "lease-ended";
    flows.noteReceived(flow, totalBytes, nowS);
    if (shape === SHAPE.FIRST_FRAGMENT) related.noteFirstFragment(this.#arena, offset, length, SIDE, key, flow, nowS);
    if (this.#arena[offset + IPV6.NEXT_HEADER] === NEXT_HEADER.TCP) {
      admission.noteTcpEnd(this.#arena, offset, flow, SIDE);
      this.#followTcp(offset, length, flow, nextSequence, link);
    }
    return undefined;
  }

  /** The flow table compares the last 12 bytes of addresses; the first 4 are the same for all of them. */
  #inPrefix(offset: number): boolean {
    const word = this.#parts.routes.prefixWord;
    return this.#view.getInt32(offset + 8) === word && this.#view.getInt32(offset + 24) === word;
  }

  /** The slow way: the source must belong to the peer whose key opened the frame, and both must consent. */
  #admit(link: Link, offset: number, now: Instant): number | DropReason | "waits" {
    const { routes, trust, admission } = this.#parts;
    if (routes.ownerOf(this.#arena, offset + 8) !== link.node) return "spoofed-source";
    if (!routes.isLocal(this.#arena, offset + 24)) return "wrong-destination";
    const state = trust.stateOf(link.node);
    if (state === "revoked" || state === "revoked-by-peer") return "revoked";
    if (state === "lease-ended") return "lease-ended";
    if (state !== "mutual") return "not-trusted";
    if (this.#parts.networks.admits(this.#arena, offset + 8, offset + 24, link.node, now) !== "yes")
      return "not-member";
    return admission.open(this.#key, link, SIDE, now);
  }

  #followTcp(offset: number, length: number, flow: number, nextSequence: number, link: Link): void {
    const tcp = offset + IPV6_HEADER_BYTES;
    this.#parts.flows.noteNextSeq(flow, nextSequence);
    if (this.#arena[tcp + TCP.FLAGS]! & TCP_FLAG.SYN) {
      const maxMss = this.#parts.sizes.mtus.frameBytes[link.index]! - TCP_OVERHEAD_BYTES;
      clampMss(this.#arena.subarray(0, offset + length), offset, tcp, maxMss, false);
    }
  }
}

function isWholeIpv6(packet: Uint8Array): boolean {
  return (
    packet.length >= IPV6_HEADER_BYTES &&
    packet[0]! >>> 4 === 6 &&
    readU16(packet, 4) + IPV6_HEADER_BYTES === packet.length
  );
}

/** What the data plane says in IN.NEXT_SEQ of packets that come whole. */
function nextSequenceOf(packet: Uint8Array): number {
  if (packet[6] !== NEXT_HEADER.TCP || packet.length < IPV6_HEADER_BYTES + MIN_TCP_HEADER_BYTES) return 0;
  const flags = packet[IPV6_HEADER_BYTES + TCP.FLAGS]!;
  const headerBytes = (packet[IPV6_HEADER_BYTES + TCP.DATA_OFFSET]! >>> 4) * 4;
  const payloadBytes = Math.max(0, packet.length - IPV6_HEADER_BYTES - headerBytes);
  const counted = (flags & TCP_FLAG.SYN ? 1 : 0) + (flags & TCP_FLAG.FIN ? 1 : 0);
  return (readU32(packet, IPV6_HEADER_BYTES + TCP.SEQUENCE) + payloadBytes + counted) | 0;
}

/** Of every packet that comes this way. */
const SIDE = "source-is-remote";
/** IPv6 and TCP headers without options: what a segment costs beyond its payload. */
const TCP_OVERHEAD_BYTES = IPV6_HEADER_BYTES + MIN_TCP_HEADER_BYTES;
