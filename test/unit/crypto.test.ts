import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fromHex, toHex, utf8 } from "../../src/base/bytes.ts";
import type { Crypto } from "../../src/base/crypto.ts";
import { nativeShim } from "../../src/io/native.ts";
import { NodeCrypto, OpenSslEd25519 } from "../../src/io/node-crypto.ts";
import { PortableCrypto } from "../../src/tunnel/portable-crypto.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const hex = (text: string) => fromHex(text.replaceAll(/\s/g, ""))!;
const node = new NodeCrypto();
const portable = new PortableCrypto(seededBytes(7));
const both: [string, Crypto][] = [
  ["OpenSSL", node],
  ["@noble", portable],
];

describe.each(both)("%s", (_name, crypto) => {
  test("SHA-256 of FIPS 180-4's example", () => {
    expect(toHex(crypto.sha256(utf8("abc")))).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  });

  test("HKDF with an empty salt gives RFC 5869 test case 3", () => {
    const okm = crypto.hkdfSha256(new Uint8Array(22).fill(0x0b), new Uint8Array(0), 42);
    expect(toHex(okm)).toBe("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
  });

  test("HKDF with a salt gives RFC 5869 test case 1", () => {
    const salt = hex("000102030405060708090a0b0c");
    const okm = crypto.hkdfSha256(new Uint8Array(22).fill(0x0b), hex("f0f1f2f3f4f5f6f7f8f9"), 42, salt);
    expect(toHex(okm)).toBe("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
  });

  test("AES-256-GCM gives test cases 13 and 14 of its specification, and opens nothing else", () => {
    const [key, nonce, none] = [new Uint8Array(32), new Uint8Array(12), new Uint8Array(0)];
    expect(toHex(crypto.sealAesGcm(key, nonce, none, none))).toBe("530f8afbc74536b9a963b4f1c4cb738b");
    const sealed = crypto.sealAesGcm(key, nonce, none, new Uint8Array(16));
    expect(toHex(sealed)).toBe("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    expect(crypto.openAesGcm(key, nonce, none, sealed)).toEqual(new Uint8Array(16));
    expect(crypto.openAesGcm(key, nonce, utf8("more"), sealed)).toBeUndefined();
    expect(crypto.openAesGcm(key, nonce, none, sealed.subarray(1))).toBeUndefined();
    expect(crypto.openAesGcm(key, nonce, none, sealed.subarray(0, 15))).toBeUndefined();
  });

  test("an Ed25519 key has one X25519 key, whether the seed or the public key is asked", () => {
    for (const fill of [0, 1, 7, 255]) {
      const seed = new Uint8Array(32).fill(fill);
      const basePoint = new Uint8Array(32);
      basePoint[0] = 9;
      const fromSeed = crypto.x25519(crypto.x25519OfSeed(seed), basePoint);
      expect(crypto.x25519OfIdentity(crypto.ed25519PublicKey(seed))).toEqual(fromSeed);
    }
    expect(crypto.x25519OfIdentity(new Uint8Array(31))).toBeUndefined();
  });

  test("X25519 gives the vectors of RFC 7748 §5.2 and §6.1", () => {
    const scalar = hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
    const point = hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
    expect(toHex(crypto.x25519(scalar, point)!)).toBe(
      "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    );
    const alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    const bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    const bobPublic = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    const alicePublic = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    const shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
    expect(toHex(crypto.x25519(alice, bobPublic)!)).toBe(shared);
    expect(toHex(crypto.x25519(bob, alicePublic)!)).toBe(shared);
  });

  test.each([
    ["zero", "00".repeat(32)],
    ["one", `01${"00".repeat(31)}`],
    ["order 8", "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"],
    ["p", `ed${"ff".repeat(30)}7f`],
  ])("X25519 with the low-order point %s has no secret", (_point, publicKey) => {
    expect(crypto.x25519(new Uint8Array(32).fill(5), hex(publicKey))).toBeUndefined();
  });

  test("X25519 with keys of another length has no secret", () => {
    expect(crypto.x25519(new Uint8Array(32).fill(5), new Uint8Array(31).fill(9))).toBeUndefined();
    expect(crypto.x25519(new Uint8Array(33).fill(5), new Uint8Array(32).fill(9))).toBeUndefined();
  });

  test("Ed25519 gives RFC 8032 §7.1 test 2", () => {
    const seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
    const publicKey = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const signature =
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    expect(toHex(crypto.ed25519PublicKey(seed))).toBe(publicKey);
    expect(toHex(crypto.ed25519Sign(seed, Uint8Array.of(0x72)))).toBe(signature);
    expect(crypto.ed25519Verify(hex(publicKey), Uint8Array.of(0x72), hex(signature))).toBe(true);
    expect(crypto.ed25519Verify(hex(publicKey), Uint8Array.of(0x73), hex(signature))).toBe(false);
  });

  test("a signature that anybody can make for a key of small order is refused", () => {
    // Under the neutral element every message has the signature R = 5B, S = 5.
    const neutral = hex(`01${"00".repeat(31)}`);
    const forged = hex(`edc876d6831fd2105d0b4389ca2e283166469289146e2ce06faefe98b22548df05${"00".repeat(31)}`);
    expect(crypto.ed25519Verify(neutral, utf8("anything"), forged)).toBe(false);
  });

  test("bytes that are no key or no signature do not verify", () => {
    const seed = new Uint8Array(32).fill(1);
    const signature = crypto.ed25519Sign(seed, utf8("m"));
    expect(crypto.ed25519Verify(new Uint8Array(32).fill(0xff), utf8("m"), signature)).toBe(false);
    expect(crypto.ed25519Verify(new Uint8Array(5), utf8("m"), signature)).toBe(false);
    expect(crypto.ed25519Verify(crypto.ed25519PublicKey(seed), utf8("m"), signature.subarray(1))).toBe(false);
    expect(crypto.ed25519Verify(crypto.ed25519PublicKey(seed), utf8("m"), new Uint8Array(64))).toBe(false);
  });

  test("a fresh key pair agrees with another one", () => {
    const ours = crypto.x25519KeyPair();
    const theirs = crypto.x25519KeyPair();
    expect(ours.privateKey).not.toEqual(theirs.privateKey);
    const secret = crypto.x25519(ours.privateKey, theirs.publicKey);
    expect(secret).toHaveLength(32);
    expect(crypto.x25519(theirs.privateKey, ours.publicKey)).toEqual(secret);
  });
});

const key32 = fc.uint8Array({ minLength: 32, maxLength: 32 });

describe("Ed25519 by libsodium, OpenSSL and @noble", () => {
  const openSsl = new OpenSslEd25519(4);
  const verdicts = (publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array) => ({
    sodium: nativeShim().ed25519Verify(publicKey, message, signature) === 1,
    openSsl: openSsl.verify(publicKey, message, signature),
    noble: portable.ed25519Verify(publicKey, message, signature),
  });
  const all = (verdict: boolean) => ({ sodium: verdict, openSsl: verdict, noble: verdict });

  test("a signature holds for all three, and for none with a bit of key, text or signature changed", () => {
    const change = fc.record({ of: fc.constantFrom(0, 1, 2), bit: fc.nat() });
    fc.assert(
      fc.property(key32, fc.uint8Array({ minLength: 1, maxLength: 300 }), change, (seed, message, { of, bit }) => {
        const signed = [node.ed25519PublicKey(seed), message, node.ed25519Sign(seed, message)] as const;
        expect(verdicts(...signed)).toEqual(all(true));
        const part = signed[of]!;
        part[(bit >> 3) % part.length]! ^= 1 << (bit & 7);
        expect(verdicts(...signed)).toEqual(all(false));
      }),
      { numRuns: 50 },
    );
  });

  test("the same signature with the group's order added to S is refused, so that none has two spellings", () => {
    const seed = new Uint8Array(32).fill(3);
    const [publicKey, signature] = [node.ed25519PublicKey(seed), node.ed25519Sign(seed, utf8("m"))];
    const order = hex("edd3f55c1a631258d69cf7a2def9de14000000000000000000000000000000" + "10");
    let carry = 0;
    for (let i = 0; i < 32; i++) {
      carry += signature[32 + i]! + order[i]!;
      signature[32 + i] = carry & 0xff;
      carry >>= 8;
    }
    expect(verdicts(publicKey, utf8("m"), signature)).toEqual(all(false));
  });

  test("a signature under the neutral element, which anybody can make, is refused by all", () => {
    const forged = hex(`edc876d6831fd2105d0b4389ca2e283166469289146e2ce06faefe98b22548df05${"00".repeat(31)}`);
    expect(verdicts(hex(`01${"00".repeat(31)}`), utf8("anything"), forged)).toEqual(all(false));
  });
});

test("OpenSSL and @noble agree on random input", () => {
  fc.assert(
    fc.property(key32, key32, fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 1, max: 100 }), (a, b, text, n) => {
      expect(node.sha256(text)).toEqual(portable.sha256(text));
      expect(node.hkdfSha256(a, text, n)).toEqual(portable.hkdfSha256(a, text, n));
      expect(node.hkdfSha256(a, text, n, b)).toEqual(portable.hkdfSha256(a, text, n, b));
      expect(node.x25519OfSeed(a)).toEqual(portable.x25519OfSeed(a));
      expect(node.x25519(a, b)).toEqual(portable.x25519(a, b));
      expect(node.ed25519PublicKey(a)).toEqual(portable.ed25519PublicKey(a));
      const signature = node.ed25519Sign(a, text);
      expect(portable.ed25519Sign(a, text)).toEqual(signature);
      expect(portable.ed25519Verify(node.ed25519PublicKey(a), text, signature)).toBe(true);
      expect(node.ed25519Verify(portable.ed25519PublicKey(a), text, signature)).toBe(true);
    }),
    { numRuns: 40 },
  );
});

test("the same seed gives the same portable key pair", () => {
  const first = new PortableCrypto(seededBytes(9)).x25519KeyPair();
  expect(new PortableCrypto(seededBytes(9)).x25519KeyPair()).toEqual(first);
  expect(new PortableCrypto(seededBytes(10)).x25519KeyPair()).not.toEqual(first);
});
