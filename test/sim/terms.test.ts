/** What a rule grants in amounts or on one way only, kept between whole engines. */
import { describe, expect, it } from "vitest";
import { formatEndpoint } from "../../src/base/endpoint.ts";
import { superpacket, TCP, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";
import { befriend, type SimNetwork, type SimNode } from "../helpers/sim-network.ts";
import { between, friends, icmp, sent, setPolicy, udp } from "../helpers/sim-policy.ts";

const big = (from: SimNode, to: SimNode, port: number, bytes = 1_000) => {
  const packet = udpPacket({ ...between(from, to), sourcePort: 4000, payload: new Uint8Array(bytes - 48) });
  new DataView(packet.buffer).setUint16(42, port);
  return packet;
};
/** So many packets at once; how many arrive. */
const burst = (network: SimNetwork, from: SimNode, to: SimNode, packet: Uint8Array, count: number) => {
  for (let i = 0; i < count; i++) from.sendPacket(packet);
  network.run(50);
  return to.takeTunPackets().length;
};
const reset = (packet: Uint8Array | undefined) => packet?.[6] === 6 && (packet[53]! & TCP.RST) !== 0;

describe("a limit", () => {
  it("lets a burst and then the rate out, shared by all flows of the peer, and says nothing about what it drops", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp 1-9 to b limit 10KB/s\nallow out udp to b");
    // 64 KiB at once, then 10 packets of 1,000 bytes a second, whatever the port.
    expect(burst(network, a, b, big(a, b, 1), 60)).toBe(60);
    expect(burst(network, a, b, big(a, b, 2), 60)).toBeLessThanOrEqual(7);
    const before = a.engine.drops()["over-limit"]!;
    expect(before).toBeGreaterThanOrEqual(53);
    network.run(5_000);
    const later = burst(network, a, b, big(a, b, 3), 100);
    expect(later).toBeGreaterThanOrEqual(45);
    expect(later).toBeLessThanOrEqual(52);
    expect(a.takeTunPackets()).toEqual([]);
    // Another rule is not touched.
    expect(burst(network, a, b, big(a, b, 10), 200)).toBe(200);
  });

  it("holds what the peer sends as well, by itself", () => {
    const { network, a, b } = friends();
    setPolicy(network, b, "allow in udp from a limit 10KB/s");
    expect(burst(network, a, b, big(a, b, 1), 100)).toBeLessThanOrEqual(67);
    expect(b.engine.drops()["over-limit"]).toBeGreaterThanOrEqual(33);
    const answer = udp(b, a, 1, 4000);
    expect(burst(network, b, a, answer, 100)).toBe(100);
  });

  it("counts a superpacket as the packets it stands for", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out tcp to b limit 1KB/s");
    const many = superpacket(tcpPacket({ ...between(a, b), payload: new Uint8Array(60_000) }), 1_000);
    a.sendStaged(many);
    a.sendStaged(many);
    a.sendStaged(many);
    network.run(50);
    expect(b.takeTunPackets()).toHaveLength(120);
    expect(a.engine.drops()["over-limit"]).toBe(1);
  });

  it("is each peer's own", () => {
    const { network, a, b } = friends();
    const c = network.addNode("c");
    network.run(200);
    befriend(network, a, c);
    network.run(500);
    c.takeTunPackets();
    setPolicy(network, a, "allow out udp to trusted limit 1KB/s");
    expect(burst(network, a, b, big(a, b, 1), 100)).toBe(66);
    expect(burst(network, a, c, big(a, c, 1), 100)).toBe(66);
  });
});

describe("a budget", () => {
  it("counts both directions, then ends the flow and tells the program; later it is there again", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out any to b budget 10KB/1m");
    const out = tcpPacket({ ...between(a, b), flags: TCP.ACK, acknowledgement: 77, payload: new Uint8Array(940) });
    for (let i = 0; i < 5; i++) expect(sent(network, a, b, out)).toHaveLength(1);
    for (let i = 0; i < 5; i++) expect(sent(network, b, a, big(b, a, 4000))).toEqual([]); // no flow of ours
    const back = tcpPacket({ ...between(b, a), sourcePort: 80, flags: TCP.ACK, payload: new Uint8Array(940) });
    new DataView(back.buffer).setUint16(42, 40_000);
    for (let i = 0; i < 5; i++) expect(sent(network, b, a, back)).toHaveLength(1);
    expect(sent(network, b, a, back).filter((packet) => !reset(packet))).toEqual([]);
    expect(a.engine.drops()["over-budget"]).toBe(1);
    expect(a.engine.admission.list(network.now)).toEqual([]);
    expect(sent(network, a, b, out)).toEqual([]);
    expect(reset(a.takeTunPackets().at(-1))).toBe(true);
    expect(sent(network, a, b, udp(a, b, 4000, 53))).toEqual([]);
    expect(icmp(a.takeTunPackets().at(-1))).toEqual([1, 1]);
    network.run(63_000);
    expect(sent(network, a, b, udp(a, b, 4000, 53))).toHaveLength(1);
  });

  it("outlives a reload of the same rule, and begins anew with another", () => {
    const { network, a, b } = friends();
    const text = "allow out udp to b budget 2KB/1h";
    setPolicy(network, a, text);
    expect(burst(network, a, b, big(a, b, 1), 5)).toBe(2);
    setPolicy(network, a, `allow out tcp to b\n${text}`);
    expect(burst(network, a, b, big(a, b, 1), 5)).toBe(0);
    setPolicy(network, a, "allow out udp to b budget 3KB/1h");
    expect(burst(network, a, b, big(a, b, 1), 5)).toBe(3);
  });
});

