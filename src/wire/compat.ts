/**
 * The texts that open a beacon conversation over a WebSocket, for networks that block UDP (pilot protocol §5, compat
 * transport): the beacon sends a nonce, the node proves its key over it, the beacon agrees. After that each binary
 * message is one beacon datagram. Parsers never throw and ignore fields they do not know.
 */
import { fromHex, toBase64, toHex } from "../base/bytes.ts";
import type { NodeId } from "./ids.ts";
import {
  bytesField,
  encodeKey,
  nodeField,
  parseRegistryMessage,
  publicKeyField,
  SIGNATURE_BYTES,
  textField,
} from "./registry.ts";

/** Where the WebSocket is on its host. */
export const COMPAT_PATH = "/v1/compat";
export const COMPAT_PORT = 443;
export const COMPAT_NONCE_BYTES = 16;
/** Longest text either side may send. */
export const MAX_COMPAT_TEXT_BYTES = 1024;
/** A beacon datagram is at most what UDP carries. */
export const MAX_COMPAT_DATAGRAM_BYTES = 65_535;

export interface CompatReply {
  readonly node: NodeId;
  readonly publicKey: Uint8Array;
  readonly signature: Uint8Array;
}

/** What the node signs; `nonce` is the text of the challenge as it stands there. */
export function compatSignedText(node: NodeId, nonce: string): string {
  return `compat_auth:${node}:${nonce}`;
}

export function encodeCompatChallenge(nonce: Uint8Array): string {
  return JSON.stringify({ type: "auth_challenge", nonce: toHex(nonce) });
}

/** The nonce, as text. */
export function parseCompatChallenge(text: string): string | undefined {
  const message = parseCompatText(text, "auth_challenge");
  const nonce = message === undefined ? undefined : textField(message, "nonce", 2 * COMPAT_NONCE_BYTES);
  return nonce !== undefined && fromHex(nonce)?.length === COMPAT_NONCE_BYTES ? nonce : undefined;
}

export function encodeCompatReply(reply: CompatReply): string {
  return JSON.stringify({
    type: "auth_reply",
    node_id: reply.node,
    public_key: encodeKey(reply.publicKey),
    sig: toBase64(reply.signature),
  });
}

export function parseCompatReply(text: string): CompatReply | undefined {
  const message = parseCompatText(text, "auth_reply");
  if (message === undefined) return undefined;
  const node = nodeField(message, "node_id");
  const publicKey = publicKeyField(message, "public_key");
  const signature = bytesField(message, "sig", SIGNATURE_BYTES);
  if (node === undefined || publicKey === undefined || signature === undefined) return undefined;
  return { node, publicKey, signature };
}

export function encodeCompatOk(): string {
  return JSON.stringify({ type: "auth_ok" });
}

export function isCompatOk(text: string): boolean {
  return parseCompatText(text, "auth_ok") !== undefined;
}

function parseCompatText(text: string, type: string): ReturnType<typeof parseRegistryMessage> {
  if (text.length > MAX_COMPAT_TEXT_BYTES) return undefined;
  const message = parseRegistryMessage(text);
  return message?.["type"] === type ? message : undefined;
}
