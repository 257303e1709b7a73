/** A node that allows the keys of February 2026, and a peer that knows no others. */
import { describe, expect, it } from "vitest";
import { isSealedFrame } from "../../src/tunnel/portable-frame.ts";
import { udpPacket } from "../helpers/inner-packets.ts";
import { OlderDataPlane } from "../helpers/older-generation.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

/**
 * The registry names a port that is not the peer's tunnel's, as it does of those daemons, so that only a punch finds it, and
 * it names it late. The peer never speaks first.
 */
function friends(seed: number, olderKeys: "refused" | "allowed"): Friends {
  const network = new SimNetwork(seed);
  const [a, b] = [network.addNode("a"), network.addNode("b")];
  network.run(200);
  befriend(network, a, b);
  for (const node of [a, b]) node.kill();
  a.olderKeys = olderKeys;
  b.olderKeys = "only";
  b.makePlane = (): OlderDataPlane => new OlderDataPlane();
  b.plainOnly = true;
  const told = network.store.nodeById(b.node)!;
  b.endpoint = { ...b.endpoint, port: 4444 };
  b.start();
  network.run(500);
  network.store.updateNode({ ...network.store.nodeById(b.node)!, endpoint: told.endpoint });
  network.registryDelayMs = 300;
  network.tap = (flight) => {
    const isSealed = isSealedFrame(flight.bytes) || isSealedFrame(flight.bytes.subarray(RELAY_PREFIX_BYTES));
    const speaksFirst = isSealed && b.engine.linkFacts(a.node)?.lastReceivedAt === undefined;
    return speaksFirst && flight.from.address === b.endpoint.address ? undefined : flight;
  };
  a.start();
  return { network, a, b };
}

interface Friends {
  readonly network: SimNetwork;
  readonly a: SimNode;
  readonly b: SimNode;
}

function ping({ network, a, b }: Friends): () => boolean {
  a.command((engine, now) => engine.ping(b.node, now));
  network.run(2 * network.conditions.latencyMs + 1);
  return () => a.events.some((event) => event.kind === "pong");
}

describe("keys of February 2026", () => {
  it.each([
    [1, 5],
    [2, 40],
    [3, 90],
  ])("work within four round trips where they are allowed (seed %i, %i ms one way)", (seed, latencyMs) => {
    const all = friends(seed, "allowed");
    all.network.conditions.latencyMs = latencyMs;
    const answers = (): boolean => ping(all)();
    const tookMs = all.network.runUntil(answers, 5_000);
    expect(tookMs).toBeLessThanOrEqual(8 * latencyMs + 300);
    expect(all.a.engine.linkFacts(all.b.node)?.path).toBe("direct");
  });

  it("work through the relay when there is no other way", () => {
    const all = friends(4, "allowed");
    const ends = [all.a.endpoint.address, all.b.endpoint.address];
    const { tap } = all.network;
    all.network.tap = (flight) =>
      ends.includes(flight.from.address) && ends.includes(flight.to.address) ? undefined : tap(flight);
    const tookMs = all.network.runUntil(() => ping(all)(), 5_000);
    expect(tookMs).toBeLessThanOrEqual(1_500);
  });

  it("keep the direct way: those daemons never come back from the relay, so nothing is asked through it needlessly", () => {
    const all = friends(6, "allowed");
    const { network, a, b } = all;
    network.runUntil(() => ping(all)(), 5_000);
    const before = network.captured.length;
    let losses = 1;
    const { tap } = network;
    network.tap = (flight) => (flight.from.address === b.endpoint.address && losses-- > 0 ? undefined : tap(flight));
    for (let i = 0; i < 6; i++) {
      a.sendPacket(udpPacket({ source: a.node, destination: b.node, payload: new Uint8Array([i]) }));
      a.command((engine, now) => engine.probeEveryWay(b.node, now));
      network.run(2_000); // without an answer for longer than a link is believed to live
    }
    expect(a.engine.linkFacts(b.node)?.path).toBe("direct");
    const relayed = network.captured.slice(before).filter(({ from, bytes }) => from === a.endpoint && bytes[0] === 5);
    expect(relayed).toEqual([]);
  });

  it("open nothing where they are not allowed", () => {
    const all = friends(5, "refused");
    for (let i = 0; i < 20; i++) {
      expect(ping(all)()).toBe(false);
      all.network.run(500);
    }
  });
});

const RELAY_PREFIX_BYTES = 9;
