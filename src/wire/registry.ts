/**
 * Messages between a node and a registry (pilot protocol §6.1–6.3): `length 4 | UTF-8 JSON object`, one request and
 * one reply at a time. Field readers take what came off the wire, of any shape, and return undefined for a field that
 * is missing or not what it must be; nothing here throws.
 */
import { concatBytes, fromBase64, toBase64, utf8, writeU32 } from "../base/bytes.ts";
import { type NetworkId, type NodeId, networkId, nodeId } from "./ids.ts";

/** The reference's limit since its second generation; a longer frame ends the connection. */
export const MAX_FRAME_BYTES = 4 * 1024 * 1024;

export const MAX_JUSTIFICATION_CHARS = 1024;
/** So many a registry of ours holds: their list fits into a frame that every client accepts. */
export const MAX_NETWORKS = 4096;
/** Networks have 16 bits, and no number is given out twice. */
export const LAST_NETWORK = 0xffff;
/** Of a network's join token. */
export const MAX_TOKEN_CHARS = 256;
export const MAX_TAGS = 10;
export const MAX_TAG_CHARS = 32;

/** What a refusal says when it must not say why. */
export const REQUEST_FAILED = "request failed";

/** A JSON object whose fields are not trusted yet. */
export type RegistryMessage = { readonly [field: string]: unknown };

export function parseRegistryMessage(text: string): RegistryMessage | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined; // text that is not JSON is the only thing the parser throws on
  }
  return isObject(value) ? value : undefined;
}

export function encodeRegistryFrame(text: string): Uint8Array {
  return framed(utf8(text));
}

export function framed(payload: Uint8Array): Uint8Array {
  const length = new Uint8Array(4);
  writeU32(length, 0, payload.length);
  return concatBytes(length, payload);
}

/** The texts that are signed with a node's key (§6.2): no time, no nonce, node numbers in decimal. */
export const signedText = {
  /** Both as they stand in the request. */
  register: (listenAddr: string, publicKey: string): string => `register:${listenAddr}:${publicKey}`,
  heartbeat: (node: NodeId, listenAddr?: string): string =>
    listenAddr === undefined ? `heartbeat:${node}` : `heartbeat:${node}:${listenAddr}`,
  lookup: (requester: NodeId, node: NodeId): string => `lookup:${requester}:${node}`,
  resolve: (requester: NodeId, node: NodeId): string => `resolve:${requester}:${node}`,
  reportTrust: (node: NodeId, peer: NodeId): string => `report_trust:${node}:${peer}`,
  revokeTrust: (node: NodeId, peer: NodeId): string => `revoke_trust:${node}:${peer}`,
  requestHandshake: (from: NodeId, to: NodeId): string => `handshake:${from}:${to}`,
  pollHandshakes: (node: NodeId): string => `poll_handshakes:${node}`,
  respondHandshake: (node: NodeId, peer: NodeId): string => `respond:${node}:${peer}`,
  setVisibility: (node: NodeId): string => `set_visibility:${node}`,
  setHostname: (node: NodeId): string => `set_hostname:${node}`,
  setTags: (node: NodeId): string => `set_tags:${node}`,
  setTaskExec: (node: NodeId): string => `set_task_exec:${node}`,
  deregister: (node: NodeId): string => `deregister:${node}`,
  rotateKey: (node: NodeId): string => `rotate:${node}`,
  punch: (a: NodeId, b: NodeId): string => `punch:${a}:${b}`,
  joinNetwork: (node: NodeId, network: NetworkId): string => `join_network:${node}:${network}`,
  leaveNetwork: (node: NodeId, network: NetworkId): string => `leave_network:${node}:${network}`,
  invite: (inviter: NodeId, network: NetworkId, target: NodeId): string => `invite:${inviter}:${network}:${target}`,
  pollInvites: (node: NodeId): string => `poll_invites:${node}`,
  respondInvite: (node: NodeId, network: NetworkId): string => `respond_invite:${node}:${network}`,
  /** The protocol names no text for this one; ours has the shape of the others. */
  listNodes: (node: NodeId, network: NetworkId): string => `list_nodes:${node}:${network}`,
} as const;

/** A number of an existing or future node: 1 to 2^32 − 2 (0 is "nobody yet", the last one is broadcast). */
export function nodeField(message: RegistryMessage, field: string): NodeId | undefined {
  const value = message[field];
  if (typeof value !== "number" || !Number.isInteger(value)) return undefined;
  return value >= 1 && value < 0xffffffff ? nodeId(value) : undefined;
}

/** A network other than 0, which everybody belongs to. */
export function networkField(message: RegistryMessage, field: string): NetworkId | undefined {
  const value = message[field];
  if (typeof value !== "number" || !Number.isInteger(value)) return undefined;
  return value >= 1 && value <= 0xffff ? networkId(value) : undefined;
}

export function textField(message: RegistryMessage, field: string, maxChars: number): string | undefined {
  const value = message[field];
  return typeof value === "string" && value.length <= maxChars ? value : undefined;
}

export function booleanField(message: RegistryMessage, field: string): boolean | undefined {
  const value = message[field];
  return typeof value === "boolean" ? value : undefined;
}

/** A whole number that a 64-bit float holds exactly, such as a time in Unix seconds. */
export function integerField(message: RegistryMessage, field: string): number | undefined {
  const value = message[field];
  return typeof value === "number" && Number.isSafeInteger(value) ? value : undefined;
}

/** The texts of an array of texts; undefined when it is no array, is too long or holds anything else. */
export function textsField(
  message: RegistryMessage,
  field: string,
  maxItems: number,
  maxChars: number,
): string[] | undefined {
  const value = message[field];
  if (!Array.isArray(value) || value.length > maxItems) return undefined;
  const fits = value.every((item) => typeof item === "string" && item.length <= maxChars);
  return fits ? (value as string[]) : undefined;
}

/** The first `maxItems` objects of an array; what is no object is left out. */
export function objectsField(message: RegistryMessage, field: string, maxItems: number): RegistryMessage[] {
  const value = message[field];
  return Array.isArray(value) ? value.slice(0, maxItems).filter(isObject) : [];
}

/** Standard base64 of exactly `bytes` bytes. */
export function bytesField(message: RegistryMessage, field: string, bytes: number): Uint8Array | undefined {
  const text = textField(message, field, 4 * Math.ceil(bytes / 3));
  const value = text === undefined ? undefined : fromBase64(text);
  return value?.length === bytes ? value : undefined;
}

export const PUBLIC_KEY_BYTES = 32;
/** Of a rendezvous of ours, which tells it with every registration; the protocol has none. */
export const RENDEZVOUS_ID_BYTES = 16;
export const SIGNATURE_BYTES = 64;

export function publicKeyField(message: RegistryMessage, field: string): Uint8Array | undefined {
  return bytesField(message, field, PUBLIC_KEY_BYTES);
}

export function encodeKey(key: Uint8Array): string {
  return toBase64(key);
}

/** 1 to 63 of a–z, 0–9 and `-`, with no `-` at either end, and none of the reserved names. */
export function isHostname(text: string): boolean {
  return /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(text) && !RESERVED_HOSTNAMES.has(text);
}

function isObject(value: unknown): value is RegistryMessage {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const RESERVED_HOSTNAMES = new Set(["localhost", "backbone", "broadcast"]);
