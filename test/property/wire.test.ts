import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  DEFAULT_OVERLAY_PREFIX,
  encodeAddressBytes,
  formatOverlayAddress,
  formatPilotAddress,
  formatSocketAddress,
  hasPrefix,
  networkAt,
  nodeAt,
  parseAddressBytes,
  parseOverlayAddress,
  parseOverlayPrefix,
  parsePilotAddress,
  parseSocketAddress,
  subAddressAt,
} from "../../src/wire/address.ts";
import {
  type BridgeMessage,
  classifyBridgePayload,
  encodeBridgeMessage,
  parseBridgeMessage,
} from "../../src/wire/bridge.ts";
import { transportChecksum } from "../../src/wire/checksum.ts";
import {
  classifyDatagram,
  encodePila,
  encodePilk,
  encodePilsHeader,
  PILA_BYTES,
  PILK_BYTES,
  PILS_OVERHEAD_BYTES,
  parsePila,
  parsePilk,
  parsePils,
} from "../../src/wire/frame.ts";
import { encodeHandshake, HANDSHAKE_TYPES, type HandshakeMessage, parseHandshake } from "../../src/wire/handshake.ts";
import { encodeEcho, encodeUnreachable, mayAnswerWithError, parseEcho } from "../../src/wire/icmpv6.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { emptyParsedPacket, parsePacket } from "../../src/wire/ipv6.ts";
import { parseLeaseField } from "../../src/wire/lease-field.ts";
import { encodeSack, looksLikeSack, parseSack } from "../../src/wire/stream-sack.ts";
import { clampMss, encodeReset } from "../../src/wire/tcp.ts";
import { encodeUdpPacket, parseUdpPacket } from "../../src/wire/udp.ts";
import { encodeVirtualPacket, parseVirtualPacket, type VirtualPacket } from "../../src/wire/virtual-packet.ts";
import { bridgeMessage } from "../helpers/bridge-messages.ts";
import { guarded, unguarded } from "../helpers/guarded-bytes.ts";

const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const payload = fc.uint8Array({ maxLength: 200 });
const pilotAddress = fc.record({ network: u16.map(networkId), node: u32.map(nodeId) });
const ip = bytes(16);

const virtualPacket: fc.Arbitrary<VirtualPacket> = fc.record({
  flags: fc.integer({ min: 0, max: 15 }),
  protocol: fc.integer({ min: 0, max: 255 }),
  source: pilotAddress,
  destination: pilotAddress,
  sourcePort: u16,
  destinationPort: u16,
  sequence: u32,
  acknowledgement: u32,
  window: u16,
  payload,
});

/** A fragment's bytes run to the end of the payload: nothing can be appended, and what is shorter is another. */
const fragment: fc.Arbitrary<BridgeMessage> = fc.record({
  kind: fc.constant("fragment" as const),
  id: u32,
  offset: fc.integer({ min: 0, max: 0xf000 }),
  more: fc.boolean(),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 1500 }),
});

const handshake: fc.Arbitrary<HandshakeMessage> = fc.record({
  type: fc.constantFrom(...HANDSHAKE_TYPES),
  node: fc.integer({ min: 1, max: 0xffffffff }).map(nodeId),
  publicKey: bytes(32),
  justification: fc.string({ unit: "grapheme", maxLength: 12 }),
  signature: bytes(64),
  reason: fc.string({ unit: "grapheme", maxLength: 12 }),
  timestampS: fc.integer({ min: 0, max: 2 ** 40 }),
});

const udpPacket = fc
  .record({ source: ip, destination: ip, sourcePort: u16, destinationPort: u16, payload })
  .map((datagram) => encodeUdpPacket(datagram));

const echoPacket = fc
  .record({
    source: ip,
    destination: ip,
    type: fc.constantFrom(128 as const, 129 as const),
    identifier: u16,
    sequence: u16,
    payload,
  })
  .map((echo) => encodeEcho(echo));

/** A SYN with random options, a right checksum, and extension headers in front of it. */
const synPacket = fc
  .record({
    addresses: bytes(32),
    ports: bytes(4),
    options: fc.array(
      fc.oneof(
        fc.constant([1]),
        u16.map((mss) => [2, 4, mss >>> 8, mss & 0xff]),
        bytes(1).map((shift) => [3, 3, ...shift]),
        bytes(8).map((times) => [8, 10, ...times]),
      ),
      { maxLength: 3 },
    ),
    extensions: fc.array(fc.record({ kind: fc.constantFrom(0, 43, 60), units: fc.integer({ min: 0, max: 3 }) }), {
      maxLength: 3,
    }),
  })
  .map(({ addresses, ports, options, extensions }) => synWith(addresses, ports, options.flat(), extensions));

