/** Two portable data planes that share a key, as after a key exchange: node 1 is `a`, node 2 is `b`. */

import { writeU16, writeU32 } from "../../src/base/bytes.ts";
import { crc32 } from "../../src/base/crc32.ts";
import type { Endpoint } from "../../src/base/endpoint.ts";
import { ACCEPT, IN, type KeySpec, OUT, ROW_WORDS, type StagedPacket } from "../../src/tunnel/data-plane.ts";
import { PortableDataPlane, type SentDatagram } from "../../src/tunnel/portable-data-plane.ts";
import { nodeId } from "../../src/wire/ids.ts";

export const A: Endpoint = { address: "192.0.2.1", port: 4001 };
export const B: Endpoint = { address: "192.0.2.2", port: 4002 };
export const RELAY: Endpoint = { address: "192.0.2.9", port: 9001 };
export const KEY_SLOT = 3;
export const ENDPOINT_SLOT = 5;

export interface VirtualFields {
  readonly protocol?: number;
  readonly sourceNode?: number;
  readonly destinationNode?: number;
  readonly port?: number;
  readonly payload?: Uint8Array;
}

export function virtualHeader(fields: VirtualFields = {}): Uint8Array {
  const header = new Uint8Array(34);
  header[0] = 0x10;
  header[1] = fields.protocol ?? 2;
  writeU32(header, 6, fields.sourceNode ?? 1);
  writeU32(header, 12, fields.destinationNode ?? 2);
  writeU16(header, 16, fields.port ?? 41);
  writeU16(header, 18, fields.port ?? 41);
  return header;
}

export function virtualPacket(fields: VirtualFields = {}): Uint8Array {
  const payload = fields.payload ?? new Uint8Array(0);
  const packet = new Uint8Array(34 + payload.length);
  packet.set(virtualHeader(fields));
  writeU16(packet, 2, payload.length);
  packet.set(payload, 34);
  writeU32(packet, 30, crc32(packet));
  return packet;
}

export function keySpec(local: number, peer: number, overrides: Partial<KeySpec> = {}): KeySpec {
  return {
    key: new Uint8Array(32).fill(0x42),
    sendPrefix: Uint8Array.of(local, 0, 0, local),
    firstCounter: 1,
    localNode: nodeId(local),
    peerNode: nodeId(peer),
    sendHeader: virtualHeader({ sourceNode: local, destinationNode: peer }),
    receiveHeader: virtualHeader({ sourceNode: peer, destinationNode: local }),
    bindSender: true,
    ...overrides,
  };
}

export function planeOfA(overrides: Partial<KeySpec> = {}): PortableDataPlane {
  return connect(keySpec(1, 2, overrides), B);
}

export function planeOfB(overrides: Partial<KeySpec> = {}): PortableDataPlane {
  return connect(keySpec(2, 1, overrides), A);
}

function connect(spec: KeySpec, peer: Endpoint): PortableDataPlane {
  const plane = new PortableDataPlane();
  plane.installKey(KEY_SLOT, spec);
  plane.setEndpoint(ENDPOINT_SLOT, peer, new Uint8Array(0));
  plane.bindKey(KEY_SLOT, ENDPOINT_SLOT);
  return plane;
}

/** Sends packets to the peer and returns the datagrams. */
export function send(plane: PortableDataPlane, packets: readonly StagedPacket[]): SentDatagram[] {
  const count = plane.pushTunPackets(packets);
  for (let row = 0; row < count; row++) {
    plane.outbound.rows[row * ROW_WORDS + OUT.KEY_SLOT] = KEY_SLOT;
    plane.outbound.rows[row * ROW_WORDS + OUT.ENDPOINT_SLOT] = ENDPOINT_SLOT;
  }
  plane.sealAndSend(count);
  return plane.takeDatagrams();
}

/** Receives datagrams as if from `from` and returns the number of inbound rows. */
export function receive(plane: PortableDataPlane, datagrams: readonly Uint8Array[], from: Endpoint): number {
  return plane.receive(datagrams.map((bytes) => ({ from, bytes })));
}

/** Accepts every inbound row and returns what the TUN got. */
export function acceptAll(plane: PortableDataPlane, count: number): Uint8Array[] {
  for (let row = 0; row < count; row++) plane.inbound.rows[row * ROW_WORDS + IN.VERDICT] = ACCEPT;
  plane.writeTun(count);
  return plane.takeTunPackets();
}

/** A word of an inbound row. */
export function inboundWord(plane: PortableDataPlane, row: number, word: number): number {
  return plane.inbound.rows[row * ROW_WORDS + word]!;
}
