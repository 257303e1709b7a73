/**
 * The beacon's socket by the C shim: relayed frames are judged by the run, not one by one, and never copied. What was
 * received waits in its slot of the arena, in the fair queue, until it is sent or dropped; when slots run out, the
 * longest queue gives up its oldest. Each turn takes one batch from the next of the system's buffers, of which every source
 * has its own, and sends what it can: a batch of one source is less than its queue holds, so that nothing is dropped while
 * there is room on the way out.
 *
 * Known sources come first (rendezvous/known-sources.ts): they have buffers of their own, of which each that has something
 * is read in every turn of the event loop. Of all others together a turn reads one batch, and what they would have relayed
 * is kept only while half of the slots are free: a flood from made-up sources neither takes room from the known nor makes
 * them, or the registry, wait.
 */

import { readU32 } from "../base/bytes.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { now } from "../io/clock.ts";
import { SystemError } from "../io/native.ts";
import {
  NativeRelay,
  RELAY_BATCH,
  RELAY_GROUP,
  RELAY_ROW,
  RELAY_ROW_WORDS,
  RELAY_SLOT_BYTES,
  RELAY_SLOTS,
  type RelayGroup,
} from "../io/native-relay.ts";
import { NodeCrypto } from "../io/node-crypto.ts";
import { type BeaconDatagram, type BeaconServer, isConnection } from "../rendezvous/beacon.ts";
import { RelayQueue } from "../rendezvous/relay-queue.ts";
import { sortingProgram } from "../rendezvous/source-sorting.ts";
import { BEACON, NOTIFY_HANDSHAKES, relayToDelivery } from "../wire/beacon.ts";
import { type NodeId, nodeId } from "../wire/ids.ts";
import type { BeaconPort, BeaconSocketCounters } from "./beacon-socket.ts";
import { bindError } from "./bind-error.ts";
import { addressWords, EndpointCache } from "./endpoint-cache.ts";

/** Datagrams of one slot that go to one endpoint. */
interface Run {
  readonly slot: number;
  readonly offset: number;
  readonly length: number;
  readonly segment: number;
  readonly sender: number;
  readonly form: number;
  readonly to: Endpoint;
}

export class NativeBeaconPort implements BeaconPort {
  readonly server: BeaconServer;
  sendToConnection: (to: Endpoint, datagram: Uint8Array) => void = () => {};
  readonly #asked: Endpoint;
  readonly #relay = new NativeRelay();
  /** By group. Those of strangers may be new with every datagram: what is remembered of them is garbage soon. */
  readonly #sources = [new EndpointCache(KNOWN_ENDPOINTS), new EndpointCache(STRANGER_ENDPOINTS)] as const;
  readonly #queue = new RelayQueue<Run>();
  /** Answers of the beacon's own; bounded by MAX_URGENT. */
  #urgent: Run[] = [];
  /** Taken from the queues and handed to the system, which had no room. */
  #unsent: Run[] = [];
  #queueFull = 0;
  #isPumpDue = false;
  #isStrangersTurnDue = false;
  /** Of the hash by which the system finds the known sources. */
  readonly #secret = readU32(new NodeCrypto().randomBytes(4), 0);
  /** Of the known sources that the system sorts by. */
  #sortedRevision = -1;
  #sortTimer: NodeJS.Timeout | undefined;

  constructor(asked: Endpoint, server: BeaconServer) {
    this.#asked = asked;
    this.server = server;
  }

