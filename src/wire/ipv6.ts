/**
 * The IPv6 header (RFC 8200) and the way from it to the transport header, over any extension headers that lie between.
 * `parsePacket` fills a reused object in place, so that looking at a packet allocates nothing; a packet it accepts has all
 * bytes that its fields speak of. The walk is bounded: more than MAX_EXTENSION_HEADERS is treated as malformed.
 */
import { readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";

export const IPV6_HEADER_BYTES = 40;

/** Every link carries this much (RFC 8200 §5). */
export const IPV6_MIN_MTU_BYTES = 1280;

/** Offsets from the start of the header. */
export const IPV6 = { PAYLOAD_LENGTH: 4, NEXT_HEADER: 6, HOP_LIMIT: 7, SOURCE: 8, DESTINATION: 24 } as const;

/** The fragment header (RFC 8200 §4.5): offsets from its start. OFFSET holds 13 bits, two reserved, and "more follow". */
export const FRAGMENT = { NEXT_HEADER: 0, OFFSET: 2, IDENTIFICATION: 4 } as const;
export const FRAGMENT_HEADER_BYTES = 8;

/** Next-header numbers. */
export const NEXT_HEADER = {
  HOP_BY_HOP: 0,
  TCP: 6,
  UDP: 17,
  ROUTING: 43,
  FRAGMENT: 44,
  ESP: 50,
  AUTHENTICATION: 51,
  ICMPV6: 58,
  NONE: 59,
  DESTINATION_OPTIONS: 60,
  MOBILITY: 135,
  HOST_IDENTITY: 139,
  SHIM6: 140,
} as const;

/** One packet's fields; all offsets are into the bytes it was parsed from. Valid until the next `parsePacket`. */
export interface ParsedPacket {
  trafficClass: number;
  /** Bytes after the fixed header, extension headers included. */
  payloadLength: number;
  hopLimit: number;
  sourceOffset: number;
  destinationOffset: number;
  /** What comes after the last extension header. */
  protocol: number;
  transportOffset: number;
  /** One piece of a larger packet. */
  isFragment: boolean;
  /** In bytes. Not 0: there is no transport header here, and the fields below are 0. */
  fragmentOffset: number;
  /** Of TCP and UDP, else 0. */
  sourcePort: number;
  destinationPort: number;
  /** Of TCP, else 0. */
  tcpFlags: number;
  sequence: number;
  acknowledgement: number;
  /** Of ICMPv6, else 0. */
  icmpType: number;
  icmpCode: number;
  /** Bytes after the TCP, UDP or ICMPv6 (4-byte) header; of other protocols, all bytes from `transportOffset` on. */
  transportPayloadLength: number;
}

export function emptyParsedPacket(): ParsedPacket {
  return {
    trafficClass: 0,
    payloadLength: 0,
    hopLimit: 0,
    sourceOffset: 0,
    destinationOffset: 0,
    protocol: 0,
    transportOffset: 0,
    isFragment: false,
    fragmentOffset: 0,
    sourcePort: 0,
    destinationPort: 0,
    tcpFlags: 0,
    sequence: 0,
    acknowledgement: 0,
    icmpType: 0,
    icmpCode: 0,
    transportPayloadLength: 0,
  };
}

/**
 * Fills `into` with the packet of `length` bytes at `offset`. False when it is no IPv6 packet, when bytes are missing,
 * or when its headers contradict each other; `into` then holds nothing of use. Bytes after the payload are ignored.
 */
export function parsePacket(bytes: Uint8Array, offset: number, length: number, into: ParsedPacket): boolean {
  if (offset < 0 || length < IPV6_HEADER_BYTES || offset + length > bytes.length) return false;
  if (bytes[offset]! >>> 4 !== 6) return false;
  const payloadLength = readU16(bytes, offset + IPV6.PAYLOAD_LENGTH);
  if (payloadLength > length - IPV6_HEADER_BYTES) return false;

  into.trafficClass = (readU16(bytes, offset) >>> 4) & 0xff;
  into.payloadLength = payloadLength;
  into.hopLimit = bytes[offset + IPV6.HOP_LIMIT]!;
  into.sourceOffset = offset + IPV6.SOURCE;
  into.destinationOffset = offset + IPV6.DESTINATION;
  const start = offset + IPV6_HEADER_BYTES;
  const end = start + payloadLength;
  if (!walkExtensions(bytes, bytes[offset + IPV6.NEXT_HEADER]!, start, end, into)) return false;
  return readTransport(bytes, end, into);
}

export interface Ipv6Header {
  /** 16 bytes. */
  readonly source: Uint8Array;
  /** 16 bytes. */
  readonly destination: Uint8Array;
  readonly nextHeader: number;
  readonly payloadLength: number;
}

/** Writes the header of a packet that this node originates, at the start of `packet`. */
export function writeIpv6Header(packet: Uint8Array, header: Ipv6Header): void {
  writeU32(packet, 0, 0x60000000);
  writeU16(packet, IPV6.PAYLOAD_LENGTH, header.payloadLength);
  packet[IPV6.NEXT_HEADER] = header.nextHeader;
  packet[IPV6.HOP_LIMIT] = ORIGINAL_HOP_LIMIT;
  packet.set(header.source.subarray(0, 16), IPV6.SOURCE);
  packet.set(header.destination.subarray(0, 16), IPV6.DESTINATION);
}

function walkExtensions(bytes: Uint8Array, first: number, start: number, end: number, into: ParsedPacket): boolean {
  into.isFragment = false;
  into.fragmentOffset = 0;
  let header = first;
  let at = start;
  for (let walked = 0; isExtension(header); walked++) {
    if (walked === MAX_EXTENSION_HEADERS || at + EXTENSION_UNIT_BYTES > end) return false;
    if (header === NEXT_HEADER.FRAGMENT) readFragment(bytes, at, into);
    const next = bytes[at]!;
    at += extensionBytes(header, bytes[at + 1]!);
    if (at > end) return false;
    header = next;
    if (into.fragmentOffset !== 0) break; // the rest of the chain is in the first fragment
  }
  into.protocol = header;
  into.transportOffset = at;
  return true;
}

function isExtension(header: number): boolean {
  switch (header) {
    case NEXT_HEADER.HOP_BY_HOP:
    case NEXT_HEADER.ROUTING:
    case NEXT_HEADER.FRAGMENT:
    case NEXT_HEADER.AUTHENTICATION:
    case NEXT_HEADER.DESTINATION_OPTIONS:
    case NEXT_HEADER.MOBILITY:
    case NEXT_HEADER.HOST_IDENTITY:
    case NEXT_HEADER.SHIM6:
      return true;
    default:
      return false;
  }
}

/** Most count eight bytes beyond the first eight; AH counts four beyond the first eight (RFC 4302 §2.2). */
function extensionBytes(header: number, lengthField: number): number {
  if (header === NEXT_HEADER.FRAGMENT) return EXTENSION_UNIT_BYTES;
  if (header === NEXT_HEADER.AUTHENTICATION) return (lengthField + 2) * 4;
  return (lengthField + 1) * EXTENSION_UNIT_BYTES;
}

function readFragment(bytes: Uint8Array, at: number, into: ParsedPacket): void {
  const word = readU16(bytes, at + FRAGMENT.OFFSET);
  into.isFragment = into.isFragment || word >>> 3 !== 0 || (word & 1) !== 0; // not an atomic fragment (RFC 6946)
  into.fragmentOffset = word & 0xfff8;
}

function readTransport(bytes: Uint8Array, end: number, into: ParsedPacket): boolean {
  into.sourcePort = 0;
  into.destinationPort = 0;
  into.tcpFlags = 0;
  into.sequence = 0;
  into.acknowledgement = 0;
  into.icmpType = 0;
  into.icmpCode = 0;
  into.transportPayloadLength = end - into.transportOffset;
  if (into.fragmentOffset !== 0) return true;
  switch (into.protocol) {
    case NEXT_HEADER.TCP:
      return readTcp(bytes, end, into);
    case NEXT_HEADER.UDP:
      return readUdp(bytes, end, into);
    case NEXT_HEADER.ICMPV6:
      return readIcmp(bytes, end, into);
    default:
      return true;
  }
}

function readTcp(bytes: Uint8Array, end: number, into: ParsedPacket): boolean {
  const at = into.transportOffset;
  if (at + MIN_TCP_HEADER_BYTES > end) return false;
  const headerBytes = (bytes[at + 12]! >>> 4) * 4;
  if (headerBytes < MIN_TCP_HEADER_BYTES || at + headerBytes > end) return false;
  into.sourcePort = readU16(bytes, at);
  into.destinationPort = readU16(bytes, at + 2);
  into.sequence = readU32(bytes, at + 4);
  into.acknowledgement = readU32(bytes, at + 8);
  into.tcpFlags = bytes[at + 13]!;
  into.transportPayloadLength = end - at - headerBytes;
  return true;
}

function readUdp(bytes: Uint8Array, end: number, into: ParsedPacket): boolean {
  const at = into.transportOffset;
  if (at + UDP_HEADER_BYTES > end) return false;
  into.sourcePort = readU16(bytes, at);
  into.destinationPort = readU16(bytes, at + 2);
  into.transportPayloadLength = end - at - UDP_HEADER_BYTES;
  return true;
}

function readIcmp(bytes: Uint8Array, end: number, into: ParsedPacket): boolean {
  const at = into.transportOffset;
  if (at + ICMPV6_HEADER_BYTES > end) return false;
  into.icmpType = bytes[at]!;
  into.icmpCode = bytes[at + 1]!;
  into.transportPayloadLength = end - at - ICMPV6_HEADER_BYTES;
  return true;
}

const MAX_EXTENSION_HEADERS = 8;
const EXTENSION_UNIT_BYTES = 8;
const MIN_TCP_HEADER_BYTES = 20;
const UDP_HEADER_BYTES = 8;
const ICMPV6_HEADER_BYTES = 4;
const ORIGINAL_HOP_LIMIT = 64;
