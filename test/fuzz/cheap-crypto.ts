/**
 * `Crypto` for fuzzing whole conversations: the same contract, a thousand times cheaper, and no secret at all. What one
 * side signs the other verifies, both sides of an exchange derive the same key, and nothing else verifies.
 */
import type { Crypto } from "../../src/base/crypto.ts";
import { PortableCrypto } from "../../src/tunnel/portable-crypto.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

export function cheapCrypto(seed = 1): Crypto {
  const randomBytes = seededBytes(seed);
  const real = new PortableCrypto(randomBytes);
  return {
    randomBytes,
    sha256: (message) => digest(32, message),
    hkdfSha256: (secret, info, lengthBytes, salt) => digest(lengthBytes, secret, info, salt ?? NO_SALT),
    sealAesGcm: (...parts) => real.sealAesGcm(...parts),
    openAesGcm: (...parts) => real.openAesGcm(...parts),
    x25519KeyPair: () => {
      const privateKey = randomBytes(32);
      return { privateKey, publicKey: mixed(privateKey) };
    },
    x25519: (privateKey, publicKey) => {
      if (publicKey.every((byte) => byte === 0)) return undefined;
      const own = mixed(privateKey);
      return publicKey.map((byte, i) => byte ^ own[i]!);
    },
    x25519OfSeed: (seedOfKey) => mixed(digest(32, seedOfKey, KEY)),
    x25519OfIdentity: (identityKey) => (identityKey.length === 32 ? identityKey.slice() : undefined),
    ed25519PublicKey: (seedOfKey) => digest(32, seedOfKey, KEY),
    ed25519Sign: (seedOfKey, message) => digest(64, digest(32, seedOfKey, KEY), message),
    ed25519Verify: (publicKey, message, signature) => {
      const right = digest(64, publicKey, message);
      return signature.length === 64 && signature.every((byte, i) => byte === right[i]);
    },
  };
}

function mixed(privateKey: Uint8Array): Uint8Array {
  return privateKey.map((byte) => byte ^ 0x5a);
}

/** FNV-1a over all parts, drawn out to `length` bytes: different for different messages, as far as a fuzzer can see. */
function digest(length: number, ...parts: readonly Uint8Array[]): Uint8Array {
  let hash = 0x811c9dc5;
  for (const part of parts) {
    for (const byte of part) hash = Math.imul(hash ^ byte, 0x01000193);
    hash = Math.imul(hash ^ part.length, 0x01000193);
  }
  return seededBytes(hash >>> 0)(length);
}

const NO_SALT = new Uint8Array(0);
const KEY = new Uint8Array([1]);
