/**
 * `Crypto` by OpenSSL through node:crypto: constant time, and an order of magnitude faster than JavaScript. Signatures are
 * checked by libsodium where there is one, in less than half the time.
 * Raw keys go in and out; OpenSSL wants them wrapped in the fixed DER prefixes of RFC 8410.
 */
import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hash,
  hkdfSync,
  type KeyObject,
  sign,
  randomBytes as systemRandomBytes,
  verify,
} from "node:crypto";
import { BoundedMap } from "../base/bounded-map.ts";
import { concatBytes, fromHex, toHex } from "../base/bytes.ts";
import type { Crypto, KeyPair } from "../base/crypto.ts";
import { montgomeryOf } from "../base/montgomery.ts";
import { type NativeShim, nativeShimIfBuilt } from "./native.ts";

/** Looked for once, when the first signature comes. */
let shim: NativeShim | "missing" | undefined;

export class NodeCrypto implements Crypto {
  readonly #openSsl: OpenSslEd25519;

  /** `verifyingKeys`: see OpenSslEd25519. */
  constructor(verifyingKeys = FEW_VERIFYING_KEYS) {
    this.#openSsl = new OpenSslEd25519(verifyingKeys);
  }

  randomBytes(length: number): Uint8Array {
    return plain(systemRandomBytes(length));
  }

  sha256(message: Uint8Array): Uint8Array {
    return plain(hash("sha256", message, "buffer"));
  }

  hkdfSha256(secret: Uint8Array, info: Uint8Array, lengthBytes: number, salt = NO_BYTES): Uint8Array {
    return ownCopy(new Uint8Array(hkdfSync("sha256", secret, salt, info, lengthBytes)));
  }

  sealAesGcm(key: Uint8Array, nonce: Uint8Array, additional: Uint8Array, plaintext: Uint8Array): Uint8Array {
    const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(additional);
    return concatBytes(cipher.update(plaintext), cipher.final(), cipher.getAuthTag());
  }

  openAesGcm(key: Uint8Array, nonce: Uint8Array, additional: Uint8Array, sealed: Uint8Array): Uint8Array | undefined {
    const length = sealed.length - GCM_TAG_BYTES;
    if (length < 0) return undefined;
    try {
      const cipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: GCM_TAG_BYTES });
      cipher.setAAD(additional).setAuthTag(sealed.subarray(length));
      return concatBytes(cipher.update(sealed.subarray(0, length)), cipher.final());
    } catch {
      return undefined; // the tag is wrong
    }
  }

  x25519KeyPair(): KeyPair {
    const privateKey = this.randomBytes(32);
    return { privateKey, publicKey: publicHalf(importPrivate(PKCS8_X25519, privateKey)) };
  }

  x25519(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined {
    if (privateKey.length !== 32 || publicKey.length !== 32) return undefined;
    try {
      const secret = diffieHellman({
        privateKey: importPrivate(PKCS8_X25519, privateKey),
        publicKey: importPublic(SPKI_X25519, publicKey),
      });
      return secret.some((byte) => byte !== 0) ? plain(secret) : undefined;
    } catch {
      return undefined; // OpenSSL refuses to derive an all-zero secret
    }
  }

  x25519OfSeed(seed: Uint8Array): Uint8Array {
    const digest = hash("sha512", seed, "buffer");
    const secret = new Uint8Array(digest.subarray(0, 32));
    digest.fill(0);
    secret[0]! &= 0xf8;
    secret[31] = (secret[31]! & 0x7f) | 0x40;
    return secret;
  }

  x25519OfIdentity(identityKey: Uint8Array): Uint8Array | undefined {
    return identityKey.length === 32 ? montgomeryOf(identityKey) : undefined;
  }

  ed25519PublicKey(seed: Uint8Array): Uint8Array {
    return publicHalf(importPrivate(PKCS8_ED25519, seed));
  }

  ed25519Sign(seed: Uint8Array, message: Uint8Array): Uint8Array {
    return plain(sign(null, message, importPrivate(PKCS8_ED25519, seed)));
  }

  ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    if (publicKey.length !== 32 || signature.length !== 64) return false;
    shim ??= nativeShimIfBuilt() ?? "missing";
    const answer = shim === "missing" ? -1 : shim.ed25519Verify(publicKey, message, signature);
    return answer < 0 ? this.#openSsl.verify(publicKey, message, signature) : answer === 1;
  }
}

