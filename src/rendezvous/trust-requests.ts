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
  signer,
} from "./request-context.ts";
import type { InboxItem, NodeRecord } from "./store.ts";

export const TRUST_REQUESTS: Record<string, RequestHandler> = {
  report_trust: reportTrust,
  revoke_trust: revokeTrust,
  check_trust: checkTrust,
  request_handshake: requestHandshakeOf,
  poll_handshakes: pollHandshakes,
  respond_handshake: respondHandshakeOf,
};

function reportTrust(message: RegistryMessage, context: RequestContext): Reply {
  const sides = signedSides(message, "node_id", "peer_id", signedText.reportTrust, context);
  if ("refused" in sides) return sides.refused;
  const given = giveConsent(context.store, sides.node.node, sides.peer);
  return given ? { type: "report_trust_ok" } : refusal(TOO_MANY);
}

/** An error when there was nothing to revoke, as the reference has it. */
function revokeTrust(message: RegistryMessage, context: RequestContext): Reply {
  const sides = signedSides(message, "node_id", "peer_id", signedText.revokeTrust, context);
  if ("refused" in sides) return sides.refused;
  const revoked = withdrawConsent(context.store, sides.node.node, sides.peer);
  return revoked ? { type: "revoke_trust_ok" } : refusal(REQUEST_FAILED);
}

/** Unsigned in the protocol; daemons of the second generation ask this before they let a stranger's stream in. */
function checkTrust(message: RegistryMessage, context: RequestContext): Reply {
  const node = nodeField(message, "node_id");
  const peer = nodeField(message, "peer_id");
  if (node === undefined || peer === undefined) return refusal(REQUEST_FAILED);
  const trusted = isPair(context.store, node, peer) || shareNetwork(context.store, node, peer);
  return { type: "check_trust_ok", trusted };
}

function requestHandshakeOf(message: RegistryMessage, context: RequestContext): Reply {
  const sides = signedSides(message, "from_node_id", "to_node_id", signedText.requestHandshake, context);
  if ("refused" in sides) return sides.refused;
  const from = sides.node.node;
  const justification = textField(message, "justification", MAX_JUSTIFICATION_CHARS);
  if (message["justification"] !== undefined && justification === undefined) return refusal("invalid justification");
  const outcome = requestHandshake(context.store, from, sides.peer, justification ?? "", context.wall);
  if (outcome !== "delivered") return refusal(refusedRequest(outcome, from));
  context.notify(sides.peer);
  return { type: "request_handshake_ok", status: "delivered" };
}

function refusedRequest(outcome: Exclude<RequestOutcome, "delivered">, from: NodeId): string {
  if (outcome === "already-pending") return `handshake request already pending from node ${from}`;
  return outcome === "inbox-full" ? "rate limited: too many requests wait there" : TOO_MANY;
}

function pollHandshakes(message: RegistryMessage, context: RequestContext): Reply {
  const checked = signer(message, "node_id", signedText.pollHandshakes, context);
  if ("refused" in checked) return checked.refused;
  const node = checked.node.node;
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

function respondHandshakeOf(message: RegistryMessage, context: RequestContext): Reply {
  const sides = signedSides(message, "node_id", "peer_id", signedText.respondHandshake, context);
  if ("refused" in sides) return sides.refused;
  const accept = booleanField(message, "accept");
  if (accept === undefined) return refusal(REQUEST_FAILED);
  const waits = respondHandshake(context.store, sides.node.node, sides.peer, accept, context.wall);
  if (waits) context.notify(sides.peer);
  return { type: "respond_handshake_ok", accept, peer_id: sides.peer };
}

type Sides = { readonly node: NodeRecord; readonly peer: NodeId };

/** Who signed, and the other existing node that the request is about. */
function signedSides(
  message: RegistryMessage,
  nodeName: string,
  peerName: string,
  text: (node: NodeId, peer: NodeId) => string,
  context: RequestContext,
): Sides | { readonly refused: Reply } {
  const peer = nodeField(message, peerName);
  if (peer === undefined) return { refused: refusal(REQUEST_FAILED) };
  const checked = signer(message, nodeName, (node) => text(node, peer), context);
  if ("refused" in checked) return checked;
  if (checked.node.node === peer) return { refused: refusal(REQUEST_FAILED) };
  if (context.store.nodeById(peer) === undefined) return { refused: nodeNotFound(peer) };
  return { node: checked.node, peer };
}

const TOO_MANY = "rate limited: this node trusts too many others";
