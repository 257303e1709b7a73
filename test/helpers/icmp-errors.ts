/** Reads the ICMPv6 errors that a node writes to its interface. */
const ICMPV6 = 58;
const PACKET_TOO_BIG = 2;

export function isPacketTooBig(packet: Uint8Array | undefined): boolean {
  return packet?.[6] === ICMPV6 && packet[40] === PACKET_TOO_BIG;
}

export function icmpv6Mtu(packet: Uint8Array): number {
  return new DataView(packet.buffer, packet.byteOffset).getUint32(44);
}
