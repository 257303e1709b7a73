/**
 * The cryptography the pure middle asks for, as a port: `io/node-crypto.ts` answers with OpenSSL (constant time, ten
 * times faster), `tunnel/portable-crypto.ts` with @noble (tests, and an oracle for the other).
 * All keys and signatures are raw bytes: X25519 32, Ed25519 seed 32, public 32, signature 64.
 */
export interface Crypto {
  randomBytes(length: number): Uint8Array;
  sha256(message: Uint8Array): Uint8Array;
  /** HKDF-SHA-256 (RFC 5869); the salt is empty unless given. */
  hkdfSha256(secret: Uint8Array, info: Uint8Array, lengthBytes: number, salt?: Uint8Array): Uint8Array;
  /** AES-256-GCM: the ciphertext and behind it the tag of 16 bytes. Key 32 bytes, nonce 12. */
  sealAesGcm(key: Uint8Array, nonce: Uint8Array, additional: Uint8Array, plaintext: Uint8Array): Uint8Array;
  /** Undefined for a wrong tag, and for bytes that are too short to have one. */
  openAesGcm(key: Uint8Array, nonce: Uint8Array, additional: Uint8Array, sealed: Uint8Array): Uint8Array | undefined;
  x25519KeyPair(): KeyPair;
  /** The raw shared secret (RFC 7748); undefined when it is all zero, that is, for a low-order public key. */
  x25519(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined;
  /** The X25519 private key that belongs to an Ed25519 seed (RFC 8032 §5.1.5, steps 1 and 2); a copy, to be wiped. */
  x25519OfSeed(seed: Uint8Array): Uint8Array;
  /** The X25519 public key that belongs to an Ed25519 one (RFC 7748 §4.1); undefined for bytes of another length. */
  x25519OfIdentity(identityKey: Uint8Array): Uint8Array | undefined;
  ed25519PublicKey(seed: Uint8Array): Uint8Array;
  ed25519Sign(seed: Uint8Array, message: Uint8Array): Uint8Array;
  /** False for a wrong signature and for bytes that are no key or no signature. */
  ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
}

export interface KeyPair {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}
