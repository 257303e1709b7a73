/**
 * The data plane in TypeScript, in memory: the oracle of the C shim's tests, and the data plane of the simulated
 * network. What a kernel would deliver is pushed in, what it would be given is taken out.
 * Invariant: rows, counters, flags and bytes are those of the shim for the same input. Only the last step differs: runs
 * leave as the packets they consist of.
 */

import { readU16, readU32, writeU16 } from "../base/bytes.ts";
import { type Endpoint, sameEndpoint } from "../base/endpoint.ts";
import { Coalescer, type Run } from "./coalesce.ts";
import {
  ACCEPT,
  type Batch,
  COUNTER,
  COUNTER_COUNT,
  type DataPlane,
  DROP,
  IN,
  KEY_STAT,
  KEY_STAT_COUNT,
  type KeySpec,
  LOOPBACK,
  MAX_ENDPOINT_SLOTS,
  MAX_KEY_SLOTS,
  MAX_ROWS,
  NONE,
  OUT,
  ROW_FLAG,
  ROW_KIND,
  ROW_WORDS,
  type StagedPacket,
  type VirtualRun,
} from "./data-plane.ts";
import { isSealedFrame, SEALED_MAGIC, senderOf } from "./portable-frame.ts";
import { type OpenedFrame, PortableKeys, VIRTUAL_HEADER_BYTES } from "./portable-keys.ts";
import { segmentPacket } from "./segment.ts";
import { continuesStream, cutStream } from "./stream-runs.ts";

export interface SentDatagram {
  readonly to: Endpoint;
  readonly bytes: Uint8Array;
}

export interface ReceivedDatagram {
  readonly from: Endpoint;
  readonly bytes: Uint8Array;
}

export class PortableDataPlane implements DataPlane {
  readonly outbound: Batch = newBatch();
  readonly inbound: Batch = newBatch();
  readonly counters = new Float64Array(COUNTER_COUNT);
  readonly keyStats = new Float64Array(MAX_KEY_SLOTS * KEY_STAT_COUNT);

  readonly #keys = new PortableKeys();
  /** Key: endpoint slot. Bound: MAX_ENDPOINT_SLOTS; entries are replaced, never removed. */
  readonly #endpoints = new Map<number, { readonly endpoint: Endpoint; readonly prefix: Uint8Array }>();
  /** Endpoint slot by key slot. Bound: MAX_KEY_SLOTS; removed with the key. */
  readonly #boundEndpoints = new Map<number, number>();
  #relay: Endpoint | undefined;

  /** Inputs that did not fit the batch yet, and outputs nobody took yet. Bound: what the caller pushes and leaves. */
  readonly #tunInput: StagedPacket[] = [];
  readonly #datagramInput: ReceivedDatagram[] = [];
  #tunOutput: Uint8Array[] = [];
  #datagramOutput: SentDatagram[] = [];

  readonly #coalescer = new Coalescer();
  readonly #outboundFill = new BatchFill(this.outbound);
  readonly #inboundFill = new BatchFill(this.inbound);
  /** Of the current inbound batch. Bound: one per datagram of the batch; its runs also by row. */
  #sources: Endpoint[] = [];
  readonly #runs = new Map<number, Run>();
  readonly #rowOfRun = new Map<Run, number>();

  installKey(slot: number, spec: KeySpec): void {
    checkSlot(slot, MAX_KEY_SLOTS);
    this.removeKey(slot);
    this.#keys.install(slot, spec);
    this.keyStats.fill(0, slot * KEY_STAT_COUNT, (slot + 1) * KEY_STAT_COUNT);
  }

  removeKey(slot: number): number {
    this.#boundEndpoints.delete(slot);
    return this.#keys.remove(slot);
  }

  setEndpoint(slot: number, endpoint: Endpoint, prefix: Uint8Array): void {
    checkSlot(slot, MAX_ENDPOINT_SLOTS);
    if (prefix.length > MAX_PREFIX_BYTES) throw new RangeError(`a prefix of ${prefix.length} bytes is too long`);
    this.#endpoints.set(slot, { endpoint, prefix: prefix.slice() });
  }

