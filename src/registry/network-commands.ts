/**
 * What a node may ask of its registry about networks, and what the replies mean (pilot protocol §6.2, §6.3). Leaving
 * must get through some time and is kept until it did; everything else is asked for somebody who waits.
 */
import type { WallClock } from "../base/instant.ts";
import { type NetworkId, type NodeId, networkId } from "../wire/ids.ts";
import {
  integerField,
  isHostname,
  networkField,
  nodeField,
  objectsField,
  type RegistryMessage,
  signedText,
  textField,
} from "../wire/registry.ts";

export type NetworkCommand =
  | {
      readonly kind: "create-network";
      readonly name: string;
      readonly joinRule: JoinRule;
      readonly token?: string;
      /** The registry operator's. */
      readonly adminToken: string;
    }
  | { readonly kind: "delete-network"; readonly network: NetworkId; readonly adminToken: string }
  | { readonly kind: "join-network"; readonly network: NetworkId; readonly token?: string }
  | { readonly kind: "leave-network"; readonly network: NetworkId }
  | { readonly kind: "invite-to-network"; readonly network: NetworkId; readonly node: NodeId }
  | { readonly kind: "poll-invites" }
  | { readonly kind: "respond-invite"; readonly network: NetworkId; readonly accept: boolean }
  | { readonly kind: "list-networks" }
  | { readonly kind: "list-nodes"; readonly network: NetworkId };

export type JoinRule = "open" | "token" | "invite";

export interface NetworkListing {
  readonly network: NetworkId;
  readonly name: string;
  readonly joinRule: string;
  readonly members: number;
}

export interface MemberListing {
  readonly node: NodeId;
  readonly hostname: string | undefined;
}

export interface InviteListing {
  readonly network: NetworkId;
  readonly name: string | undefined;
  readonly inviter: NodeId;
  readonly at: WallClock;
  /** Undefined when the registry does not say that it ends. */
  readonly expires: WallClock | undefined;
}

/** By the command: a list, or the network that was created, entered, left. */
export type NetworkAnswer =
  | { readonly kind: "done"; readonly network: NetworkId }
  | { readonly kind: "networks"; readonly networks: readonly NetworkListing[] }
  | { readonly kind: "members"; readonly members: readonly MemberListing[] }
  | { readonly kind: "invites"; readonly invites: readonly InviteListing[] };

export interface NetworkEvent {
  readonly kind: "network";
  readonly command: NetworkCommand;
  /** Undefined when it failed. */
  readonly answer: NetworkAnswer | undefined;
  readonly error?: string;
}

export function isNetworkCommand(command: { readonly kind: string }): command is NetworkCommand {
  return Object.hasOwn(NETWORK_REQUEST_TYPES, command.kind);
}

/** Joining and leaving one network contradict each other: only the later one is sent. */
export function networkCommandKey(command: NetworkCommand): string {
  switch (command.kind) {
    case "join-network":
    case "leave-network":
    case "delete-network":
      return `membership ${command.network}`;
    case "create-network":
      return `${command.kind} ${command.name}`;
    case "invite-to-network":
      return `${command.kind} ${command.network} ${command.node}`;
    case "respond-invite":
    case "list-nodes":
      return `${command.kind} ${command.network}`;
    case "poll-invites":
    case "list-networks":
      return command.kind;
  }
}

/** The request's type; success replies have it with `_ok`. */
export const NETWORK_REQUEST_TYPES = {
  "create-network": "create_network",
  "delete-network": "delete_network",
  "join-network": "join_network",
  "leave-network": "leave_network",
  "invite-to-network": "invite_to_network",
  "poll-invites": "poll_invites",
  "respond-invite": "respond_invite",
  "list-networks": "list_networks",
  "list-nodes": "list_nodes",
} as const;

