import fc from "fast-check";
import { expect, test } from "vitest";
import { concatBytes, toHex } from "../../src/base/bytes.ts";
import { instant, type WallClock } from "../../src/base/instant.ts";
import { BeaconClient } from "../../src/beacon/client.ts";
import { RegistryClient } from "../../src/registry/client.ts";
import { BeaconServer } from "../../src/rendezvous/beacon.ts";
import { Conversation } from "../../src/rendezvous/request-context.ts";
import { binaryRequest } from "../../src/rendezvous/request-frame.ts";
import {
  encodeDiscover,
  encodePunchRequest,
  encodeRelayPrefix,
  parseBeaconToNode,
  parseNodeToBeacon,
  relayToDelivery,
} from "../../src/wire/beacon.ts";
import { FrameDecoder } from "../../src/wire/frame-decoder.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { framed } from "../../src/wire/registry.ts";
import { parseBinaryRequest } from "../../src/wire/registry-binary.ts";
import {
  formatIp,
  ipScope,
  isUnicast,
  parseEndpoint,
  parseIp,
  splitHostPort,
} from "../../src/wire/underlay-address.ts";
import { Caller, crypto, RegistryLab } from "../helpers/registry-caller.ts";

const bytes = (maxLength: number) => fc.uint8Array({ maxLength });
const node = fc.integer({ min: 1, max: 0xfffffffe }).map(nodeId);
const withTypeByte = fc
  .tuple(fc.integer({ min: 0, max: 12 }), bytes(40))
  .map(([type, rest]) => Uint8Array.of(type, ...rest));

test("frames come out as they went in, however the stream is cut", () => {
  fc.assert(
    fc.property(fc.array(bytes(50), { maxLength: 10 }), fc.array(fc.integer({ min: 1, max: 30 })), (payloads, cuts) => {
      const stream = concatBytes(...payloads.map(framed));
      const decoder = new FrameDecoder(50);
      const seen: Uint8Array[] = [];
      let offset = 0;
      for (const cut of [...cuts, stream.length]) {
        decoder.push(stream.slice(offset, offset + cut));
        offset += cut;
        for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) seen.push(frame);
      }
      // Looked at only now: what was handed out is never written to again.
      expect(seen.map(toHex)).toEqual(payloads.map(toHex));
      expect([decoder.isBroken, decoder.bufferedBytes]).toEqual([false, 0]);
    }),
  );
});

test("a frame above the limit breaks the decoder for good, one at the limit does not", () => {
  const decoder = new FrameDecoder(10);
  decoder.push(framed(new Uint8Array(10)));
  expect(decoder.next()).toHaveLength(10);
  decoder.push(framed(new Uint8Array(11)));
  decoder.push(framed(new Uint8Array(1)));
  expect([decoder.next(), decoder.next(), decoder.isBroken, decoder.bufferedBytes]).toEqual([
    undefined,
    undefined,
    true,
    0,
  ]);
});

test("a decoder holds no more than has arrived", () => {
  const decoder = new FrameDecoder(4_000_000);
  decoder.push(Uint8Array.of(0, 0x3d, 0x09, 0, 1, 2, 3));
  expect([decoder.next(), decoder.bufferedBytes]).toEqual([undefined, 7]);
});

test("no bytes make a parser of beacon or binary registry messages throw", () => {
  fc.assert(
    fc.property(fc.oneof(bytes(60), withTypeByte), (datagram) => {
      parseBeaconToNode(datagram);
      parseNodeToBeacon(datagram);
      parseBinaryRequest(datagram);
    }),
    { numRuns: 2000 },
  );
});

test("what a node sends is what the beacon reads", () => {
  fc.assert(
    fc.property(node, node, fc.boolean(), (a, b, extended) => {
      expect(parseNodeToBeacon(encodeDiscover(a, extended))).toEqual({ kind: "discover", node: a, extended });
      expect(parseNodeToBeacon(encodePunchRequest(a, b))).toEqual({ kind: "punch-request", requester: a, target: b });
      expect(parseNodeToBeacon(encodeRelayPrefix(a, b))).toEqual({ kind: "relay", sender: a, destination: b });
    }),
  );
});

test("a relayed frame arrives whole, with its sender, in both forms", () => {
  fc.assert(
    fc.property(node, node, bytes(100), fc.boolean(), (sender, destination, frame, extended) => {
      const delivered = relayToDelivery(concatBytes(encodeRelayPrefix(sender, destination), frame), extended);
      expect(parseBeaconToNode(delivered)).toEqual({
        kind: "relay-deliver",
        sender,
        destination: extended ? destination : undefined,
        frame,
      });
    }),
  );
});

test("addresses survive text and bytes, and an IPv4-mapped one is the IPv4 one", () => {
  const address = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
  );
  fc.assert(
    fc.property(address, fc.integer({ min: 1, max: 65535 }), (raw, port) => {
      const text = formatIp(raw)!;
      expect(formatIp(parseIp(text)!)).toBe(text);
      expect(parseIp(text)).toEqual(raw);
      const host = text.includes(":") ? `[${text}]` : text;
      expect(parseEndpoint(`${host}:${port}`)).toEqual({ address: text, port });
      ipScope(raw);
    }),
  );
  expect(formatIp(parseIp("::ffff:192.0.2.1")!)).toBe("192.0.2.1");
});

test("no text makes an address parser throw", () => {
  const text = fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(..."0123456789abcdef:.[]%/") }), fc.ipV6());
  fc.assert(
    fc.property(text, (input) => {
      const parsed = parseIp(input);
      expect([undefined, 4, 16]).toContain(parsed?.length);
      splitHostPort(input);
      isUnicast({ address: input, port: 1 });
      parseEndpoint(`${input}:1`);
    }),
    { numRuns: 3000 },
  );
});

