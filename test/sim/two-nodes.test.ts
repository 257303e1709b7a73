import { describe, expect, it } from "vitest";
import { parseVirtualPacket } from "../../src/wire/virtual-packet.ts";
import { TCP, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

function pair(seed = 1): { network: SimNetwork; a: SimNode; b: SimNode } {
  const network = new SimNetwork(seed);
  const a = network.addNode("a");
  const b = network.addNode("b");
  network.run(200);
  return { network, a, b };
}

const datagram = (from: SimNode, to: SimNode, payload = "hello") =>
  udpPacket({ source: from.node, destination: to.node, payload: new TextEncoder().encode(payload) });

/** ICMPv6 type and code of a packet, or undefined. */
const icmp = (packet: Uint8Array | undefined) => (packet?.[6] === 58 ? [packet[40], packet[41]] : undefined);

describe("trust", () => {
  it("lets nothing pass before both consented, and tells the program so at once", () => {
    const { network, a, b } = pair();
    a.sendPacket(datagram(a, b));
    network.run(100);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]);
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    network.run(5_000);
    a.sendPacket(datagram(a, b));
    b.sendPacket(datagram(b, a));
    network.run(5_000);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]);
    expect(icmp(b.takeTunPackets()[0])).toEqual([1, 1]);
    expect(a.engine.linkFacts(b.node)?.isUp).not.toBe(true);
  });

  it("says no route for a node that does not exist", () => {
    const { network, a } = pair();
    a.sendPacket(udpPacket({ source: a.node, destination: 4711 }));
    network.run(100);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 0]);
  });

  it("carries packets both ways within a second of the approval", () => {
    const { network, a, b } = pair();
    const start = network.now;
    befriend(network, a, b);
    expect(network.now - start).toBeLessThan(1_000);
    a.sendPacket(datagram(a, b, "one"));
    b.sendPacket(datagram(b, a, "two"));
    network.run(50);
    expect(b.takeTunPackets()).toEqual([datagram(a, b, "one")]);
    expect(a.takeTunPackets()).toEqual([datagram(b, a, "two")]);
    expect(a.engine.linkFacts(b.node)?.path).toBe("direct");
    expect(a.engine.linkFacts(b.node)?.kind).toBe("pilot-tun");
  });

  it("becomes mutual when both ask at the same time", () => {
    const { network, a, b } = pair();
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    b.command((engine, now) => engine.introductions.ask(a.node, "", now));
    network.run(3_000);
    expect(a.book.stateOf(b.node)).toBe("mutual");
    expect(b.book.stateOf(a.node)).toBe("mutual");
    a.sendPacket(datagram(a, b));
    network.run(50);
    expect(b.takeTunPackets()).toHaveLength(1);
  });
});

