/**
 * What the frequent requests must be signed with, so that their signatures can be checked ahead, on another thread. A
 * wrong guess here costs time and nothing else: the request's handler makes its own check.
 */
import type { NodeId } from "../wire/ids.ts";
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
  store: Pick<Store, "keyOf">,
): ExpectedSignature | undefined {
  const rule = FREQUENT.get(message["type"]);
  if (rule === undefined) return undefined;
  const signer = nodeField(message, rule.signer);
  const text = signer === undefined ? undefined : rule.text(signer, message);
  if (signer === undefined || text === undefined) return undefined;
  const signature = bytesField(message, "signature", SIGNATURE_BYTES);
  const publicKey = signature === undefined ? undefined : store.keyOf(signer);
  return signature === undefined || publicKey === undefined ? undefined : { publicKey, text, signature };
}

interface Rule {
  /** The field that says who signed. */
  readonly signer: string;
  text(signer: NodeId, message: RegistryMessage): string | undefined;
}

/** By type of request: what every node sends again and again. */
const FREQUENT: ReadonlyMap<unknown, Rule> = new Map<unknown, Rule>([
  [
    "resolve",
    {
      signer: "requester_id",
      text: (signer, message) => {
        const node = nodeField(message, "node_id");
        return node === undefined ? undefined : signedText.resolve(signer, node);
      },
    },
  ],
  [
    "heartbeat",
    {
      signer: "node_id",
      text: (signer, message) => (message["listen_addr"] === undefined ? signedText.heartbeat(signer) : undefined),
    },
  ],
  ["poll_handshakes", { signer: "node_id", text: signedText.pollHandshakes }],
  ["poll_invites", { signer: "node_id", text: signedText.pollInvites }],
]);