  bindKey(keySlot: number, endpointSlot: number): void {
    checkSlot(keySlot, MAX_KEY_SLOTS);
    checkSlot(endpointSlot, MAX_ENDPOINT_SLOTS);
    this.#boundEndpoints.set(keySlot, endpointSlot);
  }

  setRelay(endpoint: Endpoint | undefined): void {
    this.#relay = endpoint;
  }

  source(index: number): Endpoint {
    const endpoint = this.#sources[index];
    if (endpoint === undefined) throw new RangeError(`no source ${index} in this batch`);
    return endpoint;
  }

  seal(keySlot: number, virtualPacket: Uint8Array): Uint8Array {
    const frame = this.#keys.seal(keySlot, virtualPacket);
    if (frame === undefined) throw new RangeError(`key slot ${keySlot} cannot seal`);
    return frame;
  }

  queueVirtual(keySlot: number, endpointSlot: number, run: VirtualRun): void {
    for (const packet of cutStream(run)) {
      // Not sealed in vain: a frame without an endpoint takes no counter.
      const frame = this.#endpoints.has(endpointSlot) ? this.#keys.sealWithCrc(keySlot, packet) : undefined;
      this.#sendFrame(endpointSlot, frame);
    }
  }

  sendStaged(keySlot: number, endpointSlot: number, packet: StagedPacket): void {
    const packets = segmentPacket(packet);
    if (packets === undefined) this.#count(COUNTER.MALFORMED_PACKET);
    else for (const inner of packets) this.#sendPacket(keySlot, endpointSlot, inner);
  }

  /** What `readTun` does: fills outbound rows and returns how many; packets that do not fit wait for the next call. */
  pushTunPackets(packets: readonly StagedPacket[]): number {
    for (const packet of packets) this.#tunInput.push(packet);
    const fill = this.#outboundFill;
    fill.reset();
    let taken = 0;
    for (const packet of this.#tunInput) {
      if (!fill.hasRoomFor(packet.bytes.length)) break;
      taken++;
      const row = fill.add(packet.bytes);
      fill.set(row, OUT.GSO_TYPE, packet.gsoType);
      fill.set(row, OUT.GSO_SIZE, packet.gsoSize);
      fill.set(row, OUT.CSUM_START, packet.csumStart);
      fill.set(row, OUT.CSUM_OFFSET, packet.csumOffset);
      fill.set(row, OUT.HEADER_LENGTH, packet.headerLength);
      fill.set(row, OUT.KEY_SLOT, DROP);
      fill.set(row, OUT.ENDPOINT_SLOT, NONE);
    }
    this.#tunInput.splice(0, taken);
    return fill.rowCount;
  }

  /** Segments, seals and sends the first `count` outbound rows; rows whose key slot is DROP go nowhere. */
  sealAndSend(count: number): void {
    const fill = this.#outboundFill;
    for (let row = 0; row < Math.min(count, fill.rowCount); row++) {
      const keySlot = fill.word(row, OUT.KEY_SLOT);
      if (keySlot >= 0) this.sendStaged(keySlot, fill.word(row, OUT.ENDPOINT_SLOT), this.#outboundPacket(row));
      else if (keySlot === LOOPBACK) this.#writeBack(row);
    }
  }

  #outboundPacket(row: number): StagedPacket {
    const fill = this.#outboundFill;
    return {
      bytes: fill.bytes(row),
      gsoType: fill.word(row, OUT.GSO_TYPE),
      gsoSize: fill.word(row, OUT.GSO_SIZE),
      csumStart: fill.word(row, OUT.CSUM_START),
      csumOffset: fill.word(row, OUT.CSUM_OFFSET),
      headerLength: fill.word(row, OUT.HEADER_LENGTH),
    };
  }

  /** What a kernel makes of it: the packets that it stands for, with complete checksums. */
  #writeBack(row: number): void {
    const packets = segmentPacket(this.#outboundPacket(row));
    if (packets === undefined) this.#count(COUNTER.MALFORMED_PACKET);
    else this.#tunOutput.push(...packets);
  }

  takeDatagrams(): SentDatagram[] {
    const sent = this.#datagramOutput;
    this.#datagramOutput = [];
    return sent;
  }

