import { createCipheriv } from "node:crypto";
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { concatBytes } from "../../src/base/bytes.ts";
import { COUNTER, MAX_ROWS, ROW_FLAG, ROW_KIND } from "../../src/tunnel/data-plane.ts";
import { nodeId } from "../../src/wire/ids.ts";
import {
  ENDPOINT_SLOT,
  KEY_SLOT,
  keySpec,
  RELAY,
  type VirtualFields,
  virtualPacket,
} from "../helpers/data-plane-pair.ts";
import { bytesOf, tcpPacket, udpPacket, whole } from "../helpers/inner-packets.ts";
import { A, B, closePlanes, rowsOf, TwinPlanes } from "./twin-planes.ts";

afterEach(closePlanes);

interface FrameFields {
  readonly counter?: bigint;
  readonly prefix?: number;
  readonly sender?: number;
  readonly key?: Uint8Array;
  readonly bindSender?: boolean;
}

/** A frame of node 1, sealed by node:crypto: a third opinion beside the shim and its twin. */
function frameOf(virtual: Uint8Array, fields: FrameFields = {}): Uint8Array {
  const head = Buffer.alloc(20);
  head.write("PILS");
  head.writeUInt32BE(fields.sender ?? 1, 4);
  head.writeUInt32BE(fields.prefix ?? 0xaabbccdd, 8);
  head.writeBigUInt64BE(fields.counter ?? 1n, 12);
  const cipher = createCipheriv("aes-256-gcm", fields.key ?? new Uint8Array(32).fill(0x42), head.subarray(8));
  if (fields.bindSender ?? true) cipher.setAAD(head.subarray(4, 8));
  return concatBytes(head, cipher.update(virtual), cipher.final(), cipher.getAuthTag());
}

function dataOf(inner: Uint8Array, fields: VirtualFields = {}): Uint8Array {
  return virtualPacket({ ...fields, payload: inner });
}

const packet = udpPacket({ payload: bytesOf(40) });

test("frames of bridge data become packet rows, other virtual packets virtual rows", () => {
  const planes = new TwinPlanes();
  const rows = planes.receive([
    frameOf(dataOf(packet), { counter: 1n }),
    frameOf(virtualPacket({ protocol: 1, port: 80, payload: bytesOf(5) }), { counter: 2n }),
    frameOf(virtualPacket({ payload: Uint8Array.of(0, 1, 2) }), { counter: 3n }),
    frameOf(virtualPacket(), { counter: 4n }),
  ]);
  expect(rows.map((row) => row.kind)).toEqual([ROW_KIND.PACKET, 1, 1, 1]);
  expect(rows.map((row) => row.sender)).toEqual([1, 1, 1, 1]);
  expect(rows.map((row) => row.keySlot)).toEqual([KEY_SLOT, KEY_SLOT, KEY_SLOT, KEY_SLOT]);
});

test("bytes behind the virtual packet are ignored", () => {
  const padded = concatBytes(dataOf(packet), bytesOf(9));
  expect(new TwinPlanes().receive([frameOf(padded)])[0]).toMatchObject({
    kind: ROW_KIND.PACKET,
    totalBytes: packet.length,
  });
});

test("a frame is refused for its tag, its shape, its addresses and its counter, each counted by itself", () => {
  const planes = new TwinPlanes();
  const wrongCrc = dataOf(packet);
  wrongCrc[40]! ^= 1;
  const wrongVersion = dataOf(packet);
  wrongVersion[0] = 0x20;
  const wrongTag = frameOf(dataOf(packet), { counter: 9n });
  wrongTag[wrongTag.length - 1]! ^= 1;
  const good = frameOf(dataOf(packet), { counter: 8n });
  const rows = planes.receive([
    wrongTag,
    frameOf(wrongCrc, { counter: 1n }),
    frameOf(wrongVersion, { counter: 1n }),
    frameOf(bytesOf(33), { counter: 1n }),
    frameOf(dataOf(packet, { sourceNode: 7 }), { counter: 1n }),
    frameOf(dataOf(packet, { destinationNode: 7 }), { counter: 1n }),
    frameOf(dataOf(packet.subarray(0, 39)), { counter: 1n }),
    frameOf(dataOf(concatBytes(packet, bytesOf(1))), { counter: 2n }),
    frameOf(dataOf(packet), { counter: 0n }),
    good,
    good,
  ]);
  expect(rows).toHaveLength(1);
  const counted = planes.native.counters;
  expect(counted[COUNTER.BAD_TAG]).toBe(1);
  expect(counted[COUNTER.BAD_VIRTUAL_PACKET]).toBe(3);
  expect(counted[COUNTER.INNER_MISMATCH]).toBe(2);
  expect(counted[COUNTER.MALFORMED_PACKET]).toBe(2);
  expect(counted[COUNTER.REPLAYED]).toBe(2);
});

