/**
 * The binary protocol over the same rules: a binary request becomes the JSON request of the same meaning, and the reply
 * is written in its binary form (pilot protocol §6.4).
 */
import type { Instant, WallClock } from "../base/instant.ts";
import { publicKeyField, REQUEST_FAILED } from "../wire/registry.ts";
import {
  BINARY,
  encodeBinaryError,
  encodeBinaryHeartbeatReply,
  encodeBinaryJson,
  encodeBinaryLookupReply,
  encodeBinaryResolveReply,
  parseBinaryRequest,
} from "../wire/registry-binary.ts";
import type { RegistryServer } from "./registry.ts";
import type { Conversation, Reply } from "./request-context.ts";

/** One frame's payload in, one whole reply frame out. */
export function handleBinaryRequest(
  server: RegistryServer,
  payload: Uint8Array,
  conversation: Conversation,
  now: Instant,
  wall: WallClock,
): Uint8Array {
  const request = parseBinaryRequest(payload);
  if (request === undefined) return encodeBinaryError(REQUEST_FAILED);
  if (request.type === BINARY.JSON) {
    return encodeBinaryJson(server.handleRequest(request.text, conversation, now, wall));
  }
  return encodeBinaryReply(request.type, server.handleMessage(request.message, conversation, now, wall));
}

/** `reply` is our own, so its fields are what they are said to be. */
function encodeBinaryReply(type: 1 | 2 | 3, reply: Reply): Uint8Array {
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
