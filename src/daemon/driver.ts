/**
 * The run loop: readable descriptors and one timer become inputs of the engine, its outputs become writes. Each wake-up
 * does a bounded number of rounds, so that bulk traffic never starves timers, the registry or the control socket.
 */
import type { Instant } from "../base/instant.ts";
import { inNobodysName } from "../control/caller.ts";
import type { Engine, EngineEvent } from "../engine/engine.ts";
import { now, wallNow } from "../io/clock.ts";
import type { NativeDataPlane } from "../io/native-data-plane.ts";
import type { StagedPacket } from "../tunnel/data-plane.ts";
import { EgressQueue } from "../tunnel/egress-queue.ts";
import { Egress } from "./egress.ts";
import type { Preference } from "./preference.ts";

export interface DriverHooks {
  handleEvent(event: EngineEvent): void;
  /** Work of the registry's client that only the edge can do: sending its next request. */
  pumpRegistry(): void;
  /** Programs with a namespace of their own; they share the interface's address. */
  readonly guests: DriverGuests;
  readonly preference: Preference;
  /** Gives the daemon's sockets to plain agents what the engine has for them. */
  pumpPlain(): void;
}

/** Whose packets some of those for the interface are; see daemon/guests.ts. */
export interface DriverGuests {
  takeInbound(count: number): void;
  takeTurned(count: number): void;
  take(packet: Uint8Array): boolean;
}

export class Driver {
  readonly #engine: Engine;
  readonly #plane: NativeDataPlane;
  readonly #hooks: DriverHooks;
  /** What waits for the network. */
  readonly #egress: Egress;
  #timer: NodeJS.Timeout | undefined;
  /** The timer may be set while a request is worked on, and does other things than that. */
  readonly #wakeUp = inNobodysName(() => this.#wake());
  #armedFor: Instant | undefined;
  #stopped = false;

  /** `seed`: 32 random bits. */
  constructor(engine: Engine, plane: NativeDataPlane, seed: number, hooks: DriverHooks) {
    this.#engine = engine;
    this.#plane = plane;
    this.#hooks = hooks;
    const queue = new EgressQueue(seed, (reason, packets) => engine.countDrop(reason, packets));
    this.#egress = new Egress(plane, queue, {
      staysHere: (at) => engine.outbound.staysHere(at),
      sendRows: (count) => this.#sendRows(count),
      sendPackets: (packets) => this.#sendRows(plane.putTunPackets(packets)),
      holdStreams: (held) => engine.streams.hold(held),
      sendStreams: (bytes, at) => {
        const sent = engine.streams.flush(at, bytes);
        plane.flush();
        return sent;
      },
    });
  }

  start(): void {
    this.#plane.startPolling({
      onTunReadable: () => this.#readTun(),
      onUdpReadable: () => this.#readUdp(),
      onUdpWritable: () => {
        this.#egress.handleWritable(this.#clock());
        this.drain();
      },
    });
    this.drain();
  }

  /** Packets wait where they are from now on: what the engine is taken apart for must not meet them. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#plane.stopPolling();
  }

  /** Must be called after every input that did not come through the driver itself (commands, registry). */
  drain(): void {
    if (this.#stopped) return;
    do this.#drainOutputs();
    while (this.#takeHeld());
    if (this.#egress.isPacing || this.#plane.sendBlocked) this.#egress.settle(this.#clock());
    this.#hooks.preference.update(now());
    this.#arm();
  }

  /** Packets that waited for an answer are looked at again; false when there are none. */
  #takeHeld(): boolean {
    const packets = this.#engine.takeHeld();
    if (packets.length === 0) return false;
    this.#sendPackets(packets);
    return true;
  }

  /** As if they had been read from the interface. */
  handlePackets(packets: readonly StagedPacket[]): void {
    if (this.#stopped) return;
    this.#sendPackets(packets);
    this.drain();
  }

  #sendPackets(packets: readonly StagedPacket[]): void {
    if (this.#egress.isPacing) return this.#egress.take(packets, this.#clock());
    this.#sendRows(this.#plane.putTunPackets(packets));
  }

  #sendRows(count: number): void {
    this.#engine.handleTunBatch(count, this.#clock());
    this.#hooks.guests.takeTurned(count);
    this.#plane.sealAndSend(count);
  }

  #drainOutputs(): void {
    const engine = this.#engine;
    for (let out = engine.pollTransmit(); out !== undefined; out = engine.pollTransmit()) {
      this.#plane.sendDatagram(out.to, out.datagram, out.mayBreak);
    }
    engine.sendReleased();
    this.#plane.flush();
    for (let packet = engine.pollTunPacket(); packet !== undefined; packet = engine.pollTunPacket()) {
      if (!this.#hooks.guests.take(packet)) this.#plane.writeTunPacket(packet);
    }
    for (let event = engine.pollEvent(); event !== undefined; event = engine.pollEvent())
      this.#hooks.handleEvent(event);
    this.#hooks.pumpRegistry();
    this.#hooks.pumpPlain();
  }

  /** An input from outside the packet path: `act` runs with a fresh clock, then everything is drained. */
  input<T>(act: (at: Instant) => T): T {
    const at = this.#clock();
    const result = act(at);
    this.#engine.handleRegistry(at);
    this.drain();
    return result;
  }

  #readTun(): void {
    for (let round = 0; round < ROUNDS_PER_WAKE; round++) {
      const count = this.#plane.readTun();
      if (count === 0) break;
      this.#hooks.preference.note(this.#plane.outbound, count);
      this.#sendBatch(count);
      const tooLong = this.#plane.takeTooLong();
      if (tooLong >= 0) this.#engine.sizes.handleTooLong(tooLong, this.#clock());
    }
    this.drain();
  }

  /** The rows that were just read. */
  #sendBatch(count: number): void {
    if (this.#egress.isPacing) return this.#egress.takeRows(count, this.#clock());
    this.#sendRows(count);
    if (this.#plane.sendBlocked) this.#egress.settle(this.#clock());
  }

  #readUdp(): void {
    for (let round = 0; round < ROUNDS_PER_WAKE; round++) {
      const count = this.#plane.receiveAndOpen();
      if (count === 0) break;
      this.#engine.handleUdpBatch(count, this.#clock());
      this.#plane.flush(); // acknowledgements: their sender works on while we go through the next round
      this.#hooks.guests.takeInbound(count);
      this.#plane.writeTun(count);
    }
    this.drain();
  }

  #clock(): Instant {
    const at = now();
    this.#engine.handleClock(at, wallNow());
    return at;
  }

  /**
   * One real timer for the earliest deadline of all parts. A deadline that moved further away leaves the timer as it is:
   * most do so with every packet, and one early wake-up costs less than a new timer each time.
   */
  #arm(): void {
    const deadline = this.#engine.pollTimeout();
    if (deadline === undefined || (this.#armedFor !== undefined && deadline.at >= this.#armedFor)) return;
    clearTimeout(this.#timer);
    this.#armedFor = deadline.at;
    this.#timer = setTimeout(this.#wakeUp, Math.max(1, Math.ceil(deadline.at - now())));
  }

  #wake(): void {
    this.#armedFor = undefined;
    this.#engine.handleTimeout(this.#clock());
    this.drain();
  }
}

/** Measured: more rounds no longer raise throughput, and each may carry a megabyte. */
const ROUNDS_PER_WAKE = 8;
