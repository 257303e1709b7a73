/**
 * The part of the local API that is about networks. A `network` in a request is its name or its number. What only the
 * registry knows is asked of it, and fails with `registry_down` while it cannot be reached; leaving works without it.
 */
import type { PeerIdentity } from "./api.ts";

type Empty = Readonly<Record<never, never>>;

export interface NetworkMethods {
  "network/ls": { request: Empty; reply: NetworkListReply };
  "network/create": { request: NetworkCreateRequest; reply: NetworkReply };
  "network/delete": { request: NetworkDeleteRequest; reply: NetworkReply };
  "network/join": { request: NetworkJoinRequest; reply: NetworkReply };
  "network/leave": { request: NetworkRequest; reply: NetworkLeaveReply };
  "network/invite": { request: NetworkInviteRequest; reply: NetworkInviteReply };
  "network/members": { request: NetworkRequest; reply: NetworkMembersReply };
  "network/invites": { request: Empty; reply: NetworkInvitesReply };
  "network/accept": { request: NetworkRequest; reply: NetworkReply };
  "network/decline": { request: NetworkRequest; reply: NetworkReply };
}

/** What the daemon implements. */
export interface NetworkBackend {
  ls(request: Empty, signal: AbortSignal): Promise<NetworkListReply>;
  create(request: NetworkCreateRequest, signal: AbortSignal): Promise<NetworkReply>;
  delete(request: NetworkDeleteRequest, signal: AbortSignal): Promise<NetworkReply>;
  join(request: NetworkJoinRequest, signal: AbortSignal): Promise<NetworkReply>;
  leave(request: NetworkRequest, signal: AbortSignal): Promise<NetworkLeaveReply>;
  invite(request: NetworkInviteRequest, signal: AbortSignal): Promise<NetworkInviteReply>;
  members(request: NetworkRequest, signal: AbortSignal): Promise<NetworkMembersReply>;
  invites(request: Empty, signal: AbortSignal): Promise<NetworkInvitesReply>;
  accept(request: NetworkRequest, signal: AbortSignal): Promise<NetworkReply>;
  decline(request: NetworkRequest, signal: AbortSignal): Promise<NetworkReply>;
}

export const JOIN_RULES = ["open", "token", "invite"] as const;
export type JoinRule = (typeof JOIN_RULES)[number];
export const MAX_TOKEN_LENGTH = 256;

export interface NetworkRequest {
  readonly network: string;
}

export interface NetworkJoinRequest extends NetworkRequest {
  readonly token?: string;
}

export interface NetworkCreateRequest {
  readonly name: string;
  readonly joinRule: JoinRule;
  /** Needed by the rule `token`. */
  readonly token?: string;
  /** The registry operator's. */
  readonly adminToken: string;
}

export interface NetworkDeleteRequest extends NetworkRequest {
  /** The registry operator's. */
  readonly adminToken: string;
}

export interface NetworkInviteRequest extends NetworkRequest {
  readonly peer: string;
}

export interface NetworkReply {
  readonly network: number;
  /** Null when the registry did not say. */
  readonly name: string | null;
  /** This node's overlay address in it; null when it is not a member. */
  readonly address: string | null;
}

export interface NetworkEntry extends NetworkReply {
  /** `open`, `token`, `invite`; null while the registry cannot be asked. */
  readonly joinRule: string | null;
  readonly members: number | null;
  /** Its addresses, for routes and filters. */
  readonly prefix: string;
  /** True when this operator joined it: requests of its members are then approved at once. */
  readonly joined: boolean;
}

export interface NetworkListReply {
  readonly networks: readonly NetworkEntry[];
}

export interface NetworkLeaveReply extends NetworkReply {
  /** False: it is left here, and the registry will be told when it is back. */
  readonly registryTold: boolean;
}

export interface NetworkInviteReply {
  readonly network: number;
  readonly name: string | null;
  readonly peer: PeerIdentity;
}

export interface NetworkMembersReply {
  readonly network: number;
  readonly name: string | null;
  /** `pilot` and `address` are those in the network. */
  readonly members: readonly (PeerIdentity & { readonly self: boolean })[];
}

export interface NetworkInvitesReply {
  readonly invites: readonly {
    readonly network: number;
    readonly name: string | null;
    readonly inviter: PeerIdentity;
    readonly agoS: number;
    /** Null when the registry did not say. */
    readonly expiresInS: number | null;
  }[];
}
