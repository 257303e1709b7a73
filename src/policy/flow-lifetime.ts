/** How long a flow lives without packets, and how often somebody looks. */
import { NEXT_HEADER } from "../wire/ipv6.ts";

/** How long connection tracking in hosts waits; never below RFC 4787 §4.3 and RFC 5382 §5. */
export function idleLimitS(protocol: number, isClosing: boolean): number {
  if (protocol !== NEXT_HEADER.TCP) return protocol === NEXT_HEADER.ICMPV6 ? SHORTEST_IDLE_S : 180;
  return isClosing ? 120 : 432_000;
}

export const SHORTEST_IDLE_S = 60;
/** What comes after the last FIN or a reset comes within this time. */
export const SETTLED_S = 2;

/** So many flows are looked at all at once, every ALL_SWEEP_MS; nobody is woken often for them. */
export const FEW_FLOWS = 1_024;
export const ALL_SWEEP_MS = 2_000;
/** Of more than a few, a part of the table at a time takes a fraction of a millisecond; all parts have their turn in four seconds. */
export const SWEPT_PARTS = 16;
export const PART_SWEEP_MS = 250;
