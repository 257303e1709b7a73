/**
 * What a node learned and wants to know at its next start, with the registry down: its number, its host name, names of
 * others, endpoints of peers. Nothing here grants anything; a lost file costs one registration.
 */

import type { Endpoint } from "../base/endpoint.ts";
import type { Problem } from "../base/error-code.ts";
import type { PeerKind } from "../engine/bridge-conversation.ts";
import { NO_NETWORKS, type StoredNetworks } from "../engine/networks.ts";
import type { StoredTags } from "../engine/peer-tags.ts";
import type { StateDirectory } from "../io/state-directory.ts";
import { type NodeId, nodeId } from "../wire/ids.ts";
import { parseIp } from "../wire/underlay-address.ts";

export class NodeMemory {
  readonly problem: Problem | undefined;
  readonly #state: StateDirectory;
  #stored: StoredNode;

  private constructor(state: StateDirectory, stored: StoredNode, problem: Problem | undefined) {
    this.#state = state;
    this.#stored = stored;
    this.problem = problem;
  }

  static load(state: StateDirectory): NodeMemory {
    const { value, problem } = state.load(FILE, parseNodeFile);
    return new NodeMemory(
      state,
      value ?? { version: 1, node: null, hostname: null, port: null, endpoints: [], names: [] },
      problem,
    );
  }

  get node(): NodeId | undefined {
    return this.#stored.node === null ? undefined : nodeId(this.#stored.node);
  }

  get hostname(): string | undefined {
    return this.#stored.hostname ?? undefined;
  }

  rememberNode(node: NodeId): void {
    if (this.#stored.node !== node) this.#save({ ...this.#stored, node });
  }

  rememberHostname(hostname: string | undefined): void {
    if (this.hostname !== hostname) this.#save({ ...this.#stored, hostname: hostname ?? null });
  }

  /** Underlay port of the last run. */
  get port(): number | undefined {
    return this.#stored.port ?? undefined;
  }

  rememberPort(port: number): void {
    if (this.port !== port) this.#save({ ...this.#stored, port });
  }

  endpoints(): Map<NodeId, Endpoint> {
    return new Map(this.#stored.endpoints.map(({ node, address, port }) => [nodeId(node), { address, port }]));
  }

  /** What was learned of all peers, in one write. */
  rememberPeers({ endpoints, kinds, tags }: LearnedPeers): void {
    this.#save({
      ...this.#stored,
      endpoints: [...endpoints].map(([node, endpoint]) => ({ node, ...endpoint })),
      kinds: [...kinds].map(([node, kind]) => ({ node, kind })),
      tags,
    });
  }