  /**
   * What `receiveAndOpen` does: fills inbound rows and returns how many; datagrams that do not fit wait for the next
   * call. When it returns 0, none waits.
   */
  receive(datagrams: readonly ReceivedDatagram[]): number {
    for (const datagram of datagrams) this.#datagramInput.push(datagram);
    this.#inboundFill.reset();
    this.#sources = [];
    this.#runs.clear();
    this.#rowOfRun.clear();
    let taken = 0;
    for (const datagram of this.#datagramInput) {
      if (!this.#inboundFill.hasRoomFor(Math.min(datagram.bytes.length, MAX_DATAGRAM_BYTES))) break;
      taken++;
      this.#handleDatagram(datagram);
    }
    this.#datagramInput.splice(0, taken);
    this.#coalescer.clear();
    return this.#inboundFill.rowCount;
  }

  /** Writes the accepted ones of the first `count` inbound rows to the TUN. */
  writeTun(count: number): void {
    const fill = this.#inboundFill;
    for (let row = 0; row < Math.min(count, fill.rowCount); row++) {
      if (fill.word(row, IN.VERDICT) !== ACCEPT) continue;
      // The run's own copy: the arena may have been written to since.
      for (const packet of this.#runs.get(row)?.packets ?? []) this.#tunOutput.push(packet);
    }
  }

  takeTunPackets(): Uint8Array[] {
    const written = this.#tunOutput;
    this.#tunOutput = [];
    return written;
  }

  #sendPacket(keySlot: number, endpointSlot: number, packet: Uint8Array): void {
    const isKnown = this.#endpoints.has(endpointSlot);
    const frame = isKnown ? this.#keys.sealBridgeData(keySlot, packet) : undefined;
    if (!this.#sendFrame(endpointSlot, frame)) return;
    this.#count(COUNTER.TX_PACKETS);
    this.#countKey(keySlot, KEY_STAT.TX_PACKETS, 1);
    this.#countKey(keySlot, KEY_STAT.TX_BYTES, packet.length);
  }

  /** False (and counted) when there is no endpoint, no frame, or the frame is too long for it. */
  #sendFrame(endpointSlot: number, frame: Uint8Array | undefined): boolean {
    const target = this.#endpoints.get(endpointSlot);
    if (target === undefined || frame === undefined || target.prefix.length + frame.length > MAX_UDP_PAYLOAD) {
      this.#count(COUNTER.SEND_FAILED);
      return false;
    }
    const bytes = new Uint8Array(target.prefix.length + frame.length);
    bytes.set(target.prefix);
    bytes.set(frame, target.prefix.length);
    this.#datagramOutput.push({ to: target.endpoint, bytes });
    this.#count(COUNTER.TX_DATAGRAMS);
    return true;
  }

  #handleDatagram({ from, bytes }: ReceivedDatagram): void {
    this.#count(COUNTER.RX_DATAGRAMS);
    const datagram = bytes.subarray(0, MAX_DATAGRAM_BYTES);
    const source = this.#sources.push(from) - 1;
    const wrapperBytes = sameEndpoint(from, this.#relay) ? relayWrapperBytes(datagram) : 0;
    const frame = datagram.subarray(wrapperBytes);
    if (isTooShort(frame)) this.#count(COUNTER.DATAGRAM_TOO_SHORT);
    else if (wrapperBytes === 0) this.#handleFrame(frame, { source, flags: 0, sender: 0 });
    else this.#handleFrame(frame, { source, flags: ROW_FLAG.RELAYED, sender: readU32(datagram, 1) });
  }

  #handleFrame(frame: Uint8Array, arrival: Arrival): void {
    if (!isSealedFrame(frame) || !this.#keys.knows(senderOf(frame))) {
      this.#describe(this.#inboundFill.add(frame), ROW_KIND.OTHER, NONE, arrival);
      return;
    }
    const opened = this.#keys.open(frame);
    if (typeof opened === "number") this.#count(opened);
    else this.#handleOpened(opened, this.#authenticated(opened, arrival));
  }

  /** An arrival whose sender is the frame's, now that it is known to be right. */
  #authenticated({ slot, sender }: OpenedFrame, { source, flags }: Arrival): Arrival {
    const bound = this.#endpoints.get(this.#boundEndpoints.get(slot) ?? NONE);
    const isMoved = !sameEndpoint(bound?.endpoint, this.#sources[source]);
    return { source, flags: isMoved ? flags | ROW_FLAG.MOVED : flags, sender };
  }