function synWith(
  addresses: Uint8Array,
  ports: Uint8Array,
  options: number[],
  extensions: { kind: number; units: number }[],
): { packet: Uint8Array; tcp: number } {
  const padded = [...options, ...new Array<number>((4 - (options.length % 4)) % 4).fill(0)];
  const chain = [...extensions.map(({ kind }) => kind), 6];
  const headers = extensions.flatMap(({ units }, i) => [
    chain[i + 1]!,
    units,
    ...new Array<number>(6 + 8 * units).fill(0),
  ]);
  const tcpHeader = [...ports, ...new Array<number>(8).fill(7), ((20 + padded.length) / 4) << 4, 2, 0, 0, 0, 0, 0, 0];
  const body = [...headers, ...tcpHeader, ...padded];
  const packet = Uint8Array.from([
    0x60,
    0,
    0,
    0,
    body.length >>> 8,
    body.length & 0xff,
    chain[0]!,
    64,
    ...addresses,
    ...body,
  ]);
  const tcp = 40 + headers.length;
  const checksum = transportChecksum(packet, tcp, 6);
  packet[tcp + 16] = checksum >>> 8;
  packet[tcp + 17] = checksum;
  return { packet, tcp };
}

describe("what is written is read back", () => {
  const cases = <T>(arbitrary: fc.Arbitrary<T>, roundTrip: (value: T) => unknown) =>
    fc.assert(
      fc.property(arbitrary, (value) => {
        expect(unguarded(roundTrip(value))).toEqual(value);
      }),
    );

  it("a virtual packet, whatever follows it", () => {
    fc.assert(
      fc.property(virtualPacket, payload, (packet, padding) => {
        const encoded = Uint8Array.from([...encodeVirtualPacket(packet), ...padding]);
        expect(parseVirtualPacket(encoded)).toEqual(packet);
      }),
    );
  });

  it("a PILA frame with any trailer", () => {
    const pila = fc.record({
      sender: u32.map(nodeId),
      exchangeKey: bytes(32),
      identityKey: bytes(32),
      signature: bytes(64),
      trailer: payload,
    });
    cases(pila, (value) => parsePila(Uint8Array.from([...encodePila(value), ...value.trailer])));
  });

  it("a PILK frame", () => {
    cases(fc.record({ sender: u32.map(nodeId), exchangeKey: bytes(32) }), (value) => parsePilk(encodePilk(value)));
  });

  it("a PILS frame", () => {
    const pils = fc.record({
      sender: u32.map(nodeId),
      nonce: bytes(12),
      sealed: fc.uint8Array({ minLength: 16, maxLength: 100 }),
    });
    cases(pils, (value) => parsePils(Uint8Array.from([...encodePilsHeader(value), ...value.sealed])));
  });

  it("a fragment", () => {
    fc.assert(
      fc.property(fragment, (message) => {
        expect(parseBridgeMessage(encodeBridgeMessage(message))).toEqual(message);
      }),
    );
  });

  it("a bridge message, whatever a later version appends", () => {
    fc.assert(
      fc.property(bridgeMessage, payload, (message, appended) => {
        const encoded = encodeBridgeMessage(message);
        expect(classifyBridgePayload(encoded)).toBe("message");
        expect(parseBridgeMessage(Uint8Array.from([...encoded, ...appended]))).toEqual(message);
      }),
    );
  });

  it("a trust message", () => {
    cases(handshake, (message) => parseHandshake(encodeHandshake(message)));
  });

  it("a selective acknowledgement", () => {
    const blocks = fc.array(fc.record({ left: u32, right: u32 }), { minLength: 1, maxLength: 4 });
    cases(blocks, (value) => parseSack(encodeSack(value)!));
  });

  it("a UDP packet", () => {
    fc.assert(
      fc.property(ip, ip, u16, u16, payload, (source, destination, sourcePort, destinationPort, data) => {
        const packet = encodeUdpPacket({ source, destination, sourcePort, destinationPort, payload: data });
        expect(parseUdpPacket(packet)).toEqual({ sourcePort, destinationPort, payload: data });
        expect(packet.subarray(8, 40)).toEqual(Uint8Array.from([...source, ...destination]));
      }),
    );
  });

  it("an echo", () => {
    const echo = fc.record({
      type: fc.constantFrom(128 as const, 129 as const),
      identifier: u16,
      sequence: u16,
      payload,
    });
    fc.assert(
      fc.property(ip, ip, echo, (source, destination, value) => {
        expect(parseEcho(encodeEcho({ ...value, source, destination }))).toEqual(value);
      }),
    );
  });
});

