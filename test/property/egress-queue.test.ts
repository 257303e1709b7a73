import fc from "fast-check";
import { expect, test } from "vitest";
import { instant } from "../../src/base/instant.ts";
import type { StagedPacket } from "../../src/tunnel/data-plane.ts";
import { EgressQueue } from "../../src/tunnel/egress-queue.ts";
import { bytesOf, udpPacket, whole } from "../helpers/inner-packets.ts";

const flowOf = ({ bytes }: StagedPacket): number => bytes[41]!;

test("every packet leaves once or is counted as dropped, those of a flow in the order in which they came", () => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.array(fc.tuple(fc.nat(5), fc.nat(40_000), fc.nat(20), fc.nat(3)), { maxLength: 400 }),
      (seed, steps) => {
        let dropped = 0;
        const queue = new EgressQueue(seed, (_reason, packets) => {
          dropped += packets;
        });
        const order = new Map<StagedPacket, number>();
        const sent: StagedPacket[] = [];
        const take = (now: number): boolean => {
          const packet = queue.pop(instant(now));
          if (packet !== undefined) sent.push(packet);
          return packet !== undefined;
        };
        let now = 0;
        for (const [flow, length, waitMs, pops] of steps) {
          now += waitMs;
          const packet = whole(udpPacket({ sourcePort: flow, payload: bytesOf(length) }));
          order.set(packet, order.size);
          queue.push(packet, instant(now));
          for (let i = 0; i < pops; i++) take(now);
        }
        while (take(now));
        expect(queue.bytes).toBe(0);
        expect(sent.length + dropped).toBe(steps.length);
        const last = new Map<number, number>();
        for (const packet of sent) {
          expect(order.get(packet)).toBeGreaterThan(last.get(flowOf(packet)) ?? -1);
          last.set(flowOf(packet), order.get(packet)!);
        }
      },
    ),
  );
});
