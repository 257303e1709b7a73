/**
 * One request as a frame brought it, in JSON or in the binary protocol over the same rules: a binary request becomes the
 * JSON request of the same meaning, and the reply is written in its binary form (pilot protocol §6.4).
 */
import { fromUtf8 } from "../base/bytes.ts";
import { parseRegistryMessage, publicKeyField, type RegistryMessage } from "../wire/registry.ts";
import {
  BINARY,
  encodeBinaryError,
  encodeBinaryHeartbeatReply,
  encodeBinaryJson,
  encodeBinaryLookupReply,
  encodeBinaryResolveReply,
  parseBinaryRequest,
} from "../wire/registry-binary.ts";
import type { Reply } from "./request-context.ts";

export interface RequestFrame {
  /** What it takes of its source's rate: a long text is paid for like many short ones. */
  readonly cost: number;
  /** Parsed at the first call, so that what is refused for its rate is not looked into. Empty for what is no request. */
  message(): RegistryMessage;
  /** A reply as a text that is a frame's payload, or as a whole frame. */
  encode(reply: Reply): string | Uint8Array;
}

/** `payload` is a frame without its length. */
export function jsonRequest(payload: Uint8Array): RequestFrame {
  return new ParsedOnce(payload, parseJson, JSON.stringify);
}

/** The same on a connection that began with the binary preamble. */
export function binaryRequest(payload: Uint8Array): RequestFrame {
  return new ParsedOnce(payload, parseBinary, (reply) => encodeBinaryReply(payload[0], reply));
}

class ParsedOnce implements RequestFrame {
  readonly cost: number;
  readonly encode: (reply: Reply) => string | Uint8Array;
  readonly #payload: Uint8Array;
  readonly #parse: (payload: Uint8Array) => RegistryMessage | undefined;
  #message: RegistryMessage | undefined;

  constructor(
    payload: Uint8Array,
    parse: (payload: Uint8Array) => RegistryMessage | undefined,
    encode: (reply: Reply) => string | Uint8Array,
  ) {
    this.#payload = payload;
    this.#parse = parse;
    this.encode = encode;
    this.cost = 1 + Math.floor(payload.length / BYTES_PER_TOKEN);
  }

  message(): RegistryMessage {
    this.#message ??= this.#parse(this.#payload) ?? {};
    return this.#message;
  }
}

function parseJson(payload: Uint8Array): RegistryMessage | undefined {
  return parseRegistryMessage(fromUtf8(payload) ?? "");
}

function parseBinary(payload: Uint8Array): RegistryMessage | undefined {
  const request = parseBinaryRequest(payload);
  return request?.type === BINARY.JSON ? parseRegistryMessage(request.text) : request?.message;
}

/** `reply` is our own, so its fields are what they are said to be. */
function encodeBinaryReply(type: number | undefined, reply: Reply): Uint8Array {
  if (type === BINARY.JSON) return encodeBinaryJson(JSON.stringify(reply));
  if (reply["type"] === "error") return encodeBinaryError(text(reply, "error"));
  if (type === BINARY.HEARTBEAT) return encodeBinaryHeartbeatReply(reply["time"] as number, false);
  const publicKey = publicKeyField(reply, "public_key")!;
  const node = reply["node_id"] as number;
  if (type === BINARY.RESOLVE) {
    const keyAgeDays = reply["key_age_days"] as number;
    const lanAddrs = (reply["lan_addrs"] as string[] | undefined) ?? [];
    return encodeBinaryResolveReply({ node, realAddr: text(reply, "real_addr"), lanAddrs, keyAgeDays, publicKey });
  }
  return encodeBinaryLookupReply({
    node,
    isPublic: reply["public"] === true,
    taskExec: reply["task_exec"] === true,
    poloScore: 0,
    networks: reply["networks"] as number[],
    publicKey,
    hostname: text(reply, "hostname"),
    tags: (reply["tags"] as string[] | undefined) ?? [],
    realAddr: text(reply, "real_addr"),
    externalId: "",
  });
}

function text(reply: Reply, field: string): string {
  const value = reply[field];
  return typeof value === "string" ? value : "";
}

const BYTES_PER_TOKEN = 4096;
