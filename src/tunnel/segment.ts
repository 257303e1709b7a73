/**
 * What the network card's offloads left undone, done in software: a superpacket of TCP or UDP over IPv6 becomes the
 * packets it stands for, and a partial checksum becomes a whole one (Linux virtio_net_hdr, segmentation offloads).
 * Invariant: the payloads of the packets, joined, are the payload of the superpacket.
 */
import { readU32, writeU16, writeU32 } from "../base/bytes.ts";
import { finishChecksum, sumWords, transportChecksum } from "../wire/checksum.ts";
import type { StagedPacket } from "./data-plane.ts";

export const GSO_NONE = 0;
export const GSO_TCP_V6 = 4;
export const GSO_UDP = 5;

/** The packets to send for one read of the TUN, in order; undefined when its parts contradict each other. */
export function segmentPacket(packet: StagedPacket): Uint8Array[] | undefined {
  switch (packet.gsoType) {
    case GSO_NONE:
      return completeChecksum(packet);
    case GSO_TCP_V6:
      return isTcpSuperpacket(packet) ? cut(packet, finishTcpSegment) : undefined;
    case GSO_UDP:
      return isUdpSuperpacket(packet) ? cut(packet, finishUdpSegment) : undefined;
    default:
      return undefined;
  }
}

/** The checksum field holds the sum of the pseudo-header; the rest of the sum is ours to add. */
function completeChecksum({ bytes, csumStart, csumOffset }: StagedPacket): Uint8Array[] | undefined {
  if (bytes.length === 0) return undefined;
  const whole = bytes.slice();
  if (csumStart === 0) return [whole];
  if (csumStart < 0 || csumOffset < 0 || csumStart + csumOffset + 2 > whole.length) return undefined;
  const checksum = finishChecksum(sumWords(whole, csumStart, whole.length));
  const isUdp = csumOffset === UDP_CHECKSUM;
  writeU16(whole, csumStart + csumOffset, isUdp ? neverZero(checksum) : checksum);
  return [whole];
}

type FinishSegment = (segment: Uint8Array, place: SegmentPlace) => void;

interface SegmentPlace {
  readonly transport: number;
  /** Payload bytes of the superpacket in front of this segment. */
  readonly payloadBefore: number;
  readonly isFirst: boolean;
  readonly isLast: boolean;
}

function cut(packet: StagedPacket, finish: FinishSegment): Uint8Array[] {
  const { bytes, gsoSize, headerLength, csumStart } = packet;
  const segments: Uint8Array[] = [];
  // A superpacket without payload still is one packet.
  let at = headerLength;
  do {
    const end = Math.min(at + gsoSize, bytes.length);
    const segment = new Uint8Array(headerLength + end - at);
    segment.set(bytes.subarray(0, headerLength));
    segment.set(bytes.subarray(at, end), headerLength);
    writeU16(segment, IPV6_PAYLOAD_LENGTH, segment.length - IPV6_HEADER_BYTES);
    finish(segment, {
      transport: csumStart,
      payloadBefore: at - headerLength,
      isFirst: at === headerLength,
      isLast: end === bytes.length,
    });
    segments.push(segment);
    at = end;
  } while (at < bytes.length);
  return segments;
}

function finishTcpSegment(segment: Uint8Array, { transport, payloadBefore, isFirst, isLast }: SegmentPlace): void {
  const flags = transport + TCP_FLAGS;
  if (!isFirst) segment[flags]! &= ~TCP_CWR;
  if (!isLast) segment[flags]! &= ~(TCP_FIN | TCP_PSH);
  writeU32(segment, transport + TCP_SEQUENCE, readU32(segment, transport + TCP_SEQUENCE) + payloadBefore);
  writeU16(segment, transport + TCP_CHECKSUM, 0);
  writeU16(segment, transport + TCP_CHECKSUM, transportChecksum(segment, transport, NEXT_HEADER_TCP));
}

function finishUdpSegment(segment: Uint8Array, { transport }: SegmentPlace): void {
  writeU16(segment, transport + UDP_LENGTH, segment.length - transport);
  writeU16(segment, transport + UDP_CHECKSUM, 0);
  writeU16(segment, transport + UDP_CHECKSUM, neverZero(transportChecksum(segment, transport, NEXT_HEADER_UDP)));
}

/** Zero means "no checksum" in UDP, which IPv6 does not allow (RFC 8200 §8.1). */
function neverZero(checksum: number): number {
  return checksum === 0 ? 0xffff : checksum;
}

function isTcpSuperpacket(packet: StagedPacket): boolean {
  if (!isSuperpacket(packet, TCP_CHECKSUM, TCP_HEADER_BYTES)) return false;
  const tcpHeaderBytes = (packet.bytes[packet.csumStart + TCP_DATA_OFFSET]! >>> 4) * 4;
  return tcpHeaderBytes >= TCP_HEADER_BYTES && packet.headerLength === packet.csumStart + tcpHeaderBytes;
}

function isUdpSuperpacket(packet: StagedPacket): boolean {
  return (
    isSuperpacket(packet, UDP_CHECKSUM, UDP_HEADER_BYTES) && packet.headerLength === packet.csumStart + UDP_HEADER_BYTES
  );
}

function isSuperpacket(packet: StagedPacket, csumOffset: number, transportBytes: number): boolean {
  const { bytes, gsoSize, csumStart, headerLength } = packet;
  if (csumStart < IPV6_HEADER_BYTES || packet.csumOffset !== csumOffset || gsoSize < 1) return false;
  // Every segment's length must fit the IPv6 header.
  if (headerLength + Math.min(gsoSize, bytes.length) - IPV6_HEADER_BYTES > 0xffff) return false;
  return csumStart + transportBytes <= bytes.length && headerLength <= bytes.length && bytes[0]! >>> 4 === 6;
}

const IPV6_HEADER_BYTES = 40;
const IPV6_PAYLOAD_LENGTH = 4;
const NEXT_HEADER_TCP = 6;
const NEXT_HEADER_UDP = 17;
const TCP_HEADER_BYTES = 20;
const TCP_SEQUENCE = 4;
const TCP_DATA_OFFSET = 12;
const TCP_FLAGS = 13;
const TCP_CHECKSUM = 16;
const TCP_FIN = 0x01;
const TCP_PSH = 0x08;
const TCP_CWR = 0x80;
const UDP_HEADER_BYTES = 8;
const UDP_LENGTH = 4;
const UDP_CHECKSUM = 6;
