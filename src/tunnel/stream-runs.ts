/**
 * Runs of segments of a Pilot stream, which pass between the data plane and the engine as one: data of one stream without a
 * gap, acknowledging the same, all of one size but the last. What a run says is what its packets say one after another.
 */
import { equalBytes, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import type { VirtualRun } from "./data-plane.ts";

export interface StreamRun {
  /** A virtual packet with the header of the first and the payload of all. */
  readonly packet: Uint8Array;
  readonly segments: number;
  /** Payload bytes of each segment but the last. */
  readonly segmentBytes: number;
}

/** Whether `packet`, a whole virtual packet, continues the run. */
export function continuesStream({ packet: first, segments, segmentBytes }: StreamRun, packet: Uint8Array): boolean {
  const payloadBytes = packet.length - HEADER_BYTES;
  const joinedBytes = first.length - HEADER_BYTES;
  if (!isStreamData(first) || !isStreamData(packet) || payloadBytes > segmentBytes) return false;
  if (joinedBytes !== segments * segmentBytes || segments >= MAX_SEGMENTS) return false;
  if (joinedBytes + payloadBytes > MAX_PAYLOAD_BYTES) return false;
  if (readU32(packet, SEQUENCE) !== (readU32(first, SEQUENCE) + joinedBytes) >>> 0) return false;
  return sameBytes(first, packet, ADDRESSES, SEQUENCE) && sameBytes(first, packet, ACKNOWLEDGEMENT, CRC);
}

/** The virtual packets that a run stands for, without their CRC. */
export function cutStream({ header, payload, segmentBytes }: VirtualRun): Uint8Array[] {
  const packets: Uint8Array[] = [];
  let at = 0;
  do {
    const part = payload.subarray(at, at + segmentBytes);
    const packet = new Uint8Array(HEADER_BYTES + part.length);
    packet.set(header);
    packet.set(part, HEADER_BYTES);
    writeU16(packet, LENGTH, part.length);
    writeU32(packet, SEQUENCE, (readU32(header, SEQUENCE) + at) >>> 0);
    packets.push(packet);
    at += part.length;
  } while (at < payload.length);
  return packets;
}

/** Data and nothing else. What may be a SACK, which is told from data by its first bytes alone, stays by itself. */
function isStreamData(packet: Uint8Array): boolean {
  if (packet.length <= HEADER_BYTES || packet[0] !== ACK_ALONE || packet[1] !== PROTOCOL_STREAM) return false;
  return packet.length < HEADER_BYTES + 4 || readU32(packet, HEADER_BYTES) !== SACK_MARK;
}

function sameBytes(a: Uint8Array, b: Uint8Array, from: number, to: number): boolean {
  return equalBytes(a.subarray(from, to), b.subarray(from, to));
}

const HEADER_BYTES = 34;
/** Version 1, flag ACK. */
const ACK_ALONE = 0x12;
const PROTOCOL_STREAM = 1;
const LENGTH = 2;
const ADDRESSES = 4;
const SEQUENCE = 20;
const ACKNOWLEDGEMENT = 24;
const CRC = 30;
const SACK_MARK = 0x5341_434b;
const MAX_SEGMENTS = 64;
/** What one virtual packet may carry. */
const MAX_PAYLOAD_BYTES = 65_437;
