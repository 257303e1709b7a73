/**
 * The networks this node is in, who else is in them as far as we heard, and what both mean for packets and for trust
 * (pilot protocol §7.2, §7.5).
 *
 * Two facts are kept apart. *Membership* is the registry's word and gives a node its address in a network; it alone lets
 * nothing pass, for every packet still needs the consent of both sides. *Having joined* is this operator's own act,
 * recorded here when his command succeeded, and is the only thing that consents for him: the request of another member
 * is then approved at once, as the protocol has it. A registry that puts this node into a network on its own therefore
 * gives it an address and opens nothing; one that takes it out, or its peer, ends the consent that came that way, and a
 * later return needs a new act. So the registry narrows and never widens. What an operator decided about a peer in
 * person, a tombstone above all, stands whatever the networks say.
 *
 * An address in a network works only between members: both ends are checked, inbound and outbound, and what is not known
 * is refused until the registry has said.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import type { DropReason } from "../base/drop-reason.ts";
import { after, type Deadline, earlier, type Instant, instant } from "../base/instant.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { LookupResult, RegistryEvent } from "../registry/events.ts";
import type { NetworkCommand, NetworkEvent, NetworkListing } from "../registry/network-commands.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { hasPrefix, networkAt, nodeAt, type OverlayPrefix, subAddressAt } from "../wire/address.ts";
import { type NetworkId, type NodeId, networkId, nodeId } from "../wire/ids.ts";
import { IPV6_HEADER_BYTES } from "../wire/ipv6.ts";
import type { Refusals } from "./refusals.ts";

export interface NetworksParts {
  readonly local: NodeId;
  readonly prefix: OverlayPrefix;
  /** Answers come back through `handleRegistry`. */
  readonly registry: Pick<RegistryClient, "lookup" | "network">;
  /** Memberships of trusted peers must be at hand, also after a restart without a registry. */
  readonly trust: TrustBook;
  refusals(): Pick<Refusals, "noRoute" | "prohibited">;
  /** Verdicts made under earlier memberships count no longer; `lost` are the networks this node is no longer in. */
  changed(lost: readonly NetworkId[], now: Instant): void;
}

/** What is worth keeping for a start without a registry. */
export interface StoredNetworks {
  readonly memberships: readonly number[];
  readonly joined: readonly number[];
  /** Left, but the registry has not heard it yet. */
  readonly leaving: readonly number[];
  readonly peers: readonly { readonly node: number; readonly networks: readonly number[] }[];
}

export const NO_NETWORKS: StoredNetworks = { memberships: [], joined: [], leaving: [], peers: [] };

interface PeerNetworks {
  /** Undefined: asked about, not answered yet. */
  readonly networks: ReadonlySet<NetworkId> | undefined;
  readonly at: Instant;
}

export class Networks {
  readonly #parts: NetworksParts;
  /** Networks other than 0 that the registry has us in. Bound: what one registry reply lists. */
  #memberships: ReadonlySet<NetworkId>;
  /** Joined by the operator's own act. Bound: a subset of the memberships. */
  #joined: ReadonlySet<NetworkId>;
  /** Bound: the operator's commands; an answer removes. */
  readonly #leaving: Set<NetworkId>;
  /** Key: node. Bound: MAX_PEERS, the one heard of longest ago goes; told again by the next lookup. */
  readonly #peers = new BoundedMap<NodeId, PeerNetworks>(MAX_PEERS);
  /** All that exist, by number; undefined until the registry listed them. Bound: 65,536 by its type. */
  #existing: ReadonlyMap<NetworkId, NetworkListing> | undefined;
  #listedAt = instant(-FRESH_LIST_MS);
  /** Packets to networks that were not in the last list. Bound: MAX_WAITING, for PATIENCE_MS at most. */
  readonly #waiting: Uint8Array[] = [];
  #waitUntil = instant(0);
  #refreshAt: Instant | undefined;

  constructor(parts: NetworksParts, stored: StoredNetworks) {
    this.#parts = parts;
    this.#memberships = new Set(stored.memberships.map(networkId));
    this.#joined = new Set(stored.joined.map(networkId));
    this.#leaving = new Set(stored.leaving.map(networkId));
    const longAgo = instant(-STALE_MS);
    for (const { node, networks } of stored.peers) {
      this.#peers.set(nodeId(node), { networks: new Set(networks.map(networkId)), at: longAgo });
    }
  }

