/** Two nodes of a simulated network, and what their operators say to each other. */
import type { TrustState } from "../../src/trust/trust-record.ts";
import { SimNetwork, type SimNode } from "./sim-network.ts";

/** `skewMs`: by how much the clock of `a` is wrong from the start. */
export function twoNodes(seed: number, skewMs = 0): { network: SimNetwork; a: SimNode; b: SimNode } {
  const network = new SimNetwork(seed);
  const a = network.addNode("a");
  a.wallSkewMs = skewMs;
  const b = network.addNode("b");
  network.run(200);
  return { network, a, b };
}

export const statesOf = (a: SimNode, b: SimNode): TrustState[] => [a.book.stateOf(b.node), b.book.stateOf(a.node)];

export function ask(from: SimNode, to: SimNode): void {
  from.command((engine, now) => engine.introductions.ask(to.node, "please", now));
}

export function revoke(by: SimNode, of: SimNode): void {
  by.command((engine, now) => engine.introductions.revoke(of.node, now));
}

/** Nobody hears anything of anybody, but for the registry, until the result is called. */
export function cutOff(network: SimNetwork): () => void {
  let isParted = true;
  network.tap = (flight) => (isParted ? undefined : flight);
  return () => {
    isParted = false;
  };
}