test("forged frames with high counters do not move the window", () => {
  const planes = new TwinPlanes();
  planes.receive([frameOf(dataOf(packet), { counter: 5n })]);
  for (const counter of [2n ** 64n - 1n, 2n ** 53n, 100_000n]) {
    const forged = frameOf(dataOf(packet), { counter, key: new Uint8Array(32).fill(1) });
    expect(planes.receive([forged])).toEqual([]);
  }
  expect(planes.native.counters[COUNTER.BAD_TAG]).toBe(3);
  expect(planes.receive([frameOf(dataOf(packet), { counter: 6n })])).toHaveLength(1);
  expect(planes.receive([frameOf(dataOf(packet), { counter: 4n })])).toHaveLength(1);
});

test("frames whose virtual packet is wrong do not move the window", () => {
  const planes = new TwinPlanes();
  planes.receive([frameOf(dataOf(packet), { counter: 5n }), frameOf(bytesOf(60), { counter: 1_000_000n })]);
  expect(planes.receive([frameOf(dataOf(packet), { counter: 6n })])).toHaveLength(1);
});

test("any sequence of counters and prefixes is judged as by the twin", () => {
  const counter = fc.oneof(
    fc.bigInt({ min: 0n, max: 5000n }),
    fc.bigInt({ min: 2n ** 32n - 3000n, max: 2n ** 32n + 3000n }),
    fc.bigInt({ min: 2n ** 64n - 3000n, max: 2n ** 64n - 1n }),
  );
  const frames = fc.array(fc.record({ counter, prefix: fc.nat(6) }), { maxLength: 30 });
  const small = virtualPacket({ protocol: 3 });
  fc.assert(
    fc.property(frames, (each) => {
      const planes = new TwinPlanes();
      for (const fields of each) planes.receive([frameOf(small, fields)]);
      planes.close();
    }),
    { numRuns: 60 },
  );
});

test("a window is 2,048 counters wide", () => {
  const planes = new TwinPlanes();
  const small = virtualPacket({ protocol: 3 });
  const passes = (counter: bigint) => planes.receive([frameOf(small, { counter })]).length === 1;
  expect(passes(10_000n)).toBe(true);
  expect(passes(10_000n - 2047n)).toBe(true);
  expect(passes(10_000n - 2047n)).toBe(false);
  expect(passes(10_000n - 2048n)).toBe(false);
});

test("a sixth prefix evicts the one used longest ago and no other", () => {
  const planes = new TwinPlanes();
  const small = virtualPacket({ protocol: 3 });
  const passes = (prefix: number) => planes.receive([frameOf(small, { prefix, counter: 9n })]).length === 1;
  for (const prefix of [1, 2, 3, 4, 5]) expect(passes(prefix)).toBe(true);
  planes.receive([frameOf(small, { prefix: 1, counter: 10n })]);
  expect(passes(6)).toBe(true);
  expect([1, 3, 4, 5, 6].map(passes)).toEqual([false, false, false, false, false]);
  expect(passes(2)).toBe(true);
});

test("each key of a node is tried, and the row tells which one opened the frame", () => {
  const planes = new TwinPlanes();
  const keys = [1, 2, 3].map((fill) => new Uint8Array(32).fill(fill));
  for (const [index, key] of keys.entries()) {
    planes.both((plane) => plane.installKey(10 + index, keySpec(2, 1, { key })));
  }
  for (const prefix of [100, 100, 200]) {
    const slots = keys.map((key, index) => {
      const counter = BigInt(planes.native.counters[COUNTER.RX_DATAGRAMS]! + 1);
      return planes.receive([frameOf(dataOf(packet), { key, prefix: prefix + index, counter })])[0]?.keySlot;
    });
    expect(slots).toEqual([10, 11, 12]);
  }
  // A prefix that one key knows, used under another: the failed attempt must leave the frame as it was.
  const shared = frameOf(dataOf(packet), { key: keys[0]!, prefix: 202, counter: 500n });
  expect(planes.receive([shared])[0]?.keySlot).toBe(10);
  planes.both((plane) => plane.removeKey(10));
  expect(planes.receive([frameOf(dataOf(packet), { key: keys[0]!, prefix: 9 })])).toEqual([]);
  expect(planes.native.counters[COUNTER.BAD_TAG]).toBe(1);
});

