import { beforeEach, describe, expect, test } from "vitest";
import { concatBytes, readU32, writeU32 } from "../../src/base/bytes.ts";
import { crc32 } from "../../src/base/crc32.ts";
import {
  ACCEPT,
  COUNTER,
  IN,
  KEY_STAT,
  KEY_STAT_COUNT,
  MAX_ROWS,
  NONE,
  OUT,
  ROW_FLAG,
  ROW_KIND,
  ROW_WORDS,
} from "../../src/tunnel/data-plane.ts";
import type { PortableDataPlane } from "../../src/tunnel/portable-data-plane.ts";
import { encodeNonce, openFrame, sealFrame } from "../../src/tunnel/portable-frame.ts";
import { nodeId } from "../../src/wire/ids.ts";
import {
  A,
  acceptAll,
  B,
  ENDPOINT_SLOT,
  inboundWord,
  KEY_SLOT,
  keySpec,
  planeOfA,
  planeOfB,
  RELAY,
  receive,
  send,
  type VirtualFields,
  virtualHeader,
  virtualPacket,
} from "../helpers/data-plane-pair.ts";
import { bytesOf, superpacket, tcpPacket, udpPacket, whole } from "../helpers/inner-packets.ts";

let a: PortableDataPlane;
let b: PortableDataPlane;
beforeEach(() => {
  a = planeOfA();
  b = planeOfB();
});

const counted = (plane: PortableDataPlane, counter: number) => plane.counters[counter];
const keyStat = (plane: PortableDataPlane, stat: number) => plane.keyStats[KEY_SLOT * KEY_STAT_COUNT + stat];
const bytesOfRow = (plane: PortableDataPlane, row: number) => {
  const offset = inboundWord(plane, row, IN.OFFSET);
  return plane.inbound.arena.slice(offset, offset + inboundWord(plane, row, IN.LENGTH));
};

/** A frame of A to B with everything chosen by the test. */
function frameOfA(counter: number, plaintext: Uint8Array, prefix = Uint8Array.of(1, 0, 0, 1), sender = 1): Uint8Array {
  const { key } = keySpec(1, 2);
  return sealFrame({ key, bindSender: true }, nodeId(sender), encodeNonce(prefix, counter), plaintext);
}

const bridgeData = (packet: Uint8Array, fields: VirtualFields = {}) => virtualPacket({ ...fields, payload: packet });
const ping = udpPacket({ payload: bytesOf(4) });

