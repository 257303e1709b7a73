/** The data plane's counters that are drops, under the reasons that everything else is counted by. */
import type { DropReason } from "../base/drop-reason.ts";
import { COUNTER } from "../tunnel/data-plane.ts";

/** Adds to `drops` what the data plane counted. */
export function addPlaneDrops(drops: Partial<Record<DropReason, number>>, counters: Float64Array): void {
  for (const [counter, reason] of PLANE_DROPS) {
    const count = counters[counter]!;
    if (count > 0) drops[reason] = (drops[reason] ?? 0) + count;
  }
}

const PLANE_DROPS: readonly (readonly [number, DropReason])[] = [
  [COUNTER.DATAGRAM_TOO_SHORT, "datagram-too-short"],
  [COUNTER.BAD_TAG, "bad-tag"],
  [COUNTER.REPLAYED, "replayed"],
  [COUNTER.BAD_VIRTUAL_PACKET, "bad-virtual-packet"],
  [COUNTER.INNER_MISMATCH, "inner-mismatch"],
  [COUNTER.MALFORMED_PACKET, "malformed-packet"],
  [COUNTER.TUN_WRITE_FAILED, "tun-write-failed"],
  [COUNTER.SEND_FAILED, "send-failed"],
  [COUNTER.SOCKET_FULL, "socket-full"],
  [COUNTER.SECOND_SOCKET_FULL, "second-socket-full"],
];