test("where each direction has its own key, only the peer's opens, and only under the peer's prefix", () => {
  const receive = { key: new Uint8Array(32).fill(7), prefix: Uint8Array.of(1, 2, 3, 4) };
  const planes = new TwinPlanes({ receive });
  const prefix = 0x01020304;
  expect(planes.receive([frameOf(dataOf(packet), { key: receive.key, prefix })])).toHaveLength(1);
  expect(planes.receive([frameOf(dataOf(packet), { key: receive.key, prefix })])).toEqual([]);
  expect(planes.native.counters[COUNTER.REPLAYED]).toBe(1);
  expect(planes.receive([frameOf(dataOf(packet), { prefix, counter: 2n })])).toEqual([]);
  expect(planes.receive([frameOf(dataOf(packet), { key: receive.key, counter: 2n })])).toEqual([]);
  expect(planes.native.counters[COUNTER.BAD_TAG]).toBe(2);
  // What we send is under the other key, and under our prefix.
  const [sent] = planes.send([whole(packet)]);
  const own = new TwinPlanes({ localNode: nodeId(1), peerNode: nodeId(2) });
  expect(own.receive([sent!])).toHaveLength(1);
});

test("keys whose prefix a frame does not have are not tried, however many there are", () => {
  const planes = new TwinPlanes();
  for (let slot = 10; slot < 20; slot++) {
    const receive = { key: new Uint8Array(32).fill(slot), prefix: Uint8Array.of(0, 0, 0, slot) };
    planes.both((plane) => plane.installKey(slot, keySpec(2, 1, { receive })));
  }
  for (let slot = 10; slot < 20; slot++) {
    const frame = frameOf(dataOf(packet), { key: new Uint8Array(32).fill(slot), prefix: slot });
    expect(planes.receive([frame])[0]?.keySlot).toBe(slot);
  }
  expect(planes.receive([frameOf(dataOf(packet))])[0]?.keySlot).toBe(KEY_SLOT);
});

test("with G1 keys the sender is not authenticated data", () => {
  const planes = new TwinPlanes({ bindSender: false });
  expect(planes.receive([frameOf(dataOf(packet), { bindSender: false })])).toHaveLength(1);
  expect(planes.receive([frameOf(dataOf(packet), { counter: 2n })])).toHaveLength(0);
});

test("a frame from elsewhere than the key's endpoint is flagged as moved", () => {
  const planes = new TwinPlanes();
  expect(planes.receive([frameOf(dataOf(packet), { counter: 1n })], A)[0]?.flags).toBe(0);
  expect(planes.receive([frameOf(dataOf(packet), { counter: 2n })], B)[0]?.flags).toBe(ROW_FLAG.MOVED);
  expect(planes.receive([frameOf(dataOf(packet), { counter: 3n })], { ...A, port: 9 })[0]).toMatchObject({
    flags: ROW_FLAG.MOVED,
    source: { ...A, port: 9 },
  });
  planes.both((plane) => plane.installKey(KEY_SLOT, keySpec(2, 1)));
  expect(planes.receive([frameOf(dataOf(packet), { counter: 1n })], A)[0]?.flags).toBe(ROW_FLAG.MOVED);
});

test("the relay's wrapper is removed only when it comes from the relay", () => {
  const planes = new TwinPlanes();
  const short = Uint8Array.of(6, 0, 0, 0, 1);
  const long = Uint8Array.of(9, 0, 0, 0, 1, 0, 0, 0, 2);
  const wrapped = (head: Uint8Array, counter: bigint) => concatBytes(head, frameOf(dataOf(packet), { counter }));
  expect(planes.receive([wrapped(short, 1n)], RELAY)[0]?.kind).toBe(ROW_KIND.OTHER);
  planes.both((plane) => plane.setRelay(RELAY));
  const relayed = { kind: ROW_KIND.PACKET, flags: ROW_FLAG.RELAYED | ROW_FLAG.MOVED };
  expect(planes.receive([wrapped(short, 2n)], RELAY)[0]).toMatchObject(relayed);
  expect(planes.receive([wrapped(long, 3n)], RELAY)[0]).toMatchObject(relayed);
  expect(planes.receive([wrapped(short, 4n)], A)[0]).toMatchObject({ kind: ROW_KIND.OTHER, flags: 0 });
  const handshake = concatBytes(short, Buffer.from("PILA"), bytesOf(40));
  expect(planes.receive([handshake], RELAY)[0]).toMatchObject({ flags: ROW_FLAG.RELAYED, sender: 1 });
  for (const head of [short, long]) for (let n = 1; n <= head.length; n++) planes.receive([head.subarray(0, n)], RELAY);
  planes.both((plane) => plane.bindKey(KEY_SLOT, ENDPOINT_SLOT + 1));
  planes.both((plane) => plane.setEndpoint(ENDPOINT_SLOT + 1, RELAY, short));
  expect(planes.receive([wrapped(short, 5n)], RELAY)[0]?.flags).toBe(ROW_FLAG.RELAYED);
  planes.both((plane) => plane.setRelay(undefined));
  expect(planes.receive([wrapped(short, 6n)], RELAY)[0]?.kind).toBe(ROW_KIND.OTHER);
});

