/**
 * Noise_KK_25519_AESGCM_SHA256 (The Noise Protocol Framework, revision 34): two sides that know each other's static key
 * agree on fresh ones in two messages.
 *
 *   -> s        <- s              known beforehand
 *   -> e, es, ss
 *   <- e, ee, se
 *
 * Names are the specification's. A message that is refused changes nothing, so that the right one may still come; what was
 * secret is overwritten as soon as it is of no more use.
 */
import { concatBytes, utf8, writeU32 } from "../base/bytes.ts";
import type { Crypto, KeyPair } from "../base/crypto.ts";

export interface NoiseParts {
  readonly role: "initiator" | "responder";
  /** Both sides' must be the same bytes, or no message opens. */
  readonly prologue: Uint8Array;
  /** Ours; copied. */
  readonly s: KeyPair;
  /** The peer's static key. */
  readonly rs: Uint8Array;
  /** Only for vectors: else drawn when it is needed. */
  readonly e?: KeyPair;
}

/** What `split` gives: a key for each direction, 32 bytes, and h, which names this handshake and no other. */
export interface NoiseKeys {
  readonly send: Uint8Array;
  readonly receive: Uint8Array;
  readonly handshakeHash: Uint8Array;
}

export class NoiseHandshake {
  readonly #crypto: Crypto;
  readonly #isInitiator: boolean;
  readonly #s: KeyPair;
  readonly #rs: Uint8Array;
  #e: KeyPair | undefined;
  #re: Uint8Array | undefined;
  #symmetric: SymmetricState;
  /** Of the next message. */
  #step = 0;

  constructor(crypto: Crypto, { role, prologue, s, rs, e }: NoiseParts) {
    this.#crypto = crypto;
    this.#isInitiator = role === "initiator";
    this.#s = { privateKey: s.privateKey.slice(), publicKey: s.publicKey };
    this.#rs = rs;
    this.#e = e;
    this.#symmetric = new SymmetricState(crypto);
    this.#symmetric.mixHash(prologue);
    const [first, second] = this.#isInitiator ? [s.publicKey, rs] : [rs, s.publicKey];
    this.#symmetric.mixHash(first);
    this.#symmetric.mixHash(second);
  }

