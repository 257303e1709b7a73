/**
 * Makes a simulated node speak the keys of February 2026 only (generation G1, pilot protocol §3.4): the tunnel key is a plain
 * hash and frames authenticate no sender. Written from the protocol's description, apart from the code that supports it.
 */
import { concatBytes, utf8 } from "../../src/base/bytes.ts";
import type { Crypto, KeyPair } from "../../src/base/crypto.ts";
import type { KeySpec } from "../../src/tunnel/data-plane.ts";
import { PortableDataPlane } from "../../src/tunnel/portable-data-plane.ts";

export class OlderDataPlane extends PortableDataPlane {
  override installKey(slot: number, spec: KeySpec): void {
    super.installKey(slot, { ...spec, bindSender: false });
  }
}

export function olderCrypto(crypto: Crypto): Crypto {
  return {
    randomBytes: (length): Uint8Array => crypto.randomBytes(length),
    sha256: (message): Uint8Array => crypto.sha256(message),
    hkdfSha256: (secret, info): Uint8Array => crypto.sha256(concatBytes(info, utf8(":"), secret)),
    sealAesGcm: (...sealed): Uint8Array => crypto.sealAesGcm(...sealed),
    openAesGcm: (...sealed): Uint8Array | undefined => crypto.openAesGcm(...sealed),
    x25519OfSeed: (seed): Uint8Array => crypto.x25519OfSeed(seed),
    x25519OfIdentity: (key): Uint8Array | undefined => crypto.x25519OfIdentity(key),
    x25519KeyPair: (): KeyPair => crypto.x25519KeyPair(),
    x25519: (own, theirs): Uint8Array | undefined => crypto.x25519(own, theirs),
    ed25519PublicKey: (seed): Uint8Array => crypto.ed25519PublicKey(seed),
    ed25519Sign: (seed, message): Uint8Array => crypto.ed25519Sign(seed, message),
    ed25519Verify: (key, message, signature): boolean => crypto.ed25519Verify(key, message, signature),
  };
}
