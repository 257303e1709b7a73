import { describe, expect, it } from "vitest";
import { fromHex, readU16, readU32 } from "../../src/base/bytes.ts";
import { DEFAULT_OVERLAY_PREFIX, encodeAddressBytes } from "../../src/wire/address.ts";
import { foldSum, pseudoHeaderSum, transportChecksum } from "../../src/wire/checksum.ts";
import {
  encodeEcho,
  encodePacketTooBig,
  encodeTimeExceeded,
  encodeUnreachable,
  mayAnswerWithError,
  parseEcho,
  UNREACHABLE,
} from "../../src/wire/icmpv6.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { emptyParsedPacket, NEXT_HEADER, type ParsedPacket, parsePacket } from "../../src/wire/ipv6.ts";
import { clampMss, encodeReset, TCP_FLAG } from "../../src/wire/tcp.ts";
import { encodeUdpPacket, parseUdpPacket } from "../../src/wire/udp.ts";

const A = encodeAddressBytes(DEFAULT_OVERLAY_PREFIX, { network: networkId(0), node: nodeId(5) });
const B = encodeAddressBytes(DEFAULT_OVERLAY_PREFIX, { network: networkId(0), node: nodeId(6) });
const MULTICAST = Uint8Array.from([0xff, 0x02, ...new Array<number>(13).fill(0), 1]);
const UNSPECIFIED = new Uint8Array(16);

interface Addresses {
  readonly source?: Uint8Array;
  readonly destination?: Uint8Array;
}

function packetOf(
  nextHeader: number,
  body: readonly number[],
  { source = A, destination = B }: Addresses = {},
): Uint8Array {
  const length = [body.length >>> 8, body.length & 0xff];
  return Uint8Array.from([0x60, 0, 0, 0, ...length, nextHeader, 64, ...source, ...destination, ...body]);
}

function udpTo(addresses: Addresses, payloadBytes = 4): Uint8Array {
  const payload = new Uint8Array(payloadBytes).fill(7);
  return encodeUdpPacket({ source: A, destination: B, sourcePort: 4000, destinationPort: 53, payload, ...addresses });
}

function parsed(packet: Uint8Array): ParsedPacket | undefined {
  const into = emptyParsedPacket();
  return parsePacket(packet, 0, packet.length, into) ? into : undefined;
}

const UDP_BODY = [0x0f, 0xa0, 0, 53, 0, 8, 0x12, 0x34];
const fragment = (next: number, offset: number, more: 0 | 1) => [
  next,
  0,
  offset >>> 8,
  (offset & 0xf8) | more,
  0,
  0,
  0,
  1,
];

describe("the IPv6 header", () => {
  it("gives traffic class, hop limit and lengths", () => {
    const packet = udpTo({});
    packet[0] = 0x6a;
    packet[1] = 0xb0;
    packet[7] = 3;
    expect(parsed(packet)).toMatchObject({
      trafficClass: 0xab,
      hopLimit: 3,
      payloadLength: 12,
      transportPayloadLength: 4,
    });
  });

  it("ignores bytes after the payload", () => {
    expect(parsed(Uint8Array.from([...udpTo({}), 1, 2, 3]))).toMatchObject({ transportPayloadLength: 4 });
  });

  it("is refused when it is IPv4 or longer than what is there", () => {
    const four = udpTo({});
    four[0] = 0x45;
    expect(parsed(four)).toBeUndefined();
    expect(parsed(udpTo({}).subarray(0, 51))).toBeUndefined();
  });

  it("is refused when the range leaves the arena", () => {
    const packet = udpTo({});
    const into = emptyParsedPacket();
    expect(parsePacket(packet, 0, packet.length + 1, into)).toBe(false);
    expect(parsePacket(packet, 1, packet.length, into)).toBe(false);
    expect(parsePacket(packet, -1, packet.length, into)).toBe(false);
  });

  it("is refused when an extension header leaves the packet, also with nothing after it", () => {
    const extension = (units: number) => packetOf(NEXT_HEADER.HOP_BY_HOP, [NEXT_HEADER.NONE, units, 0, 0, 0, 0, 0, 0]);
    expect(parsed(extension(0))).toMatchObject({ protocol: NEXT_HEADER.NONE, transportPayloadLength: 0 });
    expect(parsed(extension(1))).toBeUndefined();
  });

  it("leads over each kind of extension header to the transport", () => {
    const kinds = [NEXT_HEADER.HOP_BY_HOP, NEXT_HEADER.ROUTING, NEXT_HEADER.DESTINATION_OPTIONS, NEXT_HEADER.MOBILITY];
    for (const kind of [...kinds, NEXT_HEADER.HOST_IDENTITY, NEXT_HEADER.SHIM6]) {
      const packet = packetOf(kind, [17, 1, ...new Array<number>(14).fill(0), ...UDP_BODY]);
      expect(parsed(packet), `extension ${kind}`).toMatchObject({
        protocol: 17,
        transportOffset: 56,
        sourcePort: 4000,
      });
    }
  });

  it("counts an authentication header in words of four bytes", () => {
    const packet = packetOf(NEXT_HEADER.AUTHENTICATION, [17, 4, ...new Array<number>(22).fill(0), ...UDP_BODY]);
    expect(parsed(packet)).toMatchObject({ protocol: 17, transportOffset: 64, destinationPort: 53 });
  });

  it("is followed over eight extension headers and no more", () => {
    const extension = (next: number) => [next, 0, 0, 0, 0, 0, 0, 0];
    const chain = (count: number) => [...new Array<number[]>(count - 1).fill(extension(60)).flat(), ...extension(17)];
    expect(parsed(packetOf(60, [...chain(8), ...UDP_BODY]))).toMatchObject({ protocol: 17 });
    expect(parsed(packetOf(60, [...chain(9), ...UDP_BODY]))).toBeUndefined();
  });

  it("of a first fragment leads to ports, of a later one does not", () => {
    const first = packetOf(NEXT_HEADER.FRAGMENT, [...fragment(17, 0, 1), ...UDP_BODY]);
    expect(parsed(first)).toMatchObject({ isFragment: true, fragmentOffset: 0, destinationPort: 53 });
    const later = packetOf(NEXT_HEADER.FRAGMENT, [...fragment(17, 1232, 0), 1, 2]);
    expect(parsed(later)).toMatchObject({ isFragment: true, fragmentOffset: 1232, protocol: 17, destinationPort: 0 });
  });

  it("of an atomic fragment counts as whole", () => {
    const atomic = packetOf(NEXT_HEADER.FRAGMENT, [...fragment(17, 0, 0), ...UDP_BODY]);
    expect(parsed(atomic)).toMatchObject({ isFragment: false, destinationPort: 53 });
  });

  it("of a TCP segment whose data offset leaves the packet is refused", () => {
    const segment = (dataOffset: number) =>
      packetOf(6, [...new Array<number>(12).fill(0), dataOffset << 4, 2, 0, 0, 0, 0, 0, 0]);
    expect(parsed(segment(5))).toMatchObject({ tcpFlags: 2, transportPayloadLength: 0 });
    expect(parsed(segment(6))).toBeUndefined();
    expect(parsed(segment(4))).toBeUndefined();
  });
});

