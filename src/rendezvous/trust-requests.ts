/**
 * Requests about trust: report_trust, revoke_trust, check_trust and the relayed handshake (pilot protocol §6.3). The
 * rules behind them are in consent.ts and handshakes.ts; here is what goes over the wire.
 */
import type { NodeId } from "../wire/ids.ts";
import {
  booleanField,
  encodeKey,
  MAX_JUSTIFICATION_CHARS,
  nodeField,
  REQUEST_FAILED,
  type RegistryMessage,
  signedText,
  textField,
} from "../wire/registry.ts";
import { giveConsent, isPair, shareNetwork, withdrawConsent } from "./consent.ts";
import { pollInbox, type RequestOutcome, requestHandshake, respondHandshake } from "./handshakes.ts";
import {
  nodeNotFound,
  type Reply,
  type RequestContext,
  type RequestHandler,
  refusal,
  signedAbout,
  signedBy,
} from "./request-context.ts";
import type { InboxItem, NodeRecord } from "./store.ts";

export const TRUST_REQUESTS: Record<string, RequestHandler> = {
  report_trust: betweenNodes("node_id", "peer_id", signedText.reportTrust, reportTrust),
  revoke_trust: betweenNodes("node_id", "peer_id", signedText.revokeTrust, revokeTrust),
  check_trust: checkTrust,
  request_handshake: betweenNodes("from_node_id", "to_node_id", signedText.requestHandshake, requestHandshakeOf),
  poll_handshakes: signedBy("node_id", signedText.pollHandshakes, pollHandshakes),
  respond_handshake: betweenNodes("node_id", "peer_id", signedText.respondHandshake, respondHandshakeOf),
};

function reportTrust(node: NodeId, peer: NodeId, _message: RegistryMessage, { store }: RequestContext): Reply {
  return giveConsent(store, node, peer) ? { type: "report_trust_ok" } : refusal(TOO_MANY);
}

/** An error when there was nothing to revoke, as the reference has it. */
function revokeTrust(node: NodeId, peer: NodeId, _message: RegistryMessage, { store }: RequestContext): Reply {
  return withdrawConsent(store, node, peer) ? { type: "revoke_trust_ok" } : refusal(REQUEST_FAILED);
}

/** Unsigned in the protocol; daemons of the second generation ask this before they let a stranger's stream in. */
function checkTrust(message: RegistryMessage, context: RequestContext): Reply {
  const node = nodeField(message, "node_id");
  const peer = nodeField(message, "peer_id");
  if (node === undefined || peer === undefined) return refusal(REQUEST_FAILED);
  const trusted = isPair(context.store, node, peer) || shareNetwork(context.store, node, peer);
  return { type: "check_trust_ok", trusted };
}

function requestHandshakeOf(from: NodeId, to: NodeId, message: RegistryMessage, context: RequestContext): Reply {
  const justification = textField(message, "justification", MAX_JUSTIFICATION_CHARS);
  if (message["justification"] !== undefined && justification === undefined) return refusal("invalid justification");
  const outcome = requestHandshake(context.store, from, to, justification ?? "", context.wall);
  if (outcome !== "delivered") return refusal(refusedRequest(outcome, from));
  context.notify(to);
  return { type: "request_handshake_ok", status: "delivered" };
}

function refusedRequest(outcome: Exclude<RequestOutcome, "delivered">, from: NodeId): string {
  if (outcome === "already-pending") return `handshake request already pending from node ${from}`;
  return outcome === "inbox-full" ? "rate limited: too many requests wait there" : TOO_MANY;
}

function pollHandshakes({ node }: NodeRecord, _message: RegistryMessage, context: RequestContext): Reply {
  const polled = pollInbox(context.store, node);
  const items = polled?.items ?? [];
  if (polled !== undefined) context.conversation.unconfirmedPoll = { node, lastSerial: polled.lastSerial };
  return {
    type: "poll_handshakes_ok",
    requests: items.filter((item) => item.kind === "request").map((item) => waitingRequest(item, context)),
    responses: items.filter((item) => item.kind === "response").map(waitingResponse),
  };
}

function waitingRequest(item: InboxItem, context: RequestContext): Reply {
  const sender = context.store.nodeById(item.from);
  return {
    from_node_id: item.from,
    justification: item.justification,
    timestamp: Math.floor(item.at / 1000),
    ...(sender === undefined ? {} : { public_key: encodeKey(sender.publicKey) }),
  };
}

function waitingResponse(item: InboxItem): Reply {
  return { from_node_id: item.from, accept: item.accept, timestamp: Math.floor(item.at / 1000) };
}

function respondHandshakeOf(node: NodeId, peer: NodeId, message: RegistryMessage, context: RequestContext): Reply {
  const accept = booleanField(message, "accept");
  if (accept === undefined) return refusal(REQUEST_FAILED);
  const waits = respondHandshake(context.store, node, peer, accept, context.wall);
  if (waits) context.notify(peer);
  return { type: "respond_handshake_ok", accept, peer_id: peer };
}

/** A request that one node signed, about another existing one. */
function betweenNodes(
  nodeName: string,
  peerName: string,
  text: (node: NodeId, peer: NodeId) => string,
  handle: (node: NodeId, peer: NodeId, message: RegistryMessage, context: RequestContext) => Reply,
): RequestHandler {
  const peerIn = (message: RegistryMessage) => nodeField(message, peerName);
  return signedAbout(nodeName, peerIn, text, ({ node }, peer, message, context) => {
    if (node === peer) return refusal(REQUEST_FAILED);
    return context.store.keyOf(peer) === undefined ? nodeNotFound(peer) : handle(node, peer, message, context);
  });
}

const TOO_MANY = "rate limited: this node trusts too many others";
