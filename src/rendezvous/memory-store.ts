/**
 * The store of a rendezvous in memory: for tests and for the simulated network. Everything is durable at once, and
 * everything is gone with the object. Also the oracle that the SQLite store is compared with.
 */
import { toHex } from "../base/bytes.ts";
import { type NetworkId, type NodeId, networkId, nodeId } from "../wire/ids.ts";
import { LAST_NETWORK, MAX_NETWORKS } from "../wire/registry.ts";
import type { InboxItem, Invite, NetworkRecord, NewNetwork, NewNode, NodeRecord, Store } from "./store.ts";

export class MemoryStore implements Store {
  readonly #maxNodes: number;
  /** By node number; bounded by #maxNodes, nothing evicts. */
  readonly #nodes = new Map<NodeId, NodeRecord>();
  /** Hex key → node; one entry per node. */
  readonly #byKey = new Map<string, NodeId>();
  /** At most one entry per node. */
  readonly #byHostname = new Map<string, NodeId>();
  /** By consenting node; the rules of `consent.ts` bound each set, a revocation removes. */
  readonly #consents = new Map<NodeId, Set<NodeId>>();
  /** By receiving node; the rules of `handshakes.ts` bound each list, polling removes. */
  readonly #inboxes = new Map<NodeId, InboxItem[]>();
  /** By network; bounded by nodes × networks that an operator made. */
  readonly #members = new Map<NetworkId, Set<NodeId>>();
  /** By number, rising; bounded by MAX_NETWORKS, nothing evicts. */
  readonly #networks = new Map<NetworkId, NetworkRecord>();
  /** By invited node and network; the rules of `network-requests.ts` bound each list, an answer removes. */
  readonly #invites = new Map<NodeId, Map<NetworkId, Invite>>();
  #lastNode = 0;
  #lastSerial = 0;
  #lastNetwork = 0;

  constructor(maxNodes = 1_000_000) {
    this.#maxNodes = maxNodes;
  }

  addNode(added: NewNode): NodeId | undefined {
    if (this.#nodes.size >= this.#maxNodes) return undefined;
    const node = nodeId(++this.#lastNode);
    this.#store({ ...added, node });
    return node;
  }

  updateNode(record: NodeRecord): void {
    const old = this.#nodes.get(record.node);
    if (old === undefined) return;
    this.#byKey.delete(toHex(old.publicKey));
    if (old.hostname !== undefined) this.#byHostname.delete(old.hostname);
    this.#store(record);
  }

  nodeById(node: NodeId): NodeRecord | undefined {
    return this.#nodes.get(node);
  }

  keyOf(node: NodeId): Uint8Array | undefined {
    return this.#nodes.get(node)?.publicKey;
  }

  nodeByKey(publicKey: Uint8Array): NodeRecord | undefined {
    const node = this.#byKey.get(toHex(publicKey));
    return node === undefined ? undefined : this.#nodes.get(node);
  }

  nodeByHostname(hostname: string): NodeRecord | undefined {
    const node = this.#byHostname.get(hostname);
    return node === undefined ? undefined : this.#nodes.get(node);
  }

  nodeCount(): number {
    return this.#nodes.size;
  }

  hasConsent(from: NodeId, to: NodeId): boolean {
    return this.#consents.get(from)?.has(to) ?? false;
  }

  addConsent(from: NodeId, to: NodeId): void {
    setOf(this.#consents, from).add(to);
  }

  removeConsent(from: NodeId, to: NodeId): boolean {
    return this.#consents.get(from)?.delete(to) ?? false;
  }

  countConsents(from: NodeId, limit: number): number {
    return Math.min(limit, this.#consents.get(from)?.size ?? 0);
  }

  addInboxItem(to: NodeId, item: Omit<InboxItem, "serial">): void {
    const others = this.inbox(to).filter((old) => old.kind !== item.kind || old.from !== item.from);
    this.#inboxes.set(to, [...others, { ...item, serial: ++this.#lastSerial }]);
  }

  hasInboxItem(to: NodeId, kind: InboxItem["kind"], from: NodeId): boolean {
    return this.inbox(to).some((item) => item.kind === kind && item.from === from);
  }

  countInbox(to: NodeId, kind: InboxItem["kind"]): number {
    return this.inbox(to).filter((item) => item.kind === kind).length;
  }

  inbox(to: NodeId): readonly InboxItem[] {
    return this.#inboxes.get(to) ?? [];
  }

  removeInboxUpTo(to: NodeId, serial: number): void {
    this.#keepInbox(to, (item) => item.serial > serial);
  }

  removeInboxFrom(to: NodeId, from: NodeId, kind: InboxItem["kind"]): void {
    this.#keepInbox(to, (item) => item.from !== from || item.kind !== kind);
  }

  networksOf(node: NodeId): readonly NetworkId[] {
    const networks: NetworkId[] = [];
    for (const [network, members] of this.#members) if (members.has(node)) networks.push(network);
    return networks.sort((a, b) => a - b);
  }

  membersOf(network: NetworkId): readonly NodeId[] {
    return [...(this.#members.get(network) ?? [])].sort((a, b) => a - b);
  }

  addMember(network: NetworkId, node: NodeId): void {
    setOf(this.#members, network).add(node);
  }

  removeMember(network: NetworkId, node: NodeId): void {
    this.#members.get(network)?.delete(node);
  }

  countMembers(network: NetworkId): number {
    return this.#members.get(network)?.size ?? 0;
  }

  addNetwork(added: NewNetwork): NetworkId | undefined {
    if (this.#networks.size >= MAX_NETWORKS || this.#lastNetwork >= LAST_NETWORK) return undefined;
    const network = networkId(++this.#lastNetwork);
    this.#networks.set(network, { ...added, network });
    return network;
  }

  networkById(network: NetworkId): NetworkRecord | undefined {
    return this.#networks.get(network);
  }

  networkByName(name: string): NetworkRecord | undefined {
    return this.networks().find((record) => record.name === name);
  }

  networks(): readonly NetworkRecord[] {
    return [...this.#networks.values()];
  }

  removeNetwork(network: NetworkId): void {
    this.#networks.delete(network);
    this.#members.delete(network);
    for (const invites of this.#invites.values()) invites.delete(network);
  }

  addInvite(invite: Invite): void {
    const invites = this.#invites.get(invite.node) ?? new Map<NetworkId, Invite>();
    this.#invites.set(invite.node, invites.set(invite.network, invite));
  }

  invitesOf(node: NodeId): readonly Invite[] {
    return [...(this.#invites.get(node)?.values() ?? [])].sort((a, b) => a.network - b.network);
  }

  removeInvite(network: NetworkId, node: NodeId): void {
    this.#invites.get(node)?.delete(network);
  }

  #store(record: NodeRecord): void {
    this.#nodes.set(record.node, record);
    this.#byKey.set(toHex(record.publicKey), record.node);
    if (record.hostname !== undefined) this.#byHostname.set(record.hostname, record.node);
  }

  #keepInbox(to: NodeId, keep: (item: InboxItem) => boolean): void {
    const kept = this.inbox(to).filter(keep);
    if (kept.length === 0) this.#inboxes.delete(to);
    else this.#inboxes.set(to, kept);
  }
}

function setOf<K>(map: Map<K, Set<NodeId>>, key: K): Set<NodeId> {
  const found = map.get(key);
  if (found !== undefined) return found;
  const made = new Set<NodeId>();
  map.set(key, made);
  return made;
}