describe("ICMPv6 errors", () => {
  it("quote what fits the minimum MTU and go back to the source", () => {
    const offending = udpTo({}, 1300);
    const error = encodeUnreachable({ source: B, offending, code: UNREACHABLE.PROHIBITED });
    expect(error.length).toBe(1280);
    expect([...error.subarray(40, 42)]).toEqual([1, 1]);
    expect(error.subarray(8, 24)).toEqual(B);
    expect(error.subarray(24, 40)).toEqual(A);
    expect(error.subarray(48)).toEqual(offending.subarray(0, 1232));
    expect(transportChecksum(error, 40, 58)).toBe(0);
  });

  it("quote a small packet whole", () => {
    const offending = udpTo({});
    const error = encodeTimeExceeded({ source: B, offending });
    expect([...error.subarray(40, 42)]).toEqual([3, 0]);
    expect(error.subarray(48)).toEqual(offending);
  });

  it("packet too big carries the MTU", () => {
    const error = encodePacketTooBig({ source: B, offending: udpTo({}, 1400), mtu: 1360 });
    expect([...error.subarray(40, 42)]).toEqual([2, 0]);
    expect(readU32(error, 44)).toBe(1360);
  });

  it("are sent about ordinary packets and echoes", () => {
    expect(mayAnswerWithError(udpTo({}))).toBe(true);
    expect(mayAnswerWithError(echo(128))).toBe(true);
    expect(mayAnswerWithError(echo(129))).toBe(true);
  });

  it("are never sent about errors, redirects and unknown error types", () => {
    for (const type of [1, 2, 3, 4, 100, 127, 137]) {
      expect(mayAnswerWithError(packetOf(58, [type, 0, 0, 0, 0, 0, 0, 0])), `type ${type}`).toBe(false);
    }
  });

  it("are never sent about an error behind an extension header or in fragments", () => {
    expect(mayAnswerWithError(packetOf(60, [58, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]))).toBe(false);
    expect(mayAnswerWithError(packetOf(44, [...fragment(58, 0, 1), 1, 0, 0, 0, 0, 0, 0, 0]))).toBe(false);
    expect(mayAnswerWithError(packetOf(44, [...fragment(58, 8, 0), 200, 0, 0, 0]))).toBe(false);
  });

  it("are never sent to many, to nobody, or about what is no packet", () => {
    expect(mayAnswerWithError(udpTo({ source: MULTICAST }))).toBe(false);
    expect(mayAnswerWithError(udpTo({ source: UNSPECIFIED }))).toBe(false);
    expect(mayAnswerWithError(udpTo({ destination: MULTICAST }))).toBe(false);
    expect(mayAnswerWithError(new Uint8Array(39))).toBe(false);
    expect(mayAnswerWithError(new Uint8Array(0))).toBe(false);
  });

  function echo(type: 128 | 129): Uint8Array {
    return encodeEcho({ source: A, destination: B, type, identifier: 1, sequence: 2, payload: new Uint8Array(8) });
  }
});

