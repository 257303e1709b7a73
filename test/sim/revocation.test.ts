/** The end of trust: what programs are told, and that nothing but a new consent brings it back. */
import { describe, expect, it } from "vitest";
import { Conversation } from "../../src/rendezvous/request-context.ts";
import { encodeEcho, ICMPV6_TYPE } from "../../src/wire/icmpv6.ts";
import { TCP, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

function friends(seed = 31): { network: SimNetwork; a: SimNode; b: SimNode } {
  const network = new SimNetwork(seed);
  const a = network.addNode("a");
  const b = network.addNode("b");
  network.run(200);
  befriend(network, a, b);
  network.run(1_000);
  a.takeTunPackets();
  b.takeTunPackets();
  return { network, a, b };
}

const between = (from: SimNode, to: SimNode) => ({ source: from.node, destination: to.node });

describe("a revocation", () => {
  it("tells programs on both sides at once, also those that only wait, ping or are still connecting", () => {
    const { network, a, b } = friends();
    const addresses = {
      source: udpPacket(between(a, b)).slice(8, 24),
      destination: udpPacket(between(a, b)).slice(24, 40),
    };
    a.sendPacket(udpPacket({ ...between(a, b), sourcePort: 4000 }));
    a.sendPacket(
      encodeEcho({
        type: ICMPV6_TYPE.ECHO_REQUEST,
        identifier: 77,
        sequence: 1,
        payload: new Uint8Array(8),
        ...addresses,
      }),
    );
    a.sendPacket(tcpPacket({ ...between(a, b), flags: TCP.SYN, sequence: 0xfffffff0, sourcePort: 4001 }));
    network.run(100);
    b.takeTunPackets();
    a.takeTunPackets();
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    // For the ping of the peer no program waits here.
    const [toServer, toListener, ...more] = b.takeTunPackets().sort((one, other) => other[6]! - one[6]!);
    expect(quoted(toServer!)).toEqual({ code: 1, protocol: 17, ports: [53, 4000] });
    expect(toListener![53]).toBe(TCP.RST);
    expect(more).toEqual([]);
    network.run(100);
    const told = a.takeTunPackets().map(quoted);
    expect(told).toHaveLength(3);
    expect(told).toContainEqual({ code: 1, protocol: 17, ports: [4000, 53] });
    expect(told).toContainEqual({ code: 1, protocol: 58, identifier: 77 });
    expect(told).toContainEqual({ code: 1, protocol: 6, ports: [4001, 80], sequence: 0xfffffff0 });
  });

  it("resets connections that have been quiet for long", () => {
    const { network, a, b } = friends();
    a.sendPacket(tcpPacket({ ...between(a, b), sequence: 5, acknowledgement: 9 }));
    network.run(900_000);
    b.takeTunPackets();
    const revoked = b.command((engine, now) => engine.introductions.revoke(a.node, now));
    expect(revoked?.cut).toHaveLength(1);
    expect(b.takeTunPackets().map((packet) => packet[53]! & TCP.RST)).toEqual([TCP.RST]);
  });

  it.each([
    ["and says nothing by itself", false],
    ["while this side was started anew", true],
  ])("is told also to a peer that heard nothing for a minute %s", (_what, isRestarted) => {
    const { network, a, b } = friends(); // found by simulation, seed 9 with 3 nodes
    let isDeaf = true;
    network.tap = (flight) => (isDeaf && flight.to.address === a.endpoint.address ? undefined : flight);
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(60_000);
    expect(a.book.stateOf(b.node)).toBe("mutual");
    if (isRestarted) {
      b.kill();
      b.start();
    }
    isDeaf = false;
    network.run(60_000);
    expect([b.book.stateOf(a.node), a.book.stateOf(b.node)]).toEqual(["revoked", "revoked-by-peer"]);
  });
});

describe("trust that was revoked", () => {
  it("can be asked for anew while the revocation is still repeated, and then holds on both sides", () => {
    const { network, a, b } = friends(); // found by simulation, seed 69
    const fromA = (bytes: Uint8Array, from: string) => from === a.endpoint.address && bytes[3] === 0x53;
    let isDeaf = false;
    network.tap = (flight) => (isDeaf && fromA(flight.bytes, flight.from.address) ? undefined : flight);
    isDeaf = true; // the acknowledgement is lost
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.runUntil(() => a.book.stateOf(b.node) === "revoked-by-peer", 1_000);
    a.command((engine, now) => engine.introductions.ask(b.node, "again", now));
    network.runUntil(() => b.book.get(a.node)?.request !== undefined, 40_000);
    network.run(20_000);
    isDeaf = false;
    b.command((engine, now) => engine.introductions.approve(a.node, now));
    network.run(10_000);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["mutual", "mutual"]);
  });

  it("stays so through replays of all that was ever sent, a lying registry, restarts of both and 120 seconds", () => {
    const { network, a, b } = friends();
    const datagrams = [...network.captured];
    const requests = [...network.requests];
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(1_000);
    expect([b.book.stateOf(a.node), a.book.stateOf(b.node)]).toEqual(["revoked", "revoked-by-peer"]);

    let lies = 0;
    network.registryTap = (request, reply) => {
      const asked = JSON.parse(request);
      if (asked.type !== "poll_handshakes") return reply;
      lies++;
      const from_node_id = asked.node_id === a.node ? b.node : a.node;
      const timestamp = Math.floor(network.wall / 1000) + 3_600;
      return JSON.stringify({
        ...JSON.parse(reply),
        requests: [{ from_node_id, justification: "please", timestamp }],
        responses: [{ from_node_id, accept: true, timestamp }],
      });
    };
    const replay = () => {
      for (const flight of datagrams) network.inject(flight);
      for (const text of requests) network.ask(a.endpoint, new Conversation("203.0.113.9"), text, () => {});
      network.run(2_000);
    };
    replay();
    for (const node of [a, b]) {
      node.kill();
      node.start();
    }
    replay();
    b.takeTunPackets();
    for (let s = 0; s < 120; s++) {
      a.sendPacket(udpPacket(between(a, b)));
      b.sendPacket(udpPacket(between(b, a)));
      network.run(1_000);
      // Refused at once at both ends: nothing of the peer arrives.
      for (const node of [a, b]) for (const packet of node.takeTunPackets()) expect(quoted(packet).code).toBe(1);
    }
    expect(lies).toBeGreaterThan(4);
    expect(requests.length).toBeGreaterThan(8);
    expect(b.book.stateOf(a.node)).toBe("revoked");
    // What the registry invents waits for the operator, and grants nothing.
    expect(a.book.stateOf(b.node)).toBe("pending");
  });
});

/** Of an ICMPv6 "destination unreachable": its code, and the packet that it quotes. */
function quoted(packet: Uint8Array) {
  expect([packet[6], packet[40]]).toEqual([58, 1]);
  const view = new DataView(packet.buffer, packet.byteOffset + 48);
  const protocol = view.getUint8(6);
  const head = { code: packet[41], protocol };
  if (protocol === 58) return { ...head, identifier: view.getUint16(44) };
  const ports = [view.getUint16(40), view.getUint16(42)];
  return protocol === 6 ? { ...head, ports, sequence: view.getUint32(44) } : { ...head, ports };
}
