/**
 * The ten bytes in front of every packet that a TUN device with IFF_VNET_HDR reads and takes: what was left undone of
 * segmentation and checksum (virtio 1.2 §5.1.6, linux/virtio_net.h), in the byte order of the machines that we run on.
 *
 *     flags 1 | gso type 1 | header length 2 | gso size 2 | checksum start 2 | checksum offset 2
 */

export const VNET_HEADER_BYTES = 10;

/** An IP packet, and what was left undone of it. Fields as in a row of the data plane. */
export interface OffloadedPacket {
  readonly bytes: Uint8Array;
  readonly gsoType: number;
  readonly gsoSize: number;
  readonly csumStart: number;
  readonly csumOffset: number;
  readonly headerLength: number;
}

/** Writes the header at `offset` of `into`. */
export function writeVnetHeader(packet: OffloadedPacket, into: Uint8Array, offset: number): void {
  const view = new DataView(into.buffer, into.byteOffset + offset, VNET_HEADER_BYTES);
  view.setUint8(0, packet.csumStart === 0 ? 0 : NEEDS_CHECKSUM);
  view.setUint8(1, packet.gsoType);
  view.setUint16(2, packet.headerLength, true);
  view.setUint16(4, packet.gsoSize, true);
  view.setUint16(6, packet.csumStart, true);
  view.setUint16(8, packet.csumOffset, true);
}

/**
 * The packet behind a header; its bytes are borrowed from `frame`. Undefined for what contradicts itself, and for a kind of
 * segmentation other than that of TCP over IPv6.
 */
export function parseVnetFrame(frame: Uint8Array): OffloadedPacket | undefined {
  if (frame.length <= VNET_HEADER_BYTES) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const bytes = frame.subarray(VNET_HEADER_BYTES);
  const isPartial = (view.getUint8(0) & NEEDS_CHECKSUM) !== 0;
  const csumStart = isPartial ? view.getUint16(6, true) : 0;
  const csumOffset = isPartial ? view.getUint16(8, true) : 0;
  if (isPartial && csumStart + csumOffset + 2 > bytes.length) return undefined;
  const gsoType = view.getUint8(1) & ~GSO_ECN;
  if (gsoType === GSO_NONE) return { bytes, gsoType, gsoSize: 0, csumStart, csumOffset, headerLength: 0 };
  if (gsoType !== GSO_TCP_V6 || !isPartial || csumStart + MIN_TCP_HEADER > bytes.length) return undefined;
  const gsoSize = view.getUint16(4, true);
  const headerLength = csumStart + (bytes[csumStart + TCP_DATA_OFFSET]! >>> 4) * 4;
  if (gsoSize === 0 || headerLength <= csumStart || headerLength >= bytes.length) return undefined;
  return { bytes, gsoType, gsoSize, csumStart, csumOffset, headerLength };
}

const NEEDS_CHECKSUM = 1;
const GSO_NONE = 0;
const GSO_TCP_V6 = 4;
const GSO_ECN = 0x80;
const MIN_TCP_HEADER = 20;
const TCP_DATA_OFFSET = 12;