describe("outbound", () => {
  test("a packet of the TUN arrives at the other TUN unchanged", () => {
    const datagrams = send(a, [whole(ping)]);
    expect(datagrams.map(({ to }) => to)).toEqual([B]);
    const count = receive(b, [datagrams[0]!.bytes], A);
    expect(count).toBe(1);
    expect(acceptAll(b, count)).toEqual([ping]);
  });

  test("a frame carries the announced header, its length and its CRC", () => {
    const frame = send(a, [whole(ping)])[0]!.bytes;
    const plaintext = openFrame({ key: keySpec(1, 2).key, bindSender: true }, frame)!;
    expect(plaintext).toEqual(bridgeData(ping));
    expect([...frame.subarray(0, 20)]).toEqual([
      ...Buffer.from("PILS"),
      0,
      0,
      0,
      1,
      1,
      0,
      0,
      1,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      1,
    ]);
  });

  test("counters rise by one from the first counter, also through seal, and removal tells the next", () => {
    a.installKey(KEY_SLOT, keySpec(1, 2, { firstCounter: 2 ** 32 - 1 }));
    const first = send(a, [whole(ping)])[0]!.bytes;
    const second = a.seal(KEY_SLOT, virtualPacket());
    expect([readU32(first, 12), readU32(first, 16)]).toEqual([0, 0xffff_ffff]);
    expect([readU32(second, 12), readU32(second, 16)]).toEqual([1, 0]);
    expect(a.removeKey(KEY_SLOT)).toBe(2 ** 32 + 1);
    expect(a.removeKey(KEY_SLOT)).toBe(0);
  });

  test("a superpacket leaves as one datagram per segment", () => {
    const packet = tcpPacket({ payload: bytesOf(2500) });
    const datagrams = send(a, [superpacket(packet, 1000)]);
    expect(datagrams.map(({ bytes }) => bytes.length)).toEqual([1130, 1130, 630]);
    expect(counted(a, COUNTER.TX_DATAGRAMS)).toBe(3);
    expect(counted(a, COUNTER.TX_PACKETS)).toBe(3);
    expect(keyStat(a, KEY_STAT.TX_PACKETS)).toBe(3);
    expect(keyStat(a, KEY_STAT.TX_BYTES)).toBe(2500 + 3 * 60);
  });

  test("a staged packet leaves as one read just now would", () => {
    const staged = superpacket(udpPacket({ payload: bytesOf(30) }), 20);
    const direct = send(a, [staged]);
    const other = planeOfA();
    other.sendStaged(KEY_SLOT, ENDPOINT_SLOT, staged);
    expect(other.takeDatagrams()).toEqual(direct);
  });

  test("rows that nobody gave a key go nowhere", () => {
    const count = a.pushTunPackets([whole(ping), whole(ping)]);
    expect(count).toBe(2);
    a.outbound.rows[ROW_WORDS + OUT.KEY_SLOT] = KEY_SLOT;
    a.outbound.rows[ROW_WORDS + OUT.ENDPOINT_SLOT] = ENDPOINT_SLOT;
    a.sealAndSend(count);
    expect(a.takeDatagrams()).toHaveLength(1);
    expect(counted(a, COUNTER.SEND_FAILED)).toBe(0);
  });

  test("datagrams to a relayed endpoint carry the relay's wrapper in front", () => {
    const wrapper = Uint8Array.of(5, 0, 0, 0, 1, 0, 0, 0, 2);
    const direct = send(a, [whole(ping)])[0]!.bytes;
    const relayed = planeOfA();
    relayed.setEndpoint(ENDPOINT_SLOT, RELAY, wrapper);
    expect(send(relayed, [whole(ping)])).toEqual([{ to: RELAY, bytes: concatBytes(wrapper, direct) }]);
  });

  test("a key slot or endpoint slot with nothing in it is a failed send", () => {
    a.sendStaged(KEY_SLOT + 1, ENDPOINT_SLOT, whole(ping));
    a.sendStaged(KEY_SLOT, ENDPOINT_SLOT + 1, whole(ping));
    a.sendStaged(KEY_SLOT, NONE, whole(ping));
    expect(a.takeDatagrams()).toEqual([]);
    expect(counted(a, COUNTER.SEND_FAILED)).toBe(3);
    expect(a.removeKey(KEY_SLOT)).toBe(1);
  });

  test("a packet that no UDP datagram can hold is a failed send", () => {
    a.sendStaged(KEY_SLOT, ENDPOINT_SLOT, whole(new Uint8Array(65_437)));
    expect(a.takeDatagrams().map(({ bytes }) => bytes.length)).toEqual([65_507]);
    a.sendStaged(KEY_SLOT, ENDPOINT_SLOT, whole(new Uint8Array(65_438)));
    a.sendStaged(KEY_SLOT, ENDPOINT_SLOT, whole(new Uint8Array(65_536)));
    expect(a.takeDatagrams()).toEqual([]);
    expect(counted(a, COUNTER.SEND_FAILED)).toBe(2);
  });

  test("a packet whose offload fields contradict each other is counted as malformed", () => {
    a.sendStaged(KEY_SLOT, ENDPOINT_SLOT, { ...whole(ping), gsoType: 5 });
    expect(counted(a, COUNTER.MALFORMED_PACKET)).toBe(1);
    expect(a.takeDatagrams()).toEqual([]);
  });

  test("more packets than rows wait for the next batch, in order", () => {
    const packets = Array.from({ length: MAX_ROWS + 3 }, (_, index) => whole(udpPacket({ sourcePort: index })));
    expect(a.pushTunPackets(packets)).toBe(MAX_ROWS);
    expect(a.pushTunPackets([whole(ping)])).toBe(4);
    const offset = a.outbound.rows[OUT.OFFSET]!;
    const length = a.outbound.rows[OUT.LENGTH]!;
    expect(a.outbound.arena.slice(offset, offset + length)).toEqual(packets[MAX_ROWS]!.bytes);
    expect(a.pushTunPackets([])).toBe(0);
  });

  test("more bytes than the arena holds wait for the next batch", () => {
    const big = whole(new Uint8Array(65_000));
    const first = a.pushTunPackets(Array.from({ length: 20 }, () => big));
    expect(first).toBeLessThan(20);
    expect(a.pushTunPackets([])).toBe(20 - first);
  });

  test("an outbound row says what the TUN said", () => {
    const staged = superpacket(tcpPacket({ payload: bytesOf(100) }), 60);
    expect(a.pushTunPackets([whole(ping), staged])).toBe(2);
    const row = [...a.outbound.rows.subarray(ROW_WORDS, ROW_WORDS + 9)];
    expect(row).toEqual([ping.length, 160, 4, 60, 40, 16, 60, -1, -1]);
  });
});

