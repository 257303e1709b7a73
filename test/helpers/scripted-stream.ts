/**
 * One stream and a far side whose every packet a test writes by hand. Numbers are told relative to the two SYNs: sequence 1
 * is the first data byte of either side, whatever the initial sequence numbers are.
 */
import { after, type Instant, instant } from "../../src/base/instant.ts";
import { Stream } from "../../src/stream/stream.ts";
import { DEFAULT_STREAM_OPTIONS, type StreamOptions } from "../../src/stream/stream-options.ts";
import type { StreamPacket } from "../../src/stream/stream-packet.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { FLAG } from "../../src/wire/virtual-packet.ts";
import { cutRun } from "./stream-network.ts";

export const REFERENCE_SEQUENCE = 0;
export const OWN_KIND_SEQUENCE = 0xffff_ff00; // wraps after 256 bytes

export interface ScriptOptions {
  readonly peerSequence?: number;
  readonly ownSequence?: number;
  readonly peerWindow?: number;
  readonly options?: Partial<StreamOptions>;
}

/** A packet with numbers relative to the SYNs, and its time. */
export interface LoggedPacket {
  readonly at: number;
  readonly flags: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly window: number;
  readonly payload: Uint8Array;
}

export class ScriptedStream {
  readonly stream: Stream;
  now: Instant = instant(10_000);
  readonly #peerSequence: number;
  readonly #ownSequence: number;
  readonly #startedAt = 10_000;

  constructor({ peerSequence = OWN_KIND_SEQUENCE, ownSequence = 0xffff_fe00, options = {} }: ScriptOptions = {}) {
    this.#peerSequence = peerSequence;
    this.#ownSequence = ownSequence;
    this.stream = new Stream({
      remote: { network: networkId(0), node: nodeId(2) },
      localPort: 50_000,
      remotePort: 80,
      options: { ...DEFAULT_STREAM_OPTIONS, ...options },
      initialSequence: ownSequence,
      now: this.now,
      onChange: () => {},
    });
  }

  /** A stream that dialled, was answered, and has sent its ACK. */
  static open(script: ScriptOptions = {}): ScriptedStream {
    const scripted = new ScriptedStream(script);
    scripted.stream.connect(scripted.now);
    scripted.sent();
    scripted.receive({ flags: FLAG.SYN | FLAG.ACK, sequence: 0, acknowledgement: 1, window: script.peerWindow ?? 512 });
    scripted.sent();
    scripted.events();
    return scripted;
  }

  /** A stream that was dialled by the far side, and is open. */
  static answered(script: ScriptOptions = {}): ScriptedStream {
    const scripted = new ScriptedStream(script);
    const syn = { flags: FLAG.SYN, sequence: scripted.#peerSequence, acknowledgement: 0, window: 512 };
    scripted.stream.offer(
      { ...syn, sourcePort: 80, destinationPort: 50_000, payload: new Uint8Array(0) },
      scripted.now,
    );
    scripted.stream.accept(scripted.now);
    scripted.sent();
    scripted.receive({});
    scripted.sent();
    scripted.events();
    return scripted;
  }

  receive(packet: Partial<StreamPacket>): void {
    const fields = { flags: FLAG.ACK, sequence: 1, acknowledgement: 1, window: 512, payload: new Uint8Array(0) };
    const { sequence, acknowledgement, ...rest } = { ...fields, ...packet };
    this.receiveRaw({
      ...rest,
      sequence: (sequence + this.#peerSequence) >>> 0,
      acknowledgement: rest.flags & FLAG.ACK ? (acknowledgement + this.#ownSequence) >>> 0 : 0,
    });
  }

  /** Numbers as on the wire. */
  receiveRaw(packet: Omit<StreamPacket, "sourcePort" | "destinationPort">): void {
    this.stream.handlePacket({ ...packet, sourcePort: 80, destinationPort: 50_000 }, this.now);
  }

  /** What it has to say now. */
  sent(): LoggedPacket[] {
    const packets: LoggedPacket[] = [];
    for (const { flags, sequence, acknowledgement, window, payload } of this.#polled()) {
      packets.push({
        at: this.now - this.#startedAt,
        flags,
        sequence: (sequence - this.#ownSequence) | 0,
        acknowledgement: flags & FLAG.ACK ? (acknowledgement - this.#peerSequence) | 0 : acknowledgement,
        window,
        payload,
      });
    }
    return packets;
  }

  *#polled(): Iterable<StreamPacket> {
    for (let packet = this.stream.pollPacket(); packet !== undefined; packet = this.stream.pollPacket()) {
      yield* cutRun(packet);
    }
  }

  /** Lets time pass, with a wake-up at each deadline, and returns what was sent meanwhile. */
  pass(ms: number): LoggedPacket[] {
    const until = after(this.now, ms);
    const packets = this.sent();
    for (let steps = 0; steps < 10_000; steps++) {
      const deadline = this.stream.pollTimeout();
      if (deadline === undefined || deadline.at > until) break;
      this.now = Math.max(this.now, deadline.at) as Instant;
      this.stream.handleTimeout(this.now);
      packets.push(...this.sent());
    }
    this.now = until;
    return packets;
  }

  events(): string[] {
    const kinds: string[] = [];
    for (let event = this.stream.pollEvent(); event !== undefined; event = this.stream.pollEvent())
      kinds.push(event.kind);
    return kinds;
  }

  write(bytes: Uint8Array): number {
    return this.stream.write(bytes, this.now);
  }

  readAll(): Uint8Array {
    const chunks: number[] = [];
    for (let chunk = this.stream.read(this.now); chunk !== undefined; chunk = this.stream.read(this.now)) {
      chunks.push(...chunk);
    }
    return Uint8Array.from(chunks);
  }
}

/** `length` bytes that differ from their neighbours. */
export function pattern(length: number, from = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (from + i) * 7);
}
