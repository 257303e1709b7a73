/**
 * What carries datagrams between the nodes of a life: who is cut off from whom, what was recorded and is sent again by strangers,
 * and what must never be seen on it.
 */
import type { Endpoint } from "../../src/base/endpoint.ts";
import type { Random } from "../helpers/random.ts";
import { BEACON, type Flight, type SimNetwork } from "../helpers/sim-network.ts";
import { MARKER } from "./programs.ts";
import { Violated } from "./violated.ts";

/** All that is counted per second of simulated time and node, packets of programs aside. */
const MAX_DATAGRAMS_PER_S = 300;
const MAX_RECORDED = 400;

export class Underlay {
  /** Nodes on different sides hear nothing of each other. */
  sides: readonly boolean[] | undefined;
  /** The node that hears of nobody at all. */
  island: number | undefined;
  datagrams = 0;
  /** What arrives now was sent again by a stranger. */
  isReplay = false;
  readonly #network: SimNetwork;
  readonly #random: Random;
  /** The last datagrams as they arrived. Bound: MAX_RECORDED. */
  readonly #recorded: Flight[] = [];
  /** Of this second, by node. */
  readonly #datagramsOf: number[];
  #second = 0;

  constructor(network: SimNetwork, nodes: number, random: Random) {
    this.#network = network;
    this.#random = random;
    this.#datagramsOf = new Array<number>(nodes).fill(0);
  }

  carry(flight: Flight, route: (flight: Flight) => Flight | undefined): Flight | undefined {
    this.datagrams++;
    if (Buffer.from(flight.bytes.buffer, flight.bytes.byteOffset, flight.bytes.length).includes(MARKER)) {
      throw new Violated("no plaintext on the underlay", `from ${flight.from.address} to ${flight.to.address}`);
    }
    const from = this.#indexAt(flight.from);
    if (from !== undefined && flight.tag === undefined) this.#count(from);
    const routed = route(flight);
    if (routed === undefined || this.#areParted(from, this.#indexAt(routed.to))) return undefined;
    if (this.#recorded.length < MAX_RECORDED) this.#recorded.push(routed);
    else this.#recorded[this.#random.between(0, MAX_RECORDED - 1)] = routed;
    return routed;
  }

  replay(count: number): void {
    for (let i = 0; i < count && this.#recorded.length > 0; i++) {
      const flight = this.#random.pick(this.#recorded);
      this.#network.after(this.#random.between(0, 2_000), () => {
        this.isReplay = true;
        this.#network.inject(flight);
        this.#network.after(0, () => {
          this.isReplay = false;
        });
      });
    }
  }

  /** Two ends that answer each other for ever would show here. */
  #count(index: number): void {
    const second = Math.floor(this.#network.now / 1_000);
    if (second !== this.#second) this.#datagramsOf.fill(0);
    this.#second = second;
    if (++this.#datagramsOf[index]! > MAX_DATAGRAMS_PER_S) {
      throw new Violated("nobody floods", `n${index} sends more than ${MAX_DATAGRAMS_PER_S} datagrams in a second`);
    }
  }

  /** Undefined stands for the beacon. */
  #areParted(a: number | undefined, b: number | undefined): boolean {
    if (this.island !== undefined && (a === this.island) !== (b === this.island)) return true;
    return this.sides !== undefined && a !== undefined && b !== undefined && this.sides[a] !== this.sides[b];
  }

  #indexAt({ address, port }: Endpoint): number | undefined {
    if (address === BEACON.address) return undefined;
    const index = this.#network.nodes.findIndex(
      (node) => node.endpoint.address === address && node.endpoint.port === port,
    );
    return index < 0 ? undefined : index;
  }
}
