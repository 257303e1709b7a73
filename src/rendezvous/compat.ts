/**
 * Who may speak to the beacon over a WebSocket, and what it may say there (pilot protocol §5, compat transport). Other
 * than over UDP the node proves itself first, so its number is certain: a datagram that names another sender is dropped.
 */
import { equalBytes, utf8 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import { parseNodeToBeacon } from "../wire/beacon.ts";
import { compatSignedText, parseCompatReply } from "../wire/compat.ts";
import type { NodeId } from "../wire/ids.ts";
import type { Store } from "./store.ts";

export type CompatRefusal =
  /** No auth_reply, or fields that cannot be. */
  | "malformed"
  /** The number is not registered, or with another key: both look the same from outside. */
  | "unknown-key"
  | "bad-signature";

export interface CompatParts {
  readonly store: Pick<Store, "keyOf">;
  readonly crypto: Pick<Crypto, "ed25519Verify">;
}

/** `nonce` is the challenge of this very connection, in hex. */
export function checkCompatReply(
  text: string,
  nonce: string,
  { store, crypto }: CompatParts,
): { readonly node: NodeId } | { readonly refused: CompatRefusal } {
  const reply = parseCompatReply(text);
  if (reply === undefined) return { refused: "malformed" };
  const registered = store.keyOf(reply.node);
  if (registered === undefined || !equalBytes(registered, reply.publicKey)) return { refused: "unknown-key" };
  const signed = utf8(compatSignedText(reply.node, nonce));
  if (!crypto.ed25519Verify(registered, signed, reply.signature)) return { refused: "bad-signature" };
  return { node: reply.node };
}

/** True when `datagram` is a beacon message in the name of `node`, or in nobody's. */
export function speaksFor(node: NodeId, datagram: Uint8Array): boolean {
  const message = parseNodeToBeacon(datagram);
  switch (message?.kind) {
    case "discover":
      return message.node === node || message.node === 0;
    case "punch-request":
      return message.requester === node;
    case "relay":
      return message.sender === node;
    default:
      return false;
  }
}