describe("inbound", () => {
  test("segments of one flow are one row, and are written as the packets they are", () => {
    const packets = [0, 100, 200].map((sequence) => tcpPacket({ sequence, payload: bytesOf(100) }));
    const frames = send(a, packets.map(whole)).map(({ bytes }) => bytes);
    expect(receive(b, frames, A)).toBe(1);
    expect(inboundWord(b, 0, IN.SEGMENTS)).toBe(3);
    expect(inboundWord(b, 0, IN.LENGTH)).toBe(160);
    expect(inboundWord(b, 0, IN.TOTAL_BYTES)).toBe(480);
    expect(inboundWord(b, 0, IN.NEXT_SEQ)).toBe(300);
    expect(bytesOfRow(b, 0)).toEqual(packets[0]);
    expect(acceptAll(b, 1)).toEqual(packets);
    expect(counted(b, COUNTER.RX_DATAGRAMS)).toBe(3);
    expect(counted(b, COUNTER.RX_PACKETS)).toBe(3);
    expect(keyStat(b, KEY_STAT.RX_PACKETS)).toBe(3);
    expect(keyStat(b, KEY_STAT.RX_BYTES)).toBe(480);
  });

  test("a row tells kind, key, source and sender", () => {
    expect(receive(b, [frameOfA(1, bridgeData(ping))], A)).toBe(1);
    expect(inboundWord(b, 0, IN.KIND)).toBe(ROW_KIND.PACKET);
    expect(inboundWord(b, 0, IN.KEY_SLOT)).toBe(KEY_SLOT);
    expect(inboundWord(b, 0, IN.SENDER)).toBe(1);
    expect(inboundWord(b, 0, IN.FLAGS)).toBe(0);
    expect(b.source(inboundWord(b, 0, IN.SOURCE))).toEqual(A);
  });

  test("only an accepted row is written", () => {
    const frames = [1, 2, 3].map((counter) => frameOfA(counter, bridgeData(udpPacket({ sourcePort: counter }))));
    expect(receive(b, frames, A)).toBe(3);
    b.inbound.rows[ROW_WORDS + IN.VERDICT] = ACCEPT;
    b.inbound.rows[2 * ROW_WORDS + IN.VERDICT] = 7;
    b.writeTun(3);
    expect(b.takeTunPackets()).toEqual([udpPacket({ sourcePort: 2 })]);
    expect(b.takeTunPackets()).toEqual([]);
  });

  test("a virtual packet that is not bridge data is handed over with its header, without padding", () => {
    const message = virtualPacket({ payload: Uint8Array.of(1, 2, 3) });
    const stream = virtualPacket({ protocol: 1, port: 7, payload: ping });
    const frames = [frameOfA(1, concatBytes(message, new Uint8Array(9))), frameOfA(2, stream)];
    expect(receive(b, frames, A)).toBe(2);
    expect(inboundWord(b, 0, IN.KIND)).toBe(ROW_KIND.VIRTUAL);
    expect(bytesOfRow(b, 0)).toEqual(message);
    expect(bytesOfRow(b, 1)).toEqual(stream);
    expect(inboundWord(b, 1, IN.SENDER)).toBe(1);
    expect(acceptAll(b, 2)).toEqual([]);
  });

  test("anything else is handed over as it came", () => {
    const unknownSender = frameOfA(1, bridgeData(ping), undefined, 77);
    const datagrams = [
      unknownSender,
      Uint8Array.of(4, 1),
      new Uint8Array(136).fill(0x50),
      Uint8Array.of(6, 0, 0, 0, 1),
    ];
    expect(receive(b, datagrams, A)).toBe(4);
    datagrams.forEach((datagram, row) => {
      expect(inboundWord(b, row, IN.KIND)).toBe(ROW_KIND.OTHER);
      expect(inboundWord(b, row, IN.KEY_SLOT)).toBe(NONE);
      expect(inboundWord(b, row, IN.FLAGS)).toBe(0);
      expect(bytesOfRow(b, row)).toEqual(datagram);
    });
  });

  test("datagrams too short to be anything are counted", () => {
    b.setRelay(RELAY);
    receive(b, [new Uint8Array(0), Uint8Array.of(0x50, 0x49, 0x4c), frameOfA(1, ping).subarray(0, 35)], A);
    expect(
      receive(b, [Uint8Array.of(6, 0, 0), Uint8Array.of(9, 0, 0, 0, 1, 0, 0, 0), Uint8Array.of(6, 0, 0, 0, 1)], RELAY),
    ).toBe(0);
    expect(counted(b, COUNTER.DATAGRAM_TOO_SHORT)).toBe(6);
    expect(counted(b, COUNTER.RX_DATAGRAMS)).toBe(6);
  });

  test.each<[string, Uint8Array]>([
    ["that is shorter than its header", virtualPacket().subarray(0, 33)],
    ["of version 2", withCrc(virtualPacket().with(0, 0x20))],
    ["that promises more payload than there is", withCrc(virtualPacket().with(3, 1))],
    ["with a wrong CRC", virtualPacket().with(33, virtualPacket()[33]! ^ 1)],
  ])("a virtual packet %s is counted, and leaves its counter unused", (_what, plaintext) => {
    expect(receive(b, [frameOfA(1, plaintext)], A)).toBe(0);
    expect(counted(b, COUNTER.BAD_VIRTUAL_PACKET)).toBe(1);
    expect(receive(b, [frameOfA(1, bridgeData(ping))], A)).toBe(1);
  });

  test("inner addresses other than the sender's and ours are counted, and leave the counter unused", () => {
    const spoofed = bridgeData(ping, { sourceNode: 3 });
    const misdirected = virtualPacket({ port: 7, destinationNode: 3 });
    expect(receive(b, [frameOfA(1, spoofed), frameOfA(1, misdirected)], A)).toBe(0);
    expect(counted(b, COUNTER.INNER_MISMATCH)).toBe(2);
    expect(receive(b, [frameOfA(1, bridgeData(ping))], A)).toBe(1);
  });

  test("bridge data that is no whole IPv6 packet is counted as malformed", () => {
    const packets = [ping.subarray(0, 39), ping.subarray(0, 47), concatBytes(ping, new Uint8Array(1))];
    expect(
      receive(
        b,
        packets.map((packet, index) => frameOfA(index + 1, bridgeData(packet))),
        A,
      ),
    ).toBe(0);
    expect(counted(b, COUNTER.MALFORMED_PACKET)).toBe(3);
    expect(counted(b, COUNTER.RX_PACKETS)).toBe(0);
  });

  test("bridge data of another network is for the engine to judge", () => {
    const elsewhere = bridgeData(ping);
    elsewhere[5] = 9;
    expect(receive(b, [frameOfA(1, withCrc(elsewhere))], A)).toBe(1);
    expect(inboundWord(b, 0, IN.KIND)).toBe(ROW_KIND.VIRTUAL);
  });

  test("sequence, window and other fields of a header that are not compared may be anything", () => {
    const odd = bridgeData(ping);
    odd.fill(0xee, 20, 30);
    expect(receive(b, [frameOfA(1, withCrc(odd))], A)).toBe(1);
    expect(inboundWord(b, 0, IN.KIND)).toBe(ROW_KIND.PACKET);
  });

  test("a frame without sender binding opens under a key of the older generation only", () => {
    const old = planeOfA({ bindSender: false });
    const frame = send(old, [whole(ping)])[0]!.bytes;
    expect(receive(b, [frame], A)).toBe(0);
    expect(counted(b, COUNTER.BAD_TAG)).toBe(1);
    expect(receive(planeOfB({ bindSender: false }), [frame], A)).toBe(1);
  });

  test("more datagrams than rows wait for the next batch", () => {
    const datagrams = Array.from({ length: MAX_ROWS + 2 }, (_, index) => Uint8Array.of(1, index));
    expect(receive(b, datagrams, A)).toBe(MAX_ROWS);
    expect(receive(b, [Uint8Array.of(2)], B)).toBe(3);
    expect(bytesOfRow(b, 2)).toEqual(Uint8Array.of(2));
    expect(b.source(inboundWord(b, 2, IN.SOURCE))).toEqual(B);
    expect(b.receive([])).toBe(0);
  });
});

