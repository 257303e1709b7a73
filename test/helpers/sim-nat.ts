/**
 * Routers for the simulated network: a node with a private endpoint behind a NAT of one of the four kinds of RFC 4787.
 * It works as the network's tap: what leaves is given the router's address, what comes is let in or not.
 */
import type { Endpoint } from "../../src/base/endpoint.ts";
import { formatEndpoint, sameEndpoint } from "../../src/base/endpoint.ts";
import type { NatKind } from "./lab-nat.ts";
import { type Flight, type SimNetwork, SimNode } from "./sim-network.ts";

interface Mapping {
  readonly inside: Endpoint;
  readonly port: number;
  /** Endpoints written to through it, and when last. */
  readonly written: Map<string, number>;
}

export class SimNat {
  kind: NatKind;
  readonly address: string;
  readonly #network: SimNetwork;
  /** Key: inside endpoint, and for a symmetric router the destination. */
  #mappings = new Map<string, Mapping>();
  #nextPort = 20_000;

  constructor(network: SimNetwork, kind: NatKind, address: string) {
    this.#network = network;
    this.kind = kind;
    this.address = address;
  }

  /** As a router that restarts. */
  forget(): void {
    this.#mappings = new Map();
  }

  out(from: Endpoint, to: Endpoint): Endpoint {
    const key = this.kind === "symmetric" ? `${formatEndpoint(from)} ${formatEndpoint(to)}` : formatEndpoint(from);
    let mapping = this.#mappings.get(key);
    if (mapping === undefined || !this.#lives(mapping)) {
      mapping = { inside: from, port: this.#nextPort++, written: new Map() };
      this.#mappings.set(key, mapping);
    }
    mapping.written.set(formatEndpoint(to), this.#network.now);
    return { address: this.address, port: mapping.port };
  }

  in(from: Endpoint, port: number): Endpoint | undefined {
    const mapping = [...this.#mappings.values()].find((known) => known.port === port);
    if (mapping === undefined || !this.#lives(mapping)) return undefined;
    const open = [...mapping.written].filter(([, at]) => this.#network.now - at < LIFE_MS).map(([name]) => name);
    const isOpen =
      this.kind === "endpoint-independent" ||
      (this.kind === "address-dependent" && open.some((name) => name.startsWith(`${from.address}:`))) ||
      open.includes(formatEndpoint(from));
    return isOpen ? mapping.inside : undefined;
  }

  #lives(mapping: Mapping): boolean {
    return [...mapping.written.values()].some((at) => this.#network.now - at < LIFE_MS);
  }
}

/** Which router each node is behind; nodes behind the same one reach each other by their own addresses. */
export class SimRouters {
  readonly #network: SimNetwork;
  readonly #of = new Map<SimNode, SimNat>();
  /** Drops flights between routers, after translation. */
  blocked: (flight: Flight) => boolean = () => false;

  constructor(network: SimNetwork) {
    this.#network = network;
    network.tap = (flight) => this.#route(flight);
  }

  add(name: string, nat: SimNat, address: string): SimNode {
    const node = new SimNode(this.#network, name, { address, port: 4000 });
    this.#of.set(node, nat);
    this.#network.nodes.push(node);
    node.start();
    this.#tellAddress(node);
    return node;
  }

  move(node: SimNode, nat: SimNat, address: string): void {
    this.#of.set(node, nat);
    node.endpoint = { address, port: 4000 };
    this.#tellAddress(node);
  }

  #tellAddress(node: SimNode): void {
    const local = [{ address: node.endpoint.address, prefixLength: 24 }];
    node.command((engine, now) => engine.handleUnderlay(local, false, now));
  }

  #route(flight: Flight): Flight | undefined {
    const sender = this.#network.nodes.find((node) => sameEndpoint(node.endpoint, flight.from));
    const from = sender && this.#of.get(sender);
    if (flight.to.address.startsWith("192.168.")) {
      const neighbour = this.#network.nodes.find((node) => sameEndpoint(node.endpoint, flight.to));
      return neighbour !== undefined && this.#of.get(neighbour) === from ? flight : undefined;
    }
    const outside = from === undefined ? flight : { ...flight, from: from.out(flight.from, flight.to) };
    if (this.blocked(outside)) return undefined;
    const to = [...this.#of.values()].find((nat) => nat.address === outside.to.address);
    if (to === undefined) return outside;
    if (to === from) return undefined; // no hairpin
    const inside = to.in(outside.from, outside.to.port);
    return inside && { ...outside, to: inside };
  }
}

/** What a careful router gives a UDP mapping. */
const LIFE_MS = 30_000;
