/**
 * ICMPv6 (RFC 4443): the errors that tell a local program why its packet went no further, and echo. An error quotes as
 * much of the offending packet as fits the minimum MTU, and is never sent in answer to what could start a storm:
 * `mayAnswerWithError` must be asked first. Every function returns a whole IPv6 packet with its checksum.
 */
import { readU16, writeU16, writeU32 } from "../base/bytes.ts";
import { transportChecksum } from "./checksum.ts";
import {
  emptyParsedPacket,
  IPV6,
  IPV6_HEADER_BYTES,
  IPV6_MIN_MTU_BYTES,
  NEXT_HEADER,
  parsePacket,
  writeIpv6Header,
} from "./ipv6.ts";

export const ICMPV6_TYPE = {
  UNREACHABLE: 1,
  PACKET_TOO_BIG: 2,
  TIME_EXCEEDED: 3,
  ECHO_REQUEST: 128,
  ECHO_REPLY: 129,
  REDIRECT: 137,
} as const;

/** Codes of "destination unreachable", and what a program sees (Linux). */
export const UNREACHABLE = {
  /** ENETUNREACH. */
  NO_ROUTE: 0,
  /** EACCES. */
  PROHIBITED: 1,
  /** EHOSTUNREACH. */
  ADDRESS: 3,
  /** ECONNREFUSED. */
  PORT: 4,
  /** EACCES. The address it is sent from is not one that may be used here. */
  SOURCE: 5,
  /** EACCES. A way that was there is so no more: what a lease was for is over. */
  REJECT_ROUTE: 6,
} as const;

export interface IcmpError {
  /** 16 bytes: who says it. */
  readonly source: Uint8Array;
  /** The packet it is about, from its IPv6 header on; the error goes to that packet's source. Not kept. */
  readonly offending: Uint8Array;
}

export function encodeUnreachable(error: IcmpError & { readonly code: number }): Uint8Array {
  return encodeError(error, ICMPV6_TYPE.UNREACHABLE, error.code, 0);
}

export function encodePacketTooBig(error: IcmpError & { readonly mtu: number }): Uint8Array {
  return encodeError(error, ICMPV6_TYPE.PACKET_TOO_BIG, 0, error.mtu);
}

/** The hop limit ran out on the way. */
export function encodeTimeExceeded(error: IcmpError): Uint8Array {
  return encodeError(error, ICMPV6_TYPE.TIME_EXCEEDED, 0, 0);
}

/**
 * RFC 4443 §2.4(e): no error about an error or a redirect, about a packet to many, or to a source that is not one node.
 * Nor about what is no whole packet, or a later fragment of ICMPv6, of which nobody can tell what it is.
 */
export function mayAnswerWithError(packet: Uint8Array): boolean {
  if (!parsePacket(packet, 0, packet.length, parsed)) return false;
  if (packet[IPV6.DESTINATION] === MULTICAST || packet[IPV6.SOURCE] === MULTICAST) return false;
  if (isUnspecified(packet, IPV6.SOURCE)) return false;
  if (parsed.protocol !== NEXT_HEADER.ICMPV6) return true;
  // The type of a later fragment reads as 0, so it counts as an error.
  return parsed.icmpType >= FIRST_INFORMATIONAL_TYPE && parsed.icmpType !== ICMPV6_TYPE.REDIRECT;
}

export interface Echo {
  readonly type: typeof ICMPV6_TYPE.ECHO_REQUEST | typeof ICMPV6_TYPE.ECHO_REPLY;
  readonly identifier: number;
  readonly sequence: number;
  /** At most 65,487 bytes. Borrowed from the parsed packet. */
  readonly payload: Uint8Array;
}

export function encodeEcho(echo: Echo & { readonly source: Uint8Array; readonly destination: Uint8Array }): Uint8Array {
  const packet = new Uint8Array(IPV6_HEADER_BYTES + MESSAGE_HEADER_BYTES + echo.payload.length);
  writeU16(packet, BODY, echo.identifier);
  writeU16(packet, BODY + 2, echo.sequence);
  packet.set(echo.payload, BODY + 4);
  finish(packet, echo.type, 0, echo.source, echo.destination);
  return packet;
}

/** An echo request or reply that is not fragmented and whose checksum is right; undefined for every other packet. */
export function parseEcho(packet: Uint8Array): Echo | undefined {
  if (!parsePacket(packet, 0, packet.length, parsed) || parsed.isFragment) return undefined;
  const { protocol, icmpType: type, icmpCode, transportOffset: at, transportPayloadLength } = parsed;
  if (protocol !== NEXT_HEADER.ICMPV6 || icmpCode !== 0 || transportPayloadLength < 4) return undefined;
  if (type !== ICMPV6_TYPE.ECHO_REQUEST && type !== ICMPV6_TYPE.ECHO_REPLY) return undefined;
  const end = at + 4 + transportPayloadLength;
  if (transportChecksum(packet, at, NEXT_HEADER.ICMPV6, end) !== 0) return undefined;
  return {
    type,
    identifier: readU16(packet, at + 4),
    sequence: readU16(packet, at + 6),
    payload: packet.subarray(at + MESSAGE_HEADER_BYTES, end),
  };
}

function encodeError({ source, offending }: IcmpError, type: number, code: number, parameter: number): Uint8Array {
  const quoted = offending.subarray(0, MAX_QUOTED_BYTES);
  const packet = new Uint8Array(IPV6_HEADER_BYTES + MESSAGE_HEADER_BYTES + quoted.length);
  writeU32(packet, BODY, parameter);
  packet.set(quoted, BODY + 4);
  finish(packet, type, code, source, offending.subarray(IPV6.SOURCE, IPV6.SOURCE + 16));
  return packet;
}

function finish(packet: Uint8Array, type: number, code: number, source: Uint8Array, destination: Uint8Array): void {
  const payloadLength = packet.length - IPV6_HEADER_BYTES;
  writeIpv6Header(packet, { source, destination, nextHeader: NEXT_HEADER.ICMPV6, payloadLength });
  packet[IPV6_HEADER_BYTES] = type;
  packet[IPV6_HEADER_BYTES + 1] = code;
  writeU16(packet, CHECKSUM, transportChecksum(packet, IPV6_HEADER_BYTES, NEXT_HEADER.ICMPV6));
}

function isUnspecified(bytes: Uint8Array, offset: number): boolean {
  for (let i = 0; i < 16; i++) if (bytes[offset + i] !== 0) return false;
  return true;
}

/** Reused by every call: nothing here calls back out while it is in use. */
const parsed = emptyParsedPacket();

/** First byte of a multicast address. */
const MULTICAST = 0xff;
const FIRST_INFORMATIONAL_TYPE = 128;
/** Type, code, checksum, and the four bytes that each kind uses in its own way. */
const MESSAGE_HEADER_BYTES = 8;
const CHECKSUM = IPV6_HEADER_BYTES + 2;
const BODY = IPV6_HEADER_BYTES + 4;
const MAX_QUOTED_BYTES = IPV6_MIN_MTU_BYTES - IPV6_HEADER_BYTES - MESSAGE_HEADER_BYTES;
