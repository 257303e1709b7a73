/**
 * Names under `.pilot` for programs of this host: the zone's answers from trust records and memberships, the server on the
 * interface's service address, and systemd-resolved, which is told again whenever it was started anew.
 */
import type { Engine } from "../engine/engine.ts";
import { applyToResolved, type ResolvedState, resolvedInstance } from "../host/resolved.ts";
import { DnsServer } from "../io/dns-server.ts";
import { type Directory, type NamedHost, Zone } from "../names/zone.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { formatOverlayAddress, formatPilotAddress, parseAddressBytes } from "../wire/address.ts";
import { type NetworkId, type NodeId, networkId, nodeId } from "../wire/ids.ts";
import type { HeardName, NodeMemory } from "./node-memory.ts";
import type { Prefix48 } from "./up-options.ts";

export interface NameServiceParts {
  readonly tun: string;
  readonly prefix: Prefix48;
  readonly engine: Engine;
  readonly book: TrustBook;
  readonly memory: Pick<NodeMemory, "nodeNamed" | "nameOf">;
  rememberNames(heard: readonly HeardName[]): void;
  ownName(): string | undefined;
  fingerprint(node: NodeId): string | undefined;
  /** The members of a network that this node is in, as the registry lists them now. */
  members(network: NetworkId): Promise<readonly { readonly node: number; readonly hostname: string | null }[]>;
}

export interface NameServiceStatus {
  /** Null when it does not answer. */
  readonly address: string | null;
  readonly resolved: "absent" | "applied" | "refused" | "off";
  readonly queries: number;
}

/** No node's: 0xffff is no network. */
export function serviceAddress(prefix: Prefix48): string {
  return formatOverlayAddress(prefix, { network: networkId(SERVICE_NETWORK), node: nodeId(DNS_PORT_AS_NODE) });
}

export class NameService implements Directory {
  readonly #parts: NameServiceParts;
  readonly #address: string;
  readonly #zone: Zone;
  readonly #server: DnsServer;
  #isListening = false;
  #resolved: ResolvedState = "absent";
  #told: string | undefined;
  #looks = 0;
  #watch: NodeJS.Timeout | undefined;
  #refresh: NodeJS.Timeout | undefined;

