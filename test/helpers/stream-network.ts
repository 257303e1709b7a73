/**
 * Two stream tables with a link between them and one clock: everything happens at a known time in a known order, and chance
 * comes from a seed. `run` jumps from one thing that happens to the next.
 */
import { after, type Instant, instant } from "../../src/base/instant.ts";
import type { Stream } from "../../src/stream/stream.ts";
import type { StreamPacket } from "../../src/stream/stream-packet.ts";
import { StreamTable, type TableEvent, type TableLimits } from "../../src/stream/stream-table.ts";
import { networkId, nodeId, type PilotAddress } from "../../src/wire/ids.ts";

export interface LinkTraits {
  readonly delayMs: number;
  /** 0 to 1, of each packet. */
  readonly loss: number;
  readonly duplication: number;
  /** Share of packets that take up to `reorderMs` longer than the others. */
  readonly reorder: number;
  readonly reorderMs: number;
}

export const PERFECT_LINK: LinkTraits = { delayMs: 5, loss: 0, duplication: 0, reorder: 0, reorderMs: 0 };

/** Uniform in [0, 1), the same for the same seed (mulberry32). */
export function seededChance(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface SeenPacket {
  readonly at: Instant;
  readonly from: NodeName;
  readonly packet: StreamPacket;
}

export type NodeName = "a" | "b";

export interface SimulatedNode {
  readonly name: NodeName;
  readonly address: PilotAddress;
  readonly table: StreamTable;
  /** Called for each event of the table; a test puts its program here. */
  program: (event: TableEvent, now: Instant) => void;
}

export class StreamNetwork {
  readonly a: SimulatedNode;
  readonly b: SimulatedNode;
  /** Every packet that was sent, delivered or not. */
  readonly sent: SeenPacket[] = [];
  keepPackets = true;
  link: LinkTraits;
  /** May swallow a packet. */
  filter: (seen: SeenPacket) => boolean = () => true;
  now: Instant = instant(1_000);
  readonly #chance: () => number;
  /** Sorted by time, then by order of sending. */
  readonly #inFlight: { at: Instant; to: NodeName; packet: StreamPacket }[] = [];

  constructor(link: LinkTraits, seed: number, limits: Partial<TableLimits> = {}) {
    this.link = link;
    this.#chance = seededChance(seed);
    const randomBytes = (length: number) => Uint8Array.from({ length }, () => Math.floor(this.#chance() * 256));
    this.a = this.#node("a", 1, randomBytes, limits);
    this.b = this.#node("b", 2, randomBytes, limits);
  }

  /** Lets time pass until `isDone`, or until nothing is left to happen, or until `limitMs` have passed. */
  run(isDone: () => boolean, limitMs: number): boolean {
    const until = after(this.now, limitMs);
    this.settle();
    while (!isDone()) {
      const next = this.#nextAt();
      if (next === undefined || next > until) {
        this.now = until;
        return isDone();
      }
      this.now = Math.max(next, this.now) as Instant;
      this.#deliverDue();
      for (const node of [this.a, this.b]) {
        const deadline = node.table.pollTimeout();
        if (deadline !== undefined && deadline.at <= this.now) node.table.handleTimeout(this.now);
      }
      this.settle();
    }
    return true;
  }

  runFor(ms: number): void {
    this.run(() => false, ms);
  }

  /** Puts a packet in the way of a node as if the other had sent it. */
  inject(to: NodeName, packet: StreamPacket): void {
    const [node, other] = to === "a" ? [this.a, this.b] : [this.b, this.a];
    node.table.handlePacket(other.address, packet, this.now);
    this.settle();
  }

  /** Lets programs act on events and packets leave, until nobody has anything more to say at this time. */
  settle(): void {
    for (let busy = true; busy; ) {
      busy = false;
      for (const node of [this.a, this.b]) {
        for (let event = node.table.pollEvent(); event !== undefined; event = node.table.pollEvent()) {
          node.program(event, this.now);
          busy = true;
        }
        for (let out = node.table.pollPacket(); out !== undefined; out = node.table.pollPacket()) {
          for (const packet of cutRun(out.packet)) this.#send(node.name, packet);
          busy = true;
        }
      }
    }
  }

  #node(
    name: NodeName,
    id: number,
    randomBytes: (length: number) => Uint8Array,
    limits: Partial<TableLimits>,
  ): SimulatedNode {
    const address = { network: networkId(0), node: nodeId(id) };
    return { name, address, table: new StreamTable(randomBytes, this.now, limits), program: () => {} };
  }

  #send(from: NodeName, packet: StreamPacket): void {
    const seen = { at: this.now, from, packet };
    if (this.keepPackets) this.sent.push(seen);
    if (!this.filter(seen) || this.#chance() < this.link.loss) return;
    this.#launch(from, packet);
    if (this.#chance() < this.link.duplication) this.#launch(from, packet);
  }

  #launch(from: NodeName, packet: StreamPacket): void {
    const lateMs = this.#chance() < this.link.reorder ? this.#chance() * this.link.reorderMs : 0;
    const entry = { at: after(this.now, this.link.delayMs + lateMs), to: from === "a" ? "b" : "a", packet } as const;
    let index = this.#inFlight.length;
    while (index > 0 && this.#inFlight[index - 1]!.at > entry.at) index -= 1;
    this.#inFlight.splice(index, 0, entry);
  }

  #deliverDue(): void {
    while (this.#inFlight[0] !== undefined && this.#inFlight[0].at <= this.now) {
      const { to, packet } = this.#inFlight.shift()!;
      const [node, other] = to === "a" ? [this.a, this.b] : [this.b, this.a];
      node.table.handlePacket(other.address, packet, this.now);
      this.settle();
    }
  }

  #nextAt(): Instant | undefined {
    const times = [this.#inFlight[0]?.at, this.a.table.pollTimeout()?.at, this.b.table.pollTimeout()?.at];
    const known = times.filter((at) => at !== undefined);
    return known.length === 0 ? undefined : (Math.min(...known) as Instant);
  }
}

/** The packets that a run stands for; of any other packet, itself. */
export function cutRun({ segmentBytes, ...packet }: StreamPacket): StreamPacket[] {
  if (segmentBytes === undefined) return [packet];
  const packets: StreamPacket[] = [];
  for (let at = 0; at < packet.payload.length; at += segmentBytes) {
    const payload = packet.payload.subarray(at, at + segmentBytes);
    packets.push({ ...packet, sequence: (packet.sequence + at) >>> 0, payload });
  }
  return packets;
}

/** A program that writes `bytes` and then ends its direction, and collects what comes. */
export class Transfer {
  readonly received: Uint8Array[] = [];
  readonly events: string[] = [];
  stream: Stream | undefined;
  receivedBytes = 0;
  #unsent: Uint8Array;
  readonly #endsAfterwards: boolean;

  constructor(bytes: Uint8Array, endsAfterwards = true) {
    this.#unsent = bytes;
    this.#endsAfterwards = endsAfterwards;
  }

  readonly handle = (event: TableEvent, now: Instant): void => {
    this.stream ??= event.stream;
    const kind = event.kind === "stream" ? event.event.kind : event.kind;
    this.events.push(kind);
    if (kind === "accepted" || kind === "established" || kind === "writable") this.#write(now);
    if (kind === "readable" || kind === "ended") this.#read(now);
  };

  #write(now: Instant): void {
    const taken = this.stream!.write(this.#unsent, now);
    this.#unsent = this.#unsent.subarray(taken);
    if (this.#unsent.length === 0 && this.#endsAfterwards) this.stream!.closeWrite(now);
  }

  #read(now: Instant): void {
    for (let chunk = this.stream!.read(now); chunk !== undefined; chunk = this.stream!.read(now)) {
      this.received.push(chunk);
      this.receivedBytes += chunk.length;
    }
  }
}