const FIELDS = ["node_id", "peer_id", "requester_id", "from_node_id", "to_node_id", "signature", "public_key"];
const TYPES = ["register", "heartbeat", "lookup", "resolve", "resolve_hostname", "report_trust", "revoke_trust"].concat(
  ["check_trust", "request_handshake", "poll_handshakes", "respond_handshake", "set_hostname", "set_tags", "punch"],
  ["set_visibility", "rotate_key", "deregister", "list_networks", "list_nodes", "beacon_register", "beacon_list"],
);
const odd = fc.oneof(fc.jsonValue(), fc.constantFrom(1, 2, 0, -1, 1e308, "", "AAAA", "0.0.0.0:1", null, [], {}));

test("no request makes the registry throw, and every one gets a reply of the protocol", () => {
  const lab = new RegistryLab();
  lab.join(1);
  lab.join(2, { public: true });
  const names = [...FIELDS, "listen_addr", "hostname", "lan_addrs", "accept", "tags", "justification", "network_id"];
  const fields = fc.dictionary(fc.constantFrom(...names, "node_a", "node_b", "addr", "beacon_id"), odd);
  fc.assert(
    fc.property(fc.constantFrom(...TYPES), fields, (type, rest) => {
      const reply = lab.ask({ type, ...rest });
      expect([`${type}_ok`, "error"]).toContain(reply["type"]);
    }),
    { numRuns: 3000 },
  );
  fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (text) => void lab.ask(text)));
});

test("no request with a bad signature changes what the registry knows", () => {
  const lab = new RegistryLab();
  const [a, b] = [lab.join(1, { hostname: "alpha" }), lab.join(2)];
  a.reportTrust(b);
  b.reportTrust(a);
  const mallory = new Caller(lab, 3);
  const facts = () => JSON.stringify([lab.store.nodeById(a.node), lab.store.nodeById(b.node), lab.store.inbox(b.node)]);
  const before = facts();
  const signed = TYPES.filter((type) => type !== "register");
  fc.assert(
    fc.property(
      fc.constantFrom(...signed),
      fc.dictionary(fc.constantFrom("hostname", "public", "accept"), odd),
      (type, rest) => {
        const request = { type, node_id: 1, peer_id: 2, from_node_id: 1, to_node_id: 2, requester_id: 1, ...rest };
        lab.ask({ ...request, new_public_key: mallory.key, signature: mallory.sign(`${type}:1`) });
        lab.ask({ ...request, new_public_key: mallory.key });
        expect(facts()).toBe(before);
        expect(lab.ask({ type: "check_trust", node_id: 1, peer_id: 2 })["trusted"]).toBe(true);
      },
    ),
    { numRuns: 300 },
  );
});

test("no binary request makes the registry throw", () => {
  const lab = new RegistryLab();
  lab.join(1, { public: true });
  const conversation = new Conversation("198.51.100.1");
  fc.assert(
    fc.property(withTypeByte, (payload) => {
      const reply = lab.server.handleFrame(binaryRequest(payload), conversation, instant(2000), 1e12 as WallClock);
      expect(reply.length).toBeGreaterThan(4);
    }),
  );
});

test("no datagram makes a beacon throw or answer with much more than it got", () => {
  const beacon = new BeaconServer();
  const sources = [1, 2, 3].map((i) => ({ address: `198.51.100.${i}`, port: 4000 }));
  fc.assert(
    fc.property(
      withTypeByte,
      fc.constantFrom(...sources),
      fc.integer({ min: 0, max: 1e7 }),
      (datagram, source, now) => {
        const length = datagram.length;
        const sent = beacon.handleDatagram(datagram, source, instant(now));
        expect(sent.reduce((total, { bytes }) => total + bytes.length, 0)).toBeLessThanOrEqual(2 * length);
        expect(sent.length).toBeLessThanOrEqual(2);
      },
    ),
    { numRuns: 3000 },
  );
});

test("no reply makes a registry client throw or ask without end", () => {
  const reply = fc.oneof(
    fc.string(),
    fc.json(),
    fc
      .tuple(
        fc.constantFrom(...TYPES.map((type) => `${type}_ok`), "error"),
        fc.dictionary(fc.constantFrom(...FIELDS), odd),
      )
      .map(([type, rest]) => JSON.stringify({ type, ...rest })),
    fc.constant('{"type":"register_ok","node_id":1}'),
  );
  fc.assert(
    fc.property(fc.array(reply, { maxLength: 30 }), (replies) => {
      const seed = new Uint8Array(32).fill(1);
      const identity = { seed, publicKey: crypto.ed25519PublicKey(seed) };
      const client = new RegistryClient({ crypto, identity, listen: { port: 1, lan: [] }, isPublic: false });
      let now = instant(0);
      client.handleConnected(now);
      client.resolve(nodeId(2));
      client.lookup(nodeId(2));
      client.reportTrust(nodeId(2));
      for (const text of replies) {
        client.pollRequest();
        client.handleReply(text, now);
        while (client.pollEvent() !== undefined);
        if (client.wantsDisconnect) client.handleConnected(now);
        now = instant(client.pollTimeout()!.at);
        client.handleTimeout(now);
      }
    }),
    { numRuns: 500 },
  );
});

test("no datagram makes a beacon client throw", () => {
  const client = new BeaconClient(nodeId(1), instant(0));
  fc.assert(
    fc.property(withTypeByte, (datagram) => {
      client.handleDatagram(datagram, instant(1));
      while (client.pollEvent() !== undefined);
    }),
  );
});