describe("replays", () => {
  const frame = (counter: number, prefix?: Uint8Array<ArrayBuffer>) => frameOfA(counter, bridgeData(ping), prefix);
  const prefixed = (index: number) => Uint8Array.of(9, 9, 9, index);

  test("a frame passes once", () => {
    expect(receive(b, [frame(1), frame(1)], A)).toBe(1);
    expect(receive(b, [frame(1)], A)).toBe(0);
    expect(counted(b, COUNTER.REPLAYED)).toBe(2);
  });

  test("frames out of order pass, counter 0 does not", () => {
    receive(b, [frame(3), frame(1), frame(2), frame(0)], A);
    expect(counted(b, COUNTER.RX_PACKETS)).toBe(3);
    expect(counted(b, COUNTER.REPLAYED)).toBe(1);
  });

  test("a forged frame with the highest counter does not move the window", () => {
    const forged = frame(1);
    forged.fill(0xff, 12, 20);
    receive(b, [frame(1), forged, frame(2)], A);
    expect(counted(b, COUNTER.RX_PACKETS)).toBe(2);
    expect(counted(b, COUNTER.BAD_TAG)).toBe(1);
    expect(counted(b, COUNTER.REPLAYED)).toBe(0);
  });

  test("each prefix has a window of its own, five of them", () => {
    const all = [0, 1, 2, 3, 4].map((index) => frame(1, prefixed(index)));
    receive(b, all, A);
    expect(counted(b, COUNTER.RX_PACKETS)).toBe(5);
    receive(b, all, A);
    expect(counted(b, COUNTER.REPLAYED)).toBe(5);
  });

  test("a sixth prefix takes the place of the one that was quiet for longest", () => {
    for (const index of [0, 1, 2, 3, 4]) receive(b, [frame(1, prefixed(index))], A);
    receive(b, [frame(2, prefixed(0)), frame(1, prefixed(5))], A);
    receive(b, [frame(2, prefixed(0)), frame(1, prefixed(5)), frame(1, prefixed(2))], A);
    expect(counted(b, COUNTER.REPLAYED)).toBe(3);
  });
});

