/** What proves a node on a WebSocket, and what a proved node may say: against any text and any bytes. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { toBase64, toHex, utf8 } from "../../src/base/bytes.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { checkCompatReply, speaksFor } from "../../src/rendezvous/compat.ts";
import { encodeDiscover, encodePunchRequest, encodeRelayPrefix } from "../../src/wire/beacon.ts";
import { encodeProbe, encodeProbeAnswer, parseProbe, parseProbeAnswer } from "../../src/wire/beacon-probe.ts";
import {
  compatSignedText,
  encodeCompatChallenge,
  encodeCompatOk,
  encodeCompatReply,
  isCompatOk,
  parseCompatChallenge,
  parseCompatReply,
} from "../../src/wire/compat.ts";
import { nodeId } from "../../src/wire/ids.ts";

const crypto = new NodeCrypto();
const seed = new Uint8Array(32).fill(7);
const publicKey = crypto.ed25519PublicKey(seed);
const NODE = nodeId(42);
const store = { keyOf: (node: number) => (node === NODE ? publicKey : undefined) };
const parts = { store, crypto };

const nonces = fc.uint8Array({ minLength: 16, maxLength: 16 });
const node = fc.integer({ min: 1, max: 0xfffffffe }).map(nodeId);

function reply(nonce: string, changes: { node?: number; seed?: Uint8Array; key?: Uint8Array } = {}): string {
  const name = nodeId(changes.node ?? NODE);
  const signature = crypto.ed25519Sign(changes.seed ?? seed, utf8(compatSignedText(name, nonce)));
  return encodeCompatReply({ node: name, publicKey: changes.key ?? publicKey, signature });
}

describe("the texts that open a compat connection", () => {
  it("come back as they were encoded", () => {
    fc.assert(
      fc.property(nonces, node, fc.uint8Array({ minLength: 64, maxLength: 64 }), (nonce, name, signature) => {
        expect(parseCompatChallenge(encodeCompatChallenge(nonce))).toBe(toHex(nonce));
        expect(parseCompatReply(encodeCompatReply({ node: name, publicKey, signature }))).toEqual({
          node: name,
          publicKey,
          signature,
        });
      }),
    );
    expect(isCompatOk(encodeCompatOk())).toBe(true);
  });

  it("are the documented ones, byte for byte", () => {
    expect(encodeCompatChallenge(new Uint8Array(16).fill(0xab))).toBe(
      `{"type":"auth_challenge","nonce":"${"ab".repeat(16)}"}`,
    );
    expect(compatSignedText(NODE, "00ff")).toBe("compat_auth:42:00ff");
    const text = encodeCompatReply({ node: NODE, publicKey, signature: new Uint8Array(64) });
    expect(text).toBe(
      `{"type":"auth_reply","node_id":42,"public_key":"${toBase64(publicKey)}","sig":"${toBase64(new Uint8Array(64))}"}`,
    );
  });

  it("never throw on any text, and are refused when they are of another type", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json(), fc.string({ minLength: 1000, maxLength: 2000 })), (text) => {
        expect(parseCompatChallenge(text)).toBeUndefined();
        expect(parseCompatReply(text)).toBeUndefined();
        expect(isCompatOk(text)).toBe(false);
        expect(checkCompatReply(text, "00", parts)).toEqual({ refused: "malformed" });
      }),
    );
    expect(parseCompatReply(encodeCompatOk())).toBeUndefined();
    expect(isCompatOk(encodeCompatChallenge(new Uint8Array(16)))).toBe(false);
  });
});

describe("who may speak to the beacon over a connection", () => {
  it("is the node whose registered key signed this connection's challenge", () => {
    fc.assert(
      fc.property(nonces, (nonce) => {
        expect(checkCompatReply(reply(toHex(nonce)), toHex(nonce), parts)).toEqual({ node: NODE });
      }),
      { numRuns: 20 },
    );
  });

  it("is nobody with another challenge, number, key or signature", () => {
    const nonce = "11".repeat(16);
    const other = new Uint8Array(32).fill(8);
    expect(checkCompatReply(reply("22".repeat(16)), nonce, parts)).toEqual({ refused: "bad-signature" });
    expect(checkCompatReply(reply(nonce, { seed: other }), nonce, parts)).toEqual({ refused: "bad-signature" });
    expect(checkCompatReply(reply(nonce, { node: 43 }), nonce, parts)).toEqual({ refused: "unknown-key" });
    const stranger = { seed: other, key: crypto.ed25519PublicKey(other) };
    expect(checkCompatReply(reply(nonce, stranger), nonce, parts)).toEqual({ refused: "unknown-key" });
  });

  it("speaks in its own name alone", () => {
    const own = [encodeDiscover(NODE, true), encodeDiscover(nodeId(0), false), encodePunchRequest(NODE, nodeId(9))];
    for (const datagram of [...own, encodeRelayPrefix(NODE, nodeId(9))]) expect(speaksFor(NODE, datagram)).toBe(true);
    fc.assert(
      fc.property(
        node.filter((name) => name !== NODE),
        (name) => {
          expect(speaksFor(NODE, encodeDiscover(name, false))).toBe(false);
          expect(speaksFor(NODE, encodePunchRequest(name, NODE))).toBe(false);
          expect(speaksFor(NODE, encodeRelayPrefix(name, NODE))).toBe(false);
        },
      ),
    );
  });

  it("never throws on any bytes", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => typeof speaksFor(NODE, bytes) === "boolean"));
  });
});

describe("beacon probes", () => {
  const token = fc.uint8Array({ minLength: 8, maxLength: 8 });
  const endpoint = fc.record({
    address: fc.constantFrom("192.0.2.7", "2001:db8::7"),
    port: fc.integer({ min: 1, max: 65_535 }),
  });
  const other = fc.option(
    fc.record({
      address: fc.constantFrom(undefined, "192.0.2.9", "2001:db8::9"),
      port: fc.integer({ min: 1, max: 65_535 }),
    }),
    { nil: undefined },
  );

  it("come back as they were encoded, and no answer is longer than its question", () => {
    fc.assert(
      fc.property(fc.boolean(), token, endpoint, other, (fromOther, tokenBytes, observed, second) => {
        const request = { fromOther, token: tokenBytes };
        const question = encodeProbe(request);
        expect(parseProbe(question)).toEqual(request);
        const answer = encodeProbeAnswer({ ...request, observed, other: second })!;
        expect(parseProbeAnswer(answer)).toEqual({ ...request, observed, other: second });
        expect(answer.length).toBeLessThanOrEqual(question.length);
      }),
    );
  });

  it("never throw on any bytes, cut ones included", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.constantFrom(0x0c, 0x0d), (bytes, type) => {
        bytes[0] = type;
        parseProbe(bytes);
        const answer = parseProbeAnswer(bytes);
        if (answer !== undefined) expect(bytes.length).toBeGreaterThanOrEqual(20);
      }),
    );
  });
});