describe("revocation", () => {
  it("cuts open connections on both sides with resets that the sockets believe, and tells the peer", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    a.sendPacket(
      tcpPacket({
        source: a.node,
        destination: b.node,
        sequence: 100,
        acknowledgement: 500,
        payload: new Uint8Array(10),
      }),
    );
    network.run(50);
    b.sendPacket(
      tcpPacket({ source: b.node, destination: a.node, sequence: 500, acknowledgement: 110, sourcePort: 80 }),
    );
    network.run(50);
    a.takeTunPackets();
    b.takeTunPackets();
    const outcome = b.command((engine, now) => engine.introductions.revoke(a.node, now));
    // b's own packet has source port 80 and destination port 80: a flow of its own beside a's.
    expect(outcome?.cut).toHaveLength(2);
    const resets = b.takeTunPackets();
    expect(resets.length).toBeGreaterThan(0);
    for (const reset of resets) {
      expect(reset[6]).toBe(6);
      expect(reset[53]! & TCP.RST).toBe(TCP.RST);
    }
    const told = network.runUntil(() => a.book.stateOf(b.node) === "revoked-by-peer", 1_000);
    expect(told).toBeLessThan(100);
    expect(a.takeTunPackets().some((packet) => (packet[53]! & TCP.RST) !== 0)).toBe(true);
    network.run(100);
    expect(b.book.get(a.node)?.revocationUntold).toBe(false);
    expect(b.events.some((event) => event.kind === "revocation-acknowledged")).toBe(true);
  });

  it("lets no packet of the peer reach the interface afterwards, though it keeps sending", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    network.tap = (flight) => (flight.from === b.endpoint ? undefined : flight); // a is not told
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    b.takeTunPackets();
    for (let i = 0; i < 20; i++) {
      a.sendPacket(datagram(a, b));
      network.run(50);
    }
    expect(b.takeTunPackets()).toEqual([]);
  });

  it("survives the replay of every captured datagram, restarts of both and two minutes", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    const captured = [...network.captured];
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(500);
    for (const flight of captured) network.inject(flight);
    network.run(1_000);
    for (const node of [a, b]) {
      node.kill();
      node.start();
    }
    for (const flight of captured) network.inject(flight);
    network.run(120_000);
    expect(b.book.stateOf(a.node)).toBe("revoked");
    expect(a.book.stateOf(b.node)).toBe("revoked-by-peer");
    a.sendPacket(datagram(a, b));
    network.run(100);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]);
    expect(b.takeTunPackets()).toEqual([]);
  });

  it("is told to a peer that was offline, when it comes back", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    a.kill();
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(30_000);
    expect(b.book.get(a.node)?.revocationUntold).toBe(true);
    a.start();
    network.run(3_000);
    expect(a.book.stateOf(b.node)).toBe("revoked-by-peer");
    expect(b.book.get(a.node)?.revocationUntold).toBe(false);
  });

  it("is lifted by a new consent of both", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(1_000);
    b.command((engine, now) => engine.introductions.ask(a.node, "again", now));
    network.runUntil(() => a.book.stateOf(b.node) === "pending", 5_000);
    a.command((engine, now) => engine.introductions.approve(b.node, now));
    network.run(2_000);
    expect(a.book.stateOf(b.node)).toBe("mutual");
    expect(b.book.stateOf(a.node)).toBe("mutual");
    a.sendPacket(datagram(a, b));
    network.run(50);
    expect(b.takeTunPackets()).toHaveLength(1);
  });
});