describe("addresses", () => {
  it("survive their text, with and without a port", () => {
    fc.assert(
      fc.property(pilotAddress, u16, (address, port) => {
        expect(parsePilotAddress(formatPilotAddress(address))).toEqual({ kind: "address", address });
        const socket = { address, port };
        expect(parseSocketAddress(formatSocketAddress(socket))).toEqual({ kind: "socket-address", ...socket });
      }),
    );
  });

  it("are never read from other text than their own, up to zeros and case", () => {
    const nearly = fc.tuple(fc.stringMatching(/^[0-9]{1,3}:[0-9a-fA-F.:]{0,16}$/), fc.constantFrom("", " ", ":1"));
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          nearly.map((parts) => parts.join("")),
        ),
        (text) => {
          const parsed = parsePilotAddress(text);
          if (parsed.kind === "invalid") {
            expect(parsed.reason).not.toBe("");
            return;
          }
          expect(text.toUpperCase().replace(/^0+(?=\d)/, "")).toBe(formatPilotAddress(parsed.address));
        },
      ),
    );
  });

  const overlayAddress = fc.record({ network: u16.map(networkId), subAddress: u32, node: u32.map(nodeId) });
  const prefix = bytes(5).map((id) => {
    const groups = [0xfd, ...id].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const parsed = parseOverlayPrefix(`${groups.replace(/(....)(....)(....)/, "$1:$2:$3")}::/48`);
    if (parsed.kind === "invalid") throw new Error(parsed.reason);
    return parsed.prefix;
  });

  it("survive IPv6 bytes and text under any prefix", () => {
    fc.assert(
      fc.property(prefix, overlayAddress, (under, address) => {
        const encoded = encodeAddressBytes(under, address);
        expect(parseAddressBytes(under, encoded)).toEqual(address);
        expect(parseOverlayAddress(under, formatOverlayAddress(under, address))).toEqual(address);
        expect(parseOverlayPrefix(under.text)).toEqual({ kind: "prefix", prefix: under });
      }),
    );
  });

  it("map to one IPv6 address each, and every address under the prefix is one", () => {
    fc.assert(
      fc.property(bytes(10), u16, (tail, offset) => {
        const whole = Uint8Array.from([...DEFAULT_OVERLAY_PREFIX.bytes, ...tail]);
        const address = parseAddressBytes(DEFAULT_OVERLAY_PREFIX, whole)!;
        expect(encodeAddressBytes(DEFAULT_OVERLAY_PREFIX, address)).toEqual(whole);

        const at = offset % 64;
        const arena = new Uint8Array(128).fill(0xff);
        arena.set(whole, at);
        const view = guarded(arena, at, at + 16);
        expect(hasPrefix(DEFAULT_OVERLAY_PREFIX, view, at)).toBe(true);
        expect(networkAt(view, at)).toBe(address.network);
        expect(subAddressAt(view, at)).toBe(address.subAddress);
        expect(nodeAt(view, at)).toBe(address.node);
      }),
    );
  });

  it("outside the prefix are nobody's", () => {
    fc.assert(
      fc.property(overlayAddress, fc.integer({ min: 0, max: 47 }), (address, bit) => {
        const encoded = encodeAddressBytes(DEFAULT_OVERLAY_PREFIX, address);
        encoded[bit >>> 3]! ^= 0x80 >>> (bit & 7);
        expect(parseAddressBytes(DEFAULT_OVERLAY_PREFIX, encoded)).toBeUndefined();
      }),
    );
  });
});

