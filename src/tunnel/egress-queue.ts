/**
 * Packets that wait because the network takes less than programs send: FQ-CoDel (RFC 8290). Each flow has a queue of its
 * own and they take turns, so a ping or a key stroke does not wait behind somebody's bulk; each queue is kept short, by a
 * congestion mark (RFC 3168) where the flow understands one and by a drop where it does not.
 *
 * Flows are told apart by a keyed hash into FLOW_COUNT queues: two that share one share its delay, nothing else.
 * BOUNDED by MAX_BYTES in all; when they are full, the longest queue loses its oldest packets.
 */
import { readU16, readU32 } from "../base/bytes.ts";
import type { Instant } from "../base/instant.ts";
import { RoundRobin, type Turn } from "../base/round-robin.ts";
import { IPV6_HEADER_BYTES, NEXT_HEADER } from "../wire/ipv6.ts";
import { CoDel } from "./codel.ts";
import type { StagedPacket } from "./data-plane.ts";

/** Why packets were dropped: there was no room, or their queue had been too long for too long. */
export type EgressDrop = "egress-full" | "egress-delay";

export class EgressQueue {
  readonly #seed: number;
  readonly #drop: (reason: EgressDrop, packets: number) => void;
  /** By hash; a place is filled when it is first used. BOUNDED by FLOW_COUNT. */
  readonly #flows: (Flow | undefined)[] = new Array(FLOW_COUNT);
  readonly #turns = new RoundRobin<Flow>(QUANTUM_BYTES, {
    firstBytes: (flow) => flow.first?.packet.bytes.length,
    leave: (flow) => {
      flow.hasTurns = false;
    },
  });
  #bytes = 0;

  /** `seed` makes it impossible to choose addresses and ports that share a queue with somebody's; 32 bits. */
  constructor(seed: number, drop: (reason: EgressDrop, packets: number) => void) {
    this.#seed = seed;
    this.#drop = drop;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get isEmpty(): boolean {
    return this.#bytes === 0;
  }

  /** Its bytes must be the caller's own copy. */
  push(packet: StagedPacket, now: Instant): void {
    const flow = this.#flowOf(packet.bytes);
    const entry: Entry = { packet, at: now, next: undefined };
    if (flow.last === undefined) flow.first = entry;
    else flow.last.next = entry;
    flow.last = entry;
    flow.bytes += packet.bytes.length;
    this.#bytes += packet.bytes.length;
    if (!flow.hasTurns) {
      flow.hasTurns = true;
      this.#turns.add(flow);
    }
    if (this.#bytes > MAX_BYTES) this.#makeRoom();
  }

  /** The packet that goes next; undefined when none waits. */
  pop(now: Instant): StagedPacket | undefined {
    for (;;) {
      const flow = this.#turns.next();
      if (flow === undefined) return undefined;
      const { packet, at } = this.#take(flow);
      if (!flow.codel.shouldDrop(now, now - at, flow.bytes) || markCongestion(packet.bytes)) return packet;
      this.#drop("egress-delay", packetsIn(packet));
      flow.deficitBytes += packet.bytes.length; // it did not go
    }
  }

  /** RFC 8290 §4.1: half of the longest queue at once, so that the search for it is rare. */
  #makeRoom(): void {
    let longest: Flow | undefined;
    for (const flow of this.#flows) if (flow !== undefined && flow.bytes > (longest?.bytes ?? 0)) longest = flow;
    if (longest === undefined) return;
    const enough = longest.bytes / 2;
    let packets = 0;
    while (longest.bytes > enough) packets += packetsIn(this.#take(longest).packet);
    this.#drop("egress-full", packets);
  }

  /** It has one that waits. */
  #take(flow: Flow): Entry {
    const entry = flow.first!;
    flow.first = entry.next;
    if (flow.first === undefined) flow.last = undefined;
    flow.bytes -= entry.packet.bytes.length;
    this.#bytes -= entry.packet.bytes.length;
    return entry;
  }

  #flowOf(bytes: Uint8Array): Flow {
    const index = hashFlow(bytes, this.#seed) % FLOW_COUNT;
    let flow = this.#flows[index];
    if (flow === undefined) {
      flow = { first: undefined, last: undefined, bytes: 0, hasTurns: false, deficitBytes: 0, codel: new CoDel() };
      this.#flows[index] = flow;
    }
    return flow;
  }
}

interface Entry {
  readonly packet: StagedPacket;
  readonly at: Instant;
  next: Entry | undefined;
}

interface Flow extends Turn {
  first: Entry | undefined;
  last: Entry | undefined;
  bytes: number;
  /** It is among those that take turns. */
  hasTurns: boolean;
  readonly codel: CoDel;
}

/** Of the addresses and, of TCP and UDP that follow the IPv6 header at once, the ports. */
function hashFlow(bytes: Uint8Array, seed: number): number {
  if (bytes.length < IPV6_HEADER_BYTES) return 0;
  const protocol = bytes[6]!;
  let hash = seed ^ protocol;
  for (let at = 8; at < IPV6_HEADER_BYTES; at += 4) hash = mix(hash, readU32(bytes, at));
  const hasPorts = protocol === NEXT_HEADER.TCP || protocol === NEXT_HEADER.UDP;
  if (hasPorts && bytes.length >= IPV6_HEADER_BYTES + 4) hash = mix(hash, readU32(bytes, IPV6_HEADER_BYTES));
  return (hash ^ (hash >>> 15)) >>> 0;
}

/** One round of MurmurHash3. */
function mix(hash: number, word: number): number {
  const scrambled = Math.imul(rotate(Math.imul(word, 0xcc9e2d51), 15), 0x1b873593);
  return (Math.imul(rotate(hash ^ scrambled, 13), 5) + 0xe6546b64) | 0;
}

function rotate(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}

/** Sets "congestion experienced" if both ends of the flow know what it means; false if they do not. */
function markCongestion(bytes: Uint8Array): boolean {
  if (bytes.length < IPV6_HEADER_BYTES || (readU16(bytes, 0) & ECN_MASK) === 0) return false;
  bytes[1]! |= ECN_MASK;
  return true;
}

/** Of the IPv6 header's first 16 bits. */
const ECN_MASK = 0x30;

/** A superpacket is as many as the network would have carried. */
function packetsIn({ bytes, gsoType, gsoSize, headerLength }: StagedPacket): number {
  return gsoType === 0 ? 1 : Math.max(1, Math.ceil((bytes.length - headerLength) / gsoSize));
}

/** As many as RFC 8290 §4.1.2 has. */
const FLOW_COUNT = 1_024;
/** One packet of the usual size (RFC 8290 §4.2). */
const QUANTUM_BYTES = 1_514;
/** 32 ms at 1 Gbit/s; CoDel keeps what obeys it far below. */
export const MAX_BYTES = 4 * 1024 * 1024;
