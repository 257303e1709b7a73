import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { fromHex, toHex, utf8 } from "../../src/base/bytes.ts";
import {
  formatPilotAddress,
  formatSocketAddress,
  isBroadcast,
  isUnspecified,
  parsePilotAddress,
  parseSocketAddress,
  readPilotAddress,
  writePilotAddress,
} from "../../src/wire/address.ts";
import {
  classifyDatagram,
  encodePila,
  encodePilk,
  encodePilp,
  encodePilsHeader,
  MAGIC_BYTES,
  parsePila,
  parsePilk,
  parsePils,
  pilaSignatureInput,
} from "../../src/wire/frame.ts";
import { encodeHandshake, handshakeSignedText, parseHandshake } from "../../src/wire/handshake.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { encodeSack, looksLikeSack, parseSack } from "../../src/wire/stream-sack.ts";
import { encodeVirtualPacket, parseVirtualPacket, type VirtualPacket } from "../../src/wire/virtual-packet.ts";

const ED25519_SPKI_HEADER = "302a300506032b6570032100";

function load<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(name, import.meta.url), "utf8")) as T;
}

function bytes(hex: string): Uint8Array {
  return fromHex(hex)!;
}

function verifies(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  const der = Buffer.concat([Buffer.from(ED25519_SPKI_HEADER, "hex"), publicKey]);
  return verify(null, message, createPublicKey({ key: der, format: "der", type: "spki" }), signature);
}

interface AddressVector {
  text: string;
  canonical: string;
  network: number;
  node: number;
  wire: string;
  broadcast: boolean;
  zero: boolean;
}

describe("addresses", () => {
  const vectors = load<{
    valid: AddressVector[];
    invalid: string[];
    socket_valid: { text: string; canonical: string; network: number; node: number; port: number }[];
    socket_invalid: string[];
  }>("addresses.json");

  it.each(vectors.valid)("$text is read, printed and written as the reference does", (vector) => {
    const parsed = parsePilotAddress(vector.text);
    const address = { network: networkId(vector.network), node: nodeId(vector.node) };
    expect(parsed).toEqual({ kind: "address", address });
    expect(formatPilotAddress(address)).toBe(vector.canonical);
    expect(isBroadcast(address)).toBe(vector.broadcast);
    expect(isUnspecified(address)).toBe(vector.zero);
    const wire = new Uint8Array(6);
    writePilotAddress(wire, 0, address);
    expect(toHex(wire)).toBe(vector.wire);
    expect(readPilotAddress(bytes(vector.wire), 0)).toEqual(address);
  });

  it.each(vectors.invalid)("%j is refused with a reason", (text) => {
    expect(parsePilotAddress(text)).toEqual({ kind: "invalid", reason: expect.stringMatching(/\S/) });
  });

  it.each(vectors.socket_valid)("socket address $text is read and printed", (vector) => {
    const address = { network: networkId(vector.network), node: nodeId(vector.node) };
    expect(parseSocketAddress(vector.text)).toEqual({ kind: "socket-address", address, port: vector.port });
    expect(formatSocketAddress({ address, port: vector.port })).toBe(vector.canonical);
  });

  it.each(vectors.socket_invalid)("socket address %j is refused", (text) => {
    expect(parseSocketAddress(text).kind).toBe("invalid");
  });
});

interface PacketVector {
  name: string;
  wire: string;
  flags: number;
  protocol: number;
  src: string;
  dst: string;
  src_port: number;
  dst_port: number;
  seq: number;
  ack: number;
  window: number;
  payload: string;
  checksum: string;
}

