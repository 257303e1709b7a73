/**
 * What a rendezvous remembers across restarts, as a port: `rendezvous/memory-store.ts` for tests and simulations,
 * `io/sqlite-store.ts` for the product. Calls are synchronous and see their own uncommitted changes; a change is durable
 * only after the owner committed it, and no reply may leave before that.
 *
 * Never forgotten: key → node number, consents, inboxes. The live directory (who was heard of in the last minutes) is
 * not here; it is rebuilt from heartbeats.
 */
import type { Endpoint } from "../base/endpoint.ts";
import type { WallClock } from "../base/instant.ts";
import type { NetworkId, NodeId } from "../wire/ids.ts";

export interface NodeRecord {
  readonly node: NodeId;
  /** Ed25519, 32 bytes. Unique. */
  readonly publicKey: Uint8Array;
  /** Unique among all nodes that have one. */
  readonly hostname: string | undefined;
  /** Where its tunnel socket was last said to be; undefined after a deregistration. */
  readonly endpoint: Endpoint | undefined;
  readonly lanAddrs: readonly string[];
  readonly isPublic: boolean;
  /** Reachable through the beacon only. */
  readonly relayOnly: boolean;
  /** Registered with a signature once: from then on an unsigned registration of this key is refused. */
  readonly mustSign: boolean;
  readonly taskExec: boolean;
  readonly tags: readonly string[];
  readonly version: string;
  readonly keySince: WallClock;
  /** Last registration, or the first heartbeat of a day: exact enough to free the name of a long-gone node. */
  readonly seenAt: WallClock;
}

export type NewNode = Omit<NodeRecord, "node">;

/** A request or an answer waiting to be polled. One of each kind per sender and receiver. */
export interface InboxItem {
  /** Rising; later items have greater ones. */
  readonly serial: number;
  readonly kind: "request" | "response";
  readonly from: NodeId;
  /** Of a request. */
  readonly justification: string;
  /** Of a response. */
  readonly accept: boolean;
  readonly at: WallClock;
}

/** Who may join: everybody, who knows the token, or who was invited by a member. */
export type JoinRule = "open" | "token" | "invite";

export interface NetworkRecord {
  readonly network: NetworkId;
  /** Unique; written like a hostname. */
  readonly name: string;
  readonly joinRule: JoinRule;
  /** SHA-256 of the token; the token itself is not kept. */
  readonly tokenHash: Uint8Array | undefined;
  readonly createdAt: WallClock;
}

export type NewNetwork = Omit<NetworkRecord, "network">;

export interface Invite {
  readonly network: NetworkId;
  readonly node: NodeId;
  readonly inviter: NodeId;
  readonly at: WallClock;
}

export interface Store {
  /** Bounded: undefined when no more nodes fit. Numbers start at 1, rise, and are never given out twice. */
  addNode(node: NewNode): NodeId | undefined;
  updateNode(node: NodeRecord): void;
  nodeById(node: NodeId): NodeRecord | undefined;
  /** What `nodeById` has for `publicKey`, for less. */
  keyOf(node: NodeId): Uint8Array | undefined;
  nodeByKey(publicKey: Uint8Array): NodeRecord | undefined;
  nodeByHostname(hostname: string): NodeRecord | undefined;
  nodeCount(): number;

  /** `from` agreed to be connected with `to`. A pair is two consents. */
  hasConsent(from: NodeId, to: NodeId): boolean;
  addConsent(from: NodeId, to: NodeId): void;
  /** False when there was none. */
  removeConsent(from: NodeId, to: NodeId): boolean;
  /** Exact up to `limit`, which bounds the work. */
  countConsents(from: NodeId, limit: number): number;

  /** Replaces what `item.from` has waiting of the same kind. */
  addInboxItem(to: NodeId, item: Omit<InboxItem, "serial">): void;
  hasInboxItem(to: NodeId, kind: InboxItem["kind"], from: NodeId): boolean;
  countInbox(to: NodeId, kind: InboxItem["kind"]): number;
  /** Oldest first. */
  inbox(to: NodeId): readonly InboxItem[];
  removeInboxUpTo(to: NodeId, serial: number): void;
  /** In this direction. */
  removeInboxFrom(to: NodeId, from: NodeId, kind: InboxItem["kind"]): void;

  /** Networks other than 0, which everybody belongs to. */
  networksOf(node: NodeId): readonly NetworkId[];
  membersOf(network: NetworkId): readonly NodeId[];
  addMember(network: NetworkId, node: NodeId): void;
  removeMember(network: NetworkId, node: NodeId): void;
  countMembers(network: NetworkId): number;

  /** Bounded: undefined when no more networks fit. Numbers start at 1, rise, and are never given out twice. */
  addNetwork(network: NewNetwork): NetworkId | undefined;
  networkById(network: NetworkId): NetworkRecord | undefined;
  networkByName(name: string): NetworkRecord | undefined;
  /** By number. */
  networks(): readonly NetworkRecord[];

  /** With its members and invitations. */
  removeNetwork(network: NetworkId): void;

  /** One invitation per network and node; a later one replaces it. */
  addInvite(invite: Invite): void;
  /** By network. */
  invitesOf(node: NodeId): readonly Invite[];
  removeInvite(network: NetworkId, node: NodeId): void;
}
