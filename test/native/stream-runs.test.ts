import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { concatBytes, readU32, utf8, writeU16, writeU32 } from "../../src/base/bytes.ts";
import { ROW_KIND } from "../../src/tunnel/data-plane.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { encodeVirtualPacket, FLAG, PROTOCOL, parseVirtualPacket } from "../../src/wire/virtual-packet.ts";
import { KEY_SLOT, planeOfA } from "../helpers/data-plane-pair.ts";
import { bytesOf } from "../helpers/inner-packets.ts";
import { closePlanes, hexOf, type InboundRow, rowsOf, TwinPlanes } from "./twin-planes.ts";

afterEach(closePlanes);

interface Fields {
  readonly flags?: number;
  readonly sequence?: number;
  readonly acknowledgement?: number;
  readonly window?: number;
  readonly port?: number;
  readonly network?: number;
  readonly payload: Uint8Array;
}

function segment(fields: Fields): Uint8Array {
  const address = (node: number) => ({ network: networkId(fields.network ?? 0), node: nodeId(node) });
  return encodeVirtualPacket({
    ...{ flags: FLAG.ACK, protocol: PROTOCOL.STREAM, source: address(1), destination: address(2) },
    ...{ sourcePort: fields.port ?? 50_000, destinationPort: 80 },
    ...{ sequence: 0, acknowledgement: 5, window: 512, ...fields },
  });
}

/** Consecutive segments of the payload, `size` bytes each. */
function segmentsOf(payload: Uint8Array, size: number, fields: Omit<Fields, "payload"> = {}): Uint8Array[] {
  const first = fields.sequence ?? 0;
  return Array.from({ length: Math.ceil(payload.length / size) }, (_, i) =>
    segment({ ...fields, sequence: (first + i * size) >>> 0, payload: payload.subarray(i * size, (i + 1) * size) }),
  );
}

/** As node 1 seals them. */
function framesOf(packets: readonly Uint8Array[]): Uint8Array[] {
  const sender = planeOfA();
  return packets.map((packet) => sender.seal(KEY_SLOT, packet));
}

/** Rows of the shim when frames of one size come as one message, as from the kernel: payloads are moved past each other. */
function received(frames: readonly Uint8Array[], perMessage: number): InboundRow[] {
  const planes = new TwinPlanes();
  for (let at = 0; at < frames.length; ) {
    let end = at + 1;
    while (end < frames.length && end < at + perMessage && frames[end]!.length === frames[at]!.length) end++;
    planes.inject(concatBytes(...frames.slice(at, end)), frames[at]!.length);
    at = end;
  }
  const rows = rowsOf(planes.native, planes.native.receiveAndOpen());
  planes.close();
  return rows;
}

/** The packets that a row stands for, cut out of it by what it says. */
function packetsOf(row: InboundRow): string[] {
  const bytes = new Uint8Array(Buffer.from(row.bytes, "hex"));
  if (row.segments === 1) return [row.bytes];
  const packets: string[] = [];
  for (let at = 34; at < bytes.length; at += row.segmentBytes) {
    const packet = concatBytes(bytes.subarray(0, 34), bytes.subarray(at, at + row.segmentBytes));
    writeU16(packet, 2, packet.length - 34);
    writeU32(packet, 20, (readU32(bytes, 20) + at - 34) >>> 0);
    packets.push(hexOf(packet));
  }
  return packets;
}

/** Without the CRC, which is not kept. */
function comparable(packets: readonly string[]): string[] {
  return packets.map((packet) => packet.slice(0, 60) + packet.slice(68));
}

test("segments of a stream that follow each other become one row", () => {
  const planes = new TwinPlanes();
  const payload = bytesOf(350);
  const rows = planes.receive(framesOf(segmentsOf(payload, 100, { sequence: 0xffff_ff80 })));
  expect(rows).toMatchObject([{ kind: ROW_KIND.VIRTUAL, segments: 4, segmentBytes: 100, totalBytes: 4 * 34 + 350 }]);
  const whole = parseVirtualPacket(new Uint8Array(Buffer.from(rows[0]!.bytes, "hex")), true)!;
  expect(whole).toMatchObject({ sequence: 0xffff_ff80, acknowledgement: 5, window: 512 });
  expect(hexOf(whole.payload)).toBe(hexOf(payload));
});

