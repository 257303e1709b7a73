/**
 * Packets that wait while keys are agreed. Bounded in number, bytes and time; the oldest goes first when it is full,
 * because a program repeats what is newest.
 */
import { after, type Instant } from "../base/instant.ts";
import type { StagedPacket } from "./data-plane.ts";

export class Staging {
  readonly #packets: { packet: StagedPacket; stagedAt: Instant }[] = [];
  #bytes = 0;

  get size(): number {
    return this.#packets.length;
  }

  /** Keeps a packet (its bytes must be the caller's own copy); returns how many older ones were pushed out. */
  add(packet: StagedPacket, now: Instant): number {
    this.#packets.push({ packet, stagedAt: now });
    this.#bytes += packet.bytes.length;
    let evicted = 0;
    while (this.#packets.length > MAX_PACKETS || this.#bytes > MAX_BYTES) {
      this.#bytes -= this.#packets.shift()!.packet.bytes.length;
      evicted++;
    }
    return evicted;
  }

  /** All that is still fresh, oldest first; the queue is empty afterwards. */
  take(now: Instant): StagedPacket[] {
    const fresh = this.#packets.filter((entry) => after(entry.stagedAt, MAX_AGE_MS) >= now);
    this.#packets.length = 0;
    this.#bytes = 0;
    return fresh.map((entry) => entry.packet);
  }
}

const MAX_PACKETS = 64; // as the reference stages per peer
const MAX_BYTES = 256 * 1024;
const MAX_AGE_MS = 10_000;