describe("headers of inner packets", () => {
  it("are found at any offset of an arena, and only bytes of the packet are read", () => {
    const any = fc.oneof(
      udpPacket,
      echoPacket,
      synPacket.map(({ packet }) => packet),
    );
    fc.assert(
      fc.property(any, fc.integer({ min: 0, max: 40 }), (packet, offset) => {
        const arena = new Uint8Array(offset + packet.length + 40).fill(0xff);
        arena.set(packet, offset);
        const into = emptyParsedPacket();
        const view = guarded(arena, offset, offset + packet.length);
        expect(parsePacket(view, offset, packet.length, into)).toBe(true);
        const alone = emptyParsedPacket();
        expect(parsePacket(packet, 0, packet.length, alone)).toBe(true);
        expect(into).toEqual({
          ...alone,
          sourceOffset: offset + 8,
          destinationOffset: offset + 24,
          transportOffset: offset + alone.transportOffset,
        });
      }),
    );
  });

  it("a SYN behind extension headers is understood", () => {
    fc.assert(
      fc.property(synPacket, ({ packet, tcp }) => {
        const into = emptyParsedPacket();
        expect(parsePacket(packet, 0, packet.length, into)).toBe(true);
        expect(into).toMatchObject({ protocol: 6, transportOffset: tcp, tcpFlags: 2, sequence: 0x07070707 });
        expect(into.transportPayloadLength).toBe(0);
      }),
    );
  });

  it("clamping the MSS keeps the checksum right wherever the option stands", () => {
    fc.assert(
      fc.property(synPacket, fc.integer({ min: 536, max: 9000 }), ({ packet, tcp }, maxMss) => {
        const before = packet.slice();
        const changed = clampMss(packet, 0, tcp, maxMss, false);
        expect(transportChecksum(packet, tcp, 6)).toBe(0);
        expect(changed).toBe(!packet.every((byte, i) => byte === before[i]));
        expect(clampMss(packet, 0, tcp, maxMss, false)).toBe(false);
      }),
    );
  });

  it("errors and resets carry right checksums", () => {
    fc.assert(
      fc.property(ip, udpPacket, fc.constantFrom(0, 1, 3, 4), (source, offending, code) => {
        const packet = encodeUnreachable({ source, offending, code });
        expect(transportChecksum(packet, 40, 58)).toBe(0);
        expect(mayAnswerWithError(packet)).toBe(false);
      }),
    );
    fc.assert(
      fc.property(
        ip,
        ip,
        u16,
        u16,
        u32,
        fc.option(u32, { nil: undefined }),
        (source, destination, a, b, sequence, ack) => {
          const reset = { source, destination, sourcePort: a, destinationPort: b, sequence, acknowledgement: ack };
          const packet = encodeReset(reset);
          const into = emptyParsedPacket();
          expect(transportChecksum(packet, 40, 6)).toBe(0);
          expect(parsePacket(packet, 0, packet.length, into)).toBe(true);
          expect(into).toMatchObject({ sourcePort: a, destinationPort: b, sequence, acknowledgement: ack ?? 0 });
          expect(into.tcpFlags).toBe(ack === undefined ? 0x04 : 0x14);
        },
      ),
    );
  });
});

