/**
 * What the frequent requests must be signed with, so that their signatures can be checked ahead, on another thread. A
 * wrong guess here costs time and nothing else: the request's handler makes its own check.
 */
import { bytesField, nodeField, type RegistryMessage, SIGNATURE_BYTES, signedText } from "../wire/registry.ts";
import type { Store } from "./store.ts";

export interface ExpectedSignature {
  readonly publicKey: Uint8Array;
  readonly text: string;
  readonly signature: Uint8Array;
}

/** Undefined for a request that is not signed, or not frequent, or of an unknown node. */
export function expectedSignature(
  message: RegistryMessage,
  store: Pick<Store, "nodeById">,
): ExpectedSignature | undefined {
  const signature = bytesField(message, "signature", SIGNATURE_BYTES);
  const node = nodeField(message, "node_id");
  if (signature === undefined || node === undefined) return undefined;
  const isResolve = message["type"] === "resolve";
  if (!isResolve && (message["type"] !== "heartbeat" || message["listen_addr"] !== undefined)) return undefined;
  const signer = isResolve ? nodeField(message, "requester_id") : node;
  const publicKey = signer === undefined ? undefined : store.nodeById(signer)?.publicKey;
  if (signer === undefined || publicKey === undefined) return undefined;
  return { publicKey, signature, text: isResolve ? signedText.resolve(signer, node) : signedText.heartbeat(node) };
}
