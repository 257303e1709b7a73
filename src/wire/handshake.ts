/**
 * The trust message on virtual port 444: one JSON object in one segment (pilot protocol §7.1). All seven fields are always
 * written, in this order. A message without a key or signature is refused here: the reference skips every check when the
 * key is empty, and nobody may become trusted that way (§11.14).
 */
import { fromBase64, fromUtf8, toBase64, utf8 } from "../base/bytes.ts";
import { type NodeId, nodeId } from "./ids.ts";

export const HANDSHAKE_TYPES = [
  "handshake_request",
  "handshake_accept",
  "handshake_reject",
  "handshake_revoke",
] as const;

export type HandshakeType = (typeof HANDSHAKE_TYPES)[number];

export interface HandshakeMessage {
  readonly type: HandshakeType;
  /** The sender. Believed only when the stream's authenticated peer is the same node. */
  readonly node: NodeId;
  /** Ed25519, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** Of a request; empty otherwise. */
  readonly justification: string;
  /** Ed25519 over `handshakeSignedText`, 64 bytes. */
  readonly signature: Uint8Array;
  /** Of a rejection or revocation; empty otherwise. */
  readonly reason: string;
  /** Unix time in seconds. */
  readonly timestampS: number;
}

/** The same for all four types, and without a time: whoever sees one signature can use it for the others. */
export function handshakeSignedText(from: NodeId, to: NodeId): string {
  return `handshake:${from}:${to}`;
}

/** Fits one segment of any implementation: texts are shortened to MAX_SENT_TEXT_BYTES each. */
export function encodeHandshake(message: HandshakeMessage): Uint8Array {
  return utf8(
    JSON.stringify({
      type: message.type,
      node_id: message.node,
      public_key: toBase64(message.publicKey),
      justification: shorten(message.justification),
      signature: toBase64(message.signature),
      reason: shorten(message.reason),
      timestamp: message.timestampS,
    }),
  );
}

export function parseHandshake(bytes: Uint8Array): HandshakeMessage | undefined {
  const fields = parseObject(bytes);
  if (fields === undefined) return undefined;
  const type = HANDSHAKE_TYPES.find((known) => known === fields["type"]);
  const node = integer(fields["node_id"], 1, 0xffffffff);
  const timestampS = integer(fields["timestamp"], 0, Number.MAX_SAFE_INTEGER);
  const publicKey = base64(fields["public_key"], PUBLIC_KEY_BYTES);
  const signature = base64(fields["signature"], SIGNATURE_BYTES);
  const justification = text(fields["justification"]);
  const reason = text(fields["reason"]);
  if (type === undefined || node === undefined || timestampS === undefined) return undefined;
  if (publicKey === undefined || signature === undefined) return undefined;
  if (justification === undefined || reason === undefined) return undefined;
  return { type, node: nodeId(node), publicKey, justification, signature, reason, timestampS };
}

function parseObject(bytes: Uint8Array): Record<string, unknown> | undefined {
  if (bytes.length > MAX_RECEIVED_BYTES) return undefined;
  const json = fromUtf8(bytes);
  if (json === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined; // text that is not JSON is the only thing JSON.parse throws on
  }
}

function integer(value: unknown, least: number, most: number): number | undefined {
  return Number.isInteger(value) && (value as number) >= least && (value as number) <= most
    ? (value as number)
    : undefined;
}

function base64(value: unknown, lengthBytes: number): Uint8Array | undefined {
  const bytes = typeof value === "string" ? fromBase64(value) : undefined;
  return bytes?.length === lengthBytes ? bytes : undefined;
}

/** Cut, not refused: a revocation must be heard however much its sender has to say. */
function text(value: unknown): string | undefined {
  if (value === undefined) return "";
  return typeof value === "string" ? value.slice(0, MAX_RECEIVED_TEXT) : undefined;
}

/** As many whole characters as fit once they are escaped. */
function shorten(value: string): string {
  let kept = "";
  let lengthBytes = 0;
  for (const character of value) {
    lengthBytes += utf8(JSON.stringify(character)).length - QUOTES_BYTES;
    if (lengthBytes > MAX_SENT_TEXT_BYTES) break;
    kept += character;
  }
  return kept;
}

/** The other fields take at most 330 bytes; receivers read one segment, and 1000 bytes fit every one. */
export const MAX_SENT_TEXT_BYTES = 300;
/** What the newest reference reads at once. */
const MAX_RECEIVED_BYTES = 65_536;
const MAX_RECEIVED_TEXT = 1_024;
const PUBLIC_KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;
const QUOTES_BYTES = 2;
