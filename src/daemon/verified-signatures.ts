/**
 * Signatures of the registry's clients, each checked once.
 * The signed texts carry no time and the check is a function of key, text and signature alone: its result never changes,
 * so remembering it is sound, also for a signature that did not hold. A node's heartbeat is the same bytes each time.
 */
import { hash } from "node:crypto";
import { concatBytes } from "../base/bytes.ts";
import { DigestTable } from "../base/digest-table.ts";
import { NodeCrypto } from "../io/node-crypto.ts";

export class VerifiedSignatures extends NodeCrypto {
  /** By digest of a secret of ours and the three, so that nobody can look for two that collide. */
  readonly #results = new DigestTable(MAX_RESULTS);
  /** The secret, and room for what is digested with it. */
  readonly #scratch = concatBytes(this.randomBytes(SECRET_BYTES), new Uint8Array(SCRATCH_BYTES));

  constructor() {
    super(VERIFYING_KEYS);
  }

  override ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    const digest = this.#digestOf(publicKey, message, signature);
    if (digest === undefined) return super.ed25519Verify(publicKey, message, signature);
    const known = this.#results.get(digest);
    if (known !== undefined) return known;
    const result = super.ed25519Verify(publicKey, message, signature);
    this.#results.set(digest, result);
    return result;
  }

  /** Undefined for what is no key, no signature, or a longer text than any that is signed often. */
  #digestOf(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): string | undefined {
    if (publicKey.length !== 32 || signature.length !== 64 || message.length > SCRATCH_BYTES - 96) return undefined;
    this.#scratch.set(publicKey, SECRET_BYTES);
    this.#scratch.set(signature, SECRET_BYTES + 32);
    this.#scratch.set(message, SECRET_BYTES + 96);
    return hash("sha256", this.#scratch.subarray(0, SECRET_BYTES + 96 + message.length), "binary");
  }
}

/** 8 MB: every node of a large overlay sends a few signatures again and again. */
const MAX_RESULTS = 2 ** 19;
/** Of the nodes that speak most. */
export const VERIFYING_KEYS = 4_096;
const SECRET_BYTES = 32;
const SCRATCH_BYTES = 512;
