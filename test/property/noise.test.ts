/** The handshake against everything that is not the peer's next message. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { utf8 } from "../../src/base/bytes.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { NoiseHandshake, type NoiseParts } from "../../src/tunnel/noise.ts";

const crypto = new NodeCrypto();
const NOTHING = new Uint8Array(0);
const PROLOGUE = utf8("these two, here");
const [A, B, C] = [crypto.x25519KeyPair(), crypto.x25519KeyPair(), crypto.x25519KeyPair()];

function side(role: NoiseParts["role"], overrides: Partial<NoiseParts> = {}): NoiseHandshake {
  const [s, rs] = role === "initiator" ? [A, B.publicKey] : [B, A.publicKey];
  return new NoiseHandshake(crypto, { role, prologue: PROLOGUE, s, rs, ...overrides });
}

function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const copy = bytes.slice();
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
}

/** Bit 255 of an X25519 key is no part of the number (RFC 7748 §5), yet it is hashed: flipped, it must fail all the same. */
const BITS = 48 * 8;

describe("a handshake", () => {
  test("gives both sides the same keys, one for each direction, after one wrong message after the other", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 5 }), (noise) => {
        const [a, b] = [side("initiator"), side("responder")];
        const first = a.writeMessage(NOTHING)!;
        for (const bytes of noise) expect(b.readMessage(bytes)).toBeUndefined();
        expect(b.readMessage(first)).toEqual(NOTHING);
        const second = b.writeMessage(NOTHING)!;
        for (const bytes of noise) expect(a.readMessage(bytes)).toBeUndefined();
        expect(a.readMessage(second)).toEqual(NOTHING);
        const [atA, atB] = [a.split()!, b.split()!];
        expect(atA.send).toEqual(atB.receive);
        expect(atA.receive).toEqual(atB.send);
        expect(atA.handshakeHash).toEqual(atB.handshakeHash);
        expect(atA.send).not.toEqual(atA.receive);
      }),
      { numRuns: 20 },
    );
  });

  test("refuses a message with any bit changed, and takes the right one afterwards", () => {
    fc.assert(
      fc.property(fc.nat(BITS - 1), fc.nat(BITS - 1), (one, other) => {
        const [a, b] = [side("initiator"), side("responder")];
        const first = a.writeMessage(NOTHING)!;
        expect(b.readMessage(flipped(first, one))).toBeUndefined();
        expect(b.readMessage(first)).toEqual(NOTHING);
        const second = b.writeMessage(NOTHING)!;
        expect(a.readMessage(flipped(second, other))).toBeUndefined();
        expect(a.readMessage(second)).toEqual(NOTHING);
      }),
      { numRuns: 60 },
    );
  });

  test.each([
    ["another prologue", { prologue: utf8("these two, there") }],
    ["another peer's key", { rs: C.publicKey }],
    ["another own key", { s: C }],
  ])("with %s opens nothing", (_what, overrides) => {
    const first = side("initiator").writeMessage(NOTHING)!;
    expect(side("responder", overrides).readMessage(first)).toBeUndefined();
  });

  test("with a peer's key of low order says nothing", () => {
    expect(side("initiator", { rs: new Uint8Array(32) }).writeMessage(NOTHING)).toBeUndefined();
  });

  test("speaks in turn, and splits at the end only", () => {
    const [a, b] = [side("initiator"), side("responder")];
    expect(b.writeMessage(NOTHING)).toBeUndefined();
    expect(a.readMessage(new Uint8Array(48))).toBeUndefined();
    const first = a.writeMessage(NOTHING)!;
    expect(a.writeMessage(NOTHING)).toBeUndefined();
    expect(a.split()).toBeUndefined();
    b.readMessage(first);
    expect(b.readMessage(first)).toBeUndefined();
    b.writeMessage(NOTHING);
    expect(b.split()).toBeDefined();
    expect(b.split()).toBeUndefined();
    expect(b.readMessage(first)).toBeUndefined();
  });

  test("who knows all static keys and heard every message does not know the keys", () => {
    const [a, b] = [side("initiator"), side("responder")];
    const first = a.writeMessage(NOTHING)!;
    b.readMessage(first);
    const second = b.writeMessage(NOTHING)!;
    const thief = side("responder"); // with b's key, and so a's messages open
    expect(thief.readMessage(first)).toEqual(NOTHING);
    const own = thief.writeMessage(NOTHING)!;
    a.readMessage(second);
    const [atA, atThief] = [a.split()!, thief.split()!];
    expect(own).not.toEqual(second);
    expect(atThief.send).not.toEqual(atA.receive);
    expect(atThief.receive).not.toEqual(atA.send);
  });
});
