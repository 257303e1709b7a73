/**
 * The little of TCP (RFC 9293) that a bridge touches: the largest segment that a SYN allows, and resets for connections
 * that were cut. Changes to a packet in place keep its checksum right (RFC 1624).
 */
import { readU16, writeU16, writeU32 } from "../base/bytes.ts";
import { transportChecksum, updateChecksum } from "./checksum.ts";
import { IPV6, IPV6_HEADER_BYTES, NEXT_HEADER, writeIpv6Header } from "./ipv6.ts";

export const TCP_FLAG = {
  FIN: 0x01,
  SYN: 0x02,
  RST: 0x04,
  PSH: 0x08,
  ACK: 0x10,
  URG: 0x20,
  ECE: 0x40,
  CWR: 0x80,
} as const;

/** Offsets from the start of the TCP header. */
export const TCP = {
  SOURCE_PORT: 0,
  DESTINATION_PORT: 2,
  SEQUENCE: 4,
  ACKNOWLEDGEMENT: 8,
  DATA_OFFSET: 12,
  FLAGS: 13,
  WINDOW: 14,
  CHECKSUM: 16,
} as const;

export const MIN_TCP_HEADER_BYTES = 20;

/**
 * Lowers the MSS option of a SYN to `maxMss`; true when something changed. A partial checksum (the pseudo-header's sum, to
 * be completed by whoever sends) does not cover the option and stays as it is.
 */
export function clampMss(
  bytes: Uint8Array,
  packetOffset: number,
  tcpOffset: number,
  maxMss: number,
  checksumIsPartial: boolean,
): boolean {
  const at = mssValueOffset(bytes, packetOffset, tcpOffset);
  if (at === undefined) return false;
  const mss = readU16(bytes, at);
  if (mss <= maxMss) return false;
  writeU16(bytes, at, maxMss);
  if (!checksumIsPartial) updateForWord(bytes, tcpOffset, at, mss, maxMss);
  return true;
}

export interface TcpEnds {
  /** 16 bytes each. */
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

export interface Reset extends TcpEnds {
  /** To be believed, exactly what the receiver expects next (RFC 5961 §3.2). */
  readonly sequence: number;
  /** Makes it an RST with ACK: the answer to a segment that had no ACK, such as a SYN (RFC 9293 §3.10.7.1). */
  readonly acknowledgement?: number | undefined;
}

/** A whole IPv6 packet. */
export function encodeReset(reset: Reset): Uint8Array {
  const { sequence, acknowledgement } = reset;
  const flags = acknowledgement === undefined ? TCP_FLAG.RST : TCP_FLAG.RST | TCP_FLAG.ACK;
  return encodeBareSegment(reset, { sequence, acknowledgement: acknowledgement ?? 0, flags });
}

/** A whole IPv6 packet: a SYN as a program sent it, without its options, for an error to quote. */
export function encodeSyn(syn: TcpEnds & { readonly sequence: number }): Uint8Array {
  return encodeBareSegment(syn, { sequence: syn.sequence, acknowledgement: 0, flags: TCP_FLAG.SYN });
}

/**
 * A whole IPv6 packet: an ACK in which the receiver's connection cannot believe, unless `sequence` lies in its window. It
 * answers with an ACK that says what it expects (RFC 9293 §3.10.7.4).
 */
export function encodeStrayAck(ack: TcpEnds & { readonly sequence: number }): Uint8Array {
  return encodeBareSegment(ack, { sequence: ack.sequence, acknowledgement: 0, flags: TCP_FLAG.ACK });
}

function encodeBareSegment(
  { source, destination, sourcePort, destinationPort }: TcpEnds,
  fields: { readonly sequence: number; readonly acknowledgement: number; readonly flags: number },
): Uint8Array {
  const packet = new Uint8Array(IPV6_HEADER_BYTES + MIN_TCP_HEADER_BYTES);
  const nextHeader = NEXT_HEADER.TCP;
  writeIpv6Header(packet, { source, destination, nextHeader, payloadLength: MIN_TCP_HEADER_BYTES });
  const tcp = packet.subarray(IPV6_HEADER_BYTES);
  writeU16(tcp, TCP.SOURCE_PORT, sourcePort);
  writeU16(tcp, TCP.DESTINATION_PORT, destinationPort);
  writeU32(tcp, TCP.SEQUENCE, fields.sequence);
  writeU32(tcp, TCP.ACKNOWLEDGEMENT, fields.acknowledgement);
  tcp[TCP.DATA_OFFSET] = (MIN_TCP_HEADER_BYTES / 4) << 4;
  tcp[TCP.FLAGS] = fields.flags;
  writeU16(tcp, TCP.CHECKSUM, transportChecksum(packet, IPV6_HEADER_BYTES, nextHeader));
  return packet;
}

/** Where the two bytes of the MSS option stand; undefined without one, and when the options make no sense before it. */
function mssValueOffset(bytes: Uint8Array, packetOffset: number, tcpOffset: number): number | undefined {
  if (packetOffset < 0 || tcpOffset < packetOffset + IPV6_HEADER_BYTES) return undefined;
  if (tcpOffset + MIN_TCP_HEADER_BYTES > bytes.length) return undefined;
  if ((bytes[tcpOffset + TCP.FLAGS]! & TCP_FLAG.SYN) === 0) return undefined;
  const packetEnd = packetOffset + IPV6_HEADER_BYTES + readU16(bytes, packetOffset + IPV6.PAYLOAD_LENGTH);
  const headerEnd = tcpOffset + (bytes[tcpOffset + TCP.DATA_OFFSET]! >>> 4) * 4;
  const end = Math.min(headerEnd, packetEnd, bytes.length);

  let at = tcpOffset + MIN_TCP_HEADER_BYTES;
  while (at < end && bytes[at] !== OPTION.END) {
    if (bytes[at] === OPTION.NO_OPERATION) {
      at++;
      continue;
    }
    const optionBytes = at + 1 < end ? bytes[at + 1]! : 0;
    if (optionBytes < 2 || at + optionBytes > end) return undefined;
    if (bytes[at] === OPTION.MSS) return optionBytes === MSS_OPTION_BYTES ? at + 2 : undefined;
    at += optionBytes;
  }
  return undefined;
}

/** A word at an odd distance counts with its bytes swapped. */
function updateForWord(bytes: Uint8Array, tcpOffset: number, at: number, oldWord: number, newWord: number): void {
  const isOdd = (at - tcpOffset) % 2 !== 0;
  const checksum = readU16(bytes, tcpOffset + TCP.CHECKSUM);
  const updated = isOdd
    ? updateChecksum(checksum, swapBytes(oldWord), swapBytes(newWord))
    : updateChecksum(checksum, oldWord, newWord);
  writeU16(bytes, tcpOffset + TCP.CHECKSUM, updated);
}

function swapBytes(word: number): number {
  return ((word & 0xff) << 8) | (word >>> 8);
}

const OPTION = { END: 0, NO_OPERATION: 1, MSS: 2 } as const;
const MSS_OPTION_BYTES = 4;
