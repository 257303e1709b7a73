import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { COUNTER, KEY_STAT, KEY_STAT_COUNT, type StagedPacket } from "../../src/tunnel/data-plane.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { encodeVirtualHeader } from "../../src/wire/virtual-packet.ts";
import { ENDPOINT_SLOT, KEY_SLOT, keySpec, virtualPacket } from "../helpers/data-plane-pair.ts";
import { bytesOf, superpacket, TCP, tcpPacket, udpPacket, whole } from "../helpers/inner-packets.ts";
import { A, B, closePlanes, hexOf, TwinPlanes } from "./twin-planes.ts";

afterEach(closePlanes);

const tcp = fc
  .record({
    sequence: fc.nat(0xffff_ffff),
    flags: fc.integer({ min: 0, max: 255 }),
    options: fc.constantFrom(0, 4, 12, 40).chain((length) => fc.uint8Array({ minLength: length, maxLength: length })),
    payload: fc.uint8Array({ maxLength: 5000 }),
  })
  .map((fields) => tcpPacket(fields));
const udp = fc.uint8Array({ maxLength: 5000 }).map((payload) => udpPacket({ payload }));
const anySuperpacket = fc
  .tuple(fc.oneof(tcp, udp), fc.integer({ min: 1, max: 1400 }))
  .map(([packet, size]) => superpacket(packet, size));

/** A single packet whose checksum field holds the pseudo header's sum, as the kernel leaves it. */
const partial = fc.oneof(tcp, udp).map((packet): StagedPacket => {
  const { bytes, csumStart, csumOffset } = superpacket(packet, 1);
  return { bytes, csumStart, csumOffset, gsoType: 0, gsoSize: 0, headerLength: 0 };
});

test("whole, partial and superpackets leave as the same frames as from the twin", () => {
  const packet = fc.oneof(anySuperpacket, partial, fc.oneof(tcp, udp).map(whole));
  fc.assert(
    fc.property(fc.array(packet, { maxLength: 4 }), fc.boolean(), (packets, bindSender) => {
      const planes = new TwinPlanes({ bindSender });
      planes.send(packets);
      expect([...planes.native.keyStats.subarray(0, 32)]).toEqual([...planes.portable.keyStats.subarray(0, 32)]);
      planes.close();
    }),
    { numRuns: 60 },
  );
});

test("any bytes with any offload fields are cut or refused as by the twin", () => {
  const field = fc.oneof(fc.integer({ min: -2, max: 100 }), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }));
  const packet = fc.record({
    bytes: fc.oneof(fc.uint8Array({ maxLength: 200 }), tcp, udp),
    gsoType: fc.constantFrom(0, 1, 4, 5, 0x84),
    gsoSize: fc.oneof(fc.integer({ min: -1, max: 2 }), fc.integer({ min: 3, max: 70_000 })),
    csumStart: fc.oneof(fc.constant(40), field),
    csumOffset: fc.oneof(fc.constantFrom(6, 16), field),
    headerLength: fc.oneof(fc.constantFrom(48, 60, 72, 100), field),
  });
  fc.assert(
    fc.property(packet, (each) => {
      const planes = new TwinPlanes();
      planes.send([each]);
      expect(planes.nativeCounters()).toEqual(planes.portableCounters());
      planes.close();
    }),
    { numRuns: 500 },
  );
});

test("frames of one size to one endpoint form a run, which a shorter one ends", () => {
  const planes = new TwinPlanes();
  const packets = [100, 100, 100, 60, 100, 120].map((length) => whole(udpPacket({ payload: bytesOf(length) })));
  for (const packet of packets) planes.native.sendStaged(KEY_SLOT, ENDPOINT_SLOT, packet);
  expect(planes.takeNativeRuns().map((run) => run.map((frame) => frame.length - 118))).toEqual([
    [100, 100, 100, 60],
    [100],
    [120],
  ]);
});

