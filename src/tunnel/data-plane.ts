/**
 * The line between TypeScript that decides and C that moves bytes.
 *
 * Outbound: `readTun` fills rows, the engine writes a key slot and an endpoint slot into each, `sealAndSend` segments,
 * seals and sends. Inbound: `receiveAndOpen` fills rows, the engine writes a verdict into each, `writeTun` coalesces and
 * writes. A row is ROW_WORDS 32-bit words; offsets are into the batch's arena. Row contents and arena bytes are
 * borrowed: they are valid until the next call that fills the same batch.
 *
 * Two implementations: `io/native-data-plane.ts` (the C shim) and `tunnel/portable-data-plane.ts` (TypeScript; the
 * oracle of the shim's tests and the data plane of the simulated network).
 */
import type { Endpoint } from "../base/endpoint.ts";
import type { NodeId } from "../wire/ids.ts";

export const ROW_WORDS = 12;

/** Words of an outbound row: one IP packet or one superpacket from the TUN. */
export const OUT = {
  OFFSET: 0,
  LENGTH: 1,
  /** virtio_net_hdr.gso_type: 0 none, 4 TCP over IPv6, 5 UDP. */
  GSO_TYPE: 2,
  /** Payload bytes of each segment when GSO_TYPE is not 0. */
  GSO_SIZE: 3,
  /** Where the partial checksum starts, from OFFSET; 0 when the checksum is complete. */
  CSUM_START: 4,
  /** Where it is stored, from CSUM_START. */
  CSUM_OFFSET: 5,
  /** Bytes of IP and transport headers that every segment repeats; 0 when GSO_TYPE is 0. */
  HEADER_LENGTH: 6,
  /** Written by the engine: DROP, LOOPBACK or a key slot. */
  KEY_SLOT: 7,
  /** Written by the engine. */
  ENDPOINT_SLOT: 8,
} as const;

/** Words of an inbound row. */
export const IN = {
  OFFSET: 0,
  /** Bytes of the first (or only) packet or datagram. */
  LENGTH: 1,
  /** One of ROW_KIND. */
  KIND: 2,
  /** The key that opened it; NONE for `other`. */
  KEY_SLOT: 3,
  /** Index into `sources` of the datagram it came in. */
  SOURCE: 4,
  /** Bits of ROW_FLAG. */
  FLAGS: 5,
  /**
   * Packets in this run: consecutive TCP or UDP segments of one flow that `writeTun` will write as one, or consecutive
   * segments of one stream: then LENGTH and the length field are those of a packet with the payload of all.
   */
  SEGMENTS: 6,
  /** Bytes of all packets of the run. */
  TOTAL_BYTES: 7,
  /** Sender node of the frame or of the relay wrapper, for `packet`, `virtual` and relayed `other` rows. */
  SENDER: 8,
  /** Written by the engine: ACCEPT or DROP; anything else is treated as DROP. */
  VERDICT: 9,
  /** TCP only: the sequence number after the last byte of the run (SYN and FIN counted), else 0. */
  NEXT_SEQ: 10,
  /** `virtual` rows with SEGMENTS over 1: payload bytes of each packet of the run but the last, which may be shorter. */
  SEGMENT_BYTES: 11,
} as const;

export const ROW_KIND = {
  /** An opened inner IP packet, or a run of them; OFFSET points at the IP header. */
  PACKET: 0,
  /** An opened virtual packet that is not bridge data; OFFSET points at its 34-byte header, LENGTH includes it. */
  VIRTUAL: 1,
  /** Anything else: a datagram as it came (relay wrapper removed when the flag says so). */
  OTHER: 2,
} as const;

export const ROW_FLAG = {
  /** Came in through the relay wrapper 06 or 09 from a relay endpoint. */
  RELAYED: 1,
  /** Opened, but the UDP source is not the endpoint bound to the key: the peer may have moved. */
  MOVED: 2,
} as const;

export const NONE = -1;
export const DROP = -1;
/** Write the row back to the TUN as it was read, offloads included: the kernel takes it for a packet that arrived. */
export const LOOPBACK = -2;
export const ACCEPT = 1;

/** Counters the data plane keeps: indexes into `counters`. */
export const COUNTER = {
  DATAGRAM_TOO_SHORT: 0,
  BAD_TAG: 1,
  REPLAYED: 2,
  BAD_VIRTUAL_PACKET: 3,
  INNER_MISMATCH: 4,
  MALFORMED_PACKET: 5,
  TUN_WRITE_FAILED: 6,
  SEND_FAILED: 7,
  /** Datagrams, frames and packets moved; not drops. */
  RX_DATAGRAMS: 8,
  TX_DATAGRAMS: 9,
  RX_PACKETS: 10,
  TX_PACKETS: 11,
  /** Sends that found the socket full and were retried when it was writable. */
  SEND_WAITS: 12,
  /** Messages that came while the socket of sealed and relayed frames was full, and while that of all else was. */
  SOCKET_FULL: 13,
  SECOND_SOCKET_FULL: 14,
} as const;
export const COUNTER_COUNT = 16;

