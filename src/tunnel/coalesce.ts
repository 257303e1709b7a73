/**
 * Finds runs of packets that one TUN write may carry (generic receive offload): segments of one TCP or UDP flow that
 * follow each other without a gap and differ only in what segmentation would differ in.
 * Invariant: the packets of a flow keep their order; whatever does not fit a run closes the run of its flow.
 * Nothing is held beyond the batch.
 */
import { equalBytes, readU16, readU32 } from "../base/bytes.ts";
import { transportChecksum } from "../wire/checksum.ts";

export interface Run {
  readonly packets: Uint8Array[];
  totalBytes: number;
  /** After the last byte of the run, SYN and FIN counted; 0 unless TCP. */
  nextSequence: number;
}

export class Coalescer {
  /** The run that a flow's next packet may join. Key: addresses, ports, protocol. Bound: packets of a batch; `clear`. */
  readonly #open = new Map<string, OpenRun>();

  /**
   * Adds a packet, which the coalescer keeps. `joined` tells whether it continued a run given out before.
   * `scope` keeps apart what may not be written together though the packets would fit.
   */
  add(packet: Uint8Array, scope: string): { run: Run; joined: boolean } {
    const segment = parseSegment(packet);
    const open = segment && this.#open.get(segment.flow);
    if (segment !== undefined && open !== undefined && open.scope === scope && continues(open, segment)) {
      return { run: this.#join(open, segment), joined: true };
    }
    const run = { packets: [packet], totalBytes: packet.length, nextSequence: segment?.nextSequence ?? 0 };
    if (segment !== undefined) this.#begin(run, segment, scope);
    return { run, joined: false };
  }

  /** Ends the batch. */
  clear(): void {
    this.#open.clear();
  }

  #begin(run: Run, segment: Segment, scope: string): void {
    if (mayHaveFollowers(segment)) this.#open.set(segment.flow, { run, scope, first: segment });
    else this.#open.delete(segment.flow);
  }

  #join(open: OpenRun, segment: Segment): Run {
    const { run, first } = open;
    run.packets.push(segment.packet);
    run.totalBytes += segment.packet.length;
    run.nextSequence = segment.nextSequence;
    if (segment.isPushed || segment.payloadBytes < first.payloadBytes) this.#open.delete(segment.flow);
    return run;
  }
}

interface OpenRun {
  readonly run: Run;
  readonly scope: string;
  readonly first: Segment;
}

/** A TCP segment or UDP datagram that sits directly on its IPv6 header. */
interface Segment {
  readonly packet: Uint8Array;
  readonly flow: string;
  readonly protocol: number;
  readonly headerBytes: number;
  readonly payloadBytes: number;
  readonly nextSequence: number;
  readonly isPushed: boolean;
}

function parseSegment(packet: Uint8Array): Segment | undefined {
  if (packet.length < IPV6_HEADER_BYTES || packet[0]! >>> 4 !== 6) return undefined;
  if (readU16(packet, IPV6_PAYLOAD_LENGTH) !== packet.length - IPV6_HEADER_BYTES) return undefined;
  switch (packet[IPV6_NEXT_HEADER]) {
    case NEXT_HEADER_TCP:
      return parseTcp(packet);
    case NEXT_HEADER_UDP:
      return parseUdp(packet);
    default:
      return undefined;
  }
}

function parseTcp(packet: Uint8Array): Segment | undefined {
  if (packet.length < IPV6_HEADER_BYTES + TCP_HEADER_BYTES) return undefined;
  const tcpHeaderBytes = (packet[TCP_DATA_OFFSET]! >>> 4) * 4;
  const headerBytes = IPV6_HEADER_BYTES + tcpHeaderBytes;
  if (tcpHeaderBytes < TCP_HEADER_BYTES || headerBytes > packet.length) return undefined;
  const payloadBytes = packet.length - headerBytes;
  const flags = packet[TCP_FLAGS]!;
  const virtualBytes = (flags & TCP_SYN ? 1 : 0) + (flags & TCP_FIN ? 1 : 0);
  return {
    packet,
    flow: flowOf(packet),
    protocol: NEXT_HEADER_TCP,
    headerBytes,
    payloadBytes,
    nextSequence: (readU32(packet, TCP_SEQUENCE) + payloadBytes + virtualBytes) >>> 0,
    isPushed: (flags & TCP_PSH) !== 0,
  };
}

