/** Builds whole IPv6 packets with right lengths and checksums, computed the plain way, for tests of the data path. */
import type { StagedPacket } from "../../src/tunnel/data-plane.ts";

export const TCP = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32, ECE: 64, CWR: 128 } as const;

export interface IpFields {
  readonly source?: number;
  readonly destination?: number;
  /** Of both addresses. */
  readonly network?: number;
  readonly trafficClass?: number;
  readonly flowLabel?: number;
  readonly hopLimit?: number;
}

export interface TcpFields extends IpFields {
  readonly sequence?: number;
  readonly acknowledgement?: number;
  readonly flags?: number;
  readonly window?: number;
  readonly options?: Uint8Array;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly payload?: Uint8Array;
}

export interface UdpFields extends IpFields {
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly payload?: Uint8Array;
}

export function ipv6Packet(nextHeader: number, upper: Uint8Array, fields: IpFields = {}): Uint8Array {
  const packet = new Uint8Array(40 + upper.length);
  const view = new DataView(packet.buffer);
  view.setUint32(0, ((6 << 28) | ((fields.trafficClass ?? 0) << 20) | (fields.flowLabel ?? 0)) >>> 0);
  view.setUint16(4, upper.length);
  packet[6] = nextHeader;
  packet[7] = fields.hopLimit ?? 64;
  packet.set([0xfd, 0x50, 0x49, 0x4c, 0x4f, 0x54], 8);
  view.setUint32(20, fields.source ?? 1);
  packet.set([0xfd, 0x50, 0x49, 0x4c, 0x4f, 0x54], 24);
  view.setUint32(36, fields.destination ?? 2);
  view.setUint16(14, fields.network ?? 0);
  view.setUint16(30, fields.network ?? 0);
  packet.set(upper, 40);
  return packet;
}

export function tcpPacket(fields: TcpFields = {}): Uint8Array {
  const options = fields.options ?? new Uint8Array(0);
  const payload = fields.payload ?? new Uint8Array(0);
  const tcp = new Uint8Array(20 + options.length + payload.length);
  const view = new DataView(tcp.buffer);
  view.setUint16(0, fields.sourcePort ?? 40_000);
  view.setUint16(2, fields.destinationPort ?? 80);
  view.setUint32(4, fields.sequence ?? 0);
  view.setUint32(8, fields.acknowledgement ?? 7);
  tcp[12] = (5 + options.length / 4) << 4;
  tcp[13] = fields.flags ?? TCP.ACK;
  view.setUint16(14, fields.window ?? 500);
  tcp.set(options, 20);
  tcp.set(payload, 20 + options.length);
  const packet = ipv6Packet(6, tcp, fields);
  new DataView(packet.buffer).setUint16(56, naiveChecksum(packet));
  return packet;
}

export function udpPacket(fields: UdpFields = {}): Uint8Array {
  const payload = fields.payload ?? new Uint8Array(0);
  const udp = new Uint8Array(8 + payload.length);
  const view = new DataView(udp.buffer);
  view.setUint16(0, fields.sourcePort ?? 40_000);
  view.setUint16(2, fields.destinationPort ?? 53);
  view.setUint16(4, udp.length);
  udp.set(payload, 8);
  const packet = ipv6Packet(17, udp, fields);
  new DataView(packet.buffer).setUint16(46, naiveChecksum(packet) || 0xffff);
  return packet;
}

/** The checksum to store (or 0 when the stored one is right) of a packet without extension headers, via bigint. */
export function naiveChecksum(packet: Uint8Array): number {
  const upper = packet.subarray(40);
  const pseudo = [...packet.subarray(8, 40), 0, 0, upper.length >> 8, upper.length & 0xff, 0, 0, 0, packet[6]!];
  const bytes = [...pseudo, ...upper];
  if (bytes.length % 2 === 1) bytes.push(0);
  let sum = 0n;
  for (let at = 0; at < bytes.length; at += 2) sum += BigInt(bytes[at]! * 256 + bytes[at + 1]!);
  // One's complement addition is addition modulo 65535, with 65535 standing for the zero of a sum that is not 0.
  const folded = sum === 0n ? 0n : ((sum - 1n) % 65_535n) + 1n;
  return Number(65_535n - folded);
}

/** As a kernel cuts a packet for an interface (RFC 8200 §4.5). */
export function cutPacket(packet: Uint8Array, mtuBytes: number, id = 77): Uint8Array[] {
  const payload = packet.subarray(40);
  const size = (mtuBytes - 48) & ~7;
  const fragments: Uint8Array[] = [];
  for (let at = 0; at < payload.length; at += size) {
    const part = payload.subarray(at, at + size);
    const fragment = new Uint8Array(48 + part.length);
    fragment.set(packet.subarray(0, 40));
    const view = new DataView(fragment.buffer);
    view.setUint16(4, 8 + part.length);
    fragment[6] = 44;
    fragment[40] = packet[6]!;
    view.setUint16(42, at | (at + size < payload.length ? 1 : 0));
    view.setUint32(44, id);
    fragment.set(part, 48);
    fragments.push(fragment);
  }
  return fragments;
}

/** A packet as the TUN hands it over when nothing was offloaded. */
export function whole(bytes: Uint8Array): StagedPacket {
  return { bytes, gsoType: 0, gsoSize: 0, csumStart: 0, csumOffset: 0, headerLength: 0 };
}

/** A packet as the TUN hands it over when it is to be cut; its checksum field holds garbage, as no one may read it. */
export function superpacket(packet: Uint8Array, gsoSize: number): StagedPacket {
  const isTcp = packet[6] === 6;
  const bytes = packet.slice();
  const csumOffset = isTcp ? 16 : 6;
  bytes.fill(0xa5, 40 + csumOffset, 42 + csumOffset);
  const headerLength = 40 + (isTcp ? (packet[52]! >>> 4) * 4 : 8);
  return { bytes, gsoType: isTcp ? 4 : 5, gsoSize, csumStart: 40, csumOffset, headerLength };
}

export function bytesOf(length: number, first = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (first + index) & 0xff);
}
