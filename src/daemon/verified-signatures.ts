/**
 * Signatures of the registry's clients, each checked once, and where possible not on the thread that serves everybody.
 * The signed texts carry no time and the check is a function of key, text and signature alone: its result never changes,
 * so remembering it is sound, also for a signature that did not hold. A node's heartbeat is the same bytes each time.
 */
import { hash } from "node:crypto";
import { BoundedMap } from "../base/bounded-map.ts";
import { concatBytes, utf8 } from "../base/bytes.ts";
import { NodeCrypto } from "../io/node-crypto.ts";
import type { ExpectedSignature } from "../rendezvous/expected-signature.ts";

export class VerifiedSignatures extends NodeCrypto {
  /** By digest of the three; bounded, the one looked at longest ago is evicted. About 200 bytes each. */
  readonly #results = new BoundedMap<string, boolean>(MAX_RESULTS);

  override ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    const digest = digestOf(publicKey, message, signature);
    const known = this.#results.get(digest);
    if (known !== undefined) {
      this.#results.touch(digest);
      return known;
    }
    const result = super.ed25519Verify(publicKey, message, signature);
    this.#results.set(digest, result);
    return result;
  }

  /** Checks on another thread what `ed25519Verify` will be asked; undefined when the answer is there already. */
  checkAhead({ publicKey, text, signature }: ExpectedSignature): Promise<void> | undefined {
    const message = utf8(text);
    const digest = digestOf(publicKey, message, signature);
    if (this.#results.has(digest)) return undefined;
    return this.ed25519VerifyElsewhere(publicKey, message, signature).then((result) => {
      this.#results.set(digest, result);
    });
  }
}

/** Key and signature have fixed lengths when they matter, so the three cannot be shifted against each other. */
function digestOf(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): string {
  return hash("sha256", concatBytes(publicKey, signature, message), "base64");
}

const MAX_RESULTS = 131_072;
