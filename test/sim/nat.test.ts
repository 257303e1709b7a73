import { describe, expect, it } from "vitest";
import { udpPacket } from "../helpers/inner-packets.ts";
import { expectedPath, NAT_KINDS, type NatKind } from "../helpers/lab-nat.ts";
import { SimNat, SimRouters } from "../helpers/sim-nat.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

interface Pair {
  network: SimNetwork;
  routers: SimRouters;
  a: SimNode;
  b: SimNode;
  natA: SimNat;
  natB: SimNat;
}

function pair(left: NatKind, right: NatKind, seed = 1): Pair {
  const network = new SimNetwork(seed);
  const routers = new SimRouters(network);
  const natA = new SimNat(network, left, "198.51.100.101");
  const natB = new SimNat(network, right, "198.51.100.102");
  const a = routers.add("a", natA, "192.168.1.2");
  const b = routers.add("b", natB, "192.168.2.2");
  network.run(500);
  befriend(network, a, b);
  return { network, routers, a, b, natA, natB };
}

const send = (from: SimNode, to: SimNode) => from.sendPacket(udpPacket({ source: from.node, destination: to.node }));
const pathOf = (from: SimNode, to: SimNode) => from.engine.linkFacts(to.node)?.path;
/** Both send every 100 ms; how long until both get packets, in ms. */
const untilBothHear = ({ network, a, b }: Pair, limitMs: number): number => {
  a.takeTunPackets();
  b.takeTunPackets();
  let heardA = false;
  let heardB = false;
  const start = network.now;
  while (!(heardA && heardB)) {
    if (network.now - start > limitMs) throw new Error(`no traffic within ${limitMs} ms`);
    send(a, b);
    send(b, a);
    network.run(100);
    heardA ||= a.takeTunPackets().length > 0;
    heardB ||= b.takeTunPackets().length > 0;
  }
  return network.now - start;
};

/** Traffic of one or both for more than a minute; then how long until all that is sent arrives again. */
function traffic({ network, a, b }: Pair, who: "both" | "a" | "b", ms: number): (limitMs: number) => number {
  const turn = (everyMs = 100): void => {
    if (who !== "b") send(a, b);
    if (who !== "a") send(b, a);
    network.run(everyMs);
  };
  for (let at = 0; at < 65_000; at += 1_000) turn(1_000);
  for (let at = 0; at < ms; at += 100) turn();
  return (limitMs) => {
    const start = network.now;
    const heard = { a: who === "a", b: who === "b" };
    a.takeTunPackets();
    b.takeTunPackets();
    while (!(heard.a && heard.b)) {
      if (network.now - start > limitMs) throw new Error(`no traffic of ${who} within ${limitMs} ms`);
      turn();
      heard.a ||= a.takeTunPackets().length > 0;
      heard.b ||= b.takeTunPackets().length > 0;
    }
    return network.now - start;
  };
}