  #handleOpened({ slot, virtualPacket, isBridgeData }: OpenedFrame, arrival: Arrival): void {
    if (isBridgeData) this.#handlePacket(virtualPacket.subarray(VIRTUAL_HEADER_BYTES), slot, arrival);
    else if (!this.#joinStream(virtualPacket, slot, arrival))
      this.#describe(this.#inboundFill.add(virtualPacket), ROW_KIND.VIRTUAL, slot, arrival);
  }

  /** True when the packet continues what is in the last row; no other row can take it. */
  #joinStream(packet: Uint8Array, keySlot: number, arrival: Arrival): boolean {
    const fill = this.#inboundFill;
    const row = fill.rowCount - 1;
    if (row < 0 || fill.word(row, IN.KIND) !== ROW_KIND.VIRTUAL || fill.word(row, IN.KEY_SLOT) !== keySlot)
      return false;
    const from = { source: fill.word(row, IN.SOURCE), flags: fill.word(row, IN.FLAGS), sender: 0 };
    if (this.#scope(keySlot, from) !== this.#scope(keySlot, arrival)) return false;
    const joined = fill.bytes(row);
    const segments = fill.word(row, IN.SEGMENTS);
    const segmentBytes = segments === 1 ? joined.length - VIRTUAL_HEADER_BYTES : fill.word(row, IN.SEGMENT_BYTES);
    if (!continuesStream({ packet: joined, segments, segmentBytes }, packet)) return false;
    fill.append(packet.subarray(VIRTUAL_HEADER_BYTES));
    writeU16(joined, VIRTUAL_LENGTH, fill.word(row, IN.LENGTH) - VIRTUAL_HEADER_BYTES);
    fill.set(row, IN.SEGMENTS, segments + 1);
    fill.set(row, IN.SEGMENT_BYTES, segmentBytes);
    fill.set(row, IN.TOTAL_BYTES, fill.word(row, IN.TOTAL_BYTES) + packet.length);
    return true;
  }

  #handlePacket(packet: Uint8Array, keySlot: number, arrival: Arrival): void {
    if (!isWholeIpv6(packet)) {
      this.#count(COUNTER.MALFORMED_PACKET);
      return;
    }
    this.#count(COUNTER.RX_PACKETS);
    this.#countKey(keySlot, KEY_STAT.RX_PACKETS, 1);
    this.#countKey(keySlot, KEY_STAT.RX_BYTES, packet.length);
    const { run, joined } = this.#coalescer.add(packet.slice(), this.#scope(keySlot, arrival));
    const row = joined ? this.#rowOfRun.get(run)! : this.#beginRun(packet, run, keySlot, arrival);
    this.#inboundFill.set(row, IN.SEGMENTS, run.packets.length);
    this.#inboundFill.set(row, IN.TOTAL_BYTES, run.totalBytes);
    this.#inboundFill.set(row, IN.NEXT_SEQ, run.nextSequence);
  }

  /** A row has one key, one source and one set of flags: packets that differ in them are no run. */
  #scope(keySlot: number, { source, flags }: Arrival): string {
    const { address, port } = this.#sources[source]!;
    return `${keySlot} ${flags} ${address} ${port}`;
  }

  #beginRun(packet: Uint8Array, run: Run, keySlot: number, arrival: Arrival): number {
    const row = this.#inboundFill.add(packet);
    this.#describe(row, ROW_KIND.PACKET, keySlot, arrival);
    this.#runs.set(row, run);
    this.#rowOfRun.set(run, row);
    return row;
  }

  #describe(row: number, kind: number, keySlot: number, arrival: Arrival): void {
    const fill = this.#inboundFill;
    fill.set(row, IN.KIND, kind);
    fill.set(row, IN.KEY_SLOT, keySlot);
    fill.set(row, IN.SOURCE, arrival.source);
    fill.set(row, IN.FLAGS, arrival.flags);
    fill.set(row, IN.SENDER, arrival.sender);
    fill.set(row, IN.SEGMENTS, 1);
    fill.set(row, IN.TOTAL_BYTES, fill.word(row, IN.LENGTH));
    fill.set(row, IN.VERDICT, DROP);
  }

  #count(counter: number): void {
    this.counters[counter]!++;
  }

  #countKey(slot: number, stat: number, amount: number): void {
    this.keyStats[slot * KEY_STAT_COUNT + stat]! += amount;
  }
}

