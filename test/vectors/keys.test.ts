import { describe, expect, test } from "vitest";
import { concatBytes, fromHex, toHex, utf8 } from "../../src/base/bytes.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { PortableCrypto } from "../../src/tunnel/portable-crypto.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";
import frames from "./frames.json" with { type: "json" };

const { keys } = frames;
const hex = (text: string) => fromHex(text)!;

describe.each([
  ["OpenSSL", new NodeCrypto()],
  ["@noble", new PortableCrypto(seededBytes(1))],
])("keys of the reference with %s", (_name, crypto) => {
  test("an Ed25519 public key follows from its seed", () => {
    expect(toHex(crypto.ed25519PublicKey(hex(keys.ed25519_seed_a)))).toBe(keys.ed25519_pub_a);
    expect(toHex(crypto.ed25519PublicKey(hex(keys.ed25519_seed_b)))).toBe(keys.ed25519_pub_b);
  });

  test("both sides agree on the X25519 secret of the reference", () => {
    const atA = crypto.x25519(hex(keys.x25519_priv_a), hex(keys.x25519_pub_b))!;
    const atB = crypto.x25519(hex(keys.x25519_priv_b), hex(keys.x25519_pub_a))!;
    expect(toHex(atA)).toBe(keys.x25519_shared);
    expect(toHex(atB)).toBe(keys.x25519_shared);
  });

  test("the secret gives the tunnel keys of both generations", () => {
    const secret = hex(keys.x25519_shared);
    expect(toHex(crypto.hkdfSha256(secret, utf8("pilot-tunnel-v1"), 32))).toBe(keys.tunnel_key_gen2_hkdf);
    expect(toHex(crypto.sha256(concatBytes(utf8("pilot-tunnel-v1:"), secret)))).toBe(keys.tunnel_key_gen1_sha256);
  });
});