export function networkRequest(
  command: NetworkCommand,
  local: NodeId,
  sign: (text: string) => string,
): RegistryMessage {
  const type = NETWORK_REQUEST_TYPES[command.kind];
  switch (command.kind) {
    case "create-network": {
      const { name, joinRule, token, adminToken } = command;
      const withToken = token === undefined ? {} : { token };
      return { type, node_id: local, name, join_rule: joinRule, admin_token: adminToken, ...withToken };
    }
    case "delete-network":
      return { type, network_id: command.network, admin_token: command.adminToken };
    case "join-network": {
      const signature = sign(signedText.joinNetwork(local, command.network));
      const withToken = command.token === undefined ? {} : { token: command.token };
      return { type, node_id: local, network_id: command.network, signature, ...withToken };
    }
    case "leave-network": {
      const signature = sign(signedText.leaveNetwork(local, command.network));
      return { type, node_id: local, network_id: command.network, signature };
    }
    case "invite-to-network": {
      const { network, node } = command;
      const signature = sign(signedText.invite(local, network, node));
      return { type, inviter_id: local, network_id: network, target_node_id: node, signature };
    }
    case "poll-invites":
      return { type, node_id: local, signature: sign(signedText.pollInvites(local)) };
    case "respond-invite": {
      const { network, accept } = command;
      const signature = sign(signedText.respondInvite(local, network));
      return { type, node_id: local, network_id: network, accept, signature };
    }
    case "list-networks":
      return { type };
    case "list-nodes": {
      const signature = sign(signedText.listNodes(local, command.network));
      return { type, node_id: local, network_id: command.network, signature };
    }
  }
}

/** Undefined when the reply makes no sense. */
export function networkAnswer(command: NetworkCommand, reply: RegistryMessage): NetworkAnswer | undefined {
  switch (command.kind) {
    case "create-network": {
      const network = networkField(reply, "network_id");
      return network === undefined ? undefined : { kind: "done", network };
    }
    case "list-networks":
      return { kind: "networks", networks: objectsField(reply, "networks", MAX_NETWORKS).flatMap(networkListing) };
    case "list-nodes":
      return { kind: "members", members: objectsField(reply, "nodes", MAX_LIST).flatMap(memberListing) };
    case "poll-invites":
      return { kind: "invites", invites: objectsField(reply, "invites", MAX_LIST).flatMap(inviteListing) };
    default:
      return { kind: "done", network: command.network };
  }
}

function networkListing(listed: RegistryMessage): NetworkListing[] {
  const network = listed["id"] === 0 ? networkId(0) : networkField(listed, "id");
  const name = textField(listed, "name", MAX_NAME_CHARS);
  if (network === undefined || name === undefined) return [];
  const joinRule = textField(listed, "join_rule", MAX_NAME_CHARS) ?? "";
  return [{ network, name, joinRule, members: Math.max(0, membersField(listed)) }];
}

/** A number, or in one generation the list itself. */
function membersField(listed: RegistryMessage): number {
  const members = listed["members"];
  return Array.isArray(members) ? members.length : (integerField(listed, "members") ?? 0);
}

function memberListing(listed: RegistryMessage): MemberListing[] {
  const node = nodeField(listed, "node_id");
  const hostname = textField(listed, "hostname", MAX_NAME_CHARS);
  if (node === undefined) return [];
  return [{ node, hostname: hostname !== undefined && isHostname(hostname) ? hostname : undefined }];
}

function inviteListing(listed: RegistryMessage): InviteListing[] {
  const network = networkField(listed, "network_id");
  const inviter = nodeField(listed, "inviter_id");
  if (network === undefined || inviter === undefined) return [];
  const at = ((integerField(listed, "timestamp") ?? 0) * 1000) as WallClock;
  const expiresS = integerField(listed, "expires");
  const expires = expiresS === undefined ? undefined : ((expiresS * 1000) as WallClock);
  return [{ network, name: textField(listed, "network_name", MAX_NAME_CHARS), inviter, at, expires }];
}

const MAX_NAME_CHARS = 63;
const MAX_LIST = 2048;
const MAX_NETWORKS = 65_536;