  /** Undefined when it is not our turn, or when a key of the peer is one that nothing can be agreed on with. */
  writeMessage(payload: Uint8Array): Uint8Array | undefined {
    if (!this.#isOurTurn) return undefined;
    this.#e ??= this.#crypto.x25519KeyPair();
    this.#symmetric.mixHash(this.#e.publicKey);
    if (!this.#mixSecrets(this.#symmetric, this.#re)) return undefined;
    this.#step++;
    return concatBytes(this.#e.publicKey, this.#symmetric.encryptAndHash(payload));
  }

  /** The payload; undefined, and nothing changed, for what is not the peer's next message. */
  readMessage(message: Uint8Array): Uint8Array | undefined {
    if (this.#isOurTurn || this.#step >= PATTERN.length || message.length < DH_BYTES + TAG_BYTES) return undefined;
    const re = message.slice(0, DH_BYTES);
    const symmetric = this.#symmetric.copy();
    symmetric.mixHash(re);
    const payload = this.#mixSecrets(symmetric, re) ? symmetric.decryptAndHash(message.subarray(DH_BYTES)) : undefined;
    if (payload === undefined) {
      symmetric.wipe();
      return undefined;
    }
    this.#symmetric.wipe();
    this.#symmetric = symmetric;
    this.#re = re;
    this.#step++;
    return payload;
  }

  /** Once both messages have passed; wipes all else. */
  split(): NoiseKeys | undefined {
    if (this.#step !== PATTERN.length) return undefined;
    const [first, second] = this.#symmetric.split();
    const handshakeHash = this.#symmetric.h;
    this.wipe();
    return this.#isInitiator
      ? { send: first, receive: second, handshakeHash }
      : { send: second, receive: first, handshakeHash };
  }

  wipe(): void {
    this.#symmetric.wipe();
    this.#s.privateKey.fill(0);
    this.#e?.privateKey.fill(0);
    this.#step = PATTERN.length + 1;
  }

  get #isOurTurn(): boolean {
    return this.#step < PATTERN.length && (this.#step % 2 === 0) === this.#isInitiator;
  }

  /** The Diffie-Hellman tokens of the present message. */
  #mixSecrets(symmetric: SymmetricState, re: Uint8Array | undefined): boolean {
    for (const token of PATTERN[this.#step]!) {
      const [ours, theirs] = this.#isInitiator ? token : [token[1], token[0]];
      const own = ours === "e" ? this.#e : this.#s;
      const peers = theirs === "e" ? re : this.#rs;
      const secret = own && peers && this.#crypto.x25519(own.privateKey, peers);
      if (secret === undefined) return false;
      symmetric.mixKey(secret);
      secret.fill(0);
    }
    return true;
  }
}

/** §5.2, with the CipherState of §5.1 in it: AESGCM as of §12.4, HASH and HKDF with SHA-256. */
class SymmetricState {
  readonly #crypto: Crypto;
  #ck: Uint8Array;
  #k: Uint8Array | undefined;
  #n = 0;
  h: Uint8Array;

  constructor(crypto: Crypto) {
    this.#crypto = crypto;
    this.h = PROTOCOL_NAME;
    this.#ck = PROTOCOL_NAME.slice();
  }

  copy(): SymmetricState {
    const copy = new SymmetricState(this.#crypto);
    copy.h = this.h;
    copy.#ck = this.#ck.slice();
    copy.#k = this.#k?.slice();
    copy.#n = this.#n;
    return copy;
  }

  mixKey(material: Uint8Array): void {
    const [ck, k] = this.#hkdf(material);
    this.#ck.fill(0);
    this.#k?.fill(0);
    this.#ck = ck;
    this.#k = k;
    this.#n = 0;
  }

  mixHash(data: Uint8Array): void {
    this.h = this.#crypto.sha256(concatBytes(this.h, data));
  }

  /** In this pattern there always is a key before the first payload. */
  encryptAndHash(plaintext: Uint8Array): Uint8Array {
    const sealed = this.#crypto.sealAesGcm(this.#k!, nonceOf(this.#n++), this.h, plaintext);
    this.mixHash(sealed);
    return sealed;
  }

  decryptAndHash(sealed: Uint8Array): Uint8Array | undefined {
    const plaintext = this.#crypto.openAesGcm(this.#k!, nonceOf(this.#n), this.h, sealed);
    if (plaintext === undefined) return undefined;
    this.#n++;
    this.mixHash(sealed);
    return plaintext;
  }

  split(): [Uint8Array, Uint8Array] {
    return this.#hkdf(NOTHING);
  }

  wipe(): void {
    this.#ck.fill(0);
    this.#k?.fill(0);
  }

  /** HKDF of §4.3 with two outputs, which is RFC 5869's with the chaining key for salt and no info. */
  #hkdf(material: Uint8Array): [Uint8Array, Uint8Array] {
    const both = this.#crypto.hkdfSha256(material, NOTHING, 64, this.#ck);
    const outputs: [Uint8Array, Uint8Array] = [both.slice(0, 32), both.slice(32)];
    both.fill(0);
    return outputs;
  }
}

/** 32 bits of zeros, then n in 64 bits, big endian. */
export function nonceOf(n: number): Uint8Array {
  const nonce = new Uint8Array(12);
  writeU32(nonce, 8, n);
  return nonce;
}

type Token = readonly ["e" | "s", "e" | "s"];

/** The initiator's key first. The `e` token in front of each message is not written here. */
const PATTERN: readonly (readonly Token[])[] = [
  [
    ["e", "s"],
    ["s", "s"],
  ],
  [
    ["e", "e"],
    ["s", "e"],
  ],
];
const DH_BYTES = 32;
const TAG_BYTES = 16;
const NOTHING = new Uint8Array(0);
/** 28 letters: shorter than a hash, so filled with zeros (§5.2). */
const PROTOCOL_NAME = concatBytes(utf8("Noise_KK_25519_AESGCM_SHA256"), new Uint8Array(4));
