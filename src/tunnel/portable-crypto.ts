/**
 * `Crypto` in plain JavaScript (@noble): for tests, the simulated network, and as an oracle for the OpenSSL one.
 * Randomness is passed in, so that a run can be repeated.
 */
import { gcm } from "@noble/ciphers/aes.js";
import { ed25519, x25519 } from "@noble/curves/ed25519.js";
import { hkdf } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import type { Crypto, KeyPair } from "../base/crypto.ts";

export class PortableCrypto implements Crypto {
  readonly #randomBytes: (length: number) => Uint8Array;

  constructor(randomBytes: (length: number) => Uint8Array) {
    this.#randomBytes = randomBytes;
  }

  randomBytes(length: number): Uint8Array {
    return this.#randomBytes(length);
  }

  sha256(message: Uint8Array): Uint8Array {
    return sha256(message);
  }

  hkdfSha256(secret: Uint8Array, info: Uint8Array, lengthBytes: number, salt?: Uint8Array): Uint8Array {
    return hkdf(sha256, secret, salt, info, lengthBytes);
  }

  sealAesGcm(key: Uint8Array, nonce: Uint8Array, additional: Uint8Array, plaintext: Uint8Array): Uint8Array {
    return gcm(key, nonce, additional).encrypt(plaintext);
  }

  openAesGcm(key: Uint8Array, nonce: Uint8Array, additional: Uint8Array, sealed: Uint8Array): Uint8Array | undefined {
    try {
      return gcm(key, nonce, additional).decrypt(sealed);
    } catch {
      return undefined; // a wrong tag, or too few bytes for one
    }
  }

  x25519KeyPair(): KeyPair {
    const privateKey = this.#randomBytes(32);
    return { privateKey, publicKey: x25519.getPublicKey(privateKey) };
  }

  x25519(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined {
    try {
      return x25519.getSharedSecret(privateKey, publicKey);
    } catch {
      return undefined; // an all-zero secret, or bytes of another length
    }
  }

  x25519OfSeed(seed: Uint8Array): Uint8Array {
    return ed25519.utils.toMontgomerySecret(seed);
  }

  x25519OfIdentity(identityKey: Uint8Array): Uint8Array | undefined {
    if (identityKey.length !== 32) return undefined;
    try {
      return ed25519.utils.toMontgomery(identityKey);
    } catch {
      return new Uint8Array(32); // y = 1, of which RFC 7748 says nothing: with what that maps to nobody shares anything
    }
  }

  ed25519PublicKey(seed: Uint8Array): Uint8Array {
    return ed25519.getPublicKey(seed);
  }

  ed25519Sign(seed: Uint8Array, message: Uint8Array): Uint8Array {
    return ed25519.sign(message, seed);
  }

  ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    if (publicKey.length !== 32 || signature.length !== 64) return false;
    try {
      // RFC 8032 and not ZIP 215: only canonical encodings, no key of small order.
      return ed25519.verify(signature, message, publicKey, { zip215: false });
    } catch {
      return false; // a public key that is no point
    }
  }
}
