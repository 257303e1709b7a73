/**
 * The virtual packet: a 34-byte header and its payload, as it travels inside a tunnel frame (pilot protocol §2).
 *
 *     0 version 4 bits, flags 4 bits | 1 protocol | 2 payload length | 4 source | 10 destination | 16 source port
 *     18 destination port | 20 sequence | 24 acknowledgement | 28 window | 30 CRC-32 | 34 payload
 *
 * The CRC covers header and payload with its own four bytes taken as zero. Bytes after the payload are not covered and
 * are ignored, as the reference does: a sender may pad.
 */
import { readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import { crc32 } from "../base/crc32.ts";
import { readPilotAddress, writePilotAddress } from "./address.ts";
import type { PilotAddress } from "./ids.ts";

export const VIRTUAL_HEADER_BYTES = 34;

/** The largest payload that a UDP datagram still carries once the packet is sealed: 65507 - 36 - 34. */
export const MAX_VIRTUAL_PAYLOAD_BYTES = 65_437;

export const FLAG = { SYN: 1, ACK: 2, FIN: 4, RST: 8 } as const;

export const PROTOCOL = { STREAM: 1, DATAGRAM: 2, CONTROL: 3 } as const;

/** Well-known virtual ports. */
export const PORT = {
  CONTROL: 0,
  ECHO: 7,
  /** IPv6 packets and bridge messages; see `bridge.ts`. */
  BRIDGE: 41,
  NAMESERVER: 53,
  HTTP: 80,
  SECURE: 443,
  HANDSHAKE: 444,
  STDIO: 1000,
  DATA_EXCHANGE: 1001,
  EVENT_STREAM: 1002,
  TASK_SUBMIT: 1003,
  GOSSIP: 1005,
} as const;

export const FIRST_EPHEMERAL_PORT = 49_152;
export const LAST_EPHEMERAL_PORT = 65_535;

export interface VirtualHeader {
  /** Bits of FLAG. */
  readonly flags: number;
  /** One of PROTOCOL, or a number nobody knows. */
  readonly protocol: number;
  readonly source: PilotAddress;
  readonly destination: PilotAddress;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** Counts bytes. */
  readonly sequence: number;
  readonly acknowledgement: number;
  /** Counts segments, not bytes (§4.4). */
  readonly window: number;
}

export interface VirtualPacket extends VirtualHeader {
  /** At most MAX_VIRTUAL_PAYLOAD_BYTES. Borrowed from the parsed bytes. */
  readonly payload: Uint8Array;
}

/** A header whose payload length and CRC are still zero: the data plane fills them in for each packet. */
export function encodeVirtualHeader(header: VirtualHeader): Uint8Array {
  const bytes = new Uint8Array(VIRTUAL_HEADER_BYTES);
  writeVirtualHeader(bytes, header);
  return bytes;
}

export function encodeVirtualPacket(packet: VirtualPacket): Uint8Array {
  const bytes = new Uint8Array(VIRTUAL_HEADER_BYTES + packet.payload.length);
  writeVirtualHeader(bytes, packet);
  writeU16(bytes, PAYLOAD_LENGTH, packet.payload.length);
  bytes.set(packet.payload, VIRTUAL_HEADER_BYTES);
  writeU32(bytes, CRC, virtualPacketCrc(bytes));
  return bytes;
}

/** Undefined for anything the reference drops: too short, another version, a payload that is not all there, a wrong CRC. */
export function parseVirtualPacket(bytes: Uint8Array, crcIsChecked = false): VirtualPacket | undefined {
  if (bytes.length < VIRTUAL_HEADER_BYTES || bytes[0]! >>> 4 !== VERSION) return undefined;
  const end = VIRTUAL_HEADER_BYTES + readU16(bytes, PAYLOAD_LENGTH);
  if (end > bytes.length) return undefined;
  const packet = bytes.subarray(0, end);
  if (!crcIsChecked && readU32(packet, CRC) !== virtualPacketCrc(packet)) return undefined;
  return {
    flags: packet[0]! & 0x0f,
    protocol: packet[1]!,
    source: readPilotAddress(packet, SOURCE),
    destination: readPilotAddress(packet, DESTINATION),
    sourcePort: readU16(packet, VIRTUAL_SOURCE_PORT),
    destinationPort: readU16(packet, DESTINATION_PORT),
    sequence: readU32(packet, SEQUENCE),
    acknowledgement: readU32(packet, ACKNOWLEDGEMENT),
    window: readU16(packet, WINDOW),
    payload: packet.subarray(VIRTUAL_HEADER_BYTES),
  };
}

/** The CRC that belongs into a packet, whatever stands in its CRC field; `packet` ends with the payload. */
export function virtualPacketCrc(packet: Uint8Array): number {
  const headerCrc = crc32(ZERO_CRC, crc32(packet.subarray(0, CRC)));
  return crc32(packet.subarray(VIRTUAL_HEADER_BYTES), headerCrc);
}

/** All but payload length and CRC, whose bytes stay as they are. */
export function writeVirtualHeader(bytes: Uint8Array, header: VirtualHeader): void {
  bytes[0] = (VERSION << 4) | (header.flags & 0x0f);
  bytes[1] = header.protocol;
  writePilotAddress(bytes, SOURCE, header.source);
  writePilotAddress(bytes, DESTINATION, header.destination);
  writeU16(bytes, VIRTUAL_SOURCE_PORT, header.sourcePort);
  writeU16(bytes, DESTINATION_PORT, header.destinationPort);
  writeU32(bytes, SEQUENCE, header.sequence);
  writeU32(bytes, ACKNOWLEDGEMENT, header.acknowledgement);
  writeU16(bytes, WINDOW, header.window);
}

const VERSION = 1;
const PAYLOAD_LENGTH = 2;
const SOURCE = 4;
const DESTINATION = 10;
/** Offset of the source port; the destination port follows. */
export const VIRTUAL_SOURCE_PORT = 16;
const DESTINATION_PORT = 18;
const SEQUENCE = 20;
const ACKNOWLEDGEMENT = 24;
const WINDOW = 28;
const CRC = 30;
const ZERO_CRC = new Uint8Array(4);