describe("two nodes behind routers", () => {
  for (const left of NAT_KINDS) {
    for (const right of NAT_KINDS) {
      it(`end in ${expectedPath(left, right)} for ${left} × ${right}`, () => {
        const both = pair(left, right);
        untilBothHear(both, 1_000);
        both.network.run(8_000);
        const expected = expectedPath(left, right);
        expect([pathOf(both.a, both.b), pathOf(both.b, both.a)]).toEqual([expected, expected]);
      });
    }
  }

  it("behind one router use their own addresses, though it lets nothing turn round", () => {
    const network = new SimNetwork(1);
    const routers = new SimRouters(network);
    const nat = new SimNat(network, "port-dependent", "198.51.100.101");
    const a = routers.add("a", nat, "192.168.1.2");
    const b = routers.add("b", nat, "192.168.1.3");
    network.run(500);
    befriend(network, a, b);
    network.run(3_000);
    expect(a.engine.linkFacts(b.node)?.endpoint).toEqual(b.endpoint);
    expect(b.engine.linkFacts(a.node)?.endpoint).toEqual(a.endpoint);
  });

  it("go by relay within seconds when direct is blocked, and direct again within 10 s when the block lifts", () => {
    for (const blockedWay of ["both ways", "one way"] as const) {
      const both = pair("port-dependent", "port-dependent");
      const { network, routers, a, b, natA, natB } = both;
      untilBothHear(both, 1_000);
      network.run(3_000);
      expect(pathOf(a, b)).toBe("direct");
      routers.blocked = ({ from, to }) =>
        (from.address === natA.address && to.address === natB.address) ||
        (blockedWay === "both ways" && from.address === natB.address && to.address === natA.address);
      expect(untilBothHear(both, 5_000), blockedWay).toBeLessThan(5_000);
      for (let i = 0; i < 50; i++) untilBothHear(both, 3_000);
      expect([pathOf(a, b), pathOf(b, a)], blockedWay).toEqual(["relay", "relay"]);
      routers.blocked = () => false;
      network.runUntil(() => {
        untilBothHear(both, 2_000);
        return pathOf(a, b) === "direct" && pathOf(b, a) === "direct";
      }, 10_000);
    }
  });

  it("have traffic again within 2 s of a move to another network", () => {
    const both = pair("port-dependent", "port-dependent");
    untilBothHear(both, 1_000);
    both.network.run(3_000);
    both.routers.move(both.a, new SimNat(both.network, "symmetric", "198.51.100.103"), "192.168.3.2");
    expect(untilBothHear(both, 2_000)).toBeLessThan(2_000);
  });

  it("have traffic again within 2 s when a router forgets its mappings and gives others, whoever sends", () => {
    for (const who of ["both", "a", "b"] as const) {
      for (const later of [0, 700]) {
        const both = pair("port-dependent", "port-dependent", later + 1);
        untilBothHear(both, 1_000);
        const tellMs = traffic(both, who, 1_000 + later);
        both.natA.kind = "symmetric";
        both.natA.forget();
        expect(tellMs(2_000), `${who} ${later}`).toBeLessThan(2_000);
      }
    }
  });

  it("are found by the beacon again after other mappings, though it had been asked just before", () => {
    const both = pair("port-dependent", "port-dependent");
    const { network, a, b, natA } = both;
    untilBothHear(both, 1_000);
    network.run(3_000);
    const local = [{ address: a.endpoint.address, prefixLength: 24 }];
    a.command((engine, now) => engine.handleUnderlay(local, true, now)); // asks the beacon, and is answered
    network.run(300);
    natA.kind = "symmetric";
    natA.forget();
    a.command((engine, now) => engine.beaconWay.handleSuspicion(now)); // a probe, which names no node
    b.takeTunPackets();
    a.takeTunPackets();
    network.run(200);
    // Only b sends: it is for the beacon to know where a is.
    const relayed = network.captured.length;
    b.command((engine, now) => engine.probeEveryWay(a.node, now));
    network.run(100);
    const delivered = network.captured
      .slice(relayed)
      .filter(({ from, to }) => from.port === 9001 && to.address === natA.address);
    expect(delivered.length).toBeGreaterThan(0);
    expect(new Set(delivered.map(({ to }) => to.port))).toEqual(new Set([a.engine.paths.observed!.port]));
  });

  it("keep a link open for minutes after its use, then let it sleep, and wake it without losing a packet", () => {
    const both = pair("port-dependent", "port-dependent");
    const { network, a, b } = both;
    untilBothHear(both, 1_000);
    network.run(120_000);
    send(a, b);
    network.run(50);
    expect(b.takeTunPackets()).toHaveLength(1); // the mapping was open
    network.run(400_000);
    const before = network.captured.length;
    network.run(200_000);
    const sealed = network.captured.slice(before).filter((flight) => flight.bytes[0]! >= 0x10);
    expect(sealed).toEqual([]);
    send(a, b);
    network.run(300);
    expect(b.takeTunPackets()).toHaveLength(1);
  });
});

describe("punches", () => {
  it("go to no private address that nobody vouched for, and not often to one endpoint", () => {
    const { network, a } = pair("port-dependent", "port-dependent");
    const beacon = { address: "192.0.2.1", port: 9001 };
    const command = (...address: number[]) => Uint8Array.of(4, 4, ...address, 0x0f, 0xa0);
    const punched = (address: string) =>
      network.captured.filter(
        ({ from, to, bytes }) => from === a.endpoint && to.address === address && bytes[3] === 0x50,
      );
    for (let i = 0; i < 20; i++) {
      a.receive(beacon, command(10, 1, 2, 3));
      a.receive(beacon, command(127, 0, 0, 1));
      a.receive(beacon, command(224, 0, 0, 1));
      a.receive(beacon, command(203, 0, 113, 9));
    }
    for (const address of ["10.1.2.3", "127.0.0.1", "224.0.0.1"]) expect(punched(address)).toEqual([]);
    expect(punched("203.0.113.9").length).toBe(4 * 3);
  });
});
