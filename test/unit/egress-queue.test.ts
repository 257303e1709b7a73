import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import type { StagedPacket } from "../../src/tunnel/data-plane.ts";
import { type EgressDrop, EgressQueue, MAX_BYTES } from "../../src/tunnel/egress-queue.ts";
import { bytesOf, ipv6Packet, superpacket, tcpPacket, whole } from "../helpers/inner-packets.ts";

const ECT = 0b10;
const CE = 0b11;
const ecnOf = (bytes: Uint8Array): number => (bytes[1]! >> 4) & 0b11;

class Harness {
  readonly drops: Record<EgressDrop, number> = { "egress-full": 0, "egress-delay": 0 };
  readonly queue = new EgressQueue(0x1234_5678, (reason, packets) => {
    this.drops[reason] += packets;
  });
}

const BULK = superpacket(tcpPacket({ payload: bytesOf(12_000) }), 1_200);

function bulk(sourcePort: number, ecn = 0): StagedPacket {
  const bytes = BULK.bytes.slice();
  bytes[1]! |= ecn << 4;
  bytes[41] = sourcePort;
  return { ...BULK, bytes };
}

const ping = (): StagedPacket => whole(ipv6Packet(58, bytesOf(64)));

/** A network that takes one packet in this time, from a queue that is never empty. */
function keepFull(harness: Harness, make: () => StagedPacket, ms: number, eachMs: number): StagedPacket[] {
  const sent: StagedPacket[] = [];
  for (let at = 0; at < ms; at += eachMs) {
    while (harness.queue.bytes < 400_000) harness.queue.push(make(), instant(at));
    sent.push(harness.queue.pop(instant(at))!);
  }
  return sent;
}

describe("the queue of packets that wait for the network", () => {
  it("lets a ping go before the bulk that waits already, and keeps the order of each flow", () => {
    const { queue } = new Harness();
    const bulks = Array.from({ length: 50 }, () => bulk(1));
    for (const packet of bulks) queue.push(packet, instant(0));
    expect(queue.pop(instant(0))).toBe(bulks[0]);
    const sparse = ping();
    queue.push(sparse, instant(1));
    expect(queue.pop(instant(1))).toBe(sparse);
    for (const packet of bulks.slice(1)) expect(queue.pop(instant(2))).toBe(packet);
    expect(queue.pop(instant(2))).toBeUndefined();
    expect(queue.isEmpty).toBe(true);
  });

  it("gives each of many bulk flows the same bytes", () => {
    const { queue } = new Harness();
    const sent = new Map<number, number>();
    for (let i = 0; i < 70; i++) for (const port of [1, 2, 3, 4]) queue.push(bulk(port), instant(0));
    for (let i = 0; i < 140; i++) {
      const { bytes } = queue.pop(instant(0))!;
      const port = bytes[41]!;
      sent.set(port, (sent.get(port) ?? 0) + bytes.length);
    }
    expect([...sent.keys()].sort()).toEqual([1, 2, 3, 4]);
    for (const bytes of sent.values()) expect(Math.abs(bytes - 35 * 12_060)).toBeLessThan(3 * 12_060);
  });

  it("drops from a flow whose queue stays long, and counts the packets that a superpacket stands for", () => {
    const harness = new Harness();
    const sent = keepFull(harness, () => bulk(1), 1_000, 1);
    expect(harness.drops["egress-delay"]).toBeGreaterThan(50);
    expect(harness.drops["egress-delay"] % 10).toBe(0);
    expect(sent.every(({ bytes }) => ecnOf(bytes) === 0)).toBe(true);
  });

  it("marks packets of a flow that understands congestion marks, and drops none of them", () => {
    const harness = new Harness();
    const sent = keepFull(harness, () => bulk(1, ECT), 1_000, 1);
    expect(harness.drops).toEqual({ "egress-full": 0, "egress-delay": 0 });
    const marked = sent.filter(({ bytes }) => ecnOf(bytes) === CE).length;
    expect(marked).toBeGreaterThan(5);
    expect(marked).toBeLessThan(sent.length / 4);
  });

  it("takes from the longest queue when all are full, and from no other", () => {
    const harness = new Harness();
    const sparse = ping();
    harness.queue.push(sparse, instant(0));
    for (let i = 0; i < (3 * MAX_BYTES) / 12_000; i++) harness.queue.push(bulk(1), instant(0));
    expect(harness.queue.bytes).toBeLessThanOrEqual(MAX_BYTES);
    expect(harness.drops["egress-full"]).toBeGreaterThan(0);
    expect(harness.queue.pop(instant(1))).toBe(sparse);
  });
});