describe("sessions", () => {
  for (const who of ["the sender", "the receiver"] as const) {
    it(`mend within 3 s when ${who} restarts and only one side sends`, () => {
      const { network, a, b } = pair();
      befriend(network, a, b);
      const restarted = who === "the sender" ? a : b;
      restarted.kill();
      network.run(20);
      restarted.start();
      b.takeTunPackets();
      const took = network.runUntil(() => {
        a.sendPacket(datagram(a, b));
        return b.takeTunPackets().length > 0;
      }, 3_000);
      expect(took).toBeLessThan(3_000);
    });
  }

  it("mend when the receiver restarts while the registry is down, and at another endpoint", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    network.registryIsUp = false;
    b.kill();
    b.endpoint = { address: "198.51.100.77", port: 4001 };
    b.start();
    network.runUntil(() => {
      a.sendPacket(datagram(a, b));
      return b.takeTunPackets().length > 0;
    }, 3_000);
    expect(a.engine.linkFacts(b.node)?.endpoint).toEqual(b.endpoint);
  });

  it("follow a peer that moved, by its next authenticated frame only", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    network.run(100);
    // A forged datagram from elsewhere moves nothing.
    const sealed = network.captured.findLast((flight) => flight.bytes[3] === 0x53 && flight.from === b.endpoint)!;
    const forged = sealed.bytes.slice();
    forged[forged.length - 1]! ^= 1;
    network.inject({ from: { address: "203.0.113.66", port: 1 }, to: a.endpoint, bytes: forged });
    network.inject({ from: { address: "203.0.113.66", port: 1 }, to: a.endpoint, bytes: sealed.bytes });
    network.run(50);
    expect(a.engine.linkFacts(b.node)?.endpoint).toEqual(b.endpoint);
    expect(a.engine.drops()).toMatchObject({ "bad-tag": 1, replayed: 1 });
    b.endpoint = { address: "198.51.100.77", port: 4001 };
    b.sendPacket(datagram(b, a));
    network.run(50);
    expect(a.engine.linkFacts(b.node)?.endpoint).toEqual(b.endpoint);
  });

  it("do not move or break by replayed key exchanges from elsewhere", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    const old = network.captured.filter((flight) => flight.bytes[3] === 0x41);
    b.kill();
    network.run(10);
    b.start(); // b has new keys: its old exchanges are now misleading
    network.runUntil(() => {
      a.sendPacket(datagram(a, b));
      return b.takeTunPackets().length > 0;
    }, 3_000);
    network.run(50);
    b.takeTunPackets();
    for (const flight of old) {
      network.inject({ ...flight, from: { address: "203.0.113.66", port: 1 }, to: a.endpoint });
      network.run(20);
      a.sendPacket(datagram(a, b));
      network.run(20);
      expect(b.takeTunPackets()).toHaveLength(1);
    }
    expect(a.engine.linkFacts(b.node)?.endpoint).toEqual(b.endpoint);
  });

  for (const how of ["the peer restarted", "trust was revoked and given again"] as const) {
    it(`do not come back by a replay of everything that was sent before ${how}`, () => {
      const { network, a, b } = pair();
      befriend(network, a, b);
      b.sendPacket(datagram(b, a, "once"));
      network.run(100);
      expect(a.takeTunPackets()).toHaveLength(1);
      const recorded = [...network.captured];
      if (how === "the peer restarted") {
        b.kill();
        b.start();
        b.sendPacket(datagram(b, a, "alive"));
        network.run(15_000); // until the old key is no longer kept for frames in flight
      } else {
        a.command((engine, now) => engine.introductions.revoke(b.node, now));
        network.run(1_000);
        a.command((engine, now) => engine.introductions.ask(b.node, "", now));
        network.runUntil(() => b.book.stateOf(a.node) === "pending", 40_000);
        b.command((engine, now) => engine.introductions.approve(a.node, now));
        network.run(3_000);
      }
      a.takeTunPackets();
      for (const flight of recorded) if (flight.to === a.endpoint) network.inject(flight);
      network.run(200);
      expect(a.takeTunPackets()).toEqual([]);
      b.sendPacket(datagram(b, a, "still alive"));
      network.run(100);
      expect(a.takeTunPackets()).toHaveLength(1);
    });
  }

  it("are agreed through loss, and no packet passes twice", () => {
    for (let seed = 1; seed <= 10; seed++) {
      const { network, a, b } = pair(seed);
      network.conditions.loss = 0.2;
      network.conditions.jitterMs = 20;
      befriend(network, a, b);
      const seen = new Set<string>();
      network.run(500);
      b.takeTunPackets();
      for (let i = 0; i < 50; i++) {
        a.sendPacket(datagram(a, b, `packet ${i}`));
        network.run(10);
        for (const packet of b.takeTunPackets()) {
          const text = new TextDecoder().decode(packet.subarray(48));
          expect(seen.has(text), `seed ${seed}: ${text} came twice`).toBe(false);
          seen.add(text);
        }
      }
      expect(seen.size, `seed ${seed}`).toBeGreaterThan(20);
    }
  });

  it("tell programs that a trusted peer does not answer, within 3 s", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    b.kill();
    a.kill();
    a.start();
    a.sendPacket(datagram(a, b));
    const took = network.runUntil(() => icmp(a.takeTunPackets()[0])?.join() === "1,3", 4_000);
    expect(took).toBeLessThanOrEqual(3_010);
  });

  it("exchange not a byte over five idle minutes beyond what keeps a node listed", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    network.run(5_000);
    const before = network.captured.length;
    network.run(300_000);
    const between = network.captured.slice(before).filter((flight) => flight.bytes[0]! >= 0x10);
    expect(between).toEqual([]);
  });
});

