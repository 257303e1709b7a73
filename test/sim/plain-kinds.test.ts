/** Which kind a peer is: learned by its hello or its silence, kept as a hint, and corrected by whatever is observed later. */
import { describe, expect, it } from "vitest";
import type { PeerKind } from "../../src/engine/bridge-conversation.ts";
import {
  commands,
  connect,
  datagram,
  HELLOS_MS,
  LISTENER,
  learned,
  type Pair,
  pair,
  restartAsPlain,
  syn,
  tell,
  written,
} from "../helpers/plain-pair.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

const kindOf = ({ a, b }: Pair): PeerKind | undefined => a.engine.linkFacts(b.node)?.kind;

/** Two nodes that know each other as pilot-tun. */
function tuns(seed = 1): Pair {
  const network = new SimNetwork(seed);
  const [a, b] = [network.addNode("a"), network.addNode("b")];
  for (const node of [a, b]) node.engine.plain.connections.listenerPort = LISTENER;
  network.run(200);
  befriend(network, a, b);
  const all = { network, a, b };
  network.runUntil(() => kindOf(all) === "pilot-tun", 5_000);
  return all;
}

function restartAsTun(node: SimNode): void {
  node.kill();
  node.plainOnly = false;
  node.start();
  node.engine.plain.connections.listenerPort = LISTENER;
}

/** What of it arrives at b, and how long after. */
function arrival({ network, a, b }: Pair, text: string, limitMs: number): number {
  b.takeTunPackets();
  a.sendPacket(datagram(a, b, text));
  const got: Uint8Array[] = [];
  const tookMs = network.runUntil(() => got.push(...b.takeTunPackets()) > 0, limitMs);
  network.run(HELLOS_MS); // and once only
  expect([...got, ...b.takeTunPackets()]).toEqual([datagram(a, b, text)]);
  return tookMs;
}

describe("a plain agent that becomes a pilot-tun", () => {
  it("is noticed by its first hello, and programs go on at once", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    restartAsTun(b);
    b.sendPacket(datagram(b, a, "I am back"));
    network.runUntil(() => kindOf(all) === "pilot-tun", 5_000);
    network.run(100);
    expect(a.takeTunPackets()).toContainEqual(datagram(b, a, "I am back"));
    a.sendPacket(syn(a, b));
    network.run(20);
    expect(b.takeTunPackets().map((packet) => packet[53])).toEqual([2]); // the program's own SYN, whole
    expect(commands(b)).toEqual([]);
    expect(arrival(all, "whole", 100)).toBeLessThanOrEqual(network.conditions.latencyMs);
  });

  it("though all hellos were lost at first, keeps the connections that began as streams", () => {
    const all = tuns(2);
    const { network, a, b } = all;
    a.kill();
    a.start();
    a.engine.plain.connections.listenerPort = LISTENER;
    b.engine.plain.connections.listenerPort = LISTENER;
    network.runUntil(() => a.engine.linkFacts(b.node)?.isUp === true, 5_000);
    Object.defineProperty(b.engine.link(a.node)!, "sendVirtual", { value: () => true, configurable: true }); // b says nothing
    network.runUntil(() => kindOf(all) === "plain", 2 * HELLOS_MS);
    delete (b.engine.link(a.node) as unknown as Record<string, unknown>).sendVirtual;
    const { atA } = connect(network, a, b);
    b.sendPacket(datagram(b, a, "a packet, which no agent sends"));
    network.run(50);
    expect(kindOf(all)).toBe("pilot-tun");
    commands(b);
    tell(a, { kind: "data", id: atA, bytes: new Uint8Array(5_000) });
    network.run(200);
    expect(written(commands(b))).toBe(5_000);
    b.takeTunPackets();
    a.sendPacket(syn(a, b, 40_001)); // a new one goes whole
    network.run(50);
    expect(b.takeTunPackets().map((packet) => packet[53])).toEqual([2]);
  });
});

describe("a pilot-tun that becomes a plain agent", () => {
  it("is noticed by its silence, and what was sent to its new keys meanwhile arrives, translated, once", () => {
    const all = tuns();
    const { network, b } = all;
    restartAsPlain(b);
    b.engine.plain.connections.listenerPort = LISTENER;
    network.runUntil(() => kindOf(all) === "unknown", 5_000);
    expect(arrival(all, "meanwhile", HELLOS_MS)).toBeGreaterThan(2 * network.conditions.latencyMs);
    expect(kindOf(all)).toBe("plain");
    expect(arrival(all, "translated", 100)).toBeLessThanOrEqual(network.conditions.latencyMs);
  });

  it("gets a connection whose SYN was sent before anybody knew", () => {
    const all = tuns();
    const { network, a, b } = all;
    restartAsPlain(b);
    b.engine.plain.connections.listenerPort = LISTENER;
    network.runUntil(() => kindOf(all) === "unknown", 5_000);
    a.sendPacket(syn(a, b));
    network.runUntil(() => kindOf(all) === "plain", HELLOS_MS);
    network.run(50);
    expect(commands(b).map(({ kind }) => kind)).toEqual(["connect"]);
  });
});

describe("a hint from an earlier run", () => {
  it("that says plain is overruled by a hello, for good", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    a.kill(); // keeps "plain"
    restartAsTun(b);
    a.start();
    network.runUntil(() => a.engine.linkFacts(b.node)?.isUp === true, 5_000);
    network.runUntil(() => kindOf(all) === "pilot-tun", 1_000);
    expect(a.engine.knownKinds().get(b.node)).toBe("pilot-tun");
    // A link that closes and opens again, with trust withdrawn and given anew, begins with what was observed last.
    a.command((engine, now) => engine.introductions.revoke(b.node, now));
    network.run(2_000);
    befriend(network, a, b);
    expect(kindOf(all)).not.toBe("plain");
    network.run(1_000);
    expect(kindOf(all)).toBe("pilot-tun");
  });

  it("that says pilot-tun costs an agent nothing: what is sent while nobody knows arrives once, translated", () => {
    const all = tuns();
    const { network, a, b } = all;
    a.kill(); // keeps "pilot-tun"
    restartAsPlain(b);
    a.start();
    network.runUntil(() => a.engine.linkFacts(b.node)?.isUp === true, 5_000);
    expect(kindOf(all)).toBe("unknown");
    arrival(all, "at first", HELLOS_MS);
    expect(kindOf(all)).toBe("plain");
    expect(a.engine.knownKinds().get(b.node)).toBe("plain");
  });

  it("that says plain saves an agent the wait, and is tried against new hellos all the same", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    a.kill();
    a.start();
    network.runUntil(() => a.engine.linkFacts(b.node)?.isUp === true, 5_000);
    const before = network.captured.length;
    expect(arrival(all, "at once", 100)).toBeLessThanOrEqual(network.conditions.latencyMs);
    network.run(HELLOS_MS);
    expect(network.captured.length - before).toBeGreaterThan(2); // hellos among them
    expect(kindOf(all)).toBe("plain");
  });
});