describe("virtual packets", () => {
  const vectors = load<{
    packets: PacketVector[];
    edgeCases: { name: string; wire: string; accepted: boolean }[];
  }>("packets.json");

  it.each(vectors.packets)("'$name' is read and written byte for byte", (vector) => {
    const packet = packetOf(vector);
    expect(parseVirtualPacket(bytes(vector.wire))).toEqual(packet);
    expect(toHex(encodeVirtualPacket(packet))).toBe(vector.wire);
    expect(vector.wire.slice(60, 68)).toBe(vector.checksum);
  });

  it.each(vectors.edgeCases)("'$name' is accepted or dropped as by the reference", (vector) => {
    expect(parseVirtualPacket(bytes(vector.wire)) !== undefined).toBe(vector.accepted);
  });

  function packetOf(vector: PacketVector): VirtualPacket {
    return {
      flags: vector.flags,
      protocol: vector.protocol,
      source: addressOf(vector.src),
      destination: addressOf(vector.dst),
      sourcePort: vector.src_port,
      destinationPort: vector.dst_port,
      sequence: vector.seq,
      acknowledgement: vector.ack,
      window: vector.window,
      payload: bytes(vector.payload),
    };
  }

  function addressOf(text: string) {
    const parsed = parsePilotAddress(text);
    if (parsed.kind === "invalid") throw new Error(parsed.reason);
    return parsed.address;
  }
});

describe("frames", () => {
  const vectors = load<{
    keys: Record<string, string>;
    pila: Record<string, string>;
    pilk: Record<string, string>;
    pilp: Record<string, string>;
    pilt: Record<string, string>;
    pils: { name: string; frame: string; sender_node: number; prefix: string; counter: string }[];
  }>("frames.json");

  it.each([
    { name: "a_node1", node: 1, key: "a" },
    { name: "b_node2", node: 2, key: "b" },
  ])("PILA $name is read and written, and its signature covers the 40 bytes", ({ name, node, key }) => {
    const frame = bytes(vectors.pila[name]!);
    expect(classifyDatagram(frame)).toBe("pila");
    const pila = parsePila(frame)!;
    expect(pila.sender).toBe(node);
    expect(toHex(pila.exchangeKey)).toBe(vectors.keys[`x25519_pub_${key}`]);
    expect(toHex(pila.identityKey)).toBe(vectors.keys[`ed25519_pub_${key}`]);
    expect(toHex(encodePila(pila))).toBe(vectors.pila[name]);
    const signed = pilaSignatureInput(pila.sender, pila.exchangeKey);
    expect(verifies(pila.identityKey, signed, pila.signature)).toBe(true);
  });

  it("the signed text of a PILA is the reference's", () => {
    const input = pilaSignatureInput(nodeId(1), bytes(vectors.keys["x25519_pub_a"]!));
    expect(toHex(input)).toBe(vectors.pila["a_signed_message"]);
  });

  it.each([
    ["a_node1_jf_caps0_response", "0002"],
    ["a_node1_jf_caps1", "01"],
    ["a_node1_jf_caps1_request", "0101"],
  ])("the trailer of %s is exposed and changes nothing else", (name, trailer) => {
    const plain = parsePila(bytes(vectors.pila["a_node1"]!))!;
    expect(parsePila(bytes(vectors.pila[name]!))).toEqual({ ...plain, trailer: bytes(trailer) });
  });

  it.each([
    { name: "a_node1", node: 1, key: "a" },
    { name: "b_node2", node: 2, key: "b" },
  ])("PILK $name is read and written", ({ name, node, key }) => {
    const frame = bytes(vectors.pilk[name]!);
    const pilk = { sender: nodeId(node), exchangeKey: bytes(vectors.keys[`x25519_pub_${key}`]!) };
    expect(classifyDatagram(frame)).toBe("pilk");
    expect(parsePilk(frame)).toEqual(pilk);
    expect(toHex(encodePilk(pilk))).toBe(vectors.pilk[name]);
  });

  it("PILP is sent as four bytes, and the longer documented form is recognised", () => {
    expect(toHex(encodePilp())).toBe(vectors.pilp["as_sent"]);
    expect(classifyDatagram(bytes(vectors.pilp["as_specified_node1"]!))).toBe("pilp");
  });

  it("PILT holds a virtual packet behind its magic", () => {
    const frame = bytes(vectors.pilt["plaintext_syn"]!);
    expect(classifyDatagram(frame)).toBe("pilt");
    expect(parseVirtualPacket(frame.subarray(MAGIC_BYTES))?.destinationPort).toBe(7);
  });

  it.each(vectors.pils)(
    "the parts of PILS '$name' are found and written",
    ({ frame, sender_node, prefix, counter }) => {
      const datagram = bytes(frame);
      expect(classifyDatagram(datagram)).toBe("pils");
      const pils = parsePils(datagram)!;
      expect(pils.sender).toBe(sender_node);
      expect(toHex(pils.nonce)).toBe(prefix + BigInt(counter).toString(16).padStart(16, "0"));
      expect(toHex(encodePilsHeader(pils)) + toHex(pils.sealed)).toBe(frame);
    },
  );
});

