/**
 * Packets that the local kernel cut because they are longer than the interface's MTU, put together again (RFC 8200 §4.5):
 * a plain agent knows no fragments, but its datagrams may be longer than our packets. Overlapping fragments spoil their
 * packet (RFC 5722), memory and time are bounded (tunnel/fragments.ts), and what comes out has a right checksum.
 */
import { readU16, readU32, writeU16 } from "../../base/bytes.ts";
import type { DropCounters, DropReason } from "../../base/drop-reason.ts";
import type { Instant } from "../../base/instant.ts";
import { Reassembly } from "../../tunnel/fragments.ts";
import { transportChecksum } from "../../wire/checksum.ts";
import { FRAGMENT, FRAGMENT_HEADER_BYTES, IPV6, IPV6_HEADER_BYTES, NEXT_HEADER } from "../../wire/ipv6.ts";

export class LocalFragments {
  readonly #reassembly = new Reassembly(MAX_PAYLOAD_BYTES);
  readonly #drops: DropCounters;

  constructor(drops: DropCounters) {
    this.#drops = drops;
  }

  /** The packet, once this fragment (borrowed) completes it; undefined while some are missing; or why it is refused. */
  add(linkIndex: number, packet: Uint8Array, now: Instant): Uint8Array | DropReason | undefined {
    if (packet.length < HEADERS_BYTES) return "malformed-packet";
    const word = readU16(packet, IPV6_HEADER_BYTES + FRAGMENT.OFFSET);
    const more = (word & 1) !== 0;
    const bytes = packet.subarray(HEADERS_BYTES);
    if (more && bytes.length % 8 !== 0) return "bad-fragment";
    const id = readU32(packet, IPV6_HEADER_BYTES + FRAGMENT.IDENTIFICATION);
    const result = this.#reassembly.add(linkIndex, { id, offset: word & ~7, more, bytes }, now);
    const lost = this.#reassembly.takeLost();
    if (lost > 0) this.#drops.count("fragments-lost", lost);
    if (result.kind === "refused") return "bad-fragment";
    return result.kind === "waiting" ? undefined : wholeOf(packet, result.packet);
  }

  forget(linkIndex: number): void {
    this.#reassembly.forget(linkIndex);
  }
}

/** All fragments come from one kernel, so the last to arrive has the same header as the first. */
function wholeOf(fragment: Uint8Array, payload: Uint8Array): Uint8Array | DropReason {
  const packet = new Uint8Array(IPV6_HEADER_BYTES + payload.length);
  packet.set(fragment.subarray(0, IPV6_HEADER_BYTES));
  packet[IPV6.NEXT_HEADER] = fragment[IPV6_HEADER_BYTES + FRAGMENT.NEXT_HEADER]!;
  writeU16(packet, IPV6.PAYLOAD_LENGTH, payload.length);
  packet.set(payload, IPV6_HEADER_BYTES);
  const protocol = packet[IPV6.NEXT_HEADER]!;
  const hasChecksum = protocol === NEXT_HEADER.UDP || protocol === NEXT_HEADER.ICMPV6;
  return hasChecksum && transportChecksum(packet, IPV6_HEADER_BYTES, protocol) !== 0 ? "malformed-packet" : packet;
}

const HEADERS_BYTES = IPV6_HEADER_BYTES + FRAGMENT_HEADER_BYTES;
/** The length field has 16 bits. */
const MAX_PAYLOAD_BYTES = 65_535;
