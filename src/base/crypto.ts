/**
 * The cryptography the pure middle asks for, as a port: `io/node-crypto.ts` answers with OpenSSL (constant time, ten
 * times faster), `tunnel/portable-crypto.ts` with @noble (tests, and an oracle for the other).
 * All keys and signatures are raw bytes: X25519 32, Ed25519 seed 32, public 32, signature 64.
 */
export interface Crypto {
  randomBytes(length: number): Uint8Array;
  sha256(message: Uint8Array): Uint8Array;
  /** HKDF-SHA-256 (RFC 5869) with an empty salt. */
  hkdfSha256(secret: Uint8Array, info: Uint8Array, lengthBytes: number): Uint8Array;
  x25519KeyPair(): KeyPair;
  /** The raw shared secret (RFC 7748); undefined when it is all zero, that is, for a low-order public key. */
  x25519(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined;
  ed25519PublicKey(seed: Uint8Array): Uint8Array;
  ed25519Sign(seed: Uint8Array, message: Uint8Array): Uint8Array;
  /** False for a wrong signature and for bytes that are no key or no signature. */
  ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
}

export interface KeyPair {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}
