/**
 * Which flow a packet belongs to, by its real transport header: over extension headers, and for ICMPv6 errors the flow of
 * the packet they quote. TCP and UDP right after the IPv6 header, nearly all there is, are read without a walk.
 *
 * Both directions of a flow give the same key. An echo's key tells who asked: without that, a peer that we ping could
 * ping back under our own flow.
 */
import { readU16, readU32 } from "../base/bytes.ts";
import { ICMPV6_TYPE } from "../wire/icmpv6.ts";
import { emptyParsedPacket, IPV6, IPV6_HEADER_BYTES, NEXT_HEADER, parsePacket } from "../wire/ipv6.ts";
import { TCP_FLAG } from "../wire/tcp.ts";
import { ASKED_HERE, ASKED_THERE, type FlowKeySource } from "./flow-table.ts";

export interface FlowKey extends FlowKeySource {
  /** Only the side that begins sends this: a TCP SYN, an echo request. */
  opens: boolean;
  /** Of a TCP SYN that opens: its sequence number. */
  openingSequence: number;
}

/** To be filled by readFlowKey, over and over; `view` is of the bytes that packets will lie in. */
export function emptyFlowKey(view: DataView): FlowKey {
  return { view, remoteOffset: 0, localOffset: 0, ports: 0, protocol: 0, opens: false, openingSequence: 0 };
}

export const SHAPE = {
  /** The key is the packet's own. */
  FLOW: 0,
  /** The key is that of the flow it is about, seen from here: its offsets point into the quoted packet. */
  ICMP_ERROR: 1,
  /** The key is the packet's own, and that of the fragments to come. */
  FIRST_FRAGMENT: 2,
  /** Has no transport header; the key is that of all such packets between its addresses. */
  LATER_FRAGMENT: 3,
  MALFORMED: 4,
} as const;

export type Shape = (typeof SHAPE)[keyof typeof SHAPE];

export type Side = "source-is-local" | "source-is-remote";

/** Fills `key` from the packet at `offset`, which has at least an IPv6 header. `bytes` and the key's view are one memory. */
export function readFlowKey(bytes: Uint8Array, offset: number, length: number, side: Side, key: FlowKey): Shape {
  setAddresses(key, offset, side);
  const protocol = bytes[offset + IPV6.NEXT_HEADER]!;
  const start = offset + IPV6_HEADER_BYTES;
  if (protocol === NEXT_HEADER.TCP && length >= IPV6_HEADER_BYTES + TCP_HEADER_BYTES) {
    key.protocol = protocol;
    key.ports = orient(key.view.getInt32(start), side);
    key.opens = (bytes[start + TCP_FLAGS]! & (TCP_FLAG.SYN | TCP_FLAG.ACK)) === TCP_FLAG.SYN;
    if (key.opens) key.openingSequence = key.view.getInt32(start + TCP_SEQUENCE);
    return SHAPE.FLOW;
  }
  if (protocol === NEXT_HEADER.UDP && length >= IPV6_HEADER_BYTES + UDP_HEADER_BYTES) {
    key.protocol = protocol;
    key.ports = orient(key.view.getInt32(start), side);
    key.opens = false;
    return SHAPE.FLOW;
  }
  return readSlowly(bytes, offset, length, side, key);
}

/** The ports of the packet at `offset` as local << 16 | remote; 0 for protocols without ports. */
export function portsOf(view: DataView, offset: number, length: number, protocol: number, side: Side): number {
  if (protocol !== NEXT_HEADER.TCP && protocol !== NEXT_HEADER.UDP) return 0;
  if (length < IPV6_HEADER_BYTES + 4) return 0;
  return orient(view.getInt32(offset + IPV6_HEADER_BYTES), side);
}

/** The next-header number behind a key's protocol. */
export function transportOf(keyProtocol: number): number {
  return keyProtocol & 0xff;
}

/** The key of an ICMPv6 error by itself, when the flow that it speaks of is not known. */
export function asOwnFlow(offset: number, side: Side, key: FlowKey): void {
  setAddresses(key, offset, side);
  key.protocol = NEXT_HEADER.ICMPV6;
  key.ports = 0;
  key.opens = true;
}

/** Identifies the packet of which this is a fragment (RFC 8200 §4.5); undefined when that is not in its usual place. */
export function fragmentId(bytes: Uint8Array, offset: number, length: number): number | undefined {
  if (bytes[offset + IPV6.NEXT_HEADER] !== NEXT_HEADER.FRAGMENT || length < IPV6_HEADER_BYTES + 8) return undefined;
  return readU32(bytes, offset + IPV6_HEADER_BYTES + 4);
}

