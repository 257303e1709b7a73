/**
 * Whether somebody waits for short answers on a machine that is busy: a ping, keys typed into ssh, questions of any kind, beside
 * a transfer of ours, or while programs make this thread wait for its turns. Each costs little and counts only by how soon it goes,
 * where a transfer counts by how many bytes go.
 *
 * Seen on the way out alone, where every question and every answer is somewhere. What is short, carries something and is rare may
 * still be the end of a transfer's writes; so flows that lately sent more at once are remembered, by a hash of their ports. A flood
 * of short packets is not rare, and the few with which a transfer begins or ends do not last: neither is preferred.
 */
import { after, type Instant, instant } from "../base/instant.ts";
import { IPV6, IPV6_HEADER_BYTES, NEXT_HEADER } from "../wire/ipv6.ts";
import { TCP } from "../wire/tcp.ts";
import { type Batch, OUT, ROW_WORDS } from "./data-plane.ts";

/** What the machine is asked at the end of a window. */
export interface Load {
  /** Packets sent and received so far. */
  readonly movedPackets: number;
  /** How long this thread waited for its turns so far, and how many it had. Not asked while nothing is sparse. */
  turns(): { readonly waitedMs: number; readonly count: number } | undefined;
}

export class SparseTraffic {
  #windowFrom: Instant;
  /** Of this window. */
  #shortPackets = 0;
  #movedBefore = 0;
  #busyUntil: Instant;
  #turnsBefore: ReturnType<Load["turns"]>;
  /** Windows so far. */
  #window = 1;
  /** By hash of the ports: the last window in which a flow sent a packet that was not short. Flows that collide count as one. */
  readonly #largeIn = new Uint32Array(HASHES);
  /** When the last WANTED_WINDOWS ended in which there was any on a busy machine, oldest first. */
  readonly #wanted: Instant[] = [];

  constructor(now: Instant) {
    this.#windowFrom = this.#busyUntil = now;
  }

  /** The first `count` rows of what programs send. */
  note({ rows, arena }: Batch, count: number): void {
    for (let at = 0; at < count * ROW_WORDS; at += ROW_WORDS) {
      const offset = rows[at + OUT.OFFSET]!;
      const length = rows[at + OUT.LENGTH]!;
      const hash = hashOfPorts(arena, offset);
      if (length > MAX_SHORT_BYTES || rows[at + OUT.GSO_TYPE] !== 0) this.#largeIn[hash] = this.#window;
      else if (this.#isWithoutLarge(hash) && saysSomething(arena, offset, length)) this.#shortPackets++;
    }
  }

  /** Somebody waits, on a busy machine. */
  isHeldUp(load: Load, now: Instant): boolean {
    if (now - this.#windowFrom >= WINDOW_MS) this.#endWindow(load, now);
    const [oldest] = this.#wanted;
    return now < this.#busyUntil && this.#wanted.length === WANTED_WINDOWS && now - oldest! < SPARSE_MS;
  }

  #isWithoutLarge(hash: number): boolean {
    const last = this.#largeIn[hash]!;
    return last === 0 || this.#window - last > LARGE_WINDOWS;
  }

  #endWindow(load: Load, now: Instant): void {
    const { movedPackets } = load;
    const seconds = (now - this.#windowFrom) / 1000;
    const isSparse = this.#shortPackets > 0 && this.#shortPackets <= MAX_SPARSE_RATE * seconds;
    if (movedPackets - this.#movedBefore >= MIN_BULK_RATE * seconds) this.#noteBusy(BULK_MS, now);
    // A thread that is preferred waits no more, and cannot see whether it would: so this is believed for longer.
    if (isSparse && now >= this.#busyUntil && this.#hadToWait(load)) this.#noteBusy(WAITING_MS, now);
    if (isSparse && now < this.#busyUntil) this.#wanted.push(now);
    if (this.#wanted.length > WANTED_WINDOWS) this.#wanted.shift();
    this.#window++;
    this.#windowFrom = now;
    this.#shortPackets = 0;
    this.#movedBefore = movedPackets;
  }

  #noteBusy(forMs: number, now: Instant): void {
    this.#busyUntil = instant(Math.max(this.#busyUntil, after(now, forMs)));
  }

  /** On the average, since the last look. */
  #hadToWait(load: Load): boolean {
    const before = this.#turnsBefore;
    const turns = load.turns();
    this.#turnsBefore = turns;
    if (before === undefined || turns === undefined) return false;
    return turns.waitedMs - before.waitedMs > MAX_WAIT_MS * Math.max(1, turns.count - before.count);
  }
}

/** A bare acknowledgement of TCP is part of what goes the other way. */
function saysSomething(arena: Uint8Array, offset: number, length: number): boolean {
  if (length < IPV6_HEADER_BYTES || arena[offset + IPV6.NEXT_HEADER] !== NEXT_HEADER.TCP) return true;
  const headerBytes = (arena[offset + IPV6_HEADER_BYTES + TCP.DATA_OFFSET]! >> 4) * 4;
  return length > IPV6_HEADER_BYTES + headerBytes;
}

/** Whatever lies where ports do in a packet without extension headers, and of a packet of an earlier row where it ends before. */
function hashOfPorts(arena: Uint8Array, offset: number): number {
  const ports = offset + IPV6_HEADER_BYTES;
  const source = (arena[ports]! << 8) | arena[ports + 1]!;
  const destination = (arena[ports + 2]! << 8) | arena[ports + 3]!;
  return (source * 31 + destination) & (HASHES - 1);
}

const HASHES = 4_096;
/** A flow is known for one that sends much so long after it did. */
export const LARGE_WINDOWS = 20;
/** At least: it ends with a wake-up. */
export const WINDOW_MS = 100;
export const MAX_SHORT_BYTES = 512;
/** A second. Keys, pings and questions are below, floods and a server's thousands of answers above. */
export const MAX_SPARSE_RATE = 1_000;
/** Packets a second, some 100 Mbit/s: with less a machine has time for everybody. */
export const MIN_BULK_RATE = 10_000;
/** One ping a second is enough, one question is not. */
export const WANTED_WINDOWS = 3;
export const SPARSE_MS = 5_000;
export const BULK_MS = 1_000;
export const WAITING_MS = 60_000;
/** For a turn: a machine that has time for everybody gives it within microseconds. */
export const MAX_WAIT_MS = 0.25;