  /** Those this node has an address in, without 0; rising. */
  memberships(): NetworkId[] {
    return [...this.#memberships].sort((a, b) => a - b);
  }

  hasJoined(network: NetworkId): boolean {
    return this.#joined.has(network);
  }

  nameOf(network: NetworkId): string | undefined {
    return this.#existing?.get(network)?.name;
  }

  toStored(): StoredNetworks {
    const peers = [...this.#parts.trust.nodesIn("mutual")].flatMap((node) => {
      const known = this.#peers.get(node);
      return known?.networks === undefined ? [] : [{ node, networks: [...known.networks] }];
    });
    return { memberships: this.memberships(), joined: [...this.#joined], leaving: [...this.#leaving], peers };
  }

  /** What the operator wants; leaving takes effect here at once, also while no registry can be told, and lasts. */
  request(command: NetworkCommand, now: Instant): void {
    if (command.kind === "leave-network") {
      this.#leaving.add(command.network);
      this.#parts.changed([], now); // also where this node did not know that it was in it
      this.#replace(without(this.#memberships, command.network), without(this.#joined, command.network), now);
    }
    if (command.kind === "join-network" && this.#leaving.delete(command.network)) this.#parts.changed([], now);
    this.#parts.registry.network(command);
  }

  /** Whether packets may pass between these two addresses (16 bytes at each offset), the peer's and ours. */
  admits(bytes: Uint8Array, first: number, second: number, peer: NodeId, now: Instant): "yes" | "no" | "unknown" {
    const a = this.standing(networkAt(bytes, first), peer, now);
    const b =
      networkAt(bytes, first) === networkAt(bytes, second) ? a : this.standing(networkAt(bytes, second), peer, now);
    if (a === "no" || b === "no") return "no";
    return a === "unknown" || b === "unknown" ? "unknown" : "yes";
  }

  /** A packet to an address without an owner: foreign networks are there but not for us, the rest is nowhere. */
  refuseUnrouted(packet: Uint8Array, now: Instant): DropReason {
    const at = IPV6_DESTINATION;
    const inNetwork = packet.length >= IPV6_HEADER_BYTES && hasPrefix(this.#parts.prefix, packet, at);
    const network = inNetwork ? networkAt(packet, at) : networkId(0);
    const isForeign = network !== 0 && subAddressAt(packet, at) === 0 && isNode(nodeAt(packet, at));
    if (!isForeign || this.#memberships.has(network)) {
      this.#parts.refusals().noRoute(packet, now);
      return "no-route";
    }
    if (this.#existing?.has(network) || now - this.#listedAt < FRESH_LIST_MS) this.#refuseForeign(packet, now);
    else this.#refuseWhenListed(packet, now);
    return "not-member";
  }

  #refuseForeign(packet: Uint8Array, now: Instant): void {
    const isAbsent = this.#existing?.has(networkAt(packet, IPV6_DESTINATION)) === false;
    if (isAbsent) this.#parts.refusals().noRoute(packet, now);
    else this.#parts.refusals().prohibited(packet, now);
  }

  /** Networks are made while we run: that one is not there is only said after the registry was asked again. */
  #refuseWhenListed(packet: Uint8Array, now: Instant): void {
    if (this.#waiting.length === 0) {
      this.#waitUntil = after(now, PATIENCE_MS);
      this.#parts.registry.network({ kind: "list-networks" });
    }
    if (this.#waiting.length < MAX_WAITING) this.#waiting.push(packet.slice(0, MAX_QUOTED_BYTES));
  }

  /** Without the registry's word nobody can say that there is no such network. */
  #releaseUnlisted(now: Instant): void {
    for (const packet of this.#waiting.splice(0)) this.#parts.refusals().prohibited(packet, now);
  }

  /** False for an address in one of our networks that the node is not in: there is nobody there. */
  mayBelong(packet: Uint8Array, node: NodeId, now: Instant): boolean {
    return this.standing(networkAt(packet, IPV6_DESTINATION), node, now) !== "no";
  }

  /** The network that consents for the operator to this node's request; asks the registry when it may know more. */
  consentFor(node: NodeId, now: Instant): NetworkId | undefined {
    if (this.#joined.size === 0) return undefined;
    this.#refreshPeer(node, now);
    const networks = this.#peers.get(node)?.networks;
    return this.memberships().find((network) => this.#joined.has(network) && networks?.has(network));
  }

  /** As `consentFor`, from what is known already. */
  sharesJoined(node: NodeId): boolean {
    const networks = this.#peers.get(node)?.networks;
    return this.memberships().some((network) => this.#joined.has(network) && networks?.has(network));
  }

  handleRegistry(event: RegistryEvent, now: Instant): void {
    switch (event.kind) {
      case "registered":
        for (const network of this.#leaving) this.#parts.registry.network({ kind: "leave-network", network });
        return this.#refresh(now);
      case "state":
        if (event.state !== "ok") this.#refreshAt = undefined;
        return;
      case "looked-up":
        if (event.result !== undefined) this.#lookedUp(event.node, event.result, now);
        return;
      case "network":
        return this.#answered(event, now);
      default:
        return;
    }
  }

  pollTimeout(): Deadline | undefined {
    const refresh = this.#refreshAt === undefined ? undefined : { at: this.#refreshAt, reason: "networks" };
    const release = this.#waiting.length === 0 ? undefined : { at: this.#waitUntil, reason: "list of networks" };
    return earlier(refresh, release);
  }

  handleTimeout(now: Instant): void {
    if (this.#refreshAt !== undefined && now >= this.#refreshAt) this.#refresh(now);
    if (now >= this.#waitUntil) this.#releaseUnlisted(now);
  }

  /** Whether this node and the peer are both in the network; asks the registry when it may know more. */
  standing(network: NetworkId, peer: NodeId, now: Instant): "yes" | "no" | "unknown" {
    if (network === 0) return "yes";
    if (!this.#memberships.has(network)) return "no";
    const isIn = this.#peers.get(peer)?.networks?.has(network);
    if (isIn !== true) this.#refreshPeer(peer, now);
    return isIn === undefined ? "unknown" : isIn ? "yes" : "no";
  }

  /** As `standing`, from what is known already; what is not known is no. */
  areBothIn(network: NetworkId, peer: NodeId): boolean {
    return network === 0 || (this.#memberships.has(network) && this.#peers.get(peer)?.networks?.has(network) === true);
  }

  /** A network by its name, if both are in it. */
  sharedByName(name: string, peer: NodeId): NetworkId | undefined {
    return this.memberships().find((network) => this.nameOf(network) === name && this.areBothIn(network, peer));
  }

  #refreshPeer(node: NodeId, now: Instant): void {
    const known = this.#peers.get(node);
    if (known !== undefined && now - known.at < STALE_MS) return;
    this.#peers.set(node, { networks: known?.networks, at: now });
    this.#parts.registry.lookup(node);
  }

  #refresh(now: Instant): void {
    this.#refreshAt = after(now, REFRESH_MS);
    this.#parts.registry.lookup(this.#parts.local);
    this.#parts.registry.network({ kind: "list-networks" });
    this.#refreshPeers();
  }

  #refreshPeers(): void {
    if (this.#memberships.size === 0) return;
    let asked = 0;
    for (const node of this.#parts.trust.nodesIn("mutual")) {
      if (asked++ === MAX_LOOKUPS_AT_ONCE) return; // the others are asked about when there is a packet for them
      this.#parts.registry.lookup(node);
    }
  }

  #lookedUp(node: NodeId, result: LookupResult, now: Instant): void {
    const networks = new Set(result.networks.filter((network) => network !== 0));
    if (node === this.#parts.local) {
      for (const network of this.#leaving) networks.delete(network);
      this.#replace(networks, new Set([...this.#joined].filter((network) => networks.has(network))), now);
      return;
    }
    const before = this.#peers.get(node)?.networks;
    this.#peers.set(node, { networks, at: now });
    if (before === undefined ? networks.size > 0 : !sameSet(before, networks)) this.#parts.changed([], now);
  }

  #answered({ command, answer }: NetworkEvent, now: Instant): void {
    if (command.kind === "leave-network") {
      this.#leaving.delete(command.network); // also after a refusal: the next lookup says what is so
      this.#parts.changed([], now);
      return;
    }
    if (answer?.kind === "networks") {
      this.#listedAt = now;
      this.#existing = new Map(answer.networks.map((listing) => [listing.network, listing]));
      for (const packet of this.#waiting.splice(0)) this.#refuseForeign(packet, now);
      return;
    }
    if (command.kind === "list-networks") return this.#releaseUnlisted(now);
    if (answer?.kind !== "done" || command.kind === "invite-to-network") return;
    if (command.kind === "respond-invite" && !command.accept) return;
    const { network } = answer;
    if (command.kind === "delete-network") {
      this.#replace(without(this.#memberships, network), without(this.#joined, network), now);
      this.#parts.registry.network({ kind: "list-networks" });
      return;
    }
    this.#replace(new Set([...this.#memberships, network]), new Set([...this.#joined, network]), now);
    this.#parts.registry.network({ kind: "list-networks" });
    this.#refreshPeers();
  }

  #replace(memberships: ReadonlySet<NetworkId>, joined: ReadonlySet<NetworkId>, now: Instant): void {
    const lost = this.memberships().filter((network) => !memberships.has(network));
    if (sameSet(memberships, this.#memberships) && sameSet(joined, this.#joined)) return;
    this.#memberships = memberships;
    this.#joined = joined;
    this.#parts.changed(lost, now);
  }
}

function without(set: ReadonlySet<NetworkId>, network: NetworkId): ReadonlySet<NetworkId> {
  return new Set([...set].filter((other) => other !== network));
}

function sameSet(a: ReadonlySet<NetworkId>, b: ReadonlySet<NetworkId>): boolean {
  return a.size === b.size && [...a].every((network) => b.has(network));
}

function isNode(node: NodeId): boolean {
  return node !== 0 && node !== 0xffffffff;
}

const IPV6_DESTINATION = 24; // RFC 8200 §3
const FRESH_LIST_MS = 500;
const PATIENCE_MS = 400;
const MAX_WAITING = 64;
const MAX_QUOTED_BYTES = 1_232; // what an ICMPv6 error can quote
const MAX_PEERS = 16_384;
const MAX_LOOKUPS_AT_ONCE = 256;
/** Memberships of others change rarely, and both sides check. */
const REFRESH_MS = 180_000;
/** A packet that would be refused asks again when what we know is older. */
const STALE_MS = 3_000;
