/**
 * Requests about networks: create_network, delete_network, join_network, leave_network, invite_to_network, poll_invites,
 * respond_invite, list_networks, list_nodes (pilot protocol §6.2, §6.3). A network groups nodes: members may locate each
 * other and see the list of members, nobody else may. Creating and deleting take the operator's admin token; joining goes
 * by the network's rule. An invitation that nobody answered ends after some days: it is as if it had never been made.
 *
 * A network that does not exist and one that may not be entered get the same refusal. Members are not told to others,
 * but that a network exists is (list_networks), as in the reference: programs must be able to tell "no such network"
 * from "not for you".
 */
import { equalSecrets, utf8 } from "../base/bytes.ts";
import { formatPilotAddress } from "../wire/address.ts";
import type { NetworkId, NodeId } from "../wire/ids.ts";
import {
  booleanField,
  isHostname,
  MAX_TOKEN_CHARS,
  networkField,
  nodeField,
  REQUEST_FAILED,
  type RegistryMessage,
  signedText,
  textField,
} from "../wire/registry.ts";
import { isAdmin } from "./admin-token.ts";
import { located, named } from "./directory-requests.ts";
import {
  nodeNotFound,
  type Reply,
  type RequestContext,
  type RequestHandler,
  refusal,
  signedAbout,
  signedBy,
  signer,
} from "./request-context.ts";
import type { Invite, JoinRule, NetworkRecord, NodeRecord } from "./store.ts";

export const NETWORK_REQUESTS: Record<string, RequestHandler> = {
  create_network: createNetwork,
  delete_network: deleteNetwork,
  join_network: signedAbout("node_id", networkIn, signedText.joinNetwork, joinNetwork),
  leave_network: signedAbout("node_id", networkIn, signedText.leaveNetwork, leaveNetwork),
  invite_to_network: signedAbout("inviter_id", invitedIn, invitationText, inviteToNetwork),
  poll_invites: signedBy("node_id", signedText.pollInvites, pollInvites),
  respond_invite: signedAbout("node_id", networkIn, signedText.respondInvite, respondInvite),
  list_networks: listNetworks,
  list_nodes: listNodes,
};

/** The protocol signs nothing here: the admin token is what counts. The named node, if any, is the first member. */
function createNetwork(message: RegistryMessage, context: RequestContext): Reply {
  if (!isAdmin(message, context)) return refusal(ADMIN_REQUIRED);
  const name = textField(message, "name", 63);
  if (name === undefined || !isHostname(name)) return refusal("invalid network name");
  const joinRule = (message["join_rule"] ?? "open") as JoinRule;
  if (!JOIN_RULES.has(joinRule)) return refusal("invalid join rule: open, token or invite");
  const token = tokenIn(message);
  if (joinRule === "token" && token === undefined) return refusal("a token is required for this join rule");
  const creator = message["node_id"] === undefined ? undefined : nodeField(message, "node_id");
  if (creator !== undefined && context.store.nodeById(creator) === undefined) return nodeNotFound(creator);
  if (context.store.networkByName(name) !== undefined) return refusal(`network name "${name}" already in use`);
  const tokenHash = joinRule === "token" ? context.crypto.sha256(utf8(token!)) : undefined;
  const network = context.store.addNetwork({ name, joinRule, tokenHash, createdAt: context.wall });
  if (network === undefined) return refusal("rate limited: too many networks");
  if (creator !== undefined) addMember(network, creator, context);
  return { type: "create_network_ok", network_id: network, name, join_rule: joinRule };
}

/** Its members are in it no longer, its invitations are void, and its number is never given out again. */
function deleteNetwork(message: RegistryMessage, context: RequestContext): Reply {
  if (!isAdmin(message, context)) return refusal(ADMIN_REQUIRED);
  const network = networkIn(message);
  if (network === undefined || context.store.networkById(network) === undefined) return refusal("network not found");
  context.store.removeNetwork(network);
  return { type: "delete_network_ok", network_id: network };
}

function networkIn(message: RegistryMessage): NetworkId | undefined {
  return networkField(message, "network_id");
}

function joinNetwork({ node }: NodeRecord, asked: NetworkId, message: RegistryMessage, context: RequestContext): Reply {
  const network = context.store.networkById(asked);
  if (isMember(asked, node, context)) return joined(asked, node);
  if (network === undefined || !mayJoin(message, network, node, context)) return refusal(REQUEST_FAILED);
  if (!addMember(asked, node, context)) return refusal(TOO_MANY);
  return joined(asked, node);
}

function mayJoin(message: RegistryMessage, network: NetworkRecord, node: NodeId, context: RequestContext): boolean {
  if (isInvited(network.network, node, context)) return true;
  if (network.joinRule === "open" || isAdmin(message, context)) return true;
  const token = tokenIn(message);
  if (network.joinRule !== "token" || network.tokenHash === undefined || token === undefined) return false;
  if (!context.tokenAttempts.take(context.conversation.sourceKey, context.now)) return false;
  return equalSecrets(context.crypto.sha256(utf8(token)), network.tokenHash);
}

/** Leaving a network that one is not in is no error: a repeated request must succeed. */
function leaveNetwork({ node }: NodeRecord, network: NetworkId, _: RegistryMessage, { store }: RequestContext): Reply {
  store.removeMember(network, node);
  return { type: "leave_network_ok", network_id: network };
}

interface Invited {
  readonly network: NetworkId;
  readonly target: NodeId;
}

function invitedIn(message: RegistryMessage): Invited | undefined {
  const network = networkIn(message);
  const target = nodeField(message, "target_node_id");
  return network === undefined || target === undefined ? undefined : { network, target };
}

