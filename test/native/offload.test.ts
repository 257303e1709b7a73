import { closeSync, readSync, writeSync } from "node:fs";
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { concatBytes } from "../../src/base/bytes.ts";
import { ACCEPT, COUNTER, DROP, IN, LOOPBACK, OUT, ROW_WORDS, type StagedPacket } from "../../src/tunnel/data-plane.ts";
import { segmentPacket } from "../../src/tunnel/segment.ts";
import { planeOfA, send } from "../helpers/data-plane-pair.ts";
import { bytesOf, superpacket, TCP, tcpPacket, udpPacket, whole } from "../helpers/inner-packets.ts";
import {
  closePlanes,
  decideOutbound,
  hexOf,
  LOOK_BACK_ROWS,
  rowsOf,
  setWord,
  TwinPlanes,
  wordOf,
} from "./twin-planes.ts";

/** Twin planes whose native half has one end of a pair of sockets for a TUN; the test holds the kernel's end. */
class PlanesWithTun extends TwinPlanes {
  readonly #kernel: number;
  #isClosed = false;
  readonly #peer = planeOfA();

  constructor(hasUso = true) {
    super();
    const [tun, kernel] = this.shim.packetPair() as [number, number];
    this.#kernel = kernel;
    this.shim.attachTun(this.native.handle, tun, hasUso);
  }