describe("no parser throws or reads outside", () => {
  const into = emptyParsedPacket();
  const PARSERS: readonly (readonly [string, (bytes: Uint8Array) => unknown])[] = [
    ["classifyDatagram", classifyDatagram],
    ["parsePila", parsePila],
    ["parsePilk", parsePilk],
    ["parsePils", parsePils],
    ["parseVirtualPacket", parseVirtualPacket],
    ["parseBridgeMessage", parseBridgeMessage],
    ["parseLeaseField", (bytes: Uint8Array) => parseLeaseField(bytes, 0)],
    ["parseSack", parseSack],
    ["parseAddressBytes", (input) => parseAddressBytes(DEFAULT_OVERLAY_PREFIX, input)],
    ["parsePacket", (input) => parsePacket(input, 0, input.length, into)],
    ["parseEcho", parseEcho],
    ["parseUdpPacket", parseUdpPacket],
    ["mayAnswerWithError", mayAnswerWithError],
    ["clampMss", (input) => clampMss(input, 0, 40, 1300, false)],
  ];

  /** Bytes that begin like something, so that random input gets past the first check. */
  const plausible = fc
    .tuple(
      fc.constantFrom([], [0x60, 0, 0, 0], [0x12, 1], [1, 1], [5], [0x53, 0x41, 0x43, 0x4b], [0x50, 0x49, 0x4c, 0x41]),
      fc.uint8Array({ maxLength: 160 }),
    )
    .map(([head, tail]) => Uint8Array.from([...head, ...tail]));

  /** IPv6 packets whose length field is right and whose headers are noise. */
  const noisyPacket = fc
    .tuple(fc.constantFrom(0, 6, 17, 43, 44, 51, 58, 60, 135), fc.uint8Array({ maxLength: 120 }), bytes(32))
    .map(([next, body, addresses]) =>
      Uint8Array.from([0x60, 0, 0, 0, 0, body.length, next, 64, ...addresses, ...body]),
    );

  it.each(PARSERS)("%s on random bytes", (_name, parse) => {
    fc.assert(
      fc.property(fc.oneof(plausible, noisyPacket), (input) => {
        unguarded(parse(guarded(input)));
      }),
      { numRuns: 1000 },
    );
  });

  it("parseHandshake on random bytes and random JSON", () => {
    const json = fc.json().map((text) => new TextEncoder().encode(text));
    const near = fc
      .tuple(
        handshake,
        fc.constantFrom("type", "node_id", "public_key", "signature", "reason", "timestamp"),
        fc.jsonValue(),
      )
      .map(([message, field, value]) => {
        const fields = JSON.parse(new TextDecoder().decode(encodeHandshake(message))) as object;
        return new TextEncoder().encode(JSON.stringify({ ...fields, [field]: value }));
      });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), json, near), (input) => {
        const message = parseHandshake(input);
        if (message === undefined) return;
        expect(message.publicKey.length).toBe(32);
        expect(message.signature.length).toBe(64);
        expect(HANDSHAKE_TYPES).toContain(message.type);
      }),
      { numRuns: 1000 },
    );
  });

  it("text parsers on any text", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.ipV6(), fc.stringMatching(/^[0-9a-f:.%/]{0,45}$/)), (text) => {
        parsePilotAddress(text);
        parseSocketAddress(text);
        parseOverlayAddress(DEFAULT_OVERLAY_PREFIX, text);
        parseOverlayPrefix(text);
        parseOverlayPrefix(`${text}/48`);
      }),
      { numRuns: 1000 },
    );
  });

  /** `least`: the shortest length that may still be understood. */
  const everyTruncation = <T>(whole: Uint8Array, least: number, parse: (input: Uint8Array) => T | undefined) => {
    for (let length = 0; length < whole.length; length++) {
      const parsed = unguarded(parse(guarded(whole.slice(0, length))));
      expect(parsed !== undefined).toBe(length >= least);
    }
  };

  it("every truncation of a frame is refused below its least length", () => {
    const key = new Uint8Array(32).fill(9);
    const sender = nodeId(7);
    const pila = { sender, exchangeKey: key, identityKey: key, signature: new Uint8Array(64).fill(3) };
    everyTruncation(Uint8Array.from([...encodePila(pila), 1, 2, 3]), PILA_BYTES, parsePila);
    everyTruncation(encodePilk(pila), PILK_BYTES, parsePilk);
    const pils = encodePilsHeader({ sender, nonce: new Uint8Array(12) });
    everyTruncation(Uint8Array.from([...pils, ...new Uint8Array(60)]), PILS_OVERHEAD_BYTES, parsePils);
  });

  it("every truncation of a message or packet is refused", () => {
    const refused = <T>(whole: Uint8Array, parse: (input: Uint8Array) => T | undefined) =>
      everyTruncation(whole, whole.length, parse);
    const options = { numRuns: 30 };
    fc.assert(
      fc.property(virtualPacket, (value) => refused(encodeVirtualPacket(value), parseVirtualPacket)),
      options,
    );
    fc.assert(
      fc.property(bridgeMessage, (value) => refused(encodeBridgeMessage(value), parseBridgeMessage)),
      options,
    );
    fc.assert(
      fc.property(handshake, (value) => refusedJson(encodeHandshake(value))),
      options,
    );
    fc.assert(
      fc.property(udpPacket, (value) => refused(value, parseUdpPacket)),
      options,
    );
    fc.assert(
      fc.property(echoPacket, (value) => refused(value, parseEcho)),
      options,
    );
    fc.assert(
      fc.property(synPacket, ({ packet }) =>
        refused(packet, (input) => (parsePacket(input, 0, input.length, into) ? true : undefined)),
      ),
      options,
    );
    refused(
      encodeSack([
        { left: 1, right: 2 },
        { left: 5, right: 9 },
      ])!,
      parseSack,
    );
  });

  function refusedJson(whole: Uint8Array): void {
    for (let length = 0; length < whole.length; length++) {
      expect(parseHandshake(whole.subarray(0, length))).toBeUndefined();
    }
  }

  it("clamping a truncated SYN stays within what is there", () => {
    fc.assert(
      fc.property(synPacket, ({ packet, tcp }) => {
        for (let length = 0; length <= packet.length; length++) {
          clampMss(guarded(packet.slice(0, length)), 0, tcp, 536, false);
        }
      }),
      { numRuns: 30 },
    );
  });

  it("data is never mistaken for a selective acknowledgement once it is cut to four bytes", () => {
    fc.assert(
      fc.property(payload, (data) => {
        const segment = Uint8Array.from([0x53, 0x41, 0x43, 0x4b, ...data]).subarray(0, 4);
        expect(looksLikeSack(segment)).toBe(false);
      }),
    );
  });
});
