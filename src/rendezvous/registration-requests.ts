/**
 * Requests by which a node comes, stays, and goes: register, heartbeat, rotate_key, deregister (pilot protocol §6.3).
 * The same key has the same number and address for ever. Once a key registered with a signature, an unsigned
 * registration of it is refused: the key alone is public knowledge and proves nothing (§11.9).
 */
import { formatEndpoint } from "../base/endpoint.ts";
import type { NodeId } from "../wire/ids.ts";
import {
  booleanField,
  encodeKey,
  isHostname,
  publicKeyField,
  REQUEST_FAILED,
  type RegistryMessage,
  signedText,
  textField,
  textsField,
} from "../wire/registry.ts";
import { parseEndpoint } from "../wire/underlay-address.ts";
import { hostnameTaken, takeHostname } from "./hostnames.ts";
import { observedEndpoint } from "./observed-endpoint.ts";
import {
  backboneAddress,
  isSignedBy,
  isUnsigned,
  nodeNotFound,
  type Reply,
  type RequestContext,
  type RequestHandler,
  refusal,
  SIGNATURE_REQUIRED,
  signedBy,
  signer,
} from "./request-context.ts";
import type { NewNode, NodeRecord } from "./store.ts";

export const REGISTRATION_REQUESTS: Record<string, RequestHandler> = {
  register,
  heartbeat,
  rotate_key: signedBy("node_id", signedText.rotateKey, rotateKey),
  deregister: signedBy("node_id", signedText.deregister, deregister),
};

function register(message: RegistryMessage, context: RequestContext): Reply {
  const publicKey = publicKeyField(message, "public_key");
  if (publicKey === undefined) return refusal(REQUEST_FAILED);
  const isSigned = !isUnsigned(message);
  if (isSigned && !isRegistrationSigned(message, publicKey, context)) return refusal(REQUEST_FAILED);

  const known = context.store.nodeByKey(publicKey);
  if (known?.mustSign && !isSigned) return refusal(SIGNATURE_REQUIRED);
  if (known === undefined && !context.newKeys.take(context.conversation.sourceKey, context.now)) {
    return refusal("rate limited");
  }
  const record = registered(message, known ?? newNode(publicKey, context), isSigned || known === undefined, context);
  const withKey: NewNode = isSigned ? { ...record, mustSign: true } : record;
  const node = known?.node ?? context.store.addNode(withKey);
  if (node === undefined) return refusal(REQUEST_FAILED);
  const name = claimedHostname(message, node, context);
  const stored: NodeRecord = { ...withKey, node, hostname: name.hostname ?? withKey.hostname };
  context.store.updateNode(stored);
  context.live.heard(node, context.now);
  return registerReply(stored, name, context);
}

/** Both signed values are those of the request, byte for byte. */
function isRegistrationSigned(message: RegistryMessage, publicKey: Uint8Array, context: RequestContext): boolean {
  const listenAddr = textField(message, "listen_addr", MAX_LISTEN_ADDR_CHARS) ?? "";
  const keyText = textField(message, "public_key", MAX_LISTEN_ADDR_CHARS) ?? "";
  return isSignedBy(publicKey, message, signedText.register(listenAddr, keyText), context);
}

function newNode(publicKey: Uint8Array, context: RequestContext): NewNode {
  return {
    publicKey,
    hostname: undefined,
    endpoint: undefined,
    lanAddrs: [],
    isPublic: false,
    relayOnly: false,
    mustSign: false,
    taskExec: false,
    tags: [],
    version: "",
    keySince: context.wall,
    seenAt: context.wall,
  };
}

/** `mayPublish`: an unsigned repetition of somebody's public key must not turn a private node public. */
function registered(message: RegistryMessage, base: NewNode, mayPublish: boolean, context: RequestContext): NewNode {
  const listenAddr = textField(message, "listen_addr", MAX_LISTEN_ADDR_CHARS) ?? "";
  const lanAddrs = textsField(message, "lan_addrs", MAX_LAN_ADDRS_SENT, MAX_LISTEN_ADDR_CHARS) ?? [];
  const isPublic = booleanField(message, "public");
  return {
    ...base,
    endpoint: observedEndpoint(context.conversation.sourceIp, listenAddr),
    lanAddrs: lanAddrs.filter((text) => parseEndpoint(text) !== undefined).slice(0, MAX_LAN_ADDRS),
    isPublic: mayPublish && isPublic !== undefined ? isPublic : base.isPublic,
    relayOnly: booleanField(message, "relay_only") ?? false,
    version: textField(message, "version", MAX_VERSION_CHARS) ?? "",
    seenAt: context.wall,
  };
}

