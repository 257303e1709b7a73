/**
 * Inner packets that are longer than the path's frames, cut and put together again. IPv6 asks for links of 1,280 bytes;
 * an underlay with less must cut below the inner packet, where no program sees it (RFC 8200 §5).
 * Invariant: what comes out is a packet that the peer cut, whole, or nothing. Fragments arrive authenticated and are not
 * repeated by an attacker (the replay window stands before), so a contradiction is an error of the sender: the whole
 * packet goes.
 */
import { after, type Instant } from "../base/instant.ts";

export interface Fragment {
  /** Same for all fragments of a packet, different for packets in flight together. */
  readonly id: number;
  /** Of the first byte, in the packet. */
  readonly offset: number;
  /** Not the last. */
  readonly more: boolean;
  readonly bytes: Uint8Array;
}

/** Cuts a packet into pieces of about equal size, none longer than `maxBytes`. The bytes are borrowed. */
export function cutIntoFragments(packet: Uint8Array, maxBytes: number, id: number): Fragment[] {
  const count = Math.ceil(packet.length / Math.max(1, maxBytes));
  const size = Math.ceil(packet.length / count);
  const fragments: Fragment[] = [];
  for (let offset = 0; offset < packet.length; offset += size) {
    const end = Math.min(offset + size, packet.length);
    fragments.push({ id, offset, more: end < packet.length, bytes: packet.subarray(offset, end) });
  }
  return fragments;
}

export type Reassembled =
  | { readonly kind: "waiting" }
  | { readonly kind: "packet"; readonly packet: Uint8Array }
  /** The packet this fragment belongs to is lost. */
  | { readonly kind: "refused" };

export class Reassembly {
  readonly #maxPacketBytes: number;
  readonly #maxPackets: number;
  /**
   * Key: peer (any number that stands for it). Bound: MAX_PEERS; the peer that was heard longest ago goes, with `forget`,
   * or with its last packet.
   */
  readonly #peers = new Map<number, Map<number, PartialPacket>>();
  #lost = 0;

  constructor(maxPacketBytes: number) {
    this.#maxPacketBytes = maxPacketBytes;
    this.#maxPackets = Math.max(4, Math.min(MAX_PACKETS_PER_PEER, Math.floor(MAX_BYTES_PER_PEER / maxPacketBytes)));
  }

  /** Packets given up since the last call because fragments were missing for too long or there was no room. */
  takeLost(): number {
    const lost = this.#lost;
    this.#lost = 0;
    return lost;
  }

  /** Bytes held for packets that are not whole, at most. */
  get heldBytes(): number {
    let sum = 0;
    for (const partials of this.#peers.values()) for (const partial of partials.values()) sum += partial.heldBytes;
    return sum;
  }

  forget(peer: number): void {
    this.#peers.delete(peer);
  }

  add(peer: number, fragment: Fragment, now: Instant): Reassembled {
    const partials = this.#partialsOf(peer);
    this.#expire(partials, now);
    const partial = partials.get(fragment.id) ?? this.#begin(partials, fragment.id, now);
    const packet = partial.add(fragment);
    if (packet === "waiting") return { kind: "waiting" };
    if (packet === "refused") return { kind: "refused" };
    partials.delete(fragment.id);
    if (partials.size === 0) this.#peers.delete(peer);
    return { kind: "packet", packet };
  }

  #partialsOf(peer: number): Map<number, PartialPacket> {
    const partials = this.#peers.get(peer) ?? new Map<number, PartialPacket>();
    this.#peers.delete(peer); // to the end: the first of the map is the peer heard longest ago
    this.#peers.set(peer, partials);
    if (this.#peers.size > MAX_PEERS) {
      const [oldest] = this.#peers.keys();
      for (const partial of this.#peers.get(oldest!)!.values()) this.#countLost(partial);
      this.#peers.delete(oldest!);
    }
    return partials;
  }

  /** Partials stand in the order of their first fragments, so the old ones are in front. */
  #expire(partials: Map<number, PartialPacket>, now: Instant): void {
    for (const [id, partial] of partials) {
      if (after(partial.since, LIFETIME_MS) > now) return;
      this.#countLost(partial);
      partials.delete(id);
    }
  }

  #begin(partials: Map<number, PartialPacket>, id: number, now: Instant): PartialPacket {
    if (partials.size >= this.#maxPackets) {
      const [oldest] = partials.keys();
      this.#countLost(partials.get(oldest!)!);
      partials.delete(oldest!);
    }
    const partial = new PartialPacket(this.#maxPacketBytes, now);
    partials.set(id, partial);
    return partial;
  }

  #countLost(partial: PartialPacket): void {
    if (!partial.isRefused) this.#lost++;
  }
}

/** A packet of which fragments are missing. Once refused it swallows what else comes, until it is too old. */
class PartialPacket {
  readonly since: Instant;
  readonly #maxBytes: number;
  /** In the order of their arrival. BOUNDED by MAX_FRAGMENTS. */
  #pieces: { readonly offset: number; readonly bytes: Uint8Array }[] = [];
  #have = 0;
  /** Length of the packet, once the last fragment is here. */
  #total: number | undefined;
  isRefused = false;

  constructor(maxBytes: number, now: Instant) {
    this.#maxBytes = maxBytes;
    this.since = now;
  }

  get heldBytes(): number {
    return this.#have;
  }

  add({ offset, bytes, more }: Fragment): Uint8Array | "waiting" | "refused" {
    if (this.isRefused) return "waiting"; // counted when it was refused
    const end = offset + bytes.length;
    if (this.#isRepeated(offset, bytes, more)) return "waiting";
    if (bytes.length === 0 || end > this.#maxBytes || this.#pieces.length >= MAX_FRAGMENTS) return this.#refuse();
    if (this.#contradicts(offset, end, more)) return this.#refuse();
    this.#pieces.push({ offset, bytes: bytes.slice() });
    this.#have += bytes.length;
    if (!more) this.#total = end;
    return this.#have === this.#total ? this.#join(this.#total) : "waiting";
  }

  #isRepeated(offset: number, bytes: Uint8Array, more: boolean): boolean {
    const same = this.#pieces.find((piece) => piece.offset === offset && piece.bytes.length === bytes.length);
    if (same === undefined || more === (this.#total === offset + bytes.length)) return false;
    return same.bytes.every((byte, index) => byte === bytes[index]);
  }

  #contradicts(offset: number, end: number, more: boolean): boolean {
    const overlaps = this.#pieces.some((piece) => offset < piece.offset + piece.bytes.length && piece.offset < end);
    if (overlaps || (!more && this.#total !== undefined)) return true;
    if (this.#total !== undefined) return end > this.#total;
    return !more && this.#pieces.some((piece) => piece.offset + piece.bytes.length > end);
  }

  #refuse(): "refused" {
    this.isRefused = true;
    this.#pieces = [];
    this.#have = 0;
    return "refused";
  }

  /** No piece overlaps another or passes the end, and together they are as long as the packet: they are the packet. */
  #join(total: number): Uint8Array {
    const packet = new Uint8Array(total);
    for (const { offset, bytes } of this.#pieces) packet.set(bytes, offset);
    return packet;
  }
}

/** Packets of one peer that may wait for fragments; reordering spans a few at most. */
export const MAX_PACKETS_PER_PEER = 64;
export const MAX_PEERS = 256;
const MAX_BYTES_PER_PEER = 256 * 1024;
/** Longer than any reordering, shorter than a TCP that gives up. */
const LIFETIME_MS = 2_000;
/** The longest packet there is, in frames of the smallest underlay, is fewer. */
const MAX_FRAGMENTS = 256;