test.each<[string, Partial<Fields>]>([
  ["has another flag", { flags: FLAG.ACK | FLAG.FIN }],
  ["has no ACK", { flags: FLAG.FIN }],
  ["acknowledges something else", { acknowledgement: 6 }],
  ["tells another window", { window: 511 }],
  ["is of another stream", { port: 50_001 }],
  ["is of another network", { network: 1 }],
  ["leaves a gap", { sequence: 201 }],
  ["comes again", { sequence: 100 }],
  ["is longer than the first", { payload: bytesOf(101) }],
  ["has no payload", { payload: new Uint8Array(0) }],
  ["may be a SACK", { payload: utf8("SACK and more") }],
])("a segment does not join when it %s", (_, fields) => {
  const planes = new TwinPlanes();
  const run = segmentsOf(bytesOf(200), 100);
  const odd = segment({ sequence: 200, payload: bytesOf(50), ...fields });
  const rows = planes.receive(framesOf([...run, odd]));
  expect(rows.map((row) => row.segments)).toEqual([2, 1]);
});

test("nothing joins behind a shorter segment, a possible SACK, or another row", () => {
  const planes = new TwinPlanes();
  const [first, second, third] = segmentsOf(bytesOf(300), 100) as [Uint8Array, Uint8Array, Uint8Array];
  const short = segment({ sequence: 100, payload: bytesOf(99) });
  const next = segment({ sequence: 199, payload: bytesOf(50) });
  expect(planes.receive(framesOf([first, short, next])).map((row) => row.segments)).toEqual([2, 1]);
  const other = segment({ port: 7, payload: bytesOf(100) });
  const rows = new TwinPlanes().receive(framesOf([first, second, other, third]));
  expect(rows.map((row) => row.segments)).toEqual([2, 1, 1]);
  const mark = segment({ payload: concatBytes(utf8("SACK"), bytesOf(96)) });
  expect(new TwinPlanes().receive(framesOf([mark, second])).map((row) => row.segments)).toEqual([1, 1]);
});

test("a run ends at 64 segments and at what one virtual packet may carry", () => {
  const segmentsOfRows = (payload: Uint8Array, size: number) =>
    received(framesOf(segmentsOf(payload, size)), Math.min(50, Math.floor(60_000 / size))).map((row) => row.segments);
  expect(segmentsOfRows(bytesOf(70), 1)).toEqual([64, 6]);
  expect(segmentsOfRows(bytesOf(80_000), 1152)).toEqual([56, 14]);
  expect(segmentsOfRows(bytesOf(80_000), 40_000)).toEqual([1, 1]);
});

test("any mix of stream packets is joined as by the twin, and says what its packets said", () => {
  const piece = fc.record({
    port: fc.constantFrom(1, 1, 1, 2),
    bytes: fc.constantFrom(0, 1, 99, 100, 100, 100, 100, 101),
    skips: fc.constantFrom(0, 0, 0, 0, 0, 1, -100),
    flags: fc.constantFrom(FLAG.ACK, FLAG.ACK, FLAG.ACK, FLAG.ACK, FLAG.ACK | FLAG.FIN, 0),
    acknowledgement: fc.constantFrom(5, 5, 5, 5, 6),
    mark: fc.constantFrom(false, false, false, false, true),
    fill: fc.nat(255),
  });
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), fc.integer({ min: 2, max: 6 }), (pieces, perMessage) => {
      const next = new Map<number, number>();
      const packets = pieces.map(({ port, bytes, skips, flags, acknowledgement, mark, fill }) => {
        const sequence = ((next.get(port) ?? 0xffff_fe00) + skips) >>> 0;
        next.set(port, (sequence + bytes) >>> 0);
        const payload = new Uint8Array(bytes).fill(fill);
        if (mark) payload.set(utf8("SACK").subarray(0, bytes));
        return segment({ port, sequence, flags, acknowledgement, payload });
      });
      const planes = new TwinPlanes();
      const rows = planes.receive(framesOf(packets));
      expect(comparable(rows.flatMap(packetsOf))).toEqual(comparable(packets.map(hexOf)));
      expect(comparable(received(framesOf(packets), perMessage).flatMap(packetsOf))).toEqual(
        comparable(packets.map(hexOf)),
      );
      planes.close();
    }),
    { numRuns: 80 },
  );
});