describe("several keys of one node", () => {
  const keyOf = (value: number) => new Uint8Array(32).fill(value);
  const sealedWith = (value: number) => send(planeOfA({ key: keyOf(value) }), [whole(ping)])[0]!.bytes;

  test("each opens its own frames", () => {
    for (const slot of [0, 1, 2]) b.installKey(slot, keySpec(2, 1, { key: keyOf(slot) }));
    for (const slot of [2, 0, 1]) {
      expect(receive(b, [sealedWith(slot)], A)).toBe(1);
      expect(inboundWord(b, 0, IN.KEY_SLOT)).toBe(slot);
    }
    expect(counted(b, COUNTER.BAD_TAG)).toBe(0);
  });

  test("the oldest of five opens nothing any more", () => {
    for (const slot of [10, 11, 12, 13]) b.installKey(slot, keySpec(2, 1, { key: keyOf(slot) }));
    expect(receive(b, [frameOfA(1, bridgeData(ping))], A)).toBe(0);
    expect(counted(b, COUNTER.BAD_TAG)).toBe(1);
    expect(receive(b, [sealedWith(10)], A)).toBe(1);
  });

  test("a removed key opens nothing, and its sender is unknown when it was the last", () => {
    b.removeKey(KEY_SLOT);
    expect(receive(b, [frameOfA(1, bridgeData(ping))], A)).toBe(1);
    expect(inboundWord(b, 0, IN.KIND)).toBe(ROW_KIND.OTHER);
  });

  test("the key is copied, so wiping it here does not wipe the caller's", () => {
    const spec = keySpec(2, 1);
    b.installKey(9, spec);
    b.removeKey(9);
    expect(spec.key).toEqual(new Uint8Array(32).fill(0x42));
    spec.key.fill(0);
    b.installKey(9, keySpec(2, 1));
    expect(receive(b, [frameOfA(1, bridgeData(ping))], A)).toBe(1);
  });

  test("a new key in a slot starts with empty statistics and windows", () => {
    receive(b, [frameOfA(1, bridgeData(ping))], A);
    b.installKey(KEY_SLOT, keySpec(2, 1));
    expect(keyStat(b, KEY_STAT.RX_PACKETS)).toBe(0);
    expect(receive(b, [frameOfA(1, bridgeData(ping))], A)).toBe(1);
  });
});

