import { describe, expect, test } from "vitest";
import { writeU16 } from "../../src/base/bytes.ts";
import { Coalescer, type Run } from "../../src/tunnel/coalesce.ts";
import {
  bytesOf,
  ipv6Packet,
  naiveChecksum,
  TCP,
  type TcpFields,
  tcpPacket,
  udpPacket,
} from "../helpers/inner-packets.ts";

function runsOf(packets: readonly Uint8Array[]): Run[] {
  const coalescer = new Coalescer();
  const runs: Run[] = [];
  for (const packet of packets) {
    const { run, joined } = coalescer.add(packet, "scope");
    if (!joined) runs.push(run);
  }
  return runs;
}

const sizes = (packets: readonly Uint8Array[]) => runsOf(packets).map((run) => run.packets.length);
const segment = (sequence: number, length: number, fields: TcpFields = {}) =>
  tcpPacket({ sequence, payload: bytesOf(length), ...fields });

describe("TCP segments", () => {
  test("that follow each other are one run", () => {
    const [run, ...others] = runsOf([segment(0, 100), segment(100, 100), segment(200, 100)]);
    expect(others).toEqual([]);
    expect(run).toMatchObject({ totalBytes: 480, nextSequence: 300 });
  });

  test("end their run with a shorter one", () => {
    expect(sizes([segment(0, 100), segment(100, 50), segment(150, 50)])).toEqual([2, 1]);
  });

  test("end their run with PSH", () => {
    expect(sizes([segment(0, 100), segment(100, 100, { flags: TCP.ACK | TCP.PSH }), segment(200, 100)])).toEqual([
      2, 1,
    ]);
  });

  test("join again over the wrap of the sequence number", () => {
    expect(runsOf([segment(0xffff_ff9c, 100), segment(0, 100)])).toMatchObject([{ nextSequence: 100 }]);
  });

  test.each<[string, TcpFields & { length?: number; at?: number }]>([
    ["a gap", { at: 101 }],
    ["a repetition", { at: 0 }],
    ["a longer payload", { length: 101 }],
    ["another acknowledgement", { acknowledgement: 8 }],
    ["another window", { window: 501 }],
    ["options where there were none", { options: Uint8Array.of(1, 1, 1, 1) }],
    ["another traffic class", { trafficClass: 1 }],
    ["another flow label", { flowLabel: 1 }],
    ["another hop limit", { hopLimit: 63 }],
    ["another source port", { sourcePort: 40_001 }],
    ["another source", { source: 9 }],
    ["another destination", { destination: 9 }],
    ["FIN", { flags: TCP.ACK | TCP.FIN }],
    ["SYN", { flags: TCP.ACK | TCP.SYN }],
    ["RST", { flags: TCP.ACK | TCP.RST }],
    ["URG", { flags: TCP.ACK | TCP.URG }],
    ["ECE", { flags: TCP.ACK | TCP.ECE }],
    ["CWR", { flags: TCP.ACK | TCP.CWR }],
    ["no ACK", { flags: 0 }],
    ["no payload", { length: 0 }],
  ])("do not join with %s", (_what, { length = 100, at = 100, ...fields }) => {
    expect(sizes([segment(0, 100), segment(100, 100)])).toEqual([2]);
    expect(sizes([segment(0, 100), segment(at, length, fields)])).toEqual([1, 1]);
  });

  test("with equal options join, with other option values not", () => {
    const stamp = (value: number) => Uint8Array.of(1, 1, 8, 10, 0, 0, 0, value, 0, 0, 0, 2);
    expect(sizes([segment(0, 9, { options: stamp(1) }), segment(9, 9, { options: stamp(1) })])).toEqual([2]);
    expect(sizes([segment(0, 9, { options: stamp(1) }), segment(9, 9, { options: stamp(2) })])).toEqual([1, 1]);
  });

  test("with a reserved bit set stay alone", () => {
    const odd = (packet: Uint8Array) => rechecked(packet.with(52, packet[52]! | 1));
    expect(sizes([odd(segment(0, 100)), odd(segment(100, 100))])).toEqual([1, 1]);
  });

  test("with a wrong checksum stay alone, first or later", () => {
    const damaged = (packet: Uint8Array) => packet.with(packet.length - 1, packet.at(-1)! ^ 1);
    expect(sizes([segment(0, 100), damaged(segment(100, 100))])).toEqual([1, 1]);
    expect(sizes([damaged(segment(0, 100)), segment(100, 100)])).toEqual([1, 1]);
  });

  test("do not overtake a packet of their flow that could not join", () => {
    const bareAck = segment(100, 0);
    expect(sizes([segment(0, 100), bareAck, segment(100, 100)])).toEqual([1, 1, 1]);
  });

  test("of another flow in between do not matter", () => {
    const other = (sequence: number) => segment(sequence, 100, { sourcePort: 1 });
    expect(sizes([segment(0, 100), other(5), segment(100, 100), other(105)])).toEqual([2, 2]);
  });

  test("never become more than an IPv6 length can say", () => {
    const packets = Array.from({ length: 50 }, (_, index) => segment(index * 1400, 1400));
    expect(sizes(packets)).toEqual([46, 4]);
  });

  test("count SYN and FIN in the next sequence number", () => {
    expect(runsOf([segment(10, 5, { flags: TCP.SYN })])).toMatchObject([{ nextSequence: 16 }]);
    expect(runsOf([segment(10, 5, { flags: TCP.ACK | TCP.FIN })])).toMatchObject([{ nextSequence: 16 }]);
  });
});