test("a run holds at most 64 frames and 65,507 bytes", () => {
  const planes = new TwinPlanes();
  for (let i = 0; i < 130; i++) planes.native.sendStaged(KEY_SLOT, ENDPOINT_SLOT, whole(udpPacket()));
  expect(planes.takeNativeRuns().map((run) => run.length)).toEqual([64, 64, 2]);
  const large = tcpPacket({ payload: bytesOf(60_000) });
  planes.native.sendStaged(KEY_SLOT, ENDPOINT_SLOT, superpacket(large, 1300));
  const runs = planes.takeNativeRuns();
  expect(runs.map((run) => run.length)).toEqual([45, 2]);
  expect(runs.flat()).toHaveLength(Math.ceil(60_000 / 1300));
});

test("frames to different endpoints are different runs, and carry each endpoint's prefix", () => {
  const planes = new TwinPlanes();
  const prefix = Uint8Array.of(5, 0, 0, 0, 2, 0, 0, 0, 1);
  planes.both((plane) => plane.setEndpoint(9, B, prefix));
  const packet = whole(udpPacket({ payload: bytesOf(10) }));
  planes.both((plane) => {
    for (const slot of [ENDPOINT_SLOT, 9, 9, ENDPOINT_SLOT]) plane.sendStaged(KEY_SLOT, slot, packet);
  });
  const runs = planes.takeNativeRuns();
  expect(runs.map((run) => run.length)).toEqual([1, 2, 1]);
  expect(runs.flat().map(hexOf)).toEqual(planes.portable.takeDatagrams().map(({ bytes }) => hexOf(bytes)));
  expect(hexOf(runs[1]![1]!).startsWith(hexOf(prefix))).toBe(true);
});

test("a missing key, a missing endpoint and a contradictory packet are counted and nothing is sent", () => {
  const planes = new TwinPlanes();
  const packet = whole(udpPacket());
  planes.both((plane) => {
    plane.sendStaged(KEY_SLOT + 1, ENDPOINT_SLOT, packet);
    plane.sendStaged(KEY_SLOT, ENDPOINT_SLOT + 1, packet);
    plane.sendStaged(-1, -1, packet);
    plane.sendStaged(KEY_SLOT, ENDPOINT_SLOT, { ...packet, csumStart: 4000, csumOffset: 6 });
  });
  expect(planes.takeNative()).toEqual([]);
  expect(planes.nativeCounters()).toEqual(planes.portableCounters());
  expect(planes.native.counters[COUNTER.SEND_FAILED]).toBe(3);
  expect(planes.native.counters[COUNTER.MALFORMED_PACKET]).toBe(1);
});

test("the queue of a socket that does not take anything is bounded, and what finds no room is counted", () => {
  const planes = new TwinPlanes();
  const large = whole(tcpPacket({ payload: bytesOf(60_000) }));
  for (let i = 0; i < 40; i++) planes.native.sendStaged(KEY_SLOT, ENDPOINT_SLOT, large);
  const kept = planes.takeNative().length;
  expect(kept).toBeGreaterThan(16);
  expect(kept + planes.native.counters[COUNTER.SEND_FAILED]!).toBe(40);
});

test("a virtual packet is sealed as by the twin, and the counter goes on across sealing and sending", () => {
  const planes = new TwinPlanes({ firstCounter: 77 });
  const control = virtualPacket({ protocol: 3, payload: bytesOf(33) });
  expect(hexOf(planes.native.seal(KEY_SLOT, control))).toBe(hexOf(planes.portable.seal(KEY_SLOT, control)));
  planes.send([superpacket(tcpPacket({ payload: bytesOf(300), flags: TCP.ACK }), 100)]);
  expect(hexOf(planes.native.seal(KEY_SLOT, control))).toBe(hexOf(planes.portable.seal(KEY_SLOT, control)));
  expect(planes.native.removeKey(KEY_SLOT)).toBe(77 + 5);
  expect(() => planes.native.seal(KEY_SLOT, control)).toThrow(/ENOENT/);
});

test("sent packets and inner bytes are counted by key, and a new key starts at zero", () => {
  const planes = new TwinPlanes();
  planes.send([superpacket(tcpPacket({ payload: bytesOf(250) }), 100)]);
  const stats = () => [...planes.native.keyStats.subarray(KEY_SLOT * KEY_STAT_COUNT, (KEY_SLOT + 1) * KEY_STAT_COUNT)];
  expect(stats()[KEY_STAT.TX_PACKETS]).toBe(3);
  expect(stats()[KEY_STAT.TX_BYTES]).toBe(3 * 60 + 250);
  planes.native.installKey(KEY_SLOT, keySpec(2, 1));
  expect(stats()).toEqual([0, 0, 0, 0]);
});

