/**
 * The change of this node's key at the registry, on the node's side. Between the request and its answer nobody here knows
 * which key the registry has, and a registration with the other one would make another node. So once the request may have
 * been sent, a lookup settles it before anything else is said on the next connection.
 */
import { equalBytes } from "../base/bytes.ts";
import type { NodeId } from "../wire/ids.ts";
import { encodeKey, nodeField, publicKeyField, type RegistryMessage, signedText } from "../wire/registry.ts";
import type { RegistryIdentity, RequestSigner } from "./commands.ts";

/** What came of it; `error` says why the key stayed. */
export type KeyRotationEvent =
  | { readonly kind: "key-rotated"; readonly identity: RegistryIdentity }
  | { readonly kind: "key-kept"; readonly error: string };

export class KeyRotation {
  readonly #next: RegistryIdentity;
  #phase: "wanted" | "asked" | "unsettled" = "wanted";

  constructor(next: RegistryIdentity) {
    this.#next = next;
  }

  /** The request is still to be sent. */
  get isWanted(): boolean {
    return this.#phase === "wanted";
  }

  /** Only the registry knows whether the key changed. */
  get isUnsettled(): boolean {
    return this.#phase === "unsettled";
  }

  request(node: NodeId, signer: RequestSigner): RegistryMessage {
    this.#phase = "asked";
    const signature = signer.sign(signedText.rotateKey(node));
    return { type: "rotate_key", node_id: node, new_public_key: encodeKey(this.#next.publicKey), signature };
  }

  /** The connection ended; undefined when that leaves the outcome open. */
  handleDisconnected(error: string): KeyRotationEvent | undefined {
    if (this.#phase === "wanted") return { kind: "key-kept", error };
    this.#phase = "unsettled";
    return undefined;
  }

  question(node: NodeId): RegistryMessage {
    return { type: "lookup", node_id: node };
  }

  /** The registry's word to either of the two; undefined when it makes no sense. */
  handleReply(reply: RegistryMessage, node: NodeId): KeyRotationEvent | undefined {
    const publicKey = nodeField(reply, "node_id") === node ? publicKeyField(reply, "public_key") : undefined;
    if (publicKey === undefined) return undefined;
    if (equalBytes(publicKey, this.#next.publicKey)) return { kind: "key-rotated", identity: this.#next };
    return { kind: "key-kept", error: "the registry has another key" };
  }
}
