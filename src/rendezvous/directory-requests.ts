/**
 * Requests that ask about others: lookup, resolve, resolve_hostname, punch, beacon_register, beacon_list (pilot protocol
 * §6.3). Where a node is, is told by the privacy rule of consent.ts; a target that is unknown, silent or not to be told
 * gets one and the same refusal.
 */
import { formatEndpoint } from "../base/endpoint.ts";
import type { NodeId } from "../wire/ids.ts";
import {
  encodeKey,
  integerField,
  isHostname,
  nodeField,
  REQUEST_FAILED,
  type RegistryMessage,
  signedText,
  textField,
} from "../wire/registry.ts";
import { parseEndpoint } from "../wire/underlay-address.ts";
import { isAdmin } from "./admin-token.ts";
import { mayLocate, mayName } from "./consent.ts";
import {
  backboneAddress,
  isUnsigned,
  nodeNotFound,
  type Reply,
  type RequestContext,
  type RequestHandler,
  refusal,
  signedAbout,
  signer,
} from "./request-context.ts";
import type { NodeRecord } from "./store.ts";

export const DIRECTORY_REQUESTS: Record<string, RequestHandler> = {
  lookup,
  resolve: signedAbout("requester_id", targetIn, signedText.resolve, resolve),
  resolve_hostname: resolveHostname,
  punch: signedAbout("requester_id", punchedIn, (_, { a, b }) => signedText.punch(a, b), punch),
  beacon_register: beaconRegister,
  beacon_list: beaconList,
};

/** Keys are for everybody: peers verify key exchanges with them, also those of a node that is silent just now. */
function lookup(message: RegistryMessage, context: RequestContext): Reply {
  const node = nodeField(message, "node_id");
  if (node === undefined) return refusal(REQUEST_FAILED);
  const requester = lookupRequester(message, node, context);
  if (requester !== undefined && "refused" in requester) return requester.refused;
  const target = context.store.nodeById(node);
  if (target === undefined) return nodeNotFound(node);
  return {
    type: "lookup_ok",
    node_id: node,
    address: backboneAddress(node),
    networks: [0, ...context.store.networksOf(node)],
    public_key: encodeKey(target.publicKey),
    public: target.isPublic,
    polo_score: 0,
    ...(mayName(context.store, requester?.node.node, target) ? named(target) : {}),
    ...(target.isPublic ? located(target, context) : {}),
  };
}

/** A lookup may be signed to learn more; one that is not signed is answered as for a stranger. */
function lookupRequester(message: RegistryMessage, node: NodeId, context: RequestContext) {
  if (message["requester_id"] === undefined || isUnsigned(message)) return undefined;
  return signer(message, "requester_id", (requester) => signedText.lookup(requester, node), context);
}

export function named(target: NodeRecord): Reply {
  return {
    ...(target.hostname === undefined ? {} : { hostname: target.hostname }),
    ...(target.tags.length === 0 ? {} : { tags: target.tags }),
    ...(target.taskExec ? { task_exec: true } : {}),
  };
}

export function located(target: NodeRecord, context: RequestContext): Reply {
  const endpoint = liveEndpoint(target, context);
  return endpoint === undefined ? {} : { real_addr: endpoint };
}

function targetIn(message: RegistryMessage): NodeId | undefined {
  return nodeField(message, "node_id");
}

function resolve(requester: NodeRecord, node: NodeId, _message: RegistryMessage, context: RequestContext): Reply {
  const target = locatable(node, requester.node, context);
  if (target === undefined) return refusal(REQUEST_FAILED);
  return {
    type: "resolve_ok",
    node_id: node,
    real_addr: liveEndpoint(target, context) ?? "",
    public_key: encodeKey(target.publicKey),
    key_age_days: Math.max(0, Math.floor((context.wall - target.keySince) / DAY_MS)),
    ...(target.lanAddrs.length === 0 ? {} : { lan_addrs: target.lanAddrs }),
    ...(target.relayOnly ? { relay_only: true } : {}),
  };
}

/** The target, if it is live and the requester may know where. */
function locatable(node: NodeId, requester: NodeId, context: RequestContext): NodeRecord | undefined {
  const target = context.store.nodeById(node);
  if (target === undefined || !mayLocate(context.store, requester, target)) return undefined;
  return context.live.isPresent(target, context.now) ? target : undefined;
}

function liveEndpoint(target: NodeRecord, context: RequestContext): string | undefined {
  if (target.endpoint === undefined || !context.live.isLive(target.node, context.now)) return undefined;
  return formatEndpoint(target.endpoint);
}

/** The protocol does not sign this request, so `requester_id` is only a claim. */
function resolveHostname(message: RegistryMessage, context: RequestContext): Reply {
  const hostname = textField(message, "hostname", 63);
  if (hostname === undefined || !isHostname(hostname)) return refusal(REQUEST_FAILED);
  const target = context.store.nodeByHostname(hostname);
  if (target === undefined || !mayLocate(context.store, nodeField(message, "requester_id"), target)) {
    return refusal(`hostname "${hostname}" not found`);
  }
  return {
    type: "resolve_hostname_ok",
    node_id: target.node,
    address: backboneAddress(target.node),
    public: target.isPublic,
    hostname,
  };
}

interface Punched {
  readonly a: NodeId;
  readonly b: NodeId;
}

function punchedIn(message: RegistryMessage): Punched | undefined {
  const a = nodeField(message, "node_a");
  const b = nodeField(message, "node_b");
  return a === undefined || b === undefined ? undefined : { a, b };
}

function punch({ node: requester }: NodeRecord, { a, b }: Punched, _: RegistryMessage, context: RequestContext): Reply {
  if (requester !== a && requester !== b) return refusal(REQUEST_FAILED);
  const ends = [locatable(a, requester, context), locatable(b, requester, context)];
  const addresses = ends.map((end) => (end === undefined ? undefined : liveEndpoint(end, context)));
  if (addresses[0] === undefined || addresses[1] === undefined) return refusal(REQUEST_FAILED);
  return { type: "punch_ok", node_a: a, node_a_addr: addresses[0], node_b: b, node_b_addr: addresses[1] };
}

/** Anybody may announce a beacon that runs where the request came from; for elsewhere it takes the admin token. */
function beaconRegister(message: RegistryMessage, context: RequestContext): Reply {
  const id = integerField(message, "beacon_id");
  const addr = textField(message, "addr", 64);
  const endpoint = addr === undefined ? undefined : parseEndpoint(addr);
  if (id === undefined || id < 0 || id > 0xffffffff || endpoint === undefined) return refusal(REQUEST_FAILED);
  if (!isAdmin(message, context) && endpoint.address !== context.conversation.sourceIp) return refusal(REQUEST_FAILED);
  context.beacons.announce(id, formatEndpoint(endpoint), context.now);
  return { type: "beacon_register_ok", beacon_id: id };
}

function beaconList(_message: RegistryMessage, context: RequestContext): Reply {
  return { type: "beacon_list_ok", beacons: context.beacons.list(context.now) };
}

const DAY_MS = 24 * 3_600_000;
