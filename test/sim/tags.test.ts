/** Rules about what peers call themselves at the registry. */
import { describe, expect, it } from "vitest";
import type { SimNetwork, SimNode } from "../helpers/sim-network.ts";
import { friends, icmp, sent, setPolicy, udp } from "../helpers/sim-policy.ts";

/** As often as a node with such rules asks the registry, and a little. */
const NEXT_LOOK_MS = 61_000;

function tag(network: SimNetwork, node: SimNode, ...tags: string[]): void {
  node.command(() => node.client.setTags(tags));
  network.run(NEXT_LOOK_MS);
}

const reaches = (network: SimNetwork, a: SimNode, b: SimNode) => sent(network, a, b, udp(a, b, 4000, 53)).length === 1;

describe("a rule by tag", () => {
  it("holds from when its peer has the tag, and cuts live flows once it has it no longer", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp to tag:web");
    expect(reaches(network, a, b)).toBe(false);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]);
    tag(network, b, "db", "web");
    expect(reaches(network, a, b)).toBe(true);
    expect(a.engine.admission.list(network.now)).toHaveLength(1);
    tag(network, b, "db");
    expect(a.engine.admission.list(network.now)).toEqual([]);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]);
    expect(reaches(network, a, b)).toBe(false);
  });

  it("that denies cuts a flow begun before the tag was there", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "deny out any to tag:web\nallow out any to trusted");
    expect(reaches(network, a, b)).toBe(true);
    tag(network, b, "web");
    expect(a.engine.admission.list(network.now)).toEqual([]);
    expect(reaches(network, a, b)).toBe(false);
  });

  it("goes by what was known while the registry is away, over a restart too", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp to tag:web");
    tag(network, b, "web");
    a.disconnectRegistry();
    network.run(2 * NEXT_LOOK_MS);
    expect(reaches(network, a, b)).toBe(true);
    a.kill();
    a.start();
    setPolicy(network, a, "allow out udp to tag:web");
    network.run(10_000);
    expect(reaches(network, a, b)).toBe(true);
  });

  it("does nothing for a peer without consent", () => {
    const { network, a, b } = friends();
    const c = network.addNode("c");
    setPolicy(network, a, "allow out any to tag:web\nallow in any from tag:web");
    tag(network, c, "web");
    expect(reaches(network, a, c)).toBe(false);
    a.takeTunPackets();
    expect(reaches(network, c, a)).toBe(false);
    expect(reaches(network, a, b)).toBe(false);
  });

  it("asks the registry nothing while no rule names a tag", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out any to trusted");
    let asked = 0;
    const lookup = a.client.lookup.bind(a.client);
    a.client.lookup = (node) => {
      asked++;
      lookup(node);
    };
    tag(network, b, "web");
    expect(asked).toBe(0);
    setPolicy(network, a, "allow out any to tag:web");
    network.run(NEXT_LOOK_MS);
    expect(asked).toBeGreaterThan(0);
  });
});