  /** What peers were when they last showed: a hint. */
  kinds(): Map<NodeId, PeerKind> {
    return new Map((this.#stored.kinds ?? []).map(({ node, kind }) => [nodeId(node), kind]));
  }

  /** Memberships, so that the interface has its addresses also without a registry. */
  get networks(): StoredNetworks {
    return this.#stored.networks ?? NO_NETWORKS;
  }

  rememberNetworks(networks: StoredNetworks): void {
    if (JSON.stringify(this.networks) !== JSON.stringify(networks)) this.#save({ ...this.#stored, networks });
  }

  /** What peers called themselves when they were last asked about. */
  get tags(): StoredTags {
    return this.#stored.tags ?? [];
  }

  nodeNamed(name: string): NodeId | undefined {
    const entry = this.#stored.names.find((known) => known.name === name);
    return entry && nodeId(entry.node);
  }

  /** The name that was heard last of a node. */
  nameOf(node: NodeId): string | undefined {
    return this.#stored.names.findLast((known) => known.node === node)?.name;
  }

  rememberNames(heard: readonly HeardName[]): void {
    const names = new Map(this.#stored.names.map((known) => [known.name, known]));
    const news = heard.filter(({ name, node }) => names.get(name)?.node !== node);
    if (news.length === 0) return;
    for (const { name, node } of news) {
      names.delete(name); // what is heard now is the latest
      names.set(name, { name, node });
    }
    this.#save({ ...this.#stored, names: [...names.values()].slice(-MAX_NAMES) });
  }

  /** Throws PilotError `state_unwritable`, like all that changes something; it is remembered for this run even so. */
  write(): void {
    this.#state.save(FILE, this.#stored);
  }

  #save(stored: StoredNode): void {
    this.#stored = stored;
    this.write();
  }
}

export interface HeardName {
  readonly name: string;
  readonly node: NodeId;
}

export interface LearnedPeers {
  readonly endpoints: ReadonlyMap<NodeId, Endpoint>;
  readonly kinds: ReadonlyMap<NodeId, PeerKind>;
  readonly tags: StoredTags;
}

interface StoredNode {
  readonly version: 1;
  readonly node: number | null;
  readonly hostname: string | null;
  readonly port: number | null;
  readonly endpoints: readonly { readonly node: number; readonly address: string; readonly port: number }[];
  /** Absent in files of earlier versions. */
  readonly kinds?: readonly { readonly node: number; readonly kind: PeerKind }[];
  readonly names: readonly { readonly name: string; readonly node: number }[];
  /** Absent in files of earlier versions. */
  readonly networks?: StoredNetworks;
  /** Absent in files of earlier versions. */
  readonly tags?: StoredTags;
}

/** Undefined for what is none. */
export function parseNodeFile(json: unknown): StoredNode | undefined {
  const stored = json as Partial<StoredNode>;
  if (stored.version !== 1 || !Array.isArray(stored.endpoints) || !Array.isArray(stored.names)) return undefined;
  if (stored.node !== null && !isNodeNumber(stored.node)) return undefined;
  if (stored.hostname !== null && typeof stored.hostname !== "string") return undefined;
  if (stored.port !== null && !isPort(stored.port)) return undefined;
  if (stored.networks !== undefined && !areNetworks(stored.networks)) return undefined;
  if (stored.tags !== undefined && !areTags(stored.tags)) return undefined;
  const sound =
    stored.endpoints.every((entry) => isNodeNumber(entry?.node) && isAddress(entry.address) && isPort(entry.port)) &&
    stored.names.every((entry) => isNodeNumber(entry?.node) && typeof entry.name === "string");
  return sound && areKinds(stored.kinds) ? (stored as StoredNode) : undefined;
}

function areKinds(kinds: unknown): boolean {
  if (kinds === undefined) return true;
  return Array.isArray(kinds) && kinds.every((entry) => isNodeNumber(entry?.node) && KINDS.includes(entry.kind));
}

function areNetworks(stored: Partial<StoredNetworks> | null): boolean {
  if (stored === null || !Array.isArray(stored.peers)) return false;
  const lists = [stored.memberships, stored.joined, stored.leaving, ...stored.peers.map((peer) => peer?.networks)];
  return (
    lists.every((list) => Array.isArray(list) && list.every(isPort)) && // 1 to 65,535, as ports are
    stored.peers.every((peer) => isNodeNumber(peer.node))
  );
}

function areTags(stored: unknown): boolean {
  const isText = (tag: unknown) => typeof tag === "string";
  return (
    Array.isArray(stored) &&
    stored.every((entry) => isNodeNumber(entry?.node) && Array.isArray(entry.tags) && entry.tags.every(isText))
  );
}

function isNodeNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value > 0 && value <= 0xffffffff;
}

/** Anything else the data plane would refuse, long after the file was read. */
function isAddress(value: unknown): boolean {
  return typeof value === "string" && parseIp(value) !== undefined;
}

function isPort(value: unknown): boolean {
  return typeof value === "number" && Number.isInteger(value) && value > 0 && value <= 65_535;
}

const KINDS: readonly unknown[] = ["unknown", "pilot-tun", "plain"] satisfies PeerKind[];
const FILE = "node.json";
const MAX_NAMES = 4_096;
