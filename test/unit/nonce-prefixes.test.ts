/** A nonce that comes twice under one key gives away what was sealed with it: who may hand out which. */
import { describe, expect, it } from "vitest";
import { PortableCrypto } from "../../src/tunnel/portable-crypto.ts";
import { NoncePrefixes } from "../../src/tunnel/session.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const peerKey = (fill: number) => new Uint8Array(32).fill(fill);
const nonces = (seed = 1) => new NoncePrefixes(new PortableCrypto(seededBytes(seed)));

describe("nonces under one pair of keys", () => {
  it("go on where they stopped when the session was given up and made again", () => {
    const prefixes = nonces();
    const first = prefixes.claim("current", peerKey(1), false)!;
    prefixes.release("current", peerKey(1), first.counter + 500);
    expect(prefixes.claim("current", peerKey(1), false)).toEqual({ ...first, counter: first.counter + 500 });
  });

  it("are counted apart for each generation", () => {
    const prefixes = nonces();
    const first = prefixes.claim("current", peerKey(1), false)!;
    prefixes.release("legacy", peerKey(1), 1_000); // was never claimed
    prefixes.release("current", peerKey(1), first.counter + 7);
    expect(prefixes.claim("legacy", peerKey(1), false)!.counter).toBe(first.counter);
    expect(prefixes.claim("current", peerKey(1), false)!.counter).toBe(first.counter + 7);
  });

  it("come from different halves at the two ends", () => {
    for (let seed = 1; seed <= 32; seed++) {
      expect(nonces(seed).claim("current", peerKey(1), true)!.prefix[0]! & 0x80).toBe(0x80);
      expect(nonces(seed).claim("current", peerKey(1), false)!.prefix[0]! & 0x80).toBe(0);
    }
  });
});

it("counters under a later key of the peer begin far above all that an earlier one can have reached", () => {
  const prefixes = nonces();
  const [first, second] = [1, 2].map((fill) => prefixes.claim("current", peerKey(fill), false)!);
  expect(first!.counter).toBe(1); // windows of the reference do not pass 0
  expect(second!.counter - first!.counter).toBeGreaterThanOrEqual(2 ** 42);
});

it("a peer that shows more keys than one life of ours can need gets no nonce for them, and loses none it had", () => {
  const prefixes = nonces();
  const key = (number: number) => {
    const bytes = new Uint8Array(32);
    new DataView(bytes.buffer).setUint32(0, number);
    return bytes;
  };
  for (let number = 0; number < 1_024; number++) {
    expect(Number.isSafeInteger(prefixes.claim("current", key(number), false)!.counter)).toBe(true);
  }
  expect(prefixes.claim("current", key(1_024), false)).toBeUndefined();
  expect(prefixes.claim("current", key(0), false)).toBeDefined();
});
