/**
 * What a node may ask of its registry, each as data: the request, its reply, and whether it must survive a lost
 * connection. Queries are answered for somebody who waits, so they fail at once when there is no registry to ask;
 * durable ones change what the registry knows and are kept until they got through.
 */
import { utf8 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { NodeId } from "../wire/ids.ts";
import { encodeKey, type RegistryMessage, signedText } from "../wire/registry.ts";
import { isNetworkCommand, type NetworkCommand, networkCommandKey, networkRequest } from "./network-commands.ts";

export type RegistryCommand =
  | { readonly kind: "lookup"; readonly node: NodeId }
  | { readonly kind: "resolve"; readonly node: NodeId }
  | { readonly kind: "resolve-hostname"; readonly name: string }
  | { readonly kind: "request-handshake"; readonly node: NodeId; readonly reason: string }
  | { readonly kind: "respond-handshake"; readonly node: NodeId; readonly accept: boolean }
  | { readonly kind: "report-trust"; readonly node: NodeId }
  | { readonly kind: "revoke-trust"; readonly node: NodeId }
  | { readonly kind: "check-trust"; readonly node: NodeId }
  | { readonly kind: "set-hostname"; readonly name: string }
  | { readonly kind: "set-visibility"; readonly isPublic: boolean }
  | { readonly kind: "set-tags"; readonly tags: readonly string[] }
  | { readonly kind: "deregister" }
  | NetworkCommand;

export function isDurable(command: RegistryCommand): boolean {
  if (isNetworkCommand(command)) return command.kind === "leave-network";
  return !QUERIES.has(command.kind);
}

/**
 * Two commands with the same key say the same thing or contradict each other, and only the later one is sent:
 * a report and a revocation of trust in one peer share a key, as do an accept and a refusal.
 */
export function commandKey(command: RegistryCommand): string {
  if (isNetworkCommand(command)) return networkCommandKey(command);
  switch (command.kind) {
    case "resolve-hostname":
      return `${command.kind} ${command.name}`;
    case "report-trust":
    case "revoke-trust":
      return `trust ${command.node}`;
    case "lookup":
    case "resolve":
    case "check-trust":
    case "request-handshake":
    case "respond-handshake":
      return `${command.kind} ${command.node}`;
    default:
      return command.kind;
  }
}

/** Whether it tells the registry, or has it tell the peer, that this node consents. */
export function isConsentWith(command: RegistryCommand, node: NodeId): boolean {
  switch (command.kind) {
    case "request-handshake":
    case "report-trust":
      return command.node === node;
    case "respond-handshake":
      return command.node === node && command.accept;
    default:
      return false;
  }
}

export interface RegistryIdentity {
  /** Ed25519. */
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
}

/** Signs requests with the node's key. */
export class RequestSigner {
  readonly #crypto: Crypto;
  #identity: RegistryIdentity;

  constructor(crypto: Crypto, identity: RegistryIdentity) {
    this.#crypto = crypto;
    this.#identity = identity;
  }

  /** From now on this key signs. */
  replace(identity: RegistryIdentity): void {
    this.#identity = identity;
  }

  get publicKeyText(): string {
    return encodeKey(this.#identity.publicKey);
  }

  sign(text: string): string {
    return encodeKey(this.#crypto.ed25519Sign(this.#identity.seed, utf8(text)));
  }
}

/** The request of a command by the registered node `local`. */
export function commandRequest(command: RegistryCommand, local: NodeId, signer: RequestSigner): RegistryMessage {
  if (isNetworkCommand(command)) return networkRequest(command, local, (text) => signer.sign(text));
  switch (command.kind) {
    case "lookup": {
      // Older registries ignore the two extra fields; ours then also tells the name of a node that asked us.
      const signature = signer.sign(signedText.lookup(local, command.node));
      return { type: "lookup", node_id: command.node, requester_id: local, signature };
    }
    case "resolve": {
      const signature = signer.sign(signedText.resolve(local, command.node));
      return { type: "resolve", node_id: command.node, requester_id: local, signature };
    }
    case "resolve-hostname":
      return { type: "resolve_hostname", hostname: command.name, requester_id: local };
    case "request-handshake": {
      const signature = signer.sign(signedText.requestHandshake(local, command.node));
      const { node, reason } = command;
      return { type: "request_handshake", from_node_id: local, to_node_id: node, justification: reason, signature };
    }
    case "respond-handshake": {
      const signature = signer.sign(signedText.respondHandshake(local, command.node));
      const { node, accept } = command;
      return { type: "respond_handshake", node_id: local, peer_id: node, accept, signature };
    }
    case "report-trust": {
      const signature = signer.sign(signedText.reportTrust(local, command.node));
      return { type: "report_trust", node_id: local, peer_id: command.node, signature };
    }
    case "revoke-trust": {
      const signature = signer.sign(signedText.revokeTrust(local, command.node));
      return { type: "revoke_trust", node_id: local, peer_id: command.node, signature };
    }
    case "check-trust":
      return { type: "check_trust", node_id: local, peer_id: command.node };
    default:
      return ownRequest(command, local, signer);
  }
}

function ownRequest(
  command: Extract<RegistryCommand, { kind: "set-hostname" | "set-visibility" | "set-tags" | "deregister" }>,
  local: NodeId,
  signer: RequestSigner,
): RegistryMessage {
  switch (command.kind) {
    case "set-hostname": {
      const signature = signer.sign(signedText.setHostname(local));
      return { type: "set_hostname", node_id: local, hostname: command.name, signature };
    }
    case "set-visibility": {
      const signature = signer.sign(signedText.setVisibility(local));
      return { type: "set_visibility", node_id: local, public: command.isPublic, signature };
    }
    case "set-tags": {
      const signature = signer.sign(signedText.setTags(local));
      return { type: "set_tags", node_id: local, tags: [...command.tags], signature };
    }
    case "deregister":
      return { type: "deregister", node_id: local, signature: signer.sign(signedText.deregister(local)) };
  }
}

const QUERIES: ReadonlySet<string> = new Set(["lookup", "resolve", "resolve-hostname", "check-trust"]);
