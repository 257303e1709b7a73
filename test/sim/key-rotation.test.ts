/** A node changes its key while it runs: what its peers notice, and when. */
import { expect, it } from "vitest";
import { udpPacket } from "../helpers/inner-packets.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

const send = (from: SimNode, to: SimNode) => from.sendPacket(udpPacket({ source: from.node, destination: to.node }));

function rotated(seed = 1) {
  const network = new SimNetwork(seed);
  const [a, b] = [network.addNode("a"), network.addNode("b")];
  network.run(500);
  befriend(network, a, b);
  a.rotateKey(77);
  network.run(1_000);
  return { network, a, b };
}

/** What of ten packets each way arrived. */
function exchanged(network: SimNetwork, a: SimNode, b: SimNode): [number, number] {
  a.takeTunPackets();
  b.takeTunPackets();
  for (let i = 0; i < 10; i++) {
    send(a, b);
    send(b, a);
    network.run(300);
  }
  const data = (node: SimNode) => node.takeTunPackets().filter((packet) => packet[6] === 17).length;
  return [data(a), data(b)];
}

it("the peer sees at once that the key is another, and connections go on", () => {
  const { network, a, b } = rotated();
  expect([...b.engine.problems.keys()]).toEqual([`key_changed ${a.node}`]);
  expect(exchanged(network, a, b)).toEqual([10, 10]);
  expect(b.book.stateOf(a.node)).toBe("mutual");
  expect(network.store.nodeCount()).toBe(2);
});

it("after a restart the peer refuses the new key until its operator asks for trust again", () => {
  const { network, a, b } = rotated(2);
  b.kill();
  b.start();
  network.run(2_000);
  expect(exchanged(network, a, b)).toEqual([0, 0]);
  b.command((engine, now) => engine.introductions.revoke(a.node, now));
  b.command((engine, now) => engine.introductions.ask(a.node, "", now));
  network.run(60_000);
  expect(b.engine.problems.size).toBe(0);
  a.command((engine, now) => engine.introductions.approve(b.node, now));
  network.runUntil(() => b.book.stateOf(a.node) === "mutual" && a.book.stateOf(b.node) === "mutual", 60_000);
  network.run(5_000);
  expect(exchanged(network, a, b)).toEqual([10, 10]);
});