type NameClaim = { readonly hostname?: string; readonly hostnameError?: string };

function claimedHostname(message: RegistryMessage, node: NodeId, context: RequestContext): NameClaim {
  const hostname = message["hostname"];
  if (hostname === undefined || hostname === null || hostname === "") return {};
  if (typeof hostname !== "string" || !isHostname(hostname)) return { hostnameError: "invalid hostname" };
  return takeHostname(hostname, node, context) ? { hostname } : { hostnameError: hostnameTaken(hostname) };
}

function registerReply(record: NodeRecord, name: NameClaim, { rendezvousId }: RequestContext): Reply {
  return {
    type: "register_ok",
    node_id: record.node,
    network_id: 0,
    address: backboneAddress(record.node),
    public_key: encodeKey(record.publicKey),
    protocol_version: 1,
    ...(record.endpoint === undefined ? {} : { observed_addr: formatEndpoint(record.endpoint) }),
    ...(rendezvousId === undefined ? {} : { rendezvous_id: rendezvousId }),
    ...(name.hostname === undefined ? {} : { hostname: name.hostname }),
    ...(name.hostnameError === undefined ? {} : { hostname_error: name.hostnameError }),
  };
}

/** One fork signs and sends a changed `listen_addr` with its heartbeat; it moves the endpoint like a registration. */
function heartbeat(message: RegistryMessage, context: RequestContext): Reply {
  const listenAddr = textField(message, "listen_addr", MAX_LISTEN_ADDR_CHARS);
  const checked = signer(message, "node_id", (node) => signedText.heartbeat(node, listenAddr), context);
  const plain = "refused" in checked ? signer(message, "node_id", signedText.heartbeat, context) : checked;
  if ("refused" in plain) return plain.refused;
  const { node } = plain;
  if (!context.live.isPresent(node, context.now)) return nodeNotFound(node.node);
  context.live.heard(node.node, context.now);
  const moved = checked === plain && listenAddr !== undefined;
  const endpoint = moved ? observedEndpoint(context.conversation.sourceIp, listenAddr) : undefined;
  if (endpoint !== undefined || context.wall - node.seenAt > DAY_MS) {
    context.store.updateNode({ ...node, endpoint: endpoint ?? node.endpoint, seenAt: context.wall });
  }
  return { type: "heartbeat_ok", time: Math.floor(context.wall / 1000) };
}

function rotateKey(node: NodeRecord, message: RegistryMessage, context: RequestContext): Reply {
  const publicKey = publicKeyField(message, "new_public_key");
  if (publicKey === undefined || context.store.nodeByKey(publicKey) !== undefined) return refusal(REQUEST_FAILED);
  context.store.updateNode({ ...node, publicKey, keySince: context.wall });
  return {
    type: "rotate_key_ok",
    node_id: node.node,
    address: backboneAddress(node.node),
    public_key: encodeKey(publicKey),
  };
}

/** Takes the node out of the directory and frees its name; its number, key and pairs stay. */
function deregister(node: NodeRecord, _message: RegistryMessage, context: RequestContext): Reply {
  context.live.forget(node.node);
  context.store.updateNode({ ...node, endpoint: undefined, relayOnly: false, lanAddrs: [], hostname: undefined });
  return { type: "deregister_ok" };
}

const MAX_LISTEN_ADDR_CHARS = 128;
/** Hosts with many bridges and containers send more than anybody can use. */
const MAX_LAN_ADDRS_SENT = 256;
const MAX_LAN_ADDRS = 16;
const MAX_VERSION_CHARS = 64;
const DAY_MS = 24 * 3_600_000;