describe("refusals", () => {
  it("drop and count inner sources that are not the sender's, both ways", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    a.sendPacket(udpPacket({ source: 99, destination: b.node }));
    network.run(50);
    expect(a.engine.drops()).toMatchObject({ "spoofed-source": 1 });
    expect(a.takeTunPackets().map((packet) => [packet[40], packet[41]])).toEqual([[1, 5]]); // its source may not be used here
    expect(b.takeTunPackets()).toEqual([]);
    // A peer that lies about its address inside an authentic frame.
    sealByHand(a, udpPacket({ source: 99, destination: b.node }));
    network.run(50);
    expect(b.engine.drops()).toMatchObject({ "spoofed-source": 1 });
    expect(b.takeTunPackets()).toEqual([]);
  });

  it("drop and count what a trusted peer sends to other hosts through this one", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    sealByHand(a, udpPacket({ source: a.node, destination: 99 }));
    network.run(50);
    expect(b.engine.drops()).toMatchObject({ "wrong-destination": 1 });
    expect(b.takeTunPackets()).toEqual([]);
  });

  it("refuse and count plaintext, anonymous exchanges and key exchanges with another key", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    const from = b.endpoint;
    const frame = (magic: string, length: number) => {
      const bytes = new Uint8Array(length);
      bytes.set(new TextEncoder().encode(magic));
      new DataView(bytes.buffer).setUint32(4, b.node);
      return bytes;
    };
    for (const bytes of [frame("PILT", 60), frame("PILK", 40), frame("PILA", 136)]) {
      network.inject({ from, to: a.endpoint, bytes });
    }
    network.run(10);
    expect(a.engine.drops()).toMatchObject({
      "plaintext-refused": 1,
      "anonymous-exchange-refused": 1,
      "wrong-key": 1,
    });
  });

  it("answer strangers with silence", () => {
    const { network, a, b } = pair();
    const before = network.captured.length;
    const pila = new Uint8Array(136).fill(7);
    pila.set(new TextEncoder().encode("PILA"));
    new DataView(pila.buffer).setUint32(4, b.node);
    const pils = new Uint8Array(80).fill(7);
    pils.set(new TextEncoder().encode("PILS"));
    for (const bytes of [pila, pils, new Uint8Array(0), new Uint8Array([0x50]), new Uint8Array(2000).fill(0xff)]) {
      network.inject({ from: b.endpoint, to: a.endpoint, bytes });
    }
    network.run(1_000);
    expect(network.captured.slice(before).filter((flight) => flight.from === a.endpoint)).toEqual([]);
  });

  it("tell a program whose packet is larger than the peer takes", () => {
    const { network, a, b } = pair();
    befriend(network, a, b);
    a.sendPacket(udpPacket({ source: a.node, destination: b.node, payload: new Uint8Array(1_400) }));
    expect(icmp(a.takeTunPackets()[0])).toEqual([2, 0]);
    expect(a.engine.drops()).toMatchObject({ "too-big": 1 });
  });
});

it("a frame never leaves with an inner packet that can be read", () => {
  const { network, a, b } = pair();
  befriend(network, a, b);
  a.sendPacket(datagram(a, b, "marker-of-this-test"));
  network.run(50);
  for (const { bytes } of network.captured) {
    expect(new TextDecoder("latin1").decode(bytes)).not.toContain("marker-of-this-test");
    expect(parseVirtualPacket(bytes.subarray(4))).toBeUndefined();
  }
});

it("the very first packet after an approval arrives, whichever side sends it", () => {
  for (let seed = 1; seed <= 20; seed++) {
    for (const sender of ["a", "b"] as const) {
      const { network, a, b } = pair(seed);
      a.command((engine, now) => engine.introductions.ask(b.node, "", now));
      network.runUntil(() => b.book.get(a.node)?.request !== undefined, 40_000);
      b.command((engine, now) => engine.introductions.approve(a.node, now));
      network.runUntil(() => a.book.stateOf(b.node) === "mutual", 40_000);
      const [from, to] = sender === "a" ? [a, b] : [b, a];
      from.sendPacket(datagram(from, to, "first"));
      network.run(300);
      expect(to.takeTunPackets(), `seed ${seed}, ${sender} sends`).toEqual([datagram(from, to, "first")]);
    }
  }
});

/** Into the tunnel past all that the node itself looks at, under the key that it got first. */
function sealByHand(node: SimNode, bytes: Uint8Array): void {
  node.plane.sendStaged(0, 0, { bytes, gsoType: 0, gsoSize: 0, csumStart: 0, csumOffset: 0, headerLength: 0 });
  node.drain();
}
