/** The ports of a packet as the flow table keys them. */
import { IPV6_HEADER_BYTES, NEXT_HEADER } from "../wire/ipv6.ts";

/**
 * The ports of the packet at `offset` as local << 16 | remote. 0 for protocols without ports, and for packets whose
 * transport header is not the first one: those share one entry per pair of addresses and next header.
 */
export function portsOf(
  view: DataView,
  offset: number,
  length: number,
  protocol: number,
  side: "source-is-local" | "source-is-remote",
): number {
  if (protocol !== NEXT_HEADER.TCP && protocol !== NEXT_HEADER.UDP) return 0;
  if (length < IPV6_HEADER_BYTES + 4) return 0;
  const ports = view.getInt32(offset + IPV6_HEADER_BYTES);
  return side === "source-is-local" ? ports : (ports << 16) | (ports >>> 16);
}
