/**
 * Inner packets that are longer than the frames of their path: cut on the way out, put together on the way in
 * (tunnel/fragments.ts). Only where the underlay carries less than a frame with 1,280 bytes; everything else never comes
 * here.
 */
import type { DropCounters } from "../base/drop-reason.ts";
import type { Instant } from "../base/instant.ts";
import { type DataPlane, KEY_STAT, KEY_STAT_COUNT, type StagedPacket } from "../tunnel/data-plane.ts";
import { cutIntoFragments, Reassembly } from "../tunnel/fragments.ts";
import type { Link } from "../tunnel/link.ts";
import { segmentPacket } from "../tunnel/segment.ts";
import { type BridgeMessage, FRAGMENT_HEADER_BYTES, type FragmentMessage } from "../wire/bridge.ts";

export interface LongPacketParts {
  readonly dataPlane: DataPlane;
  readonly drops: DropCounters;
  /** Of this node's interface. */
  readonly mtuBytes: number;
  readonly send: (link: Link, message: BridgeMessage) => boolean;
}

export class LongPackets {
  readonly #parts: LongPacketParts;
  readonly #reassembly: Reassembly;
  #nextId = 0;

  constructor(parts: LongPacketParts) {
    this.#parts = parts;
    this.#reassembly = new Reassembly(parts.mtuBytes);
  }

  /** Sends a packet or superpacket (borrowed) in frames of at most `frameBytes` of inner bytes each. */
  send(link: Link, keySlot: number, packet: StagedPacket, frameBytes: number): void {
    const packets = segmentPacket(packet);
    if (packets === undefined) return this.#parts.drops.count("malformed-packet");
    for (const inner of packets) {
      this.#count(keySlot, KEY_STAT.TX_PACKETS, KEY_STAT.TX_BYTES, inner);
      this.#nextId = (this.#nextId + 1) >>> 0;
      for (const fragment of cutIntoFragments(inner, frameBytes - FRAGMENT_HEADER_BYTES, this.#nextId)) {
        if (!this.#parts.send(link, { kind: "fragment", ...fragment })) return this.#parts.drops.count("no-session");
      }
    }
  }

  /** The whole packet, once this fragment completes it. */
  receive(link: Link, fragment: FragmentMessage, now: Instant): Uint8Array | undefined {
    const result = this.#reassembly.add(link.index, fragment, now);
    const lost = this.#reassembly.takeLost();
    if (lost > 0) this.#parts.drops.count("fragments-lost", lost);
    if (result.kind === "refused") this.#parts.drops.count("bad-fragment");
    if (result.kind !== "packet") return undefined;
    if (link.sendSlot !== undefined) this.#count(link.sendSlot, KEY_STAT.RX_PACKETS, KEY_STAT.RX_BYTES, result.packet);
    return result.packet;
  }

  forget(link: Link): void {
    this.#reassembly.forget(link.index);
  }

  /** The data plane counts packets that it moves whole; these are its too. */
  #count(keySlot: number, packets: number, bytes: number, packet: Uint8Array): void {
    const { keyStats } = this.#parts.dataPlane;
    keyStats[keySlot * KEY_STAT_COUNT + packets]! += 1;
    keyStats[keySlot * KEY_STAT_COUNT + bytes]! += packet.length;
  }
}