describe("a number of flows", () => {
  it("lets no more begin in the time, in or out, and leaves those that are there alone", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp to b flows 3/1m");
    setPolicy(network, b, "allow in any from a\nallow in udp from trusted flows 2/1m");
    for (const port of [1, 2, 3]) expect(sent(network, a, b, udp(a, b, 4000, port))).toHaveLength(1);
    expect(sent(network, a, b, udp(a, b, 4000, 4))).toEqual([]);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]);
    expect(a.engine.drops()["over-flows"]).toBe(1);
    expect(sent(network, a, b, udp(a, b, 4000, 2))).toHaveLength(1);
    network.run(63_000);
    expect(sent(network, a, b, udp(a, b, 4000, 4))).toHaveLength(1);
    setPolicy(network, b, "allow in udp from a flows 1/1m");
    expect(sent(network, a, b, udp(a, b, 4000, 4))).toHaveLength(1);
    expect(sent(network, a, b, udp(a, b, 4000, 2))).toHaveLength(1);
    expect(sent(network, a, b, udp(a, b, 4000, 7))).toHaveLength(1);
    expect(sent(network, a, b, udp(a, b, 4000, 8))).toEqual([]);
    expect(a.takeTunPackets()).toEqual([]); // peers are told nothing
  });
});

describe("a way", () => {
  /** Of a packet of 1,000 bytes, alone and in the relay's wrapper. */
  const FRAMES = [1_070, 1_079];
  const way = (network: SimNetwork, from: SimNode) => {
    const seen = network.captured
      .splice(0)
      .filter((flight) => formatEndpoint(flight.from) === formatEndpoint(from.endpoint));
    return seen.filter((flight) => FRAMES.includes(flight.bytes.length)).map((flight) => flight.to.address);
  };

  it("through the relay is taken although there is a direct one, by the answers too, and only by flows of the rule", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp 1 to b via relay\nallow out udp to b");
    network.captured.length = 0;
    for (let i = 0; i < 20; i++) {
      expect(sent(network, a, b, big(a, b, 1))).toHaveLength(1);
      expect(new Set(way(network, a))).toEqual(new Set(["192.0.2.1"]));
      const answer = big(b, a, 4000);
      new DataView(answer.buffer).setUint16(40, 1);
      expect(sent(network, b, a, answer)).toHaveLength(1);
      expect(new Set(way(network, b))).toEqual(new Set(["192.0.2.1"]));
      expect(sent(network, a, b, big(a, b, 2))).toHaveLength(1);
      expect(way(network, a)).toEqual([b.endpoint.address]);
      network.run(200);
    }
    expect([a.engine.linkFacts(b.node)?.path, b.engine.linkFacts(a.node)?.path]).toEqual(["direct", "direct"]);
    expect(a.engine.link(b.node)!.path.history.length).toBeLessThan(4);
  });

  it("through the relay drops what the peer sends directly", () => {
    const { network, a, b } = friends();
    setPolicy(network, b, "allow in udp from a via relay");
    expect(sent(network, a, b, big(a, b, 1))).toEqual([]);
    expect(b.engine.drops()["wrong-path"]).toBe(1);
  });

  it("that is direct refuses packets while there is none, and lets them go when it is back", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp to b via direct");
    expect(sent(network, a, b, big(a, b, 1))).toHaveLength(1);
    const direct = [a, b].map((node) => node.endpoint.address);
    network.tap = (flight) =>
      direct.includes(flight.to.address) && direct.includes(flight.from.address) ? undefined : flight;
    for (let i = 0; i < 40 && a.engine.linkFacts(b.node)?.path !== "relay"; i++) {
      a.sendPacket(big(a, b, 1));
      network.run(500);
    }
    expect(a.engine.linkFacts(b.node)?.path).toBe("relay");
    network.run(3_100);
    a.takeTunPackets();
    network.captured.length = 0;
    expect(sent(network, a, b, big(a, b, 1))).toEqual([]);
    expect(way(network, a)).toEqual([]);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]);
    expect(a.engine.drops()["wrong-path"]).toBeGreaterThan(0);
    network.tap = (flight) => flight;
    a.command((engine, now) => engine.probeEveryWay(b.node, now));
    network.run(200);
    expect(sent(network, a, b, big(a, b, 1))).toHaveLength(1);
  });

  it("that is direct drops what came through the relay", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp to b via relay");
    setPolicy(network, b, "allow in udp from a via direct");
    expect(sent(network, a, b, big(a, b, 1))).toEqual([]);
    expect(b.engine.drops()["wrong-path"]).toBe(1);
  });

  it("holds for packets that wait for a session too", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp to b via relay");
    b.kill();
    b.start();
    a.kill();
    a.start();
    setPolicy(network, a, "allow out udp to b via relay");
    network.captured.length = 0;
    a.sendPacket(big(a, b, 1));
    network.run(3_000);
    expect(b.takeTunPackets()).toHaveLength(1);
    expect(new Set(way(network, a))).toEqual(new Set(["192.0.2.1"]));
  });
});
