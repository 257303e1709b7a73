import { describe, expect, test } from "vitest";
import { readU16, readU32, writeU16 } from "../../src/base/bytes.ts";
import type { StagedPacket } from "../../src/tunnel/data-plane.ts";
import { segmentPacket } from "../../src/tunnel/segment.ts";
import { foldSum, pseudoHeaderSum } from "../../src/wire/checksum.ts";
import { bytesOf, naiveChecksum, superpacket, TCP, tcpPacket, udpPacket, whole } from "../helpers/inner-packets.ts";

const flagsOf = (packet: Uint8Array) => packet[53]!;

describe("a TCP superpacket", () => {
  const options = Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2);
  const flags = TCP.ACK | TCP.PSH | TCP.FIN | TCP.CWR;
  const packet = tcpPacket({ sequence: 0xffff_fff0, flags, options, payload: bytesOf(25) });
  const segments = segmentPacket(superpacket(packet, 10))!;

  test("becomes packets of the segment size and a shorter last", () => {
    expect(segments.map((segment) => segment.length - 72)).toEqual([10, 10, 5]);
    expect(segments.map((segment) => readU16(segment, 4))).toEqual([42, 42, 37]);
    expect(segments.flatMap((segment) => [...segment.subarray(72)])).toEqual([...bytesOf(25)]);
  });

  test("counts its sequence numbers on, over the wrap", () => {
    expect(segments.map((segment) => readU32(segment, 44))).toEqual([0xffff_fff0, 0xffff_fffa, 4]);
  });

  test("shows CWR on the first packet only, FIN and PSH on the last only", () => {
    expect(segments.map(flagsOf)).toEqual([TCP.ACK | TCP.CWR, TCP.ACK, TCP.ACK | TCP.PSH | TCP.FIN]);
  });

  test("repeats options and has right checksums", () => {
    for (const segment of segments) {
      expect(segment.subarray(60, 72)).toEqual(options);
      expect(naiveChecksum(segment)).toBe(0);
    }
  });

  test("that fits one segment keeps all its flags", () => {
    const [only, ...others] = segmentPacket(superpacket(packet, 25))!;
    expect(others).toEqual([]);
    expect(only).toEqual(packet);
  });
});

test("a UDP superpacket becomes datagrams with lengths and checksums of their own", () => {
  const segments = segmentPacket(superpacket(udpPacket({ payload: bytesOf(25) }), 12))!;
  expect(segments).toEqual([
    udpPacket({ payload: bytesOf(12) }),
    udpPacket({ payload: bytesOf(12, 12) }),
    udpPacket({ payload: bytesOf(1, 24) }),
  ]);
});

describe("a partial checksum", () => {
  function offloaded(packet: Uint8Array, csumOffset: number): StagedPacket {
    const bytes = packet.slice();
    writeU16(bytes, 40 + csumOffset, foldSum(pseudoHeaderSum(bytes, 0, bytes.length - 40, bytes[6]!)));
    return { ...whole(bytes), csumStart: 40, csumOffset };
  }

  test("of TCP is completed", () => {
    const packet = tcpPacket({ payload: bytesOf(33) });
    expect(segmentPacket(offloaded(packet, 16))).toEqual([packet]);
  });

  test("of UDP is completed, and is never zero", () => {
    const payload = new Uint8Array(2);
    const plain = udpPacket({ payload });
    writeU16(payload, 0, readU16(plain, 46)); // adding the checksum itself makes the sum all ones
    const packet = udpPacket({ payload });
    expect(readU16(packet, 46)).toBe(0xffff);
    expect(segmentPacket(offloaded(packet, 6))).toEqual([packet]);
  });

  test("does not change the bytes it was computed for", () => {
    const staged = offloaded(tcpPacket({ payload: bytesOf(8) }), 16);
    const before = staged.bytes.slice();
    segmentPacket(staged);
    expect(staged.bytes).toEqual(before);
  });
});

test("a packet without offloads is left as it is", () => {
  const packet = tcpPacket({ payload: bytesOf(100) });
  expect(segmentPacket(whole(packet))).toEqual([packet]);
});

test.each<[string, Partial<StagedPacket>]>([
  ["an unknown type", { gsoType: 1 }],
  ["no segment size", { gsoSize: 0 }],
  ["a checksum that starts inside the IP header", { csumStart: 39 }],
  ["a checksum offset that is not TCP's", { csumOffset: 6 }],
  ["headers longer than the packet", { headerLength: 9999 }],
  ["headers that end elsewhere than TCP's", { headerLength: 64 }],
  ["nothing behind the IP header", { bytes: tcpPacket().subarray(0, 40) }],
  ["no bytes", { bytes: new Uint8Array(0) }],
])("a superpacket with %s is refused", (_what, wrong) => {
  const right = superpacket(tcpPacket({ payload: bytesOf(40) }), 10);
  expect(segmentPacket(right)).toHaveLength(4);
  expect(segmentPacket({ ...right, ...wrong })).toBeUndefined();
});

test("a segment longer than an IPv6 header can say is refused", () => {
  const bytes = new Uint8Array(70_000);
  bytes.set(tcpPacket());
  const staged = { bytes, gsoType: 4, csumStart: 40, csumOffset: 16, headerLength: 60 };
  expect(segmentPacket({ ...staged, gsoSize: 65_516 })).toBeUndefined();
  expect(segmentPacket({ ...staged, gsoSize: 65_515 })).toHaveLength(2);
});

test("a checksum to be stored outside the packet is refused", () => {
  const bytes = tcpPacket();
  expect(segmentPacket({ ...whole(bytes), csumStart: 50, csumOffset: 16 })).toBeUndefined();
  expect(segmentPacket({ ...whole(bytes), csumStart: 40, csumOffset: -44 })).toBeUndefined();
});