  get endpoint(): Endpoint {
    return { address: this.#asked.address, port: this.#relay.port };
  }

  get isBound(): boolean {
    return this.#relay.isOpen;
  }

  async bind(): Promise<void> {
    try {
      this.#relay.open(this.#asked, () => this.#pump());
    } catch (cause) {
      if (cause instanceof SystemError) throw bindError("beacon", "UDP", this.#asked, cause);
      throw cause;
    }
    for (const address of ownAddresses(this.#asked.address)) this.server.sources.noteOwn(address);
    this.#sort();
  }

  notePresence(address: string, key: string): void {
    this.server.sources.noteConnection(address, now(), key);
    this.#sortSoon();
  }

  notify(node: NodeId): void {
    const datagram = this.server.notify(node, NOTIFY_HANDSHAKES, now());
    if (datagram !== undefined) this.#dispatch(datagram);
  }

  handleDatagram(datagram: Uint8Array, source: Endpoint): void {
    for (const reply of this.server.handleDatagram(datagram, source, now())) this.#dispatch(reply);
    this.#sortSoon();
  }

  stats(): BeaconSocketCounters {
    const { bytes, items, flows } = this.#queue;
    return {
      queuedBytes: bytes,
      queuedFrames: items,
      queuedFlows: flows,
      queueFull: this.#queueFull,
      overflowKnown: this.#relay.overflow(KNOWN),
      overflowStrangers: this.#relay.overflow(STRANGERS),
    };
  }

  async close(): Promise<void> {
    clearTimeout(this.#sortTimer);
    this.#relay.close();
  }

  /** One turn: what the system holds goes into the queues, then some of the queues goes out. */
  #pump(): void {
    this.#isPumpDue = false;
    this.#take(KNOWN);
    if (this.#isStrangersTurnDue) return;
    this.#isStrangersTurnDue = true;
    setImmediate(() => this.#takeFromStrangers());
  }

  /** Once in a turn of the event loop. What is not read now, the system tells of again. */
  #takeFromStrangers(): void {
    this.#isStrangersTurnDue = false;
    this.#take(STRANGERS);
  }

  #take(group: RelayGroup): void {
    this.#makeRoom();
    const rows = this.#relay.receive(group);
    for (let row = 0; row < rows; row++) this.#handleRow(row * RELAY_ROW_WORDS, group);
    const isMore = this.#sendSome();
    if (isMore) this.#pumpSoon();
  }

  /** New sources come one by one, or a thousand in a second: the system hears of them together. */
  #sortSoon(): void {
    if (this.#sortTimer !== undefined || this.#sortedRevision === this.server.sources.revision) return;
    this.#sortTimer = setTimeout(() => this.#sort(), SORT_PAUSE_MS);
    this.#sortTimer.unref();
  }

  /** A system that does not take the program goes on with the last, or shares by its own hash. */
  #sort(): void {
    this.#sortTimer = undefined;
    const { sources } = this.server;
    this.#sortedRevision = sources.revision;
    this.#relay.sort(sortingProgram(sources.table(this.#secret, now()), this.#secret));
  }

  #pumpSoon(): void {
    if (this.#isPumpDue) return;
    this.#isPumpDue = true;
    setImmediate(() => this.#pump());
  }

  /** One message of the system's can hold many runs, so dropping one may not free its slot. */
  #makeRoom(): void {
    while (this.#relay.freeSlots < RELAY_BATCH) {
      const run = this.#queue.dropLongest();
      if (run === undefined) return;
      this.#drop(run);
    }
  }

  #handleRow(at: number, group: RelayGroup): void {
    const { rows } = this.#relay;
    const slot = rows[at + RELAY_ROW.SLOT]!;
    const sourceOf = () => this.#sources[group].find(rows, at + RELAY_ROW.ADDRESS, rows[at + RELAY_ROW.PORT]!);
    if (rows[at + RELAY_ROW.FORM] === BEACON.RELAY) return this.#handleRun(at, sourceOf);
    const offset = rows[at + RELAY_ROW.OFFSET]!;
    if (group === STRANGERS && !this.server.admitsStrangers(now())) {
      this.server.noteDroppedStranger();
      return this.#relay.release(slot);
    }
    const datagram = this.#relay.arena.slice(offset, offset + rows[at + RELAY_ROW.LENGTH]!);
    this.#relay.release(slot);
    const source = sourceOf();
    if (source !== undefined) this.handleDatagram(datagram, source);
  }

  #handleRun(at: number, sourceOf: () => Endpoint | undefined): void {
    const { rows } = this.#relay;
    const slot = rows[at + RELAY_ROW.SLOT]!;
    const length = rows[at + RELAY_ROW.LENGTH]!;
    const segment = rows[at + RELAY_ROW.SEGMENT]!;
    const sender = rows[at + RELAY_ROW.SENDER]! >>> 0;
    const pair = { sender: nodeId(sender), destination: nodeId(rows[at + RELAY_ROW.DESTINATION]! >>> 0) };
    const size = { frames: Math.ceil(length / segment), bytes: length };
    const route = this.server.routeRelay(pair, sourceOf, size, now());
    if (route === undefined) return this.#relay.release(slot);
    const form = route.extended ? BEACON.RELAY_DELIVER_TO : BEACON.RELAY_DELIVER;
    const run = { slot, offset: rows[at + RELAY_ROW.OFFSET]!, length, segment, sender, form, to: route.to };
    if (isConnection(route.to)) return this.#deliverOverConnection(run);
    if (route.isStranger && this.#relay.freeSlots < RELAY_SLOTS / 2) return this.#drop(run);
    for (const dropped of this.#queue.push(route.flow, run, length)) this.#drop(dropped);
  }

  #deliverOverConnection({ slot, offset, length, segment, form, to }: Run): void {
    for (let at = offset; at < offset + length; at += segment) {
      const datagram = this.#relay.arena.slice(at, Math.min(at + segment, offset + length));
      this.sendToConnection(to, relayToDelivery(datagram, form === BEACON.RELAY_DELIVER_TO));
    }
    this.#relay.release(slot);
  }

  /** An answer, or a frame that came over a connection: its bytes are not in the arena yet. */
  #dispatch({ to, bytes, flow }: BeaconDatagram): void {
    if (isConnection(to)) return this.sendToConnection(to, bytes);
    const slot = bytes.length > RELAY_SLOT_BYTES || bytes.length === 0 ? undefined : this.#relay.takeSlot();
    if (slot === undefined || (flow === undefined && this.#urgent.length >= MAX_URGENT)) {
      if (slot !== undefined) this.#relay.release(slot);
      this.#queueFull++;
      return;
    }
    const offset = slot * RELAY_SLOT_BYTES;
    this.#relay.arena.set(bytes, offset);
    const run = { slot, offset, length: bytes.length, segment: bytes.length, sender: 0, form: 0, to };
    if (flow === undefined) this.#urgent.push(run);
    else for (const dropped of this.#queue.push(flow, run, bytes.length)) this.#drop(dropped);
    this.#pumpSoon();
  }

  /** True when there is more to send and the system has room for it. */
  #sendSome(): boolean {
    for (let batch = 0; batch < SEND_BATCHES; batch++) {
      const runs = this.#nextRuns();
      if (runs.length === 0) return false;
      for (const [index, run] of runs.entries()) this.#writeRow(run, index * RELAY_ROW_WORDS);
      const done = this.#relay.send(runs.length);
      for (let index = 0; index < done; index++) this.#relay.release(runs[index]!.slot);
      this.#unsent = runs.slice(done);
      if (done < runs.length) return false; // the socket tells when it has room
    }
    return true;
  }

  #nextRuns(): Run[] {
    const runs = this.#unsent;
    this.#unsent = [];
    runs.push(...this.#urgent.splice(0, RELAY_BATCH - Math.min(RELAY_BATCH, runs.length)));
    while (runs.length < RELAY_BATCH) {
      const run = this.#queue.pop();
      if (run === undefined) break;
      runs.push(run);
    }
    return runs;
  }

  #writeRow(run: Run, at: number): void {
    const { rows } = this.#relay;
    rows[at + RELAY_ROW.OFFSET] = run.offset;
    rows[at + RELAY_ROW.LENGTH] = run.length;
    rows[at + RELAY_ROW.SEGMENT] = run.segment;
    rows[at + RELAY_ROW.SENDER] = run.sender;
    rows[at + RELAY_ROW.FORM] = run.form;
    rows.set(addressWords(run.to), at + RELAY_ROW.ADDRESS);
    rows[at + RELAY_ROW.PORT] = run.to.port;
  }

  #drop(run: Run): void {
    this.#queueFull += Math.ceil(run.length / run.segment);
    this.#relay.release(run.slot);
  }
}

/** What packets from this machine itself come from. */
function ownAddresses(bound: string): readonly string[] {
  return bound === "0.0.0.0" || bound === "::" ? ["127.0.0.1", "::1"] : [bound];
}

const { FIRST: KNOWN, SECOND: STRANGERS } = RELAY_GROUP;
const KNOWN_ENDPOINTS = 4096;
const STRANGER_ENDPOINTS = 256;
const SEND_BATCHES = 4;
const MAX_URGENT = 128;
/** How long somebody who showed that he is there may still be taken for a stranger. */
const SORT_PAUSE_MS = 100;