/** Per key slot statistics: indexes into `keyStats` at `slot * KEY_STAT_COUNT`. Payload is inner IP bytes. */
export const KEY_STAT = { RX_BYTES: 0, TX_BYTES: 1, RX_PACKETS: 2, TX_PACKETS: 3 } as const;
export const KEY_STAT_COUNT = 4;

export interface Batch {
  /** MAX_ROWS rows of ROW_WORDS words. */
  readonly rows: Int32Array;
  readonly arena: Uint8Array;
}

export interface KeySpec {
  /** AES-256-GCM key, 32 bytes; copied. Seals, and opens too unless `receive` is there. */
  readonly key: Uint8Array;
  /** The peer seals with a key of its own, and all its nonces begin with these 4 bytes: nothing else is tried. */
  readonly receive?: { readonly key: Uint8Array; readonly prefix: Uint8Array } | undefined;
  /** First four bytes of every nonce we send; the other eight are the counter. */
  readonly sendPrefix: Uint8Array;
  /** Counter of the next frame sent: at least 1 for a new key pair, the saved value for one seen before. */
  readonly firstCounter: number;
  readonly localNode: NodeId;
  /** Frames from this node are tried with this key. */
  readonly peerNode: NodeId;
  /** The 34-byte virtual header of bridge data we send; length and CRC are filled in per packet. */
  readonly sendHeader: Uint8Array;
  /** The header bridge data of this peer must carry: bytes 0–1 and 4–19 are compared, the rest is not. */
  readonly receiveHeader: Uint8Array;
  /** False for the older key generation G1, which authenticates no sender ID. */
  readonly bindSender: boolean;
}

/** A packet that waited for a session, with what the TUN said about it. */
export interface StagedPacket {
  readonly bytes: Uint8Array;
  readonly gsoType: number;
  readonly gsoSize: number;
  readonly csumStart: number;
  readonly csumOffset: number;
  readonly headerLength: number;
  /** The only way it may go, if its rule names one. */
  readonly way?: "direct" | "relay" | undefined;
}

/** What the row of `outbound` whose words begin at `at` describes; its bytes are borrowed. */
export function packetOfRow({ rows, arena }: Batch, at: number, way?: StagedPacket["way"]): StagedPacket {
  const offset = rows[at + OUT.OFFSET]!;
  return {
    bytes: arena.subarray(offset, offset + rows[at + OUT.LENGTH]!),
    gsoType: rows[at + OUT.GSO_TYPE]!,
    gsoSize: rows[at + OUT.GSO_SIZE]!,
    csumStart: rows[at + OUT.CSUM_START]!,
    csumOffset: rows[at + OUT.CSUM_OFFSET]!,
    headerLength: rows[at + OUT.HEADER_LENGTH]!,
    way,
  };
}

/** Virtual packets that follow each other, as a stream's do; one alone, too, and one without payload. */
export interface VirtualRun {
  /** Of the first, 34 bytes: payload length, CRC, and the sequence numbers of the others, are filled in for each. */
  readonly header: Uint8Array;
  readonly payload: Uint8Array;
  /** Payload bytes of each but the last; not 0. */
  readonly segmentBytes: number;
}

/** What the engine may ask of the data plane. Slots are small integers that the engine hands out. */
export interface DataPlane {
  readonly outbound: Batch;
  readonly inbound: Batch;
  readonly counters: Float64Array;
  readonly keyStats: Float64Array;

  installKey(slot: number, spec: KeySpec): void;
  /** Wipes the key; returns the counter the next frame would have had, for `firstCounter` of a later install. */
  removeKey(slot: number): number;
  /** Datagrams to this slot go to `endpoint`, each with `prefix` in front (at most 16 bytes; the relay wrapper). */
  setEndpoint(slot: number, endpoint: Endpoint, prefix: Uint8Array): void;
  /** Frames opened with the key that come from elsewhere than this endpoint slot are flagged MOVED. */
  bindKey(keySlot: number, endpointSlot: number): void;
  /** Datagrams from this endpoint that start with 06 or 09 are relay deliveries; others that do are `other` rows. */
  setRelay(endpoint: Endpoint | undefined): void;

  /** The UDP source of an inbound row, by the row's SOURCE word. */
  source(index: number): Endpoint;
  /** Seals one whole virtual packet (its CRC is set by the caller) into a PILS frame; the bytes are the caller's. */
  seal(keySlot: number, virtualPacket: Uint8Array): Uint8Array;
  /**
   * Seals a run of virtual packets for an endpoint slot; its bytes are the caller's. For packets that come in numbers: they
   * leave together at the end of the wake-up.
   */
  queueVirtual(keySlot: number, endpointSlot: number, run: VirtualRun): void;
  /** Sends a packet that waited, as `sealAndSend` would have. */
  sendStaged(keySlot: number, endpointSlot: number, packet: StagedPacket): void;
}

/** Bounds of the tables behind the slots. */
export const MAX_KEY_SLOTS = 32768;
export const MAX_ENDPOINT_SLOTS = 32768;
export const MAX_LINKS = 16384;
export const MAX_ROWS = 512;