describe("echo and UDP", () => {
  it("with a flipped bit are not read", () => {
    const request = { type: 128, identifier: 1, sequence: 2, payload: new Uint8Array(8) } as const;
    for (const packet of [encodeEcho({ source: A, destination: B, ...request }), udpTo({})]) {
      const parse = packet[6] === 17 ? parseUdpPacket : parseEcho;
      expect(parse(packet)).toBeDefined();
      packet[packet.length - 1]! ^= 1;
      expect(parse(packet)).toBeUndefined();
    }
  });

  it("UDP without a checksum is refused, and a sum of zero is sent as ones", () => {
    const none = udpTo({});
    none[46] = 0;
    none[47] = 0;
    expect(parseUdpPacket(none)).toBeUndefined();

    // The checksum goes into the payload with the sign turned, so that the sum comes out as zero.
    const blank = udpTo({}, 2);
    blank.fill(0, 46, 50);
    const payload = Uint8Array.of(...wordBytes(transportChecksum(blank, 40, 17)));
    const packet = encodeUdpPacket({ source: A, destination: B, sourcePort: 4000, destinationPort: 53, payload });
    expect(readU16(packet, 46)).toBe(0xffff);
    expect(parseUdpPacket(packet)?.payload).toEqual(payload);
  });

  function wordBytes(word: number): [number, number] {
    return [word >>> 8, word & 0xff];
  }
});

describe("UDP", () => {
  it("whose length disagrees with the packet is refused", () => {
    const packet = udpTo({});
    packet[45]!--;
    packet.fill(0, 46, 48);
    const checksum = transportChecksum(packet, 40, 17);
    packet[46] = checksum >>> 8;
    packet[47] = checksum & 0xff;
    expect(parseUdpPacket(packet)).toBeUndefined();
  });
});

describe("TCP", () => {
  const syn = (options: readonly number[], flags: number = TCP_FLAG.SYN) =>
    packetOf(6, [
      0x1f,
      0x90,
      0,
      80,
      0,
      0,
      0,
      1,
      0,
      0,
      0,
      0,
      (5 + options.length / 4) << 4,
      flags,
      0xff,
      0xff,
      0,
      0,
      0,
      0,
      ...options,
    ]);

  it("a reset is a whole packet that says what the receiver expects", () => {
    const packet = encodeReset({
      source: A,
      destination: B,
      sourcePort: 80,
      destinationPort: 4000,
      sequence: 0xfffffff0,
    });
    expect(packet.length).toBe(60);
    expect(parsed(packet)).toMatchObject({ sourcePort: 80, destinationPort: 4000, sequence: 0xfffffff0, tcpFlags: 4 });
    expect(transportChecksum(packet, 40, 6)).toBe(0);
  });

  it("a reset that answers a SYN acknowledges it", () => {
    const reset = { source: A, destination: B, sourcePort: 80, destinationPort: 4000, sequence: 0, acknowledgement: 8 };
    expect(parsed(encodeReset(reset))).toMatchObject({ sequence: 0, acknowledgement: 8, tcpFlags: 0x14 });
  });

  it("a partial checksum stays as it is when the MSS is lowered", () => {
    const packet = syn([2, 4, 0x05, 0xb4]);
    const partial = foldSum(pseudoHeaderSum(packet, 0, 24, 6));
    packet[56] = partial >>> 8;
    packet[57] = partial & 0xff;
    expect(clampMss(packet, 0, 40, 1300, true)).toBe(true);
    expect(readU16(packet, 62)).toBe(1300);
    expect(readU16(packet, 56)).toBe(partial);
  });

  it("an MSS that fits, a missing one and a segment without SYN are left alone", () => {
    for (const packet of [syn([2, 4, 0x05, 0x14]), syn([1, 1, 1, 1]), syn([]), syn([2, 4, 0x05, 0xb4], TCP_FLAG.ACK)]) {
      const before = packet.slice();
      expect(clampMss(packet, 0, 40, 1300, false)).toBe(false);
      expect(packet).toEqual(before);
    }
  });

  it("an option that stands in the neighbour of a short packet is left alone", () => {
    const arena = syn([2, 4, 0x05, 0xb4]);
    arena[5]! -= 4;
    const before = arena.slice();
    expect(clampMss(arena, 0, 40, 1300, false)).toBe(false);
    expect(arena).toEqual(before);
  });

  it("an option behind the end of options, of a wrong length, or past the header is left alone", () => {
    for (const options of ["00020405", "0203ffff", "02050fff", "0300ffff", "01010102", "02ffffff"]) {
      const packet = syn([...fromHex(options)!]);
      const before = packet.slice();
      expect(clampMss(packet, 0, 40, 536, false), options).toBe(false);
      expect(packet).toEqual(before);
    }
  });
});