/** Checks of Ed25519 signatures by OpenSSL, for hosts without libsodium. */
export class OpenSslEd25519 {
  /** Keys as OpenSSL has them, by their bytes: importing costs a quarter of a check. Bounded, oldest use goes. */
  readonly #keys: BoundedMap<string, KeyObject>;

  /** `keys`: how many it keeps, 2 KB each. Who checks signatures of the same nodes all the time, keeps many. */
  constructor(keys: number) {
    this.#keys = new BoundedMap(keys);
  }

  /** False, too, for what is no key. */
  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    try {
      return verify(null, message, this.#key(publicKey), signature);
    } catch {
      return false; // a public key that OpenSSL cannot decode
    }
  }

  /** Throws for what is no key, or a key under which anybody can sign. */
  #key(publicKey: Uint8Array): KeyObject {
    const name = Buffer.from(publicKey).toString("latin1");
    const known = this.#keys.get(name);
    if (known !== undefined) {
      this.#keys.touch(name);
      return known;
    }
    if (hasSmallOrder(publicKey)) throw new Error("a key of small order");
    const key = importPublic(SPKI_ED25519, publicKey);
    this.#keys.set(name, key);
    return key;
  }
}

function importPrivate(derPrefix: Uint8Array, raw: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.from(concatBytes(derPrefix, raw)), format: "der", type: "pkcs8" });
}

function importPublic(derPrefix: Uint8Array, raw: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.from(concatBytes(derPrefix, raw)), format: "der", type: "spki" });
}

/** The raw public key that belongs to a private one: the last 32 bytes of its SubjectPublicKeyInfo. */
function publicHalf(privateKey: KeyObject): Uint8Array {
  return plain(createPublicKey(privateKey).export({ format: "der", type: "spki" }).subarray(-32));
}

/** Short arrays lie within V8's heap, at a third of what a view of an ArrayBuffer takes there and outside; the other is wiped. */
function ownCopy(secret: Uint8Array): Uint8Array {
  const copy = secret.slice();
  secret.fill(0);
  return copy;
}

/** A Uint8Array of its own: Buffers share a pool and behave differently in slice. */
function plain(buffer: Buffer): Uint8Array {
  return new Uint8Array(buffer);
}

/** OpenSSL 3.0, unlike 3.5, verifies under keys of small order, for which anybody can make a signature. */
function hasSmallOrder(publicKey: Uint8Array): boolean {
  const y = publicKey.slice();
  y[31]! &= 0x7f;
  return SMALL_ORDER_Y.has(toHex(y));
}

const NO_BYTES = new Uint8Array(0);
const GCM_TAG_BYTES = 16;
const FEW_VERIFYING_KEYS = 128;

const PKCS8_ED25519 = fromHex("302e020100300506032b657004220420")!;
const PKCS8_X25519 = fromHex("302e020100300506032b656e04220420")!;
const SPKI_ED25519 = fromHex("302a300506032b6570032100")!;
const SPKI_X25519 = fromHex("302a300506032b656e032100")!;

/** Encoded y of the points of order 1, 2, 4 and 8 without the sign bit, non-canonical spellings (p and p + 1) included. */
const SMALL_ORDER_Y: ReadonlySet<string> = new Set([
  "00".repeat(32),
  "01" + "00".repeat(31),
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ec" + "ff".repeat(30) + "7f",
  "ed" + "ff".repeat(30) + "7f",
  "ee" + "ff".repeat(30) + "7f",
]);
