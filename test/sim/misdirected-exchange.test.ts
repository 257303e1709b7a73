/** Found by simulation (seed 44): a key exchange for one peer that arrives at another. */
import { expect, it } from "vitest";
import { udpPacket } from "../helpers/inner-packets.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

it("does not disturb a session when a peer looks for somebody else where this node is", () => {
  const network = new SimNetwork(44);
  const [a, b, gone] = ["a", "b", "gone"].map((name) => network.addNode(name)) as [SimNode, SimNode, SimNode];
  network.run(200);
  befriend(network, a, b);
  befriend(network, a, gone);
  gone.kill();
  // As after a punch command, which does not say whose endpoint it is, or when an address was given to another host.
  a.command((engine, now) => engine.link(gone.node)?.suggestEndpoint(b.endpoint, "punch", now));
  const send = (to: SimNode) => a.sendPacket(udpPacket({ source: a.node, destination: to.node }));
  for (let minute = 0; minute < 5; minute++) {
    for (let tries = 0; tries < 6; tries++) {
      send(gone);
      network.run(10_000);
    }
    b.takeTunPackets();
    send(b);
    b.sendPacket(udpPacket({ source: b.node, destination: a.node }));
    network.run(1_000);
    expect(b.takeTunPackets()).toHaveLength(1);
    expect(b.engine.linkFacts(a.node)?.kind).toBe("pilot-tun");
  }
  expect(b.engine.drops()["wrong-destination"]).toBeGreaterThan(0);
});