test("a counter that would repeat nonces or a key of the wrong size is refused", () => {
  const planes = new TwinPlanes();
  for (const firstCounter of [0, -1, Number.NaN, 2 ** 53]) {
    expect(() => planes.native.installKey(4, keySpec(2, 1, { firstCounter }))).toThrow(TypeError);
  }
  expect(() => planes.native.installKey(4, keySpec(2, 1, { key: new Uint8Array(31) }))).toThrow(TypeError);
  const halves = [
    { key: new Uint8Array(31), prefix: new Uint8Array(4) },
    { key: new Uint8Array(32), prefix: new Uint8Array(0) },
  ];
  for (const receive of halves) {
    expect(() => planes.native.installKey(4, keySpec(2, 1, { receive }))).toThrow(TypeError);
  }
  expect(() => planes.native.setEndpoint(4, A, new Uint8Array(17))).toThrow(TypeError);
});

test("virtual packets that wait for the end of a wake-up leave as runs, with length, sequence and CRC filled in", () => {
  const planes = new TwinPlanes();
  const header = streamHeader(0xffff_fff0);
  planes.both((plane) =>
    plane.queueVirtual(KEY_SLOT, ENDPOINT_SLOT, { header, payload: bytesOf(1290), segmentBytes: 400 }),
  );
  const runs = planes.takeNativeRuns();
  expect(runs.map((run) => run.length)).toEqual([4]);
  expect(runs.flat().map(hexOf)).toEqual(planes.portable.takeDatagrams().map(({ bytes }) => hexOf(bytes)));
  expect(hexOf(header)).toBe(hexOf(streamHeader(0xffff_fff0)));
  for (const slot of [KEY_SLOT + 1, -1]) {
    const run = { header, payload: bytesOf(5), segmentBytes: 3 };
    planes.both((plane) => plane.queueVirtual(slot, ENDPOINT_SLOT, run));
    planes.both((plane) => plane.queueVirtual(KEY_SLOT, slot < 0 ? slot : 99, run));
  }
  expect(planes.nativeCounters()).toEqual(planes.portableCounters());
  expect(planes.native.counters[COUNTER.SEND_FAILED]).toBe(8);
});

test("any run of virtual packets leaves as the frames of the twin", () => {
  const planes = new TwinPlanes();
  const run = fc.tuple(fc.integer({ min: 0, max: 5000 }), fc.integer({ min: 1, max: 2000 }), fc.nat(2 ** 32 - 1));
  fc.assert(
    fc.property(fc.array(run, { maxLength: 6 }), (runs) => {
      for (const [bytes, segmentBytes, sequence] of runs) {
        const run = { header: streamHeader(sequence), payload: bytesOf(bytes), segmentBytes };
        planes.both((plane) => plane.queueVirtual(KEY_SLOT, ENDPOINT_SLOT, run));
      }
      expect(planes.takeNative().map(hexOf)).toEqual(planes.portable.takeDatagrams().map(({ bytes }) => hexOf(bytes)));
    }),
    { numRuns: 100 },
  );
});

test("a run of packets without a length each is refused", () => {
  const planes = new TwinPlanes();
  const queue = (segmentBytes: number) => () =>
    planes.native.queueVirtual(KEY_SLOT, ENDPOINT_SLOT, { header: streamHeader(1), payload: bytesOf(5), segmentBytes });
  for (const segmentBytes of [0, -1, 70_000]) expect(queue(segmentBytes)).toThrow(TypeError);
});

function streamHeader(sequence: number): Uint8Array {
  const address = (node: number) => ({ network: networkId(0), node: nodeId(node) });
  const numbers = { sequence, acknowledgement: 2, window: 3 };
  const ports = { sourcePort: 4, destinationPort: 5 };
  return encodeVirtualHeader({
    ...{ flags: 2, protocol: 1, source: address(2), destination: address(1) },
    ...{ ...numbers, ...ports },
  });
}
