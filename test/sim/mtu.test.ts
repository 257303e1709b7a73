import { describe, expect, it } from "vitest";
import { cutIntoFragments } from "../../src/tunnel/fragments.ts";
import { BRIDGE_PORT, encodeBridgeMessage } from "../../src/wire/bridge.ts";
import { networkId } from "../../src/wire/ids.ts";
import { encodeVirtualPacket, PROTOCOL } from "../../src/wire/virtual-packet.ts";
import { icmpv6Mtu, isPacketTooBig } from "../helpers/icmp-errors.ts";
import { superpacket, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";
import { befriend, type Flight, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

/** Drops silently what is larger on the wire than the underlay carries: UDP over IPv4. */
const carries = (mtuBytes: () => number) => (flight: Flight) =>
  flight.bytes.length + 28 <= mtuBytes() ? flight : undefined;

function pair(mtuBytes: () => number, seed = 1): { network: SimNetwork; a: SimNode; b: SimNode } {
  const network = new SimNetwork(seed);
  network.tap = carries(mtuBytes);
  const a = network.addNode("a");
  const b = network.addNode("b");
  network.run(200);
  befriend(network, a, b);
  return { network, a, b };
}

const facts = (from: SimNode, to: SimNode) => from.engine.linkFacts(to.node)!;
const bigPacket = (from: SimNode, to: SimNode, bytes: number, sourcePort = 40_000) =>
  udpPacket({ source: from.node, destination: to.node, sourcePort, payload: pattern(bytes - 48) });
const pattern = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 7) & 0xff);

describe("a path that carries full packets", () => {
  it("is found to do so with two probes, and asked again only while data flows", () => {
    const { network, a, b } = pair(() => 1500);
    network.run(1_000);
    expect(facts(a, b)).toMatchObject({ mtuBytes: 1360, pathMtuBytes: 1500 });
    const big = () => network.captured.filter(({ from, bytes }) => from === a.endpoint && bytes.length > 1400).length;
    expect(big()).toBe(2);
    network.run(120_000);
    expect(big()).toBe(2);
  });
});

describe("the way to the beacon", () => {
  const measured = (network: SimNetwork, node: SimNode, limitMs: number) => {
    node.command((engine, now) => engine.measureBeaconMtu(now));
    const found = () => node.events.flatMap((event) => (event.kind === "beacon-mtu" ? [event] : []));
    network.runUntil(() => found().length > 0, limitMs);
    return found().map(({ bytes }) => bytes);
  };

  it.each([1500, 1492, 1400, 1300, 1280, 1001, 576])("of %d bytes is measured exactly", (mtu) => {
    const network = new SimNetwork(1);
    network.tap = carries(() => mtu);
    const a = network.addNode("a");
    network.run(500);
    expect(measured(network, a, mtu === 1500 ? 50 : 6_000)).toEqual([mtu]);
  });

  it("is measured over a network that loses a tenth", () => {
    const network = new SimNetwork(3);
    network.tap = carries(() => 1400);
    const a = network.addNode("a");
    network.run(500);
    network.conditions.loss = 0.1;
    const [bytes] = measured(network, a, 6_000);
    expect(bytes).toBeGreaterThan(1280);
    expect(bytes).toBeLessThanOrEqual(1400);
  });

  it("is unknown when nothing comes back, whatever others send", () => {
    const network = new SimNetwork(1);
    const a = network.addNode("a");
    const c = network.addNode("c");
    network.run(500);
    network.tap = (flight) => (flight.from === a.endpoint ? undefined : flight);
    c.command((engine, now) => engine.measureBeaconMtu(now));
    const forged = network.captured.findLast(({ from }) => from === c.endpoint)!.bytes.slice();
    forged.set(forged.subarray(5, 9), 1);
    new DataView(forged.buffer).setUint32(5, a.node);
    const inject = () => network.send(c.endpoint, { address: "192.0.2.1", port: 9001 }, forged);
    for (const at of [10, 300, 900]) network.after(at, inject);
    expect(measured(network, a, 6_000)).toEqual([undefined]);
  });
});