function invitationText(inviter: NodeId, { network, target }: Invited): string {
  return signedText.invite(inviter, network, target);
}

/** Members invite, into networks of any rule: an invitation also stands in for a token. */
function inviteToNetwork(
  { node: inviter }: NodeRecord,
  { network, target }: Invited,
  _message: RegistryMessage,
  context: RequestContext,
): Reply {
  if (!isMember(network, inviter, context)) return refusal(REQUEST_FAILED);
  if (context.store.keyOf(target) === undefined) return nodeNotFound(target);
  if (isMember(network, target, context)) return refusal(`node ${target} is already a member`);
  const isNew = !isInvited(network, target, context);
  if (isNew && currentInvites(target, context).length >= MAX_INVITES_WAITING) {
    return refusal("rate limited: too many invitations wait there");
  }
  context.store.addInvite({ network, node: target, inviter, at: context.wall });
  return { type: "invite_to_network_ok", status: "invited", network_id: network, node_id: target };
}

/** Invitations wait until they are answered, so a reply that gets lost loses nothing. */
function pollInvites({ node }: NodeRecord, _message: RegistryMessage, context: RequestContext): Reply {
  const invites = currentInvites(node, context).map((invite) => ({
    network_id: invite.network,
    network_name: context.store.networkById(invite.network)?.name ?? "",
    inviter_id: invite.inviter,
    timestamp: Math.floor(invite.at / 1000),
    expires: Math.floor((invite.at + context.inviteLifeMs) / 1000),
  }));
  return { type: "poll_invites_ok", invites };
}

function respondInvite(
  { node }: NodeRecord,
  network: NetworkId,
  message: RegistryMessage,
  context: RequestContext,
): Reply {
  const accept = booleanField(message, "accept");
  if (accept === undefined || !isInvited(network, node, context)) return refusal(REQUEST_FAILED);
  if (!accept) context.store.removeInvite(network, node);
  else if (!addMember(network, node, context)) return refusal(TOO_MANY);
  return { type: "respond_invite_ok", network_id: network, accept };
}

/** Those that still stand; the others go as they are met. */
function currentInvites(node: NodeId, context: RequestContext): readonly Invite[] {
  return context.store.invitesOf(node).filter((invite) => {
    if (context.wall - invite.at < context.inviteLifeMs) return true;
    context.store.removeInvite(invite.network, node);
    return false;
  });
}

function isInvited(network: NetworkId, node: NodeId, context: RequestContext): boolean {
  return currentInvites(node, context).some((invite) => invite.network === network);
}

function listNetworks(_message: RegistryMessage, context: RequestContext): Reply {
  const listed = (id: number, name: string, rule: string, members: number, createdAt: number): Reply => ({
    id,
    name,
    join_rule: rule,
    members,
    created: Math.floor(createdAt / 1000),
    enterprise: false,
  });
  const { store, startedAtWall } = context;
  const own = store
    .networks()
    .map(({ network, name, joinRule, createdAt }) =>
      listed(network, name, joinRule, store.countMembers(network), createdAt),
    );
  const backbone = listed(0, "backbone", "open", store.nodeCount(), startedAtWall);
  return { type: "list_networks_ok", networks: [backbone, ...own] };
}

/** For members, who sign, and for the operator. */
function listNodes(message: RegistryMessage, context: RequestContext): Reply {
  const network = networkIn(message);
  if (network === undefined) return refusal(REQUEST_FAILED);
  if (!isAdmin(message, context)) {
    const checked = signer(message, "node_id", (node) => signedText.listNodes(node, network), context);
    if ("refused" in checked) return checked.refused;
    if (!isMember(network, checked.node.node, context)) return refusal(REQUEST_FAILED);
  }
  const members = context.store.membersOf(network).slice(0, MAX_LISTED);
  const nodes = members.flatMap((node) => {
    const member = context.store.nodeById(node);
    return member === undefined ? [] : [listedMember(network, member, context)];
  });
  return { type: "list_nodes_ok", network_id: network, nodes };
}

function listedMember(network: NetworkId, member: NodeRecord, context: RequestContext): Reply {
  return {
    node_id: member.node,
    address: formatPilotAddress({ network, node: member.node }),
    public: member.isPublic,
    ...named(member),
    ...(member.isPublic ? located(member, context) : {}),
  };
}

function isMember(network: NetworkId, node: NodeId, context: RequestContext): boolean {
  return context.store.networksOf(node).includes(network);
}

/** An invitation is used up by joining, whichever way that came about. False when the node is in too many already. */
function addMember(network: NetworkId, node: NodeId, context: RequestContext): boolean {
  if (context.store.networksOf(node).length >= MAX_NETWORKS_PER_NODE) return false;
  context.store.removeInvite(network, node);
  context.store.addMember(network, node);
  return true;
}

function joined(network: NetworkId, node: NodeId): Reply {
  return { type: "join_network_ok", network_id: network, address: formatPilotAddress({ network, node }) };
}

function tokenIn(message: RegistryMessage): string | undefined {
  const token = textField(message, "token", MAX_TOKEN_CHARS);
  return token === "" ? undefined : token;
}

const JOIN_RULES: ReadonlySet<unknown> = new Set<JoinRule>(["open", "token", "invite"]);
const ADMIN_REQUIRED = "admin token required";
const TOO_MANY = "rate limited: this node is in too many networks";
const MAX_INVITES_WAITING = 100;
/** Each is an address on the member's interface. */
const MAX_NETWORKS_PER_NODE = 64;
/** So many fit into a frame that every client accepts. */
const MAX_LISTED = 2048;