describe("selective acknowledgements", () => {
  interface Block {
    Left: number;
    Right: number;
  }
  const vectors = load<{
    encode: { in: Block[]; decoded: Block[]; wire: string }[];
    recognise: { payload: string; taken_as_sack: boolean }[];
  }>("sack.json");
  const blocks = (list: Block[]) => list.map(({ Left, Right }) => ({ left: Left, right: Right }));

  it.each(vectors.encode)("$wire is written and read", (vector) => {
    expect(toHex(encodeSack(blocks(vector.in))!)).toBe(vector.wire);
    expect(parseSack(bytes(vector.wire))).toEqual(blocks(vector.decoded));
  });

  it.each(vectors.recognise)("$payload is taken for one: $taken_as_sack", ({ payload, taken_as_sack }) => {
    expect(looksLikeSack(bytes(payload))).toBe(taken_as_sack);
    expect(parseSack(bytes(payload)) !== undefined).toBe(taken_as_sack);
  });
});

describe("trust messages", () => {
  const vectors =
    load<{ json: string; sha256_of_json: string; signed_text: string; from: number; to: number }[]>(
      "handshake-444.json",
    );

  it.each(vectors)("$json is read and written byte for byte", (vector) => {
    const message = parseHandshake(utf8(vector.json))!;
    expect(message.node).toBe(vector.from);
    const encoded = encodeHandshake(message);
    expect(new TextDecoder().decode(encoded)).toBe(vector.json);
    expect(createHash("sha256").update(encoded).digest("hex")).toBe(vector.sha256_of_json);
  });

  it.each(vectors)("the signature of $json covers its text", (vector) => {
    const message = parseHandshake(utf8(vector.json))!;
    const text = handshakeSignedText(message.node, nodeId(vector.to));
    expect(text).toBe(vector.signed_text);
    expect(verifies(message.publicKey, utf8(text), message.signature)).toBe(true);
  });
});

describe("recorded sessions", () => {
  interface Datagram {
    datagram: string;
    stream?: { flags: number; src_port: number; dst_port: number; seq: number; ack: number; window: number };
  }
  const sessions = Object.entries(load<Record<string, string | Datagram[]>>("session-transcripts.json")).filter(
    (entry): entry is [string, Datagram[]] => Array.isArray(entry[1]),
  );

  it.each(sessions)("every datagram of %s is classified, and every stream packet read", (_name, datagrams) => {
    expect(datagrams.length).toBeGreaterThan(10);
    for (const { datagram, stream } of datagrams) {
      const kind = classifyDatagram(bytes(datagram));
      expect(kind).toMatch(/^(beacon|pilp|pilt)$/);
      expect(kind === "pilt").toBe(stream !== undefined);
      if (stream === undefined) continue;
      expect(parseVirtualPacket(bytes(datagram).subarray(MAGIC_BYTES))).toMatchObject({
        flags: stream.flags,
        sourcePort: stream.src_port,
        destinationPort: stream.dst_port,
        sequence: stream.seq,
        acknowledgement: stream.ack,
        window: stream.window,
      });
    }
  });
});