describe("a narrow path", () => {
  it.each([1400, 1280, 1100, 1006, 900, 576])("of %d bytes is measured within three seconds", (mtu) => {
    const { network, a, b } = pair(() => mtu);
    network.runUntil(() => facts(a, b).pathMtuBytes === mtu && facts(b, a).pathMtuBytes === mtu, 3_000);
    expect(facts(a, b).mtuBytes).toBe(Math.max(1280, mtu - 98));
  });

  it("tells the program when a packet is too big, with the size that would do", () => {
    const { network, a, b } = pair(() => 1400);
    network.run(3_000);
    a.sendPacket(bigPacket(a, b, 1303));
    const [answer] = a.takeTunPackets();
    expect(isPacketTooBig(answer)).toBe(true);
    expect(icmpv6Mtu(answer!)).toBe(1302);
    a.sendPacket(bigPacket(a, b, 1302));
    network.run(50);
    expect(b.takeTunPackets()).toEqual([bigPacket(a, b, 1302)]);
  });

  it.each([1280, 1100, 576])("of %d bytes carries packets of 1,280 bytes, in pieces, both ways", (mtu) => {
    const { network, a, b } = pair(() => mtu);
    network.run(3_000);
    for (let i = 0; i < 20; i++) {
      a.sendPacket(bigPacket(a, b, 1280 - i, 40_000 + i));
      b.sendPacket(bigPacket(b, a, 1280 - i, 50_000 + i));
    }
    network.run(100);
    expect(b.takeTunPackets()).toEqual(Array.from({ length: 20 }, (_, i) => bigPacket(a, b, 1280 - i, 40_000 + i)));
    expect(a.takeTunPackets()).toEqual(Array.from({ length: 20 }, (_, i) => bigPacket(b, a, 1280 - i, 50_000 + i)));
  });

  it("carries what the kernel handed over as one superpacket", () => {
    const { network, a, b } = pair(() => 576);
    network.run(3_000);
    const flow = { source: a.node, destination: b.node };
    const all = tcpPacket({ ...flow, sequence: 100, payload: pattern(6_000) });
    a.sendStaged(superpacket(all, 1_220));
    network.run(100);
    const payloads = b.takeTunPackets().map((packet) => packet.subarray(60));
    expect(payloads.map((payload) => payload.length)).toEqual([1220, 1220, 1220, 1220, 1120]);
    expect(payloads.flatMap((payload) => [...payload])).toEqual([...pattern(6_000)]);
  });

  it("gives new TCP connections segments that need no cutting", () => {
    const { network, a, b } = pair(() => 576);
    network.run(3_000);
    const syn = { source: a.node, destination: b.node, flags: 2, options: new Uint8Array([2, 4, 0x05, 0xdc]) };
    a.sendPacket(tcpPacket(syn));
    network.run(50);
    const [arrived] = b.takeTunPackets();
    expect((arrived![62]! << 8) | arrived![63]!).toBe(576 - 98 - 60);
  });

  it("lets nothing pass in pieces that may not pass whole", () => {
    const { network, a, b } = pair(() => 576);
    network.run(3_000);
    const forged = udpPacket({ source: 4_711, destination: b.node, payload: pattern(1_200) });
    sendInPieces(a, b, forged);
    network.run(50);
    expect(b.takeTunPackets()).toEqual([]);
    expect(b.engine.drops()["spoofed-source"]).toBe(1);
    network.tap = (flight) => (flight.from === b.endpoint ? undefined : flight); // a is not told
    sendInPieces(a, b, bigPacket(a, b, 1280));
    network.run(50);
    expect(b.takeTunPackets()).toEqual([bigPacket(a, b, 1280)]);
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(500);
    b.takeTunPackets();
    sendInPieces(a, b, bigPacket(a, b, 1280));
    network.run(50);
    expect(b.takeTunPackets().filter((packet) => packet.length > 1_000)).toEqual([]);
  });
});

describe("a path that changes", () => {
  it("that begins to swallow big datagrams carries a steady transfer again within four seconds", () => {
    let mtu = 1500;
    const { network, a, b } = pair(() => mtu);
    network.run(1_000);
    steady(network, a, b, 5_000);
    mtu = 1280;
    const start = network.now;
    network.runUntil(() => {
      steady(network, a, b, 10);
      return b.takeTunPackets().some((packet) => packet.length === 1280);
    }, 4_000);
    expect(network.now - start).toBeLessThan(4_000);
    expect(facts(a, b)).toMatchObject({ mtuBytes: 1280, pathMtuBytes: 1280 });
  });

  it("is found out at the latest half a minute later when little flows", () => {
    let mtu = 1500;
    const { network, a, b } = pair(() => mtu);
    for (let i = 0; i < 100; i++) {
      a.sendPacket(bigPacket(a, b, 1_000));
      network.run(1_000);
    }
    mtu = 1100;
    for (let i = 0; i < 34; i++) {
      a.sendPacket(bigPacket(a, b, 1_000));
      network.run(1_000);
    }
    expect(facts(a, b).pathMtuBytes).toBe(1100);
  });

  it("that grows is used fully again while data flows", () => {
    let mtu = 576;
    const { network, a, b } = pair(() => mtu);
    network.run(3_000);
    expect(facts(a, b).pathMtuBytes).toBe(576);
    mtu = 1500;
    steady(network, a, b, 30_000);
    expect(facts(a, b)).toMatchObject({ mtuBytes: 1360, pathMtuBytes: 1500 });
  });

  it("keeps what is known when the peer is silent altogether", () => {
    let mtu = 1280;
    const { network, a, b } = pair(() => mtu);
    network.run(3_000);
    mtu = 0;
    steady(network, a, b, 5_000);
    expect(facts(a, b).pathMtuBytes).toBe(1280);
  });
});

/** A peer with a good session that cuts what it has no right to send. */
function sendInPieces(from: SimNode, to: SimNode, packet: Uint8Array): void {
  for (const fragment of cutIntoFragments(packet, 400, 0xfffffff0)) {
    const payload = encodeBridgeMessage({ kind: "fragment", ...fragment });
    const virtual = encodeVirtualPacket({
      flags: 0,
      protocol: PROTOCOL.DATAGRAM,
      source: { network: networkId(0), node: from.node },
      destination: { network: networkId(0), node: to.node },
      sourcePort: BRIDGE_PORT,
      destinationPort: BRIDGE_PORT,
      sequence: 0,
      acknowledgement: 0,
      window: 0,
      payload,
    });
    expect(from.engine.link(to.node)!.sendVirtual(virtual)).toBe(true);
  }
  from.drain();
}

/** About 100 KB a second, in the largest packets that the path takes. */
function steady(network: SimNetwork, from: SimNode, to: SimNode, ms: number): void {
  for (let passed = 0; passed < ms; passed += 10) {
    from.sendPacket(bigPacket(from, to, facts(from, to).mtuBytes));
    network.run(10);
  }
}