describe("paths", () => {
  test("a frame from elsewhere than the bound endpoint is flagged, and opens all the same", () => {
    expect(receive(b, [frameOfA(1, bridgeData(ping))], { ...A, port: 9 })).toBe(1);
    expect(inboundWord(b, 0, IN.FLAGS)).toBe(ROW_FLAG.MOVED);
  });

  test("a frame under a key bound to nothing is flagged", () => {
    b.installKey(KEY_SLOT, keySpec(2, 1));
    receive(b, [frameOfA(1, bridgeData(ping))], A);
    expect(inboundWord(b, 0, IN.FLAGS)).toBe(ROW_FLAG.MOVED);
  });

  test("both forms of the relay's wrapper come off, from the relay only", () => {
    const frames = [1, 2].map((counter) => frameOfA(counter, bridgeData(ping)));
    const wrapped = [
      concatBytes(Uint8Array.of(6, 0, 0, 0, 1), frames[0]!),
      concatBytes(Uint8Array.of(9, 0, 0, 0, 1, 0, 0, 0, 2), frames[1]!),
    ];
    expect(receive(b, wrapped, RELAY)).toBe(2);
    expect(inboundWord(b, 0, IN.KIND)).toBe(ROW_KIND.OTHER);
    b.setRelay(RELAY);
    receive(b, wrapped, A);
    expect(inboundWord(b, 1, IN.KIND)).toBe(ROW_KIND.OTHER);
    expect(receive(b, wrapped, RELAY)).toBe(1);
    expect(inboundWord(b, 0, IN.KIND)).toBe(ROW_KIND.PACKET);
    expect(inboundWord(b, 0, IN.SEGMENTS)).toBe(2);
    expect(inboundWord(b, 0, IN.FLAGS)).toBe(ROW_FLAG.RELAYED | ROW_FLAG.MOVED);
    b.setRelay(undefined);
    expect(receive(b, wrapped, RELAY)).toBe(2);
    expect(inboundWord(b, 0, IN.KIND)).toBe(ROW_KIND.OTHER);
  });

  test("a relayed frame has not moved when answers go through the relay", () => {
    b.setRelay(RELAY);
    b.setEndpoint(ENDPOINT_SLOT, RELAY, Uint8Array.of(5, 0, 0, 0, 2, 0, 0, 0, 1));
    receive(b, [concatBytes(Uint8Array.of(6, 0, 0, 0, 1), frameOfA(1, bridgeData(ping)))], RELAY);
    expect(inboundWord(b, 0, IN.FLAGS)).toBe(ROW_FLAG.RELAYED);
  });

  test("a relayed datagram that is no frame of a known sender tells who the relay says sent it", () => {
    b.setRelay(RELAY);
    receive(b, [Uint8Array.of(6, 0xff, 0xff, 0xff, 0xfe, 0x50, 0x49, 0x4c, 0x41)], RELAY);
    expect(inboundWord(b, 0, IN.KIND)).toBe(ROW_KIND.OTHER);
    expect(inboundWord(b, 0, IN.FLAGS)).toBe(ROW_FLAG.RELAYED);
    expect(inboundWord(b, 0, IN.SENDER) >>> 0).toBe(0xfffffffe);
    expect(bytesOfRow(b, 0)).toEqual(Uint8Array.of(0x50, 0x49, 0x4c, 0x41));
  });

  test("segments of one flow that came different ways are different rows", () => {
    const segments = [0, 50].map((sequence) => bridgeData(tcpPacket({ sequence, payload: bytesOf(50) })));
    const [direct, moved] = segments.map((plaintext, index) => frameOfA(index + 1, plaintext));
    const count = b.receive([
      { from: A, bytes: direct! },
      { from: B, bytes: moved! },
    ]);
    expect(count).toBe(2);
    expect(inboundWord(b, 1, IN.FLAGS)).toBe(ROW_FLAG.MOVED);
  });
});

