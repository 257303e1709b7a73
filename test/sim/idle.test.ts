import { describe, expect, it } from "vitest";
import { udpPacket } from "../helpers/inner-packets.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

/** How often a deadline of its own wakes the node. */
function wakeUpsIn(network: SimNetwork, { engine }: SimNode, ms: number): number {
  let wakeUps = 0;
  const handleTimeout = engine.handleTimeout.bind(engine);
  engine.handleTimeout = (now) => {
    wakeUps++;
    handleTimeout(now);
  };
  network.run(ms);
  engine.handleTimeout = handleTimeout;
  return wakeUps;
}

describe("a node with nothing to do", () => {
  it("is woken by its beacon and its registry, and by nothing else, every four seconds at most", () => {
    const network = new SimNetwork(1);
    const [a, b] = [network.addNode("a"), network.addNode("b")];
    network.run(200);
    befriend(network, a, b);
    network.run(900_000); // also what was asked when trust was made
    expect(a.engine.linkFacts(b.node)?.isUp).toBe(true);
    for (let minute = 0; minute < 5; minute++) expect(wakeUpsIn(network, a, 60_000)).toBeLessThanOrEqual(15);
  });

  it("is woken as rarely with a peer whose packets passed an hour ago", () => {
    const network = new SimNetwork(2);
    const [a, b] = [network.addNode("a"), network.addNode("b")];
    network.run(200);
    befriend(network, a, b);
    for (let i = 0; i < 20; i++) {
      a.sendPacket(udpPacket({ source: a.node, destination: b.node, payload: new Uint8Array(100) }));
      network.run(100);
    }
    expect(b.takeTunPackets()).toHaveLength(20);
    network.run(3_600_000);
    expect(wakeUpsIn(network, a, 60_000)).toBeLessThanOrEqual(15);
  });
});
