/**
 * UDP over IPv6 (RFC 768, RFC 8200 §8.1): the header, and whole packets that this node originates. The checksum is
 * mandatory here, and a sum of zero is written as all ones.
 */
import { readU16, writeU16 } from "../base/bytes.ts";
import { transportChecksum } from "./checksum.ts";
import { emptyParsedPacket, IPV6_HEADER_BYTES, NEXT_HEADER, parsePacket, writeIpv6Header } from "./ipv6.ts";

/** Offsets from the start of the UDP header. */
export const UDP = { SOURCE_PORT: 0, DESTINATION_PORT: 2, LENGTH: 4, CHECKSUM: 6 } as const;

export const UDP_HEADER_BYTES = 8;

export interface UdpDatagram {
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** At most 65,527 bytes. Borrowed from the parsed packet. */
  readonly payload: Uint8Array;
}

/** A whole IPv6 packet. */
export function encodeUdpPacket(
  datagram: UdpDatagram & { readonly source: Uint8Array; readonly destination: Uint8Array },
): Uint8Array {
  const { source, destination, payload } = datagram;
  const udpLength = UDP_HEADER_BYTES + payload.length;
  const packet = new Uint8Array(IPV6_HEADER_BYTES + udpLength);
  writeIpv6Header(packet, { source, destination, nextHeader: NEXT_HEADER.UDP, payloadLength: udpLength });
  const udp = packet.subarray(IPV6_HEADER_BYTES);
  writeU16(udp, UDP.SOURCE_PORT, datagram.sourcePort);
  writeU16(udp, UDP.DESTINATION_PORT, datagram.destinationPort);
  writeU16(udp, UDP.LENGTH, udpLength);
  udp.set(payload, UDP_HEADER_BYTES);
  const checksum = transportChecksum(packet, IPV6_HEADER_BYTES, NEXT_HEADER.UDP);
  writeU16(udp, UDP.CHECKSUM, checksum === 0 ? 0xffff : checksum);
  return packet;
}

/**
 * The datagram of an unfragmented packet. Undefined for other packets, for a length field that disagrees with the packet,
 * and for a missing or wrong checksum.
 */
export function parseUdpPacket(packet: Uint8Array): UdpDatagram | undefined {
  if (!parsePacket(packet, 0, packet.length, parsed) || parsed.isFragment) return undefined;
  if (parsed.protocol !== NEXT_HEADER.UDP) return undefined;
  const { transportOffset: at, sourcePort, destinationPort } = parsed;
  const end = at + UDP_HEADER_BYTES + parsed.transportPayloadLength;
  if (readU16(packet, at + UDP.LENGTH) !== end - at || readU16(packet, at + UDP.CHECKSUM) === 0) return undefined;
  if (transportChecksum(packet, at, NEXT_HEADER.UDP, end) !== 0) return undefined;
  return { sourcePort, destinationPort, payload: packet.subarray(at + UDP_HEADER_BYTES, end) };
}

/** Reused by every call: nothing here calls back out while it is in use. */
const parsed = emptyParsedPacket();
