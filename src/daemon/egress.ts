/**
 * The way out when the network takes less than programs send. As long as the socket takes everything, packets do not
 * come here. Once it was full they do, in fair queues that are kept short (`tunnel/egress-queue.ts`), and the socket is
 * given no more than it passes on in a moment (`tunnel/socket-budget.ts`): so what waits, waits where the order can still
 * be changed.
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

export class Egress {
  readonly #plane: EgressPlane;
  readonly #queue: EgressQueue;
  readonly #send: (packets: readonly StagedPacket[]) => void;
  readonly #budget = new SocketBudget();
  #pacedUntil: Instant | undefined;

  /** `send` judges, seals and sends at once; the packets are its own. */
  constructor(plane: EgressPlane, queue: EgressQueue, send: (packets: readonly StagedPacket[]) => void) {
    this.#plane = plane;
    this.#queue = queue;
    this.#send = send;
    plane.limitUnsent(this.#budget.bytes);
  }

  /** Packets must wait for their turn, or were waiting a moment ago: small portions keep the order fair. */
  isPacing(now: Instant): boolean {
    if (this.#plane.sendBlocked) return true;
    return this.#pacedUntil !== undefined && (!this.#queue.isEmpty || now < this.#pacedUntil);
  }

  /** Takes the first `count` rows of the outbound batch, by copy. */
  takeRows(count: number, now: Instant): void {
    for (let row = 0; row < count; row++) {
      const packet = packetOfRow(this.#plane.outbound, row * ROW_WORDS);
      this.#queue.push({ ...packet, bytes: packet.bytes.slice() }, now);
    }
    this.#sendNext(now);
  }

  /** Their bytes are its own from now on. */
  take(packets: readonly StagedPacket[], now: Instant): void {
    for (const packet of packets) this.#queue.push(packet, now);
    this.#sendNext(now);
  }

  /** After every send: begins to pace when the socket is full. */
  noteSent(now: Instant): void {
    if (!this.#plane.sendBlocked) return;
    this.#pacedUntil = after(now, PACED_MS);
    this.#budget.noteFull(this.#plane.unsentBytes, now);
  }

  /** The socket was full and has room again. */
  handleWritable(now: Instant): void {
    if (this.#budget.noteRoom(this.#plane.unsentBytes, now)) this.#plane.limitUnsent(this.#budget.bytes);
    this.#sendNext(now);
  }

  #sendNext(now: Instant): void {
    while (!this.#plane.sendBlocked) {
      const portion = this.#nextPortion(now);
      if (portion.length === 0) return;
      this.#send(portion);
      this.noteSent(now);
    }
  }

  /** What is sealed cannot change its place any more: never much at once. */
  #nextPortion(now: Instant): StagedPacket[] {
    const most = Math.min(MAX_PORTION_BYTES, this.#budget.bytes / PORTIONS_PER_BUDGET);
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