describe("UDP datagrams", () => {
  const datagram = (length: number, first = 0) => udpPacket({ payload: bytesOf(length, first) });

  test("of one size are one run that a shorter one ends", () => {
    expect(sizes([datagram(100), datagram(100, 1), datagram(60), datagram(60)])).toEqual([3, 1]);
  });

  test("do not join when longer, or without payload", () => {
    expect(sizes([datagram(100), datagram(101)])).toEqual([1, 1]);
    expect(sizes([datagram(100), datagram(0)])).toEqual([1, 1]);
  });

  test("without a checksum stay alone", () => {
    const unchecked = datagram(100);
    unchecked.fill(0, 46, 48);
    expect(sizes([unchecked, unchecked])).toEqual([1, 1]);
  });

  test("whose length field says less than the packet holds stay alone", () => {
    const odd = rechecked(datagram(100).with(45, 107));
    expect(sizes([odd, odd])).toEqual([1, 1]);
  });

  test("are at most 64 in a run", () => {
    expect(sizes(Array.from({ length: 70 }, () => datagram(10)))).toEqual([64, 6]);
  });
});

/** The packet with the checksum that its bytes should have. */
function rechecked(packet: Uint8Array): Uint8Array {
  const at = packet[6] === 6 ? 56 : 46;
  packet.fill(0, at, at + 2);
  writeU16(packet, at, naiveChecksum(packet));
  return packet;
}

test("packets of one flow but different scope are kept apart", () => {
  const coalescer = new Coalescer();
  coalescer.add(segment(0, 100), "one");
  expect(coalescer.add(segment(100, 100), "two").joined).toBe(false);
  expect(coalescer.add(segment(200, 100), "two").joined).toBe(true);
});

test("a new batch joins nothing of the last one", () => {
  const coalescer = new Coalescer();
  coalescer.add(segment(0, 100), "scope");
  coalescer.clear();
  expect(coalescer.add(segment(100, 100), "scope").joined).toBe(false);
});

test("packets of other protocols and cut ones are runs of their own", () => {
  const icmp = ipv6Packet(58, bytesOf(16));
  expect(sizes([icmp, icmp])).toEqual([1, 1]);
  const short = segment(0, 100).subarray(0, 50);
  expect(sizes([short, short, new Uint8Array(0)])).toEqual([1, 1, 1]);
});