  constructor(parts: NameServiceParts) {
    this.#parts = parts;
    this.#address = serviceAddress(parts.prefix);
    this.#zone = new Zone({ prefix: parts.prefix.bytes, serviceAddress: this.#address }, this);
    this.#server = new DnsServer({
      address: this.#address,
      port: DNS_PORT,
      answer: (name, type) => this.#zone.answer(name, type),
      isLocal: (address) => this.#isLocal(address),
    });
  }

  /** The interface must carry the service address. What cannot be had is a problem to show, no reason not to start. */
  async start(): Promise<void> {
    const { problems } = this.#parts.engine;
    try {
      await this.#server.listen();
      this.#isListening = true;
    } catch (error) {
      const hint = "Port 53 needs CAP_NET_BIND_SERVICE; see pilot-tun doctor dns, or start with --no-dns.";
      const message = `Names under .pilot are not answered: ${(error as Error).message}`;
      problems.set("dns_unavailable", { code: "dns_unavailable", message, hint });
      return;
    }
    await this.#tellResolved();
    this.#watch = setInterval(() => void this.#tellResolved(), RESOLVED_WATCH_MS).unref();
    this.#refresh = setInterval(() => void this.refreshMembers(), MEMBERS_REFRESH_MS).unref();
    void this.refreshMembers();
  }

  close(): void {
    clearInterval(this.#watch);
    clearInterval(this.#refresh);
    this.#server.close();
  }

  get status(): NameServiceStatus {
    const resolved = typeof this.#resolved === "string" ? this.#resolved : "refused";
    return {
      address: this.#isListening ? this.#address : null,
      resolved: this.#isListening ? resolved : "off",
      queries: this.#server.counters.queries,
    };
  }

  /** The answer to a question that came by another way than the socket; undefined: nothing is to be said. */
  answer(message: Uint8Array): Uint8Array | undefined {
    return this.#isListening ? this.#server.respond(Buffer.from(message)) : undefined;
  }

  /** Names of members of shared networks, to be known before anybody asks: an answer never waits for the registry. */
  async refreshMembers(): Promise<void> {
    const { engine, rememberNames } = this.#parts;
    for (const network of engine.networks.memberships()) {
      // Without the registry what was known before stays.
      const members = await this.#parts.members(network).catch(() => []);
      const named = members.flatMap(({ node, hostname }) =>
        hostname === null ? [] : [{ name: hostname, node: nodeId(node) }],
      );
      rememberNames(named);
    }
  }

  find(host: string, network: string | undefined): NamedHost | undefined {
    const { engine, memory } = this.#parts;
    const node = this.#trustedNode(host) ?? memory.nodeNamed(host);
    if (node === undefined) return undefined;
    if (network !== undefined) {
      const shared = engine.networks.sharedByName(network, node);
      return shared === undefined ? undefined : this.#named(node, shared);
    }
    const seenIn = this.#visibleIn(node);
    return seenIn === undefined ? undefined : this.#named(node, seenIn);
  }

  nameOf(address: Uint8Array): string | undefined {
    const { engine, prefix } = this.#parts;
    const parsed = parseAddressBytes(prefix, address);
    if (parsed === undefined) return undefined;
    if (parsed.network === SERVICE_NETWORK) return parsed.node === DNS_PORT_AS_NODE ? "ns" : undefined;
    const name = this.#nameOfNode(parsed.node);
    if (name === undefined) return undefined;
    if (parsed.network === 0) return this.#visibleIn(parsed.node) === 0 ? name : undefined;
    if (!engine.networks.areBothIn(parsed.network, parsed.node)) return undefined;
    const network = engine.networks.nameOf(parsed.network);
    return network === undefined ? undefined : `${name}.${network}`;
  }

  #trustedNode(host: string): NodeId | undefined {
    const { engine, book } = this.#parts;
    if (host === this.#parts.ownName()) return engine.node;
    for (const record of book.records()) if (record.hostname === host && record.state === "mutual") return record.node;
    return undefined;
  }

  /** The network by whose address this host reaches the node: 0 for itself and who it trusts; undefined: not to be seen. */
  #visibleIn(node: NodeId): NetworkId | undefined {
    const { engine, book } = this.#parts;
    if (node === engine.node || book.get(node)?.state === "mutual") return networkId(0);
    return engine.networks.memberships().find((network) => engine.networks.areBothIn(network, node));
  }

  #nameOfNode(node: NodeId): string | undefined {
    const { engine, book, memory } = this.#parts;
    return node === engine.node ? this.#parts.ownName() : (book.get(node)?.hostname ?? memory.nameOf(node));
  }

  #named(node: NodeId, network: NetworkId): NamedHost {
    return {
      address: formatOverlayAddress(this.#parts.prefix, { network, node }),
      pilot: formatPilotAddress({ network, node }),
      fingerprint: this.#parts.fingerprint(node),
    };
  }

  /** Programs of this host speak from its own addresses; one of another machine would have to come through a tunnel. */
  #isLocal(address: string): boolean {
    const { engine, prefix } = this.#parts;
    if (address === this.#address || address === "::1") return true;
    const own = [networkId(0), ...engine.networks.memberships()];
    return own.some((network) => formatOverlayAddress(prefix, { network, node: engine.node }) === address);
  }

  /** Refused while it was starting, it takes our word a moment later; forbidden, perhaps when somebody has allowed it. */
  #mayBeMended(): boolean {
    if (typeof this.#resolved === "string") return false;
    this.#looks++;
    return this.#looks <= LOOKS_AT_START || this.#looks % LOOKS_PER_RETRY === 0;
  }

  async #tellResolved(): Promise<void> {
    const instance = resolvedInstance();
    if (instance === this.#told && !this.#mayBeMended()) return;
    if (instance !== this.#told) this.#looks = 0;
    this.#told = instance;
    const domains = ["pilot", this.#zone.reverseApex];
    this.#resolved = await applyToResolved({ interface: this.#parts.tun, server: this.#address, domains });
    const { problems } = this.#parts.engine;
    if (typeof this.#resolved === "string") return void problems.delete("dns_not_wired");
    const hint = "Names under .pilot work only where this host asks for them by hand: see pilot-tun doctor dns.";
    const message = `systemd-resolved was not told of .pilot: ${this.#resolved.refused}`;
    problems.set("dns_not_wired", { code: "dns_not_wired", message, hint });
  }
}

const SERVICE_NETWORK = 0xffff;
const DNS_PORT = 53;
/** The address ends in ::53, for people. */
const DNS_PORT_AS_NODE = 0x53;
const RESOLVED_WATCH_MS = 2_000;
const LOOKS_AT_START = 5;
const LOOKS_PER_RETRY = 15;
const MEMBERS_REFRESH_MS = 600_000;