test("mistakes of the caller that would break a key are refused", () => {
  expect(() => a.installKey(0, keySpec(1, 2, { key: new Uint8Array(16) }))).toThrow(RangeError);
  expect(() => a.installKey(0, keySpec(1, 2, { sendPrefix: new Uint8Array(5) }))).toThrow(RangeError);
  for (const [key, prefix] of [[31, 4] as const, [32, 3] as const]) {
    const receive = { key: new Uint8Array(key), prefix: new Uint8Array(prefix) };
    expect(() => a.installKey(0, keySpec(1, 2, { receive }))).toThrow(RangeError);
  }
  expect(() => a.installKey(0, keySpec(1, 2, { firstCounter: 0 }))).toThrow(RangeError);
  expect(() => a.installKey(0, keySpec(1, 2, { sendHeader: virtualHeader().subarray(1) }))).toThrow(RangeError);
  expect(() => a.installKey(-1, keySpec(1, 2))).toThrow(RangeError);
  expect(() => a.setEndpoint(0, A, new Uint8Array(17))).toThrow(RangeError);
  expect(() => a.seal(0, virtualPacket())).toThrow(RangeError);
  expect(() => a.source(0)).toThrow(RangeError);
});

function withCrc(packet: Uint8Array): Uint8Array {
  const fixed = packet.slice();
  writeU32(fixed, 30, 0);
  writeU32(fixed, 30, crc32(fixed));
  return fixed;
}
