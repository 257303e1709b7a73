import fc from "fast-check";
import { expect, test } from "vitest";
import { Coalescer, type Run } from "../../src/tunnel/coalesce.ts";
import { segmentPacket } from "../../src/tunnel/segment.ts";
import { naiveChecksum, superpacket, TCP, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";

function runsOf(packets: readonly Uint8Array[]): Run[] {
  const coalescer = new Coalescer();
  const added = packets.map((packet) => coalescer.add(packet, ""));
  return added.filter(({ joined }) => !joined).map(({ run }) => run);
}

const tcp = fc
  .record({
    sequence: fc.nat(0xffff_ffff),
    flags: fc.constantFrom(TCP.ACK, TCP.ACK | TCP.PSH),
    options: fc.constantFrom(0, 4, 12, 40).chain((length) => fc.uint8Array({ minLength: length, maxLength: length })),
    payload: fc.uint8Array({ minLength: 1, maxLength: 5000 }),
  })
  .map((fields) => tcpPacket(fields));
const udp = fc.uint8Array({ minLength: 1, maxLength: 5000 }).map((payload) => udpPacket({ payload }));

test("what segmentation cut, coalescing joins to one run with the same payload", () => {
  fc.assert(
    fc.property(fc.oneof(tcp, udp), fc.integer({ min: 100, max: 1400 }), (packet, gsoSize) => {
      const offloaded = superpacket(packet, gsoSize);
      const segments = segmentPacket(offloaded)!;
      expect(segments.map(naiveChecksum).every((rest) => rest === 0)).toBe(true);

      const runs = runsOf(segments);
      expect(runs).toHaveLength(1);
      const payload = runs[0]!.packets.flatMap((segment) => [...segment.subarray(offloaded.headerLength)]);
      expect(payload).toEqual([...packet.subarray(offloaded.headerLength)]);
    }),
  );
});

test("coalescing keeps every packet, and the order of each flow", () => {
  const segment = fc.record({
    flow: fc.nat(2),
    sequence: fc.constantFrom(0, 10, 20, 30, 40),
    length: fc.constantFrom(0, 5, 10),
    flags: fc.constantFrom(TCP.ACK, TCP.ACK, TCP.ACK | TCP.PSH, TCP.ACK | TCP.FIN),
  });
  fc.assert(
    fc.property(fc.array(segment, { maxLength: 40 }), (segments) => {
      const packets = segments.map(({ flow, sequence, length, flags }) =>
        tcpPacket({ sourcePort: flow, sequence, flags, payload: new Uint8Array(length) }),
      );
      const written = runsOf(packets).flatMap((run) => run.packets);
      for (const flow of [0, 1, 2]) {
        const ofFlow = (packet: Uint8Array) => packet[41] === flow;
        expect(written.filter(ofFlow)).toEqual(packets.filter(ofFlow));
      }
    }),
  );
});

test("any bytes with any offload fields are cut or refused, never thrown at", () => {
  const small = fc.oneof(fc.integer({ min: -2, max: 100 }), fc.integer());
  fc.assert(
    fc.property(
      fc.oneof(fc.uint8Array({ maxLength: 200 }), tcp, udp),
      fc.constantFrom(0, 1, 4, 5, 0x84),
      fc.oneof(fc.integer({ min: -1, max: 2 }), fc.integer({ min: 3 })),
      small,
      small,
      small,
      (bytes, gsoType, gsoSize, csumStart, csumOffset, headerLength) => {
        const segments = segmentPacket({ bytes, gsoType, gsoSize, csumStart, csumOffset, headerLength });
        for (const segment of segments ?? []) expect(segment.length).toBeLessThanOrEqual(bytes.length);
        for (const run of runsOf(segments ?? [])) expect(run.packets.length).toBeGreaterThan(0);
      },
    ),
    { numRuns: 500 },
  );
});