/** How a frame came. */
interface Arrival {
  /** Index of its UDP source. */
  readonly source: number;
  readonly flags: number;
  /** The node that sent it, as far as it is known; 0 when the datagram does not say. */
  readonly sender: number;
}

/** Appends rows to a batch and their bytes to its arena. */
class BatchFill {
  readonly #batch: Batch;
  #rowCount = 0;
  #arenaUsed = 0;

  constructor(batch: Batch) {
    this.#batch = batch;
  }

  get rowCount(): number {
    return this.#rowCount;
  }

  reset(): void {
    this.#rowCount = 0;
    this.#arenaUsed = 0;
  }

  hasRoomFor(lengthBytes: number): boolean {
    return this.#rowCount < MAX_ROWS && this.#arenaUsed + lengthBytes <= this.#batch.arena.length;
  }

  /** A row whose OFFSET and LENGTH (the first two words of both directions) are those of the copied bytes. */
  add(bytes: Uint8Array): number {
    const row = this.#rowCount++;
    this.#batch.rows.fill(0, row * ROW_WORDS, (row + 1) * ROW_WORDS);
    this.#batch.arena.set(bytes, this.#arenaUsed);
    this.set(row, OFFSET, this.#arenaUsed);
    this.set(row, LENGTH, bytes.length);
    this.#arenaUsed += bytes.length;
    return row;
  }

  /** Makes the last row longer. */
  append(bytes: Uint8Array): void {
    const row = this.#rowCount - 1;
    this.#batch.arena.set(bytes, this.#arenaUsed);
    this.set(row, LENGTH, this.word(row, LENGTH) + bytes.length);
    this.#arenaUsed += bytes.length;
  }

  word(row: number, word: number): number {
    return this.#batch.rows[row * ROW_WORDS + word]!;
  }

  set(row: number, word: number, value: number): void {
    this.#batch.rows[row * ROW_WORDS + word] = value;
  }

  bytes(row: number): Uint8Array {
    const offset = this.word(row, OFFSET);
    return this.#batch.arena.subarray(offset, offset + this.word(row, LENGTH));
  }
}

function newBatch(): Batch {
  return { rows: new Int32Array(MAX_ROWS * ROW_WORDS), arena: new Uint8Array(ARENA_BYTES) };
}

/** Bytes of the relay's wrapper in front of a frame: 06 sender, or 09 sender destination; 0 for anything else. */
function relayWrapperBytes(datagram: Uint8Array): number {
  if (datagram[0] === RELAY_DELIVER) return 5;
  return datagram[0] === RELAY_DELIVER_WITH_DESTINATION ? 9 : 0;
}

/** Beacon messages (first byte below 0x10) have no magic; everything else has one, and a sealed frame nonce and tag. */
function isTooShort(frame: Uint8Array): boolean {
  if (frame.length === 0) return true;
  if (frame[0]! < FIRST_MAGIC_BYTE) return false;
  if (frame.length < 4) return true;
  return readU32(frame, 0) === SEALED_MAGIC && !isSealedFrame(frame);
}

function isWholeIpv6(packet: Uint8Array): boolean {
  return packet.length >= IPV6_HEADER_BYTES && readU16(packet, 4) === packet.length - IPV6_HEADER_BYTES;
}

function checkSlot(slot: number, slots: number): void {
  if (!Number.isInteger(slot) || slot < 0 || slot >= slots) throw new RangeError(`no slot ${slot}`);
}

const OFFSET = 0;
const LENGTH = 1;
const VIRTUAL_LENGTH = 2;
const ARENA_BYTES = 1 << 20;
const MAX_DATAGRAM_BYTES = 65_535;
/** The longest UDP payload over IPv4. */
const MAX_UDP_PAYLOAD = 65_507;
const MAX_PREFIX_BYTES = 16;
const RELAY_DELIVER = 0x06;
const RELAY_DELIVER_WITH_DESTINATION = 0x09;
const FIRST_MAGIC_BYTE = 0x10;
const IPV6_HEADER_BYTES = 40;
