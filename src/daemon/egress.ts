/**
 * The way out when the network takes less than programs send. As long as the socket takes everything, packets do not
 * come here. Once it was full they do, in fair queues that are kept short (`tunnel/egress-queue.ts`), and the socket is
 * given no more than it passes on in a moment (`tunnel/socket-budget.ts`): so what waits, waits where the order can still
 * be changed. Streams to plain agents, which slow down by themselves, keep what they have to say until it is their turn.
 *
 * Packets wait as programs sent them and are judged when they leave: what was revoked meanwhile does not go.
 */
import { after, type Instant } from "../base/instant.ts";
import { type Batch, MAX_ROWS, packetOfRow, ROW_WORDS, type StagedPacket } from "../tunnel/data-plane.ts";
import type { EgressQueue } from "../tunnel/egress-queue.ts";
import { SocketBudget } from "../tunnel/socket-budget.ts";

export interface EgressPlane {
  readonly outbound: Batch;
  /** The socket is full. */
  readonly sendBlocked: boolean;
  /** Bytes that it held when it became full or had room again. */
  readonly unsentBytes: number;
  limitUnsent(bytes: number): void;
}

export interface EgressSources {
  /** The outbound row whose words begin at `at` does not go to the network. */
  staysHere(at: number): boolean;
  /** Judges the first rows of the outbound batch and sends them on their way, at once. */
  sendRows(count: number): void;
  /** Judges, seals and sends packets of the interface at once; they are its own. */
  sendPackets(packets: readonly StagedPacket[]): void;
  /** From now on streams say nothing but in `sendStreams`, or again whenever they like. */
  holdStreams(held: boolean): void;
  /** Sends what streams have to say, about so many bytes of it; how many. */
  sendStreams(bytes: number, now: Instant): number;
}

export class Egress {
  readonly #plane: EgressPlane;
  readonly #queue: EgressQueue;
  readonly #sources: EgressSources;
  readonly #budget = new SocketBudget();
  /** Undefined: nothing waits, and has not for a while. */
  #pacedUntil: Instant | undefined;

  constructor(plane: EgressPlane, queue: EgressQueue, sources: EgressSources) {
    this.#plane = plane;
    this.#queue = queue;
    this.#sources = sources;
    plane.limitUnsent(this.#budget.bytes);
  }

  /** Packets must wait for their turn, or were waiting a moment ago: small portions keep the order fair. */
  get isPacing(): boolean {
    return this.#pacedUntil !== undefined;
  }

  /** Takes the first `count` rows of the outbound batch: copies of what goes to the network; the others go on at once. */
  takeRows(count: number, now: Instant): void {
    const { rows } = this.#plane.outbound;
    let others = 0;
    for (let at = 0; at < count * ROW_WORDS; at += ROW_WORDS) {
      if (this.#sources.staysHere(at)) {
        rows.copyWithin(others++ * ROW_WORDS, at, at + ROW_WORDS);
        continue;
      }
      const packet = packetOfRow(this.#plane.outbound, at);
      this.#queue.push({ ...packet, bytes: packet.bytes.slice() }, now);
    }
    if (others > 0) this.#sources.sendRows(others);
    this.#sendNext(now);
  }

  /** Their bytes are its own from now on. */
  take(packets: readonly StagedPacket[], now: Instant): void {
    for (const packet of packets) this.#queue.push(packet, now);
    this.#sendNext(now);
  }

  /** After everything that may have sent something: begins to pace when the socket is full, ends when all is quiet. */
  settle(now: Instant): void {
    if (this.#plane.sendBlocked) return this.#noteFull(now);
    if (this.#pacedUntil === undefined) return;
    this.#sendNext(now);
    if (!this.#queue.isEmpty || now < this.#pacedUntil) return;
    this.#pacedUntil = undefined;
    this.#sources.holdStreams(false);
  }

  #noteFull(now: Instant): void {
    if (this.#pacedUntil === undefined) this.#sources.holdStreams(true);
    this.#pacedUntil = after(now, PACED_MS);
    this.#budget.noteFull(this.#plane.unsentBytes, now);
  }

  /** The socket was full and has room again. */
  handleWritable(now: Instant): void {
    if (this.#budget.noteRoom(this.#plane.unsentBytes, now)) this.#plane.limitUnsent(this.#budget.bytes);
    this.#sendNext(now);
  }

  #sendNext(now: Instant): void {
    // What is sealed cannot change its place any more: never much at once.
    const most = Math.min(MAX_PORTION_BYTES, this.#budget.bytes / PORTIONS_PER_BUDGET);
    while (!this.#plane.sendBlocked) {
      const portion = this.#nextPortion(most, now);
      if (portion.length > 0) this.#sources.sendPackets(portion);
      const streamBytes = this.#plane.sendBlocked ? 0 : this.#sources.sendStreams(most, now);
      if (portion.length === 0 && streamBytes === 0) return;
    }
    this.#noteFull(now);
  }

  #nextPortion(most: number, now: Instant): StagedPacket[] {
    const portion: StagedPacket[] = [];
    for (let bytes = 0; bytes < most && portion.length < MAX_ROWS; ) {
      const packet = this.#queue.pop(now);
      if (packet === undefined) break;
      portion.push(packet);
      bytes += packet.bytes.length;
    }
    return portion;
  }
}

/** Longer than the pauses of a transfer that fills the network. */
const PACED_MS = 250;
const PORTIONS_PER_BUDGET = 4;
/** With one packet more, and what goes before each, it has room in the arena of a batch. */
const MAX_PORTION_BYTES = 128 * 1024;
