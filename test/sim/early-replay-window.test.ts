/** Peers whose replay window believes counters before it tests tags, as daemons of the reference do. */
import { describe, expect, it } from "vitest";
import { EarlyReplayWindow } from "../helpers/early-replay-window.ts";
import { datagram, restartAsPlain } from "../helpers/plain-pair.ts";
import { befriend, SimNetwork } from "../helpers/sim-network.ts";

describe("a peer that restarts amid much traffic, and remembers counters of frames that it cannot open", () => {
  it.each([1, 2, 3])("hears us again within 3 s (seed %i)", (seed) => {
    const network = new SimNetwork(seed);
    network.conditions.jitterMs = 5;
    const [a, b] = [network.addNode("a"), network.addNode("b")];
    b.makePlane = (): EarlyReplayWindow => new EarlyReplayWindow();
    restartAsPlain(b);
    network.run(200);
    befriend(network, a, b);
    network.runUntil(() => a.engine.linkFacts(b.node)?.kind === "plain", 20_000);
    const talk = (): number => {
      a.sendPacket(datagram(a, b, "there"));
      b.sendPacket(datagram(b, a, "back"));
      network.run(10);
      a.takeTunPackets();
      return b.takeTunPackets().length;
    };
    for (let i = 0; i < 4_000; i++) a.sendPacket(datagram(a, b, "much"));
    for (let i = 0; i < 100; i++) talk();

    b.kill(); // the peer that is heard at this moment goes on to be written to under the old key for a while
    b.start();
    expect(network.runUntil(() => talk() > 0, 30_000)).toBeLessThan(3_000);
    let arrived = 0;
    for (let i = 0; i < 200; i++) arrived += talk();
    expect(arrived).toBeGreaterThan(190);
  });
});