  /** Packets of the peer as frames. */
  frames(packets: readonly Uint8Array[]): Uint8Array[] {
    return send(this.#peer, packets.map(whole)).map(({ bytes }) => bytes);
  }

  /** Accepts the rows that `isAccepted` names and returns what the shim wrote. */
  write(count: number, isAccepted: (row: number) => boolean = () => true): StagedPacket[] {
    for (let row = 0; row < count; row++) {
      const verdict = isAccepted(row) ? ACCEPT : DROP;
      for (const batch of [this.native.inbound, this.portable.inbound]) setWord(batch, row, IN.VERDICT, verdict);
    }
    this.native.writeTun(count);
    this.portable.writeTun(count);
    return this.written();
  }

  written(): StagedPacket[] {
    const packets: StagedPacket[] = [];
    for (let next = this.#read(); next !== undefined; next = this.#read()) packets.push(next);
    return packets;
  }

  /** What the kernel would hand over through the TUN. */
  handOver(packet: Uint8Array, vnet: Partial<StagedPacket> & { readonly flags?: number } = {}): void {
    const header = Buffer.alloc(10);
    header[0] = vnet.flags ?? (vnet.csumStart ? 1 : 0);
    header[1] = vnet.gsoType ?? 0;
    header.writeUInt16LE(vnet.gsoSize ?? 0, 4);
    header.writeUInt16LE(vnet.csumStart ?? 0, 6);
    header.writeUInt16LE(vnet.csumOffset ?? 0, 8);
    writeSync(this.#kernel, concatBytes(header, packet));
  }

  #read(): StagedPacket | undefined {
    const bytes = Buffer.alloc(70_000);
    try {
      return parseWrite(bytes.subarray(0, readSync(this.#kernel, bytes)));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EAGAIN") return undefined;
      throw error;
    }
  }

  override close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    super.close();
    closeSync(this.#kernel);
  }
}

function parseWrite(write: Buffer): StagedPacket {
  const isPartial = (write[0]! & 1) !== 0;
  return {
    bytes: new Uint8Array(write.subarray(10)),
    gsoType: write[1]!,
    headerLength: write.readUInt16LE(2),
    gsoSize: write.readUInt16LE(4),
    csumStart: isPartial ? write.readUInt16LE(6) : 0,
    csumOffset: isPartial ? write.readUInt16LE(8) : 0,
  };
}

afterEach(closePlanes);

/** Injects without the twin, for what the twin does not model. */
function receiveAlone(planes: PlanesWithTun, packets: readonly Uint8Array[]): number {
  for (const frame of planes.frames(packets)) planes.inject(frame, 0);
  return planes.native.receiveAndOpen();
}

function segmentsOf(packet: Uint8Array, size: number): Uint8Array[] {
  return segmentPacket(superpacket(packet, size))!;
}

test("the segments of a superpacket are written as the superpacket they came from", () => {
  const tcp = fc
    .record({
      sequence: fc.nat(0xffff_ffff),
      flags: fc.constantFrom(TCP.ACK, TCP.ACK | TCP.PSH),
      options: fc.constantFrom(0, 12).chain((length) => fc.uint8Array({ minLength: length, maxLength: length })),
      payload: fc.uint8Array({ minLength: 101, maxLength: 2000 }),
    })
    .map((fields) => tcpPacket(fields));
  const udp = fc.uint8Array({ minLength: 101, maxLength: 2000 }).map((payload) => udpPacket({ payload }));
  fc.assert(
    fc.property(fc.oneof(tcp, udp), fc.integer({ min: 100, max: 900 }), (packet, size) => {
      const planes = new PlanesWithTun();
      const segments = segmentsOf(packet, size);
      const rows = planes.receive(planes.frames(segments));
      expect(rows.map((row) => row.segments)).toEqual([segments.length]);
      const [written, ...others] = planes.write(1);
      expect(others).toEqual([]);
      expect(segmentPacket(written!)!.map(hexOf)).toEqual(segments.map(hexOf));
      expect(written!.bytes.length).toBe(packet.length);
      expect(written!.gsoType).toBe(segments.length === 1 ? 0 : packet[6] === 6 ? 4 : 5);
      planes.close();
    }),
    { numRuns: 40 },
  );
});

test("any mix of segments is joined as by the twin, and cut again gives back what was sent", () => {
  const segment = fc.record({
    isUdp: fc.boolean(),
    flow: fc.nat(2),
    sequence: fc.constantFrom(0, 10, 20, 30, 40),
    length: fc.constantFrom(0, 5, 10, 10, 10),
    flags: fc.constantFrom(TCP.ACK, TCP.ACK, TCP.ACK, TCP.ACK | TCP.PSH, TCP.ACK | TCP.FIN, TCP.SYN),
    hopLimit: fc.constantFrom(64, 64, 64, 63),
    window: fc.constantFrom(500, 500, 500, 501),
    corrupt: fc.constantFrom(-1, -1, -1, -1, 4, 12, 46, 58),
  });
  type Segment = typeof segment extends fc.Arbitrary<infer T> ? T : never;
  const build = ({ isUdp, flow, length, corrupt, ...fields }: Segment) => {
    const payload = bytesOf(length, flow);
    const packet = isUdp
      ? udpPacket({ ...fields, sourcePort: flow, payload })
      : tcpPacket({ ...fields, sourcePort: flow, payload });
    if (corrupt >= 0 && corrupt < packet.length) packet[corrupt]! ^= 1;
    return packet;
  };
  fc.assert(
    fc.property(fc.array(segment, { maxLength: LOOK_BACK_ROWS }), (segments) => {
      const planes = new PlanesWithTun();
      const rows = planes.receive(planes.frames(segments.map(build)));
      const written = planes.write(rows.length);
      expect(written).toHaveLength(rows.length);
      const cutAgain = written.flatMap((each) => segmentPacket(each)!);
      expect(cutAgain.map(hexOf)).toEqual(planes.portable.takeTunPackets().map(hexOf));
      planes.close();
    }),
    { numRuns: 100 },
  );
});

test("consecutive segments of one flow arriving in turn with another's are one run each", () => {
  const planes = new PlanesWithTun();
  const flows = [1, 2].map((sourcePort) => segmentsOf(tcpPacket({ sourcePort, payload: bytesOf(500) }), 100));
  const rows = planes.receive(planes.frames([0, 1, 2, 3, 4].flatMap((at) => flows.map((flow) => flow[at]!))));
  expect(rows.map((row) => row.segments)).toEqual([5, 5]);
});

test("a packet with a wrong checksum is written alone and unchanged", () => {
  const planes = new PlanesWithTun();
  const segments = segmentsOf(tcpPacket({ payload: bytesOf(500) }), 100);
  segments[2]![80]! ^= 1;
  const count = planes.receive(planes.frames(segments)).length;
  const written = planes.write(count);
  expect(written.map((each) => (each.bytes.length - 60) / 100)).toEqual([2, 1, 2]);
  expect(hexOf(written[1]!.bytes)).toBe(hexOf(segments[2]!));
});

test("only accepted rows are written, and each of them once", () => {
  const planes = new PlanesWithTun();
  const packets = [1, 2, 3].map((sourcePort) => udpPacket({ sourcePort, payload: bytesOf(sourcePort) }));
  const count = receiveAlone(planes, packets);
  expect(planes.write(count, (row) => row !== 1).map((each) => hexOf(each.bytes))).toEqual([
    hexOf(packets[0]!),
    hexOf(packets[2]!),
  ]);
  planes.native.writeTun(count);
  expect(planes.written()).toEqual([]);
});

test("without USO runs of UDP are written packet by packet", () => {
  const planes = new PlanesWithTun(false);
  const count = receiveAlone(planes, segmentsOf(udpPacket({ payload: bytesOf(400) }), 100));
  expect(count).toBe(4);
  expect(planes.write(count).map((each) => each.gsoType)).toEqual([0, 0, 0, 0]);
});

test("a run ends at 64 segments and before an IP packet of 65,535 bytes is full", () => {
  const planes = new PlanesWithTun();
  // Messages hold several frames, as the kernel would hand them over.
  const injectRuns = (packet: Uint8Array, size: number, perMessage: number) => {
    const frames = planes.frames(segmentsOf(packet, size));
    for (let at = 0; at < frames.length; at += perMessage) {
      planes.inject(concatBytes(...frames.slice(at, at + perMessage)), frames[0]!.length);
    }
  };
  injectRuns(tcpPacket({ payload: bytesOf(130) }), 2, 40);
  const short = planes.native.receiveAndOpen();
  expect(rowsOf(planes.native, short).map((row) => row.segments)).toEqual([64, 1]);
  injectRuns(tcpPacket({ payload: bytesOf(60_000) }), 1300, 40);
  injectRuns(tcpPacket({ sequence: 60_000, payload: bytesOf(60_000) }), 1300, 40);
  const count = planes.native.receiveAndOpen();
  const lengths = planes.write(count).map((each) => each.bytes.length);
  expect(lengths.every((length) => length <= 65_535)).toBe(true);
  expect(lengths.reduce((sum, length) => sum + length - 60, 0)).toBe(120_000);
});

test("what the kernel hands over becomes rows with its offload fields", () => {
  const planes = new PlanesWithTun();
  const big = superpacket(tcpPacket({ payload: bytesOf(3000), options: bytesOf(12) }), 1000);
  planes.handOver(udpPacket({ payload: bytesOf(9) }));
  planes.handOver(big.bytes, big);
  planes.handOver(big.bytes, { ...big, gsoType: 0x84 });
  const count = planes.native.readTun();
  const row = (index: number) =>
    [OUT.LENGTH, OUT.GSO_TYPE, OUT.GSO_SIZE, OUT.CSUM_START, OUT.CSUM_OFFSET, OUT.HEADER_LENGTH, OUT.KEY_SLOT].map(
      (word) => wordOf(planes.native.outbound, index, word),
    );
  expect(Array.from({ length: count }, (_, index) => row(index))).toEqual([
    [57, 0, 0, 0, 0, 0, DROP],
    [3072, 4, 1000, 40, 16, 72, DROP],
    [3072, 4, 1000, 40, 16, 72, DROP],
  ]);
  const offset = wordOf(planes.native.outbound, 1, OUT.OFFSET);
  expect(hexOf(planes.native.outbound.arena.subarray(offset, offset + 3072))).toBe(hexOf(big.bytes));
});

test("offload fields that contradict the packet are counted and make no row", () => {
  const planes = new PlanesWithTun();
  const packet = tcpPacket({ payload: bytesOf(100) });
  const fields = superpacket(packet, 50);
  planes.handOver(packet, { csumStart: 150, csumOffset: 16 });
  planes.handOver(packet, { ...fields, gsoSize: 0 });
  planes.handOver(packet, { ...fields, flags: 0 });
  planes.handOver(packet, { ...fields, csumStart: 140, csumOffset: 6 });
  planes.handOver(new Uint8Array(0));
  planes.handOver(packet);
  expect(planes.native.readTun()).toBe(1);
  expect(planes.native.counters[COUNTER.MALFORMED_PACKET]).toBe(5);
});

test("one read takes a bounded batch and the next goes on", () => {
  const planes = new PlanesWithTun();
  // Of large packets, what surely fits the arena; of small ones, 64.
  for (let i = 0; i < 9; i++) planes.handOver(tcpPacket({ payload: bytesOf(64_000) }));
  const first = planes.native.readTun();
  expect(first).toBeGreaterThan(4);
  expect(first + planes.native.readTun()).toBe(9);
  for (let i = 0; i < 70; i++) planes.handOver(udpPacket({ sourcePort: i }));
  expect([planes.native.readTun(), planes.native.readTun(), planes.native.readTun()]).toEqual([64, 6, 0]);
});

test("rows read from the TUN leave as the frames of the twin, except those to be dropped", () => {
  const planes = new PlanesWithTun();
  const packets = [
    whole(udpPacket({ payload: bytesOf(30) })),
    superpacket(tcpPacket({ payload: bytesOf(3000) }), 900),
    whole(udpPacket({ payload: bytesOf(31) })),
  ];
  for (const packet of packets) planes.handOver(packet.bytes, packet);
  const count = planes.native.readTun();
  expect(planes.portable.pushTunPackets(packets)).toBe(count);
  for (const plane of [planes.native, planes.portable]) {
    decideOutbound(plane.outbound, count);
    setWord(plane.outbound, 2, OUT.KEY_SLOT, DROP);
    plane.sealAndSend(count);
  }
  const frames = planes.takeNative().map(hexOf);
  expect(frames).toHaveLength(5);
  expect(frames).toEqual(planes.portable.takeDatagrams().map(({ bytes }) => hexOf(bytes)));
});

test("rows of any content are refused, not followed out of the arena", () => {
  const planes = new PlanesWithTun();
  const word = fc.oneof(fc.integer({ min: -3, max: 70_000 }), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }));
  fc.assert(
    fc.property(fc.array(word, { minLength: ROW_WORDS, maxLength: ROW_WORDS }), (words) => {
      planes.native.outbound.rows.set(words);
      decideOutbound(planes.native.outbound, 1);
      planes.native.sealAndSend(1);
      for (const frame of planes.takeNative()) expect(frame.length).toBeLessThanOrEqual(65_507);
    }),
    { numRuns: 500 },
  );
});

test("inbound rows that JavaScript has damaged are not followed out of the arena", () => {
  const planes = new PlanesWithTun();
  const word = fc.oneof(fc.integer({ min: -3, max: 5000 }), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }));
  fc.assert(
    fc.property(word, word, word, word, (offset, length, segment, count) => {
      receiveAlone(planes, segmentsOf(tcpPacket({ payload: bytesOf(300) }), 100));
      const row = planes.native.inbound;
      setWord(row, 0, IN.OFFSET, offset);
      setWord(row, 0, IN.LENGTH, length);
      setWord(row, 0, IN.SEGMENT_BYTES, segment);
      setWord(row, 0, IN.VERDICT, ACCEPT);
      planes.native.writeTun(count);
      planes.written();
    }),
    { numRuns: 200 },
  );
});

test("a packet of the daemon's own goes to the TUN as it is", () => {
  const planes = new PlanesWithTun();
  const packet = udpPacket({ payload: bytesOf(5) });
  expect(planes.native.writeTunPacket(packet)).toBe(true);
  expect(planes.native.writeTunPacket(new Uint8Array(0))).toBe(false);
  expect(planes.written().map((each) => [hexOf(each.bytes), each.gsoType])).toEqual([[hexOf(packet), 0]]);
  expect(planes.native.counters[COUNTER.TUN_WRITE_FAILED]).toBe(1);
});

test("a row that goes back to the TUN keeps its bytes and its offload fields", () => {
  const planes = new PlanesWithTun();
  const packet = superpacket(tcpPacket({ payload: bytesOf(9_000) }), 1_300);
  planes.handOver(packet.bytes, packet);
  planes.handOver(tcpPacket({ flags: TCP.SYN }));
  planes.handOver(tcpPacket({ flags: TCP.RST }));
  const { outbound } = planes.native;
  const count = planes.native.readTun();
  expect(count).toBe(3);
  for (const row of [0, 1]) setWord(outbound, row, OUT.KEY_SLOT, LOOPBACK);
  outbound.arena[wordOf(outbound, 1, OUT.OFFSET) + 7] = 1; // what the engine changes is what is written
  planes.native.sealAndSend(count);
  const [first, second, ...others] = planes.written();
  expect(first).toMatchObject({ gsoType: 4, gsoSize: 1_300, csumStart: 40, csumOffset: 16 });
  expect(hexOf(first!.bytes)).toBe(hexOf(packet.bytes));
  expect(second!.bytes[7]).toBe(1);
  expect(second!.gsoType).toBe(0);
  expect(others).toEqual([]);
  expect(planes.takeNative()).toEqual([]);
  setWord(outbound, 0, OUT.OFFSET, 3); // no room for the header before it
  setWord(outbound, 1, OUT.LENGTH, 1 << 30);
  planes.native.sealAndSend(2);
  expect(planes.written()).toEqual([]);
  expect(planes.native.counters[COUNTER.MALFORMED_PACKET]).toBe(2);
});
