/**
 * All streams of this node: finds the one a packet is for, takes and limits SYNs, hands out ports, and is the one place to
 * poll (pilot protocol §2.2, §4.9). The caller has already checked who sent a packet and whether that node may talk to us.
 * An unbound port answers with RST; any other packet for no stream is dropped without a word.
 * Drain `pollPacket` and `pollEvent` after every input and after every command on a stream; then ask `pollTimeout`.
 */
import { BlockPool } from "../base/block-pool.ts";
import { readU32 } from "../base/bytes.ts";
import { DeadlineHeap } from "../base/deadline-heap.ts";
import { after, type Deadline, earlier, type Instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import type { NodeId, PilotAddress } from "../wire/ids.ts";
import { FIRST_EPHEMERAL_PORT, FLAG, LAST_EPHEMERAL_PORT } from "../wire/virtual-packet.ts";
import { Fifo } from "./fifo.ts";
import { FlightShare } from "./flight-share.ts";
import { MemoryBudget } from "./memory-budget.ts";
import { RemoteNode } from "./remote-node.ts";
import type { StreamShares } from "./shares.ts";
import { Stream } from "./stream.ts";
import type { StreamEvent } from "./stream-event.ts";
import { DEFAULT_STREAM_OPTIONS, type StreamOptions } from "./stream-options.ts";
import { isOpeningSyn, PacketForm, type StreamPacket } from "./stream-packet.ts";

export type TableEvent =
  /** A SYN came to a port that asks: `accept` or `refuse` the stream. */
  | { readonly kind: "requested"; readonly stream: Stream }
  /** A stream from the far side is open. */
  | { readonly kind: "accepted"; readonly stream: Stream }
  | { readonly kind: "stream"; readonly stream: Stream; readonly event: StreamEvent };

/** "accept" answers a SYN at once; "ask" lets the program decide first. */
export type ListenMode = "accept" | "ask";

/** Why a packet went no further. */
export type StreamDrop = "unknown-stream" | "syn-limited" | "stream-limit";

export interface AddressedPacket {
  readonly remote: PilotAddress;
  readonly packet: StreamPacket;
}

export class StreamTable {
  /** Memory for data: what is written from here goes back, and so should what was read. */
  readonly blocks = new BlockPool();
  readonly #randomBytes: (length: number) => Uint8Array;
  readonly #limits: TableLimits;
  /** Key: node. Bound: `maxNodes`. An entry goes when it has no streams and its buckets are full again. */
  readonly #nodes = new Map<NodeId, RemoteNode>();
  /** Key: port. Bound: 65536, set by the program. */
  readonly #listeners = new Map<number, ListenMode>();
  #restMode: ListenMode | undefined;
  /** Streams with a handshake under way, by local port. Bound: `backlog` each; swept when full. */
  readonly #halfOpen = new Map<number, Set<Stream>>();
  readonly #inbound = new WeakSet<Stream>();
  /** Streams to ask for packets. Bound: the number of streams. */
  readonly #changed = new Set<Stream>();
  /** Streams to ask for events; a stream that is over stays until it was asked. */
  readonly #eventful = new Set<Stream>();
  readonly #events = new Fifo<TableEvent>();
  /** RSTs for unbound ports. */
  readonly #outbox = new Fifo<AddressedPacket>();
  readonly #deadlines = new DeadlineHeap<Stream>();
  /** Nodes with dials held back. */
  readonly #pacing = new Set<RemoteNode>();
  /** Key: what was asked for, mostly a constant of the caller's; goes with it. */
  readonly #wholeOptions = new WeakMap<Partial<StreamOptions>, StreamOptions>();
  readonly #synBucket: TokenBucket;
  readonly #receiveBudget: MemoryBudget;
  readonly #sendBudget: MemoryBudget;
  #streamCount = 0;
  #nextPort: number;
  #sweepAt: Instant;

  constructor(randomBytes: (length: number) => Uint8Array, now: Instant, limits: Partial<TableLimits> = {}) {
    this.#randomBytes = randomBytes;
    this.#limits = { ...DEFAULT_TABLE_LIMITS, ...limits };
    this.#synBucket = new TokenBucket(this.#limits.synsPerSecond, this.#limits.synBurst, now);
    this.#receiveBudget = new MemoryBudget(this.#limits.memoryBytes);
    this.#sendBudget = new MemoryBudget(this.#limits.memoryBytes);
    this.#sweepAt = after(now, SWEEP_INTERVAL_MS);
    this.#nextPort = FIRST_EPHEMERAL_PORT + (readU32(randomBytes(4), 0) % EPHEMERAL_PORTS);
  }

  get size(): number {
    return this.#streamCount;
  }

  *streams(): IterableIterator<Stream> {
    for (const node of this.#nodes.values()) yield* node.streams.values();
  }

  // Commands.

  listen(port: number, mode: ListenMode): void {
    this.#listeners.set(port, mode);
  }

  /** What happens with SYNs to ports that nobody listens on; undefined: RST. */
  listenToRest(mode: ListenMode | undefined): void {
    this.#restMode = mode;
  }

  /** Streams already open stay. */
  unlisten(port: number): void {
    this.#listeners.delete(port);
  }

  /** A stream that is connecting, or that will as soon as the far side takes another SYN. Undefined: too many streams. */
  dial(
    remote: PilotAddress,
    port: number,
    now: Instant,
    options: Partial<StreamOptions> = NO_OPTIONS,
  ): Stream | undefined {
    const node = this.#nodeFor(remote.node, now);
    if (node === undefined || !this.#hasRoom(node)) return undefined;
    const localPort = this.#freePort(node, remote, port);
    if (localPort === undefined) return undefined;
    const stream = this.#create(node, remote, localPort, port, options, now);
    node.waiting.push(stream);
    this.#release(node, now);
    return stream;
  }

  /** Resets every stream of a node, without an event for any: for a node that may no longer talk to us. */
  resetNode(node: NodeId, now: Instant): Stream[] {
    const streams = [...(this.#nodes.get(node)?.streams.values() ?? [])];
    for (const stream of streams) stream.reset(now);
    return streams;
  }

  // Inputs.

  handlePacket(remote: PilotAddress, packet: StreamPacket, now: Instant): StreamDrop | undefined {
    const node = this.#nodes.get(remote.node);
    const stream = node?.find(remote.network, packet.destinationPort, packet.sourcePort);
    if (stream !== undefined) {
      const verdict = stream.handlePacket(packet, now);
      if (stream.traits !== undefined) this.#learn(node!, stream.traits.isReference, now);
      if (verdict !== "superseded") return undefined;
      this.#forget(stream);
    }
    if (isOpeningSyn(packet)) return this.#handleSyn(remote, packet, now);
    // RFC 9293 §3.10.7.1: a far side that goes on with a stream from before our start need not wait for silence to tell it.
    if (packet.flags === FLAG.ACK && packet.payload.length > 0) this.#refuse(remote, packet, packet.acknowledgement);
    return "unknown-stream";
  }

  handleTimeout(now: Instant): void {
    // Taken out first: a stream may stay due until its packets are polled, which sets its deadline again.
    const due: Stream[] = [];
    for (let first = this.#deadlines.first(); first !== undefined; first = this.#deadlines.first()) {
      if (first.deadline.at > now) break;
      due.push(first.owner);
      this.#deadlines.set(first.owner, undefined);
    }
    for (const stream of due) stream.handleTimeout(now);
    for (const node of this.#pacing) this.#release(node, now);
    if (now >= this.#sweepAt) this.#sweep(now);
  }

  // Outputs.

  pollPacket(): AddressedPacket | undefined {
    const reply = this.#outbox.shift();
    if (reply !== undefined) return reply;
    for (const stream of this.#changed) {
      const packet = stream.pollPacket();
      this.#changed.delete(stream);
      if (packet === undefined) {
        this.#settle(stream);
        continue;
      }
      this.#changed.add(stream); // behind the others: each gets its turn
      return { remote: stream.remote, packet };
    }
    return undefined;
  }

  pollEvent(): TableEvent | undefined {
    const event = this.#events.shift();
    if (event !== undefined) return event;
    for (const stream of this.#eventful) {
      const next = stream.pollEvent();
      if (next === undefined) {
        this.#eventful.delete(stream);
        continue;
      }
      if (next.kind === "established" && this.#inbound.has(stream)) return { kind: "accepted", stream };
      return { kind: "stream", stream, event: next };
    }
    return undefined;
  }

  pollTimeout(): Deadline | undefined {
    for (const stream of this.#changed) this.#deadlines.set(stream, stream.pollTimeout());
    let deadline = this.#deadlines.first()?.deadline;
    for (const node of this.#pacing) deadline = earlier(deadline, { at: node.pacer.nextAt, reason: "dial-pacing" });
    return deadline;
  }

  // SYNs.

  #handleSyn(remote: PilotAddress, packet: StreamPacket, now: Instant): StreamDrop | undefined {
    const port = packet.destinationPort;
    const mode = this.#modeOf(port);
    if (mode === undefined) {
      this.#refuse(remote, packet);
      return undefined;
    }
    const node = this.#nodeFor(remote.node, now);
    if (node === undefined || !node.synBucket.take(now) || !this.#synBucket.take(now)) return "syn-limited";
    if (!this.#hasRoom(node) || !this.#hasBacklog(port)) {
      this.#refuse(remote, packet);
      return "stream-limit";
    }
    const stream = this.#create(node, remote, port, packet.sourcePort, NO_OPTIONS, now);
    this.#inbound.add(stream);
    this.#halfOpenAt(port).add(stream);
    stream.offer(packet, now);
    if (mode === "accept") stream.accept(now);
    else this.#events.push({ kind: "requested", stream });
    return undefined;
  }

  #refuse(remote: PilotAddress, { destinationPort, sourcePort }: StreamPacket, sequence = 0): void {
    this.#outbox.push({ remote, packet: new PacketForm(destinationPort, sourcePort).reset(sequence) });
  }

  #modeOf(port: number): ListenMode | undefined {
    return this.#listeners.get(port) ?? this.#restMode;
  }

  #hasBacklog(port: number): boolean {
    const streams = this.#halfOpenAt(port);
    if (streams.size < this.#limits.backlog) return true;
    for (const stream of streams) if (!isHalfOpen(stream)) streams.delete(stream);
    return streams.size < this.#limits.backlog;
  }

  #halfOpenAt(port: number): Set<Stream> {
    let streams = this.#halfOpen.get(port);
    if (streams === undefined) {
      streams = new Set();
      this.#halfOpen.set(port, streams);
    }
    return streams;
  }

  // Dials.

  #release(node: RemoteNode, now: Instant): void {
    for (let stream = node.waiting.peek(); stream !== undefined; stream = node.waiting.peek()) {
      if (stream.stateKind === "waiting") {
        if (!node.pacer.take(now)) {
          this.#pacing.add(node);
          return;
        }
        stream.connect(now);
      }
      node.waiting.shift();
    }
    this.#pacing.delete(node);
  }

  #learn(node: RemoteNode, isReference: boolean, now: Instant): void {
    node.pacer.adapt(isReference);
    if (node.waiting.length > 0) this.#release(node, now);
  }

  #freePort(node: RemoteNode, { network }: PilotAddress, remotePort: number): number | undefined {
    for (let tries = 0; tries < EPHEMERAL_PORTS; tries++) {
      const port = this.#nextPort;
      this.#nextPort = port === LAST_EPHEMERAL_PORT ? FIRST_EPHEMERAL_PORT : port + 1;
      if (node.find(network, port, remotePort) === undefined && !this.#listeners.has(port)) return port;
    }
    return undefined;
  }

  // The collection.

  #create(
    node: RemoteNode,
    remote: PilotAddress,
    localPort: number,
    remotePort: number,
    options: Partial<StreamOptions>,
    now: Instant,
  ): Stream {
    const stream: Stream = new Stream({
      remote,
      localPort,
      remotePort,
      options: this.#whole(options),
      initialSequence: readU32(this.#randomBytes(4), 0) || 1,
      now,
      shares: node.shares,
      onChange: () => {
        this.#changed.add(stream);
        this.#eventful.add(stream);
      },
    });
    node.add(stream);
    this.#streamCount += 1;
    return stream;
  }

  #whole(options: Partial<StreamOptions>): StreamOptions {
    let whole = this.#wholeOptions.get(options);
    if (whole === undefined) {
      whole = { ...DEFAULT_STREAM_OPTIONS, ...this.#limits.streamOptions, ...options };
      this.#wholeOptions.set(options, whole);
    }
    return whole;
  }

  #hasRoom(node: RemoteNode): boolean {
    return this.#streamCount < this.#limits.maxStreams && node.streams.size < this.#limits.maxStreamsPerNode;
  }

  #nodeFor(id: NodeId, now: Instant): RemoteNode | undefined {
    const known = this.#nodes.get(id);
    if (known !== undefined) return known;
    if (this.#nodes.size >= this.#limits.maxNodes) this.#sweep(now);
    if (this.#nodes.size >= this.#limits.maxNodes) return undefined;
    const bucket = new TokenBucket(this.#limits.synsPerSecondPerNode, this.#limits.synBurstPerNode, now);
    const node = new RemoteNode(id, bucket, this.#sharesOfNode());
    this.#nodes.set(id, node);
    return node;
  }

  #sharesOfNode(): StreamShares {
    const { memoryBytesPerNode } = this.#limits;
    return {
      receiveBudget: new MemoryBudget(memoryBytesPerNode, this.#receiveBudget),
      sendBudget: new MemoryBudget(memoryBytesPerNode, this.#sendBudget),
      flight: new FlightShare(),
      blocks: this.blocks,
    };
  }

  #settle(stream: Stream): void {
    if (stream.stateKind === "closed") this.#forget(stream);
    else if (this.#holds(stream)) this.#deadlines.set(stream, stream.pollTimeout());
  }

  #holds(stream: Stream): boolean {
    return this.#nodes.get(stream.remote.node)?.holds(stream) ?? false;
  }

  #forget(stream: Stream): void {
    this.#deadlines.set(stream, undefined);
    this.#halfOpen.get(stream.localPort)?.delete(stream);
    if (!this.#holds(stream)) return;
    this.#nodes.get(stream.remote.node)?.remove(stream);
    this.#streamCount -= 1;
  }

  /** Forgets nodes about which nothing is left to know. */
  #sweep(now: Instant): void {
    this.#sweepAt = after(now, SWEEP_INTERVAL_MS);
    for (const [id, node] of this.#nodes) if (node.isIdle(now)) this.#nodes.delete(id);
  }
}

/** Bounds on what far sides can make us hold, and on how often they may ask. */
export interface TableLimits {
  readonly maxStreams: number;
  readonly maxStreamsPerNode: number;
  readonly maxNodes: number;
  /** Handshakes under way per port. */
  readonly backlog: number;
  /** What all streams may hold of received data, and again of written data; and those with one node. */
  readonly memoryBytes: number;
  readonly memoryBytesPerNode: number;
  readonly synsPerSecond: number;
  readonly synBurst: number;
  readonly synsPerSecondPerNode: number;
  readonly synBurstPerNode: number;
  readonly streamOptions: Partial<StreamOptions>;
}

export const DEFAULT_TABLE_LIMITS: TableLimits = {
  maxStreams: 32_768,
  maxStreamsPerNode: 16_384,
  maxNodes: 4_096,
  backlog: 1_024,
  memoryBytes: 256 << 20,
  memoryBytesPerNode: 64 << 20,
  synsPerSecond: 1_000,
  synBurst: 2_000,
  synsPerSecondPerNode: 200,
  synBurstPerNode: 1_000,
  streamOptions: {},
};

function isHalfOpen(stream: Stream): boolean {
  return stream.stateKind === "offered" || stream.stateKind === "accepting";
}

const NO_OPTIONS: Partial<StreamOptions> = {};
const SWEEP_INTERVAL_MS = 10_000;
const EPHEMERAL_PORTS = LAST_EPHEMERAL_PORT - FIRST_EPHEMERAL_PORT + 1;
