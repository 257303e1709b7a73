/** The node's own key while its daemon runs: everybody reads it here whenever it is used, so that a rotation reaches all. */
import type { Identity } from "../io/state-directory.ts";

export class OwnIdentity implements Identity {
  #current: Identity;

  constructor(identity: Identity) {
    this.#current = identity;
  }

  get seed(): Uint8Array {
    return this.#current.seed;
  }

  get publicKey(): Uint8Array {
    return this.#current.publicKey;
  }

  adopt(next: Identity): void {
    this.#current = next;
  }
}