test("IPv4 and IPv6 sources come back in canonical text", () => {
  const planes = new TwinPlanes();
  for (const address of ["192.0.2.55", "2001:db8::1", "::1", "fe80::2"]) {
    expect(planes.receive([Uint8Array.of(2)], { address, port: 65_535 })[0]?.source.address).toBe(address);
  }
});

test("UDP packets of one flow become one row, whatever comes between them", () => {
  const planes = new TwinPlanes();
  const frame = (bytes: number, counter: bigint) =>
    frameOf(dataOf(udpPacket({ payload: bytesOf(bytes) })), { counter });
  const rows = planes.receive([frame(7, 1n), Uint8Array.of(2), frame(5, 2n)]);
  expect(rows.map((row) => row.segments)).toEqual([2, 1]);
});

test("any datagram, cut short or changed anywhere, is treated as by the twin", () => {
  const planes = new TwinPlanes();
  planes.both((plane) => plane.setRelay(RELAY));
  const inner = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.uint8Array({ maxLength: 100 }).map((payload) => dataOf(udpPacket({ payload }))),
    fc.uint8Array({ maxLength: 100 }).map((payload) => dataOf(tcpPacket({ payload }))),
  );
  const frame = fc
    .tuple(inner, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.nat(3), fc.constantFrom(1, 1, 2))
    .map(([virtual, counter, prefix, sender]) => frameOf(virtual, { counter, prefix, sender }));
  const wrapped = fc
    .tuple(fc.constantFrom(5, 6, 9), fc.uint8Array({ minLength: 4, maxLength: 8 }), frame)
    .map(([type, nodes, bytes]) => concatBytes(Uint8Array.of(type), nodes, bytes));
  const magic = fc
    .tuple(fc.constantFrom("PILS", "PILA", "PILT", "PILP", "PILK"), fc.uint8Array({ maxLength: 80 }))
    .map(([text, rest]) => concatBytes(Buffer.from(text), rest));
  const changed = fc
    .tuple(fc.oneof(frame, wrapped), fc.nat(300), fc.nat(255))
    .map(([bytes, at, value]) => bytes.map((byte, index) => (index === at ? value : byte)));
  const cutShort = fc
    .tuple(fc.oneof(frame, wrapped, magic), fc.nat(300))
    .map(([bytes, length]) => bytes.subarray(0, length));
  const datagram = fc.oneof(fc.uint8Array({ maxLength: 300 }), frame, wrapped, magic, changed, cutShort);
  fc.assert(
    fc.property(fc.array(datagram, { maxLength: 12 }), fc.constantFrom(A, B, RELAY), (datagrams, from) => {
      planes.receive(datagrams, from);
    }),
    { numRuns: 400 },
  );
});

test("a message of several datagrams is taken apart at the segment size", () => {
  const planes = new TwinPlanes();
  const frames = [1n, 2n, 3n].map((counter) => frameOf(virtualPacket({ protocol: 3 }), { counter }));
  planes.inject(concatBytes(...frames, frames[0]!.subarray(0, 50)), frames[0]!.length);
  expect(planes.native.receiveAndOpen()).toBe(3);
  expect(planes.native.counters[COUNTER.RX_DATAGRAMS]).toBe(4);
  expect(planes.native.counters[COUNTER.BAD_TAG]).toBe(1);
});

test("a zero-length datagram is counted and nothing more", () => {
  const planes = new TwinPlanes();
  planes.inject(new Uint8Array(0), 0);
  expect(planes.native.receiveAndOpen()).toBe(0);
  expect(planes.native.counters[COUNTER.DATAGRAM_TOO_SHORT]).toBe(1);
});

test("datagrams for which a batch has no rows come with the next one", () => {
  const planes = new TwinPlanes();
  const each = 100;
  for (let message = 0; message < 12; message++) {
    planes.inject(
      Uint8Array.from({ length: 4 * each }, (_, at) => (at % 4 === 0 ? 2 : message)),
      4,
    );
  }
  const batches: number[] = [];
  const seen: string[] = [];
  do {
    batches.push(planes.native.receiveAndOpen());
    seen.push(...rowsOf(planes.native, batches.at(-1)!).map((row) => row.bytes));
  } while (planes.native.receivePending);
  expect(batches).toEqual([MAX_ROWS, MAX_ROWS, 12 * each - 2 * MAX_ROWS]);
  expect(seen).toEqual(Array.from({ length: 12 * each }, (_, at) => seen[Math.floor(at / each) * each]));
  expect(new Set(seen).size).toBe(12);
});