function parseUdp(packet: Uint8Array): Segment | undefined {
  const headerBytes = IPV6_HEADER_BYTES + UDP_HEADER_BYTES;
  if (packet.length < headerBytes) return undefined;
  return {
    packet,
    flow: flowOf(packet),
    protocol: NEXT_HEADER_UDP,
    headerBytes,
    payloadBytes: packet.length - headerBytes,
    nextSequence: 0,
    isPushed: false,
  };
}

function flowOf(packet: Uint8Array): string {
  return String.fromCharCode(packet[IPV6_NEXT_HEADER]!, ...packet.subarray(IPV6_ADDRESSES, IPV6_HEADER_BYTES + 4));
}

function mayHaveFollowers(segment: Segment): boolean {
  return !segment.isPushed && isMergeable(segment);
}

/** Segmentation must be able to give the packet back as it is, and only right checksums may be replaced by new ones. */
function isMergeable({ packet, protocol, payloadBytes }: Segment): boolean {
  if (payloadBytes === 0) return false;
  if (protocol === NEXT_HEADER_TCP) {
    // Reserved bits and anything but ACK and PSH (SYN, FIN, RST, URG, ECE, CWR) mean something of their own.
    if ((packet[TCP_DATA_OFFSET]! & 0x0f) !== 0 || (packet[TCP_FLAGS]! & ~TCP_PSH) !== TCP_ACK) return false;
  } else if (readU16(packet, UDP_LENGTH) !== packet.length - IPV6_HEADER_BYTES || readU16(packet, UDP_CHECKSUM) === 0) {
    return false;
  }
  return transportChecksum(packet, IPV6_HEADER_BYTES, protocol) === 0;
}

function continues({ run, first }: OpenRun, next: Segment): boolean {
  if (next.headerBytes !== first.headerBytes || next.payloadBytes > first.payloadBytes) return false;
  if (first.headerBytes - IPV6_HEADER_BYTES + payloadOf(run, first) + next.payloadBytes > 0xffff) return false;
  if (!sameIpHeader(first.packet, next.packet)) return false;
  if (next.protocol === NEXT_HEADER_TCP) {
    if (readU32(next.packet, TCP_SEQUENCE) !== run.nextSequence || !sameTcpHeader(first, next)) return false;
  } else if (run.packets.length >= MAX_UDP_SEGMENTS) {
    return false;
  }
  return isMergeable(next);
}

function payloadOf(run: Run, first: Segment): number {
  return run.totalBytes - run.packets.length * first.headerBytes;
}

/** Version, traffic class and flow label, next header, hop limit; the addresses are equal by the flow's key. */
function sameIpHeader(a: Uint8Array, b: Uint8Array): boolean {
  return readU32(a, 0) === readU32(b, 0) && readU16(a, IPV6_NEXT_HEADER) === readU16(b, IPV6_NEXT_HEADER);
}

/** Acknowledgement, window, urgent pointer and options. */
function sameTcpHeader(first: Segment, next: Segment): boolean {
  const a = first.packet;
  const b = next.packet;
  return (
    readU32(a, TCP_ACKNOWLEDGEMENT) === readU32(b, TCP_ACKNOWLEDGEMENT) &&
    readU16(a, TCP_WINDOW) === readU16(b, TCP_WINDOW) &&
    equalBytes(a.subarray(TCP_URGENT, first.headerBytes), b.subarray(TCP_URGENT, next.headerBytes))
  );
}

/** What the kernel's UDP_SEGMENT accepts in one datagram. */
const MAX_UDP_SEGMENTS = 64;

const IPV6_HEADER_BYTES = 40;
const IPV6_PAYLOAD_LENGTH = 4;
const IPV6_NEXT_HEADER = 6;
const IPV6_ADDRESSES = 8;
const NEXT_HEADER_TCP = 6;
const NEXT_HEADER_UDP = 17;

// Offsets of transport fields from the start of the IPv6 header.
const TCP_HEADER_BYTES = 20;
const TCP_SEQUENCE = 44;
const TCP_ACKNOWLEDGEMENT = 48;
const TCP_DATA_OFFSET = 52;
const TCP_FLAGS = 53;
const TCP_WINDOW = 54;
const TCP_URGENT = 58;
const TCP_FIN = 0x01;
const TCP_SYN = 0x02;
const TCP_PSH = 0x08;
const TCP_ACK = 0x10;
const UDP_HEADER_BYTES = 8;
const UDP_LENGTH = 44;
const UDP_CHECKSUM = 46;