function readSlowly(bytes: Uint8Array, offset: number, length: number, side: Side, key: FlowKey): Shape {
  if (!parsePacket(bytes, offset, length, parsed)) return SHAPE.MALFORMED;
  key.protocol = parsed.protocol;
  key.ports = 0;
  key.opens = false;
  if (parsed.fragmentOffset !== 0) {
    key.protocol = NEXT_HEADER.FRAGMENT;
    return SHAPE.LATER_FRAGMENT;
  }
  switch (parsed.protocol) {
    case NEXT_HEADER.TCP:
    case NEXT_HEADER.UDP:
      key.openingSequence = parsed.sequence;
      key.ports = orient((parsed.sourcePort << 16) | parsed.destinationPort, side);
      key.opens = (parsed.tcpFlags & (TCP_FLAG.SYN | TCP_FLAG.ACK)) === TCP_FLAG.SYN;
      return parsed.isFragment ? SHAPE.FIRST_FRAGMENT : SHAPE.FLOW;
    case NEXT_HEADER.ICMPV6:
      return readIcmp(bytes, parsed.transportOffset, offset + length, side, key);
    default:
      return parsed.isFragment ? SHAPE.FIRST_FRAGMENT : SHAPE.FLOW;
  }
}

function readIcmp(bytes: Uint8Array, at: number, end: number, side: Side, key: FlowKey): Shape {
  const whole = parsed.isFragment ? SHAPE.FIRST_FRAGMENT : SHAPE.FLOW;
  const type = bytes[at]!;
  if (type === ICMPV6_TYPE.ECHO_REQUEST || type === ICMPV6_TYPE.ECHO_REPLY) {
    if (at + ECHO_HEADER_BYTES > end) return SHAPE.MALFORMED;
    key.opens = type === ICMPV6_TYPE.ECHO_REQUEST;
    const asksHere = key.opens === (side === "source-is-local");
    key.protocol |= asksHere ? ASKED_HERE : ASKED_THERE;
    key.ports = readU16(bytes, at + 4);
    return whole;
  }
  if (type >= FIRST_INFORMATIONAL_TYPE) {
    key.opens = true;
    return whole;
  }
  return readQuoted(bytes, at + ICMP_ERROR_HEADER_BYTES, end, side, key) ? SHAPE.ICMP_ERROR : SHAPE.MALFORMED;
}

/** The quoted packet went the other way, and is cut off somewhere: only its ports are needed. */
function readQuoted(bytes: Uint8Array, at: number, end: number, side: Side, key: FlowKey): boolean {
  if (at + IPV6_HEADER_BYTES + QUOTED_TRANSPORT_BYTES > end || bytes[at]! >>> 4 !== 6) return false;
  const quotedSide = side === "source-is-local" ? "source-is-remote" : "source-is-local";
  const transport = at + IPV6_HEADER_BYTES;
  setAddresses(key, at, quotedSide);
  key.protocol = bytes[at + IPV6.NEXT_HEADER]!;
  key.opens = false;
  if (key.protocol === NEXT_HEADER.TCP || key.protocol === NEXT_HEADER.UDP) {
    key.ports = orient(key.view.getInt32(transport), quotedSide);
  } else if (key.protocol === NEXT_HEADER.ICMPV6) {
    const isRequest = bytes[transport] === ICMPV6_TYPE.ECHO_REQUEST;
    key.protocol |= isRequest === (quotedSide === "source-is-local") ? ASKED_HERE : ASKED_THERE;
    key.ports = readU16(bytes, transport + 4);
  }
  return true;
}

function setAddresses(key: FlowKey, offset: number, side: Side): void {
  const isLocal = side === "source-is-local";
  key.localOffset = offset + (isLocal ? IPV6.SOURCE : IPV6.DESTINATION);
  key.remoteOffset = offset + (isLocal ? IPV6.DESTINATION : IPV6.SOURCE);
}

/** Source and destination port → local and remote. */
function orient(ports: number, side: Side): number {
  return side === "source-is-local" ? ports : (ports << 16) | (ports >>> 16);
}

/** Reused by every call: nothing here calls back out while it is in use. */
const parsed = emptyParsedPacket();

const TCP_HEADER_BYTES = 20;
const TCP_FLAGS = 13;
const TCP_SEQUENCE = 4;
const UDP_HEADER_BYTES = 8;
const ECHO_HEADER_BYTES = 8;
const ICMP_ERROR_HEADER_BYTES = 8;
const QUOTED_TRANSPORT_BYTES = 8;
const FIRST_INFORMATIONAL_TYPE = 128;
