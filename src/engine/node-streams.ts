/**
 * All streams of this node, in one table: port 444 of the trust handshake and every port of programs share ports and
 * limits. This file tells each owner of streams what happens to its own, and carries the packets between the table and the
 * links (pilot protocol §4). Who may open a stream is decided before a packet gets here.
 * A stream's owner is whoever dialled it, or whoever listens on the port it came to.
 */
import type { BlockPool } from "../base/block-pool.ts";
import type { DropReason } from "../base/drop-reason.ts";
import type { Deadline, Instant } from "../base/instant.ts";
import type { Stream } from "../stream/stream.ts";
import type { StreamEvent } from "../stream/stream-event.ts";
import type { StreamPacket } from "../stream/stream-packet.ts";
import { type ListenMode, StreamTable, type TableEvent } from "../stream/stream-table.ts";
import type { NodeId, PilotAddress } from "../wire/ids.ts";
import {
  FLAG,
  PORT,
  PROTOCOL,
  VIRTUAL_HEADER_BYTES,
  type VirtualPacket,
  writeVirtualHeader,
} from "../wire/virtual-packet.ts";

export interface StreamOwner {
  /** A SYN came to a port that asks. */
  handleRequested(stream: Stream, now: Instant): void;
  /** A stream of the far side is open. */
  handleAccepted(stream: Stream, now: Instant): void;
  handleStreamEvent(stream: Stream, event: StreamEvent, now: Instant): void;
}

/** "trust": talk of the daemons themselves. "question": a program's, to be answered soon if the far side lives. */
export type StreamPurpose = "trust" | "question" | "other";

export interface NodeStreamsParts {
  readonly local: NodeId;
  randomBytes(length: number): Uint8Array;
  /**
   * Seals and sends a packet, or a run of them. `header` is its virtual header without length and CRC, borrowed. Without a
   * key it is lost, and repeated like whatever is lost.
   */
  send(node: NodeId, header: Uint8Array, packet: StreamPacket, purpose: StreamPurpose, now: Instant): void;
}

export class NodeStreams {
  readonly #parts: NodeStreamsParts;
  readonly #table: StreamTable;
  /** Key: port. Bound: the ports this program listens on itself. */
  readonly #listeners = new Map<number, StreamOwner>();
  #rest: StreamOwner | undefined;
  /** An entry lives as long as its stream. */
  readonly #owners = new WeakMap<Stream, StreamOwner>();
  /** What streams have to say waits until it is asked for. */
  #isHeld = false;
  /** Of the packet being sent. */
  readonly #header = new Uint8Array(VIRTUAL_HEADER_BYTES);

  constructor(parts: NodeStreamsParts, now: Instant) {
    this.#parts = parts;
    this.#table = new StreamTable((length) => parts.randomBytes(length), now, { streamOptions: STREAM_OPTIONS });
  }

  get blocks(): BlockPool {
    return this.#table.blocks;
  }

  get size(): number {
    return this.#table.size;
  }

  listen(port: number, mode: ListenMode, owner: StreamOwner): void {
    this.#listeners.set(port, owner);
    this.#table.listen(port, mode);
  }

  /** SYNs to every port that nobody listens on. */
  listenToRest(mode: ListenMode, owner: StreamOwner): void {
    this.#rest = owner;
    this.#table.listenToRest(mode);
  }

  /** Undefined: too many streams. */
  dial(owner: StreamOwner, remote: PilotAddress, port: number, now: Instant): Stream | undefined {
    const stream = this.#table.dial(remote, port, now);
    if (stream !== undefined) this.#owners.set(stream, owner);
    return stream;
  }

  /** The node may not talk to us any more. No owner hears of it: whoever calls this knows. */
  resetNode(node: NodeId, now: Instant): void {
    this.#table.resetNode(node, now);
  }

  handlePacket(node: NodeId, packet: VirtualPacket & StreamPacket, now: Instant): DropReason | undefined {
    const dropped = this.#table.handlePacket({ network: packet.source.network, node }, packet, now);
    return dropped === undefined ? undefined : "unhandled-virtual-packet";
  }

  handleTimeout(now: Instant): void {
    this.#table.handleTimeout(now);
  }

  pollTimeout(): Deadline | undefined {
    return this.#table.pollTimeout();
  }

  /** Tells the owners what happened and sends what the streams say; true when anything did. */
  settle(now: Instant): boolean {
    let happened = false;
    for (let event = this.#table.pollEvent(); event !== undefined; event = this.#table.pollEvent()) {
      happened = true;
      this.#tell(event, now);
    }
    if (this.#isHeld) return happened;
    return this.flush(now) > 0 || happened;
  }

  /** While the network takes less than there is: `flush` is called when, and for as much as, there is room. */
  hold(held: boolean): void {
    this.#isHeld = held;
  }

  /**
   * Sends what the streams say now, each in its turn, until it is `most` bytes or a little more; how many. Also for words
   * that must leave before a link closes.
   */
  flush(now: Instant, most = Number.POSITIVE_INFINITY): number {
    let bytes = 0;
    const { local } = this.#parts;
    while (bytes < most) {
      const out = this.#table.pollPacket();
      if (out === undefined) break;
      bytes += VIRTUAL_HEADER_BYTES + out.packet.payload.length;
      // A stream is between the addresses of one network, as the reference has it.
      const source = { network: out.remote.network, node: local };
      writeVirtualHeader(this.#header, { ...out.packet, protocol: PROTOCOL.STREAM, source, destination: out.remote });
      this.#parts.send(out.remote.node, this.#header, out.packet, purposeOf(out.packet), now);
    }
    return bytes;
  }

  #tell(event: TableEvent, now: Instant): void {
    const { stream } = event;
    const owner = this.#owners.get(stream) ?? this.#listeners.get(stream.localPort) ?? this.#rest;
    if (owner === undefined) return;
    this.#owners.set(stream, owner);
    if (event.kind === "requested") owner.handleRequested(stream, now);
    else if (event.kind === "accepted") owner.handleAccepted(stream, now);
    else owner.handleStreamEvent(stream, event.event, now);
  }
}

function purposeOf({ sourcePort, destinationPort, payload, flags }: StreamPacket): StreamPurpose {
  if (sourcePort === PORT.HANDSHAKE || destinationPort === PORT.HANDSHAKE) return "trust";
  return payload.length > 0 || (flags & FLAG.SYN) !== 0 ? "question" : "other";
}

const STREAM_OPTIONS = {
  /** Segments of 1152 bytes that one virtual packet could carry: what the data plane takes, and gives, as one. */
  maxRunSegments: 56,
  /** The programs' own kernels have seen to small writes. */
  noDelay: true,
};
