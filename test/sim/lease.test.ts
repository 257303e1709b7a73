/** Consent with limits: what both sides agreed on is kept by both, and its end is the end. */
import { describe, expect, it } from "vitest";
import { NO_TERMS, type Terms } from "../../src/wire/ask-text.ts";
import { parseServices, serviceWords } from "../../src/wire/services.ts";
import { TCP, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";
import { SimNetwork, type SimNode } from "../helpers/sim-network.ts";

const SECOND = 1_000;
const HOUR = 3_600 * SECOND;

const terms = (ports: string | undefined, rest: Partial<Terms> = {}): Terms => ({
  ...NO_TERMS,
  services: ports === undefined ? undefined : parseServices(ports),
  ...rest,
});

function pair(seed = 41): { network: SimNetwork; a: SimNode; b: SimNode } {
  const network = new SimNetwork(seed);
  const a = network.addNode("a");
  const b = network.addNode("b");
  network.run(200);
  return { network, a, b };
}

/** a asks, b approves, and both hold what came of it. */
function agree(network: SimNetwork, a: SimNode, b: SimNode, asked: Terms, granted: Terms): void {
  a.command((engine, now) => engine.introductions.ask(b.node, "invoice check", now, asked));
  network.runUntil(() => b.book.get(a.node)?.request !== undefined, 40_000);
  b.command((engine, now) => engine.introductions.approve(a.node, now, granted));
  network.runUntil(() => a.book.stateOf(b.node) === "mutual", 40_000);
  network.run(2_000);
  a.takeTunPackets();
  b.takeTunPackets();
}

/** What holds at a node, in words. */
function held(node: SimNode, peer: SimNode) {
  const limits = node.engine.leases.limitsOf(peer.node);
  const words = (services: typeof limits extends undefined ? never : NonNullable<typeof limits>["inward"]) =>
    services === undefined ? "any" : serviceWords(services).join();
  return limits && { in: words(limits.inward), out: words(limits.outward) };
}

const to = (from: SimNode, node: SimNode, port: number, sourcePort = 4000) => {
  const packet = udpPacket({ source: from.node, destination: node.node, sourcePort });
  new DataView(packet.buffer).setUint16(42, port);
  return packet;
};

const icmp = (packet: Uint8Array | undefined) => (packet?.[6] === 58 ? [packet[40], packet[41]] : undefined);

function arrives(network: SimNetwork, from: SimNode, node: SimNode, packet: Uint8Array): boolean {
  node.takeTunPackets();
  from.sendPacket(packet);
  network.run(50);
  return node.takeTunPackets().some((arrived) => arrived.length === packet.length);
}

describe("an ask that was answered by a lease", () => {
  it.each([
    ["without terms", NO_TERMS],
    ["with terms", terms("udp/53", { maxBytes: 50_000 })],
  ])("which was used up before the asker heard of it is open still, and seen again, %s", (_how, asked) => {
    const { network, a, b } = pair(); // found by simulation, seed 62016 with 4 nodes
    a.command((engine, now) => engine.introductions.ask(b.node, "", now, asked));
    network.runUntil(() => b.book.get(a.node)?.request !== undefined, 40_000);
    network.run(1_000);
    network.tap = () => undefined;
    b.disconnectRegistry();
    b.command((engine, now) => engine.introductions.approve(a.node, now, terms(undefined, { durationMs: 5_000 })));
    network.runUntil(() => b.book.stateOf(a.node) === "lease-ended", 6_000);
    expect(a.book.stateOf(b.node)).toBe("asked");
    network.tap = (flight) => flight;
    b.reachesRegistry = true;
    b.loseRegistry();
    network.run(60_000);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["asked", "lease-ended"]);
    expect(b.book.get(a.node)?.request?.terms).toEqual(asked === NO_TERMS ? undefined : asked);
    expect(b.book.get(a.node)?.request).toBeDefined();
    b.command((engine, now) => engine.introductions.approve(a.node, now));
    network.run(5_000);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["mutual", "mutual"]);
    expect(b.book.get(a.node)?.request).toBeUndefined();
  });
});

describe("a lease", () => {
  it("holds, at both ends, what was asked for and granted: no more ports, no more time, no more bytes", () => {
    const { network, a, b } = pair();
    agree(
      network,
      a,
      b,
      terms("tcp/443,udp/53,udp/5000-5010", { durationMs: 2 * HOUR, maxBytes: 50_000_000 }),
      terms("udp/53,udp/5005-6000,tcp/22", { durationMs: HOUR, maxBytes: 80_000_000 }),
    );
    expect(held(b, a)).toEqual({ in: "udp/53,udp/5005-5010", out: "" });
    expect(held(a, b)).toEqual({ in: "", out: "udp/53,udp/5005-5010" });
    for (const [node, peer] of [
      [a, b],
      [b, a],
    ] as const) {
      const limits = node.engine.leases.limitsOf(peer.node)!;
      expect(limits.endsAt! - network.leaseNow).toBeGreaterThan(HOUR - 10 * SECOND);
      expect(limits.endsAt! - network.leaseNow).toBeLessThanOrEqual(HOUR);
      expect(node.engine.leases.leftBytes(peer.node)).toBe(50_000_000);
    }
    expect(arrives(network, a, b, to(a, b, 53))).toBe(true);
    expect(arrives(network, b, a, to(b, a, 4000, 53))).toBe(true); // the answer
    expect(arrives(network, a, b, to(a, b, 5006))).toBe(true);
    // a refuses by itself what b did not grant, and what only b would have granted.
    for (const port of [443, 5000, 6000]) {
      expect(arrives(network, a, b, to(a, b, port))).toBe(false);
      expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]);
    }
    expect(a.engine.drops().lease).toBe(3);
    // b may begin nothing: the ask was for the asker alone.
    expect(arrives(network, b, a, to(b, a, 53, 4001))).toBe(false);
    expect(b.engine.drops().lease).toBe(1);
  });

  it("is kept by the side that grants it, whatever the other lets out", () => {
    const { network, a, b } = pair();
    agree(network, a, b, NO_TERMS, terms("udp/53"));
    // a forgets that b ever set limits, as an older pilot-tun or a liar would.
    a.book.put({ ...a.book.get(b.node)!, peerLease: undefined });
    expect(arrives(network, a, b, to(a, b, 54))).toBe(false);
    expect(b.engine.drops().lease).toBe(1);
    expect(arrives(network, a, b, to(a, b, 53))).toBe(true);
    expect(held(b, a)).toEqual({ in: "udp/53", out: "any" });
    expect(arrives(network, b, a, to(b, a, 9, 4001))).toBe(true); // the ask had no ports: a lets b in
  });

  it("cannot be widened by what the peer says later", () => {
    const { network, a, b } = pair();
    agree(network, a, b, terms("udp/53"), NO_TERMS);
    a.book.put({ ...a.book.get(b.node)!, lease: undefined });
    a.kill();
    a.start();
    network.run(5_000);
    expect(held(b, a)).toEqual({ in: "udp/53", out: "" });
    expect(arrives(network, a, b, to(a, b, 54))).toBe(false);
  });

  it("ends with its time at both ends: flows are cut with a reason of their own, and nothing passes", () => {
    const { network, a, b } = pair();
    agree(network, a, b, NO_TERMS, terms(undefined, { durationMs: 60 * SECOND }));
    a.sendPacket(to(a, b, 53));
    a.sendPacket(tcpPacket({ source: a.node, destination: b.node, acknowledgement: 77 }));
    network.run(50);
    a.takeTunPackets();
    b.takeTunPackets();
    network.run(57 * SECOND - 50);
    expect([a.takeTunPackets(), b.takeTunPackets()]).toEqual([[], []]);
    network.run(2 * SECOND);
    for (const node of [a, b]) {
      const told = node.takeTunPackets();
      expect(told.map(icmp)).toContainEqual([1, 6]);
      expect(told.some((packet) => packet[6] === 6 && (packet[53]! & TCP.RST) !== 0)).toBe(true);
    }
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["lease-ended", "lease-ended"]);
    expect([a.book.get(b.node)?.leaseEnd, b.book.get(a.node)?.leaseEnd]).toEqual(["time", "time"]);
    for (const [node, peer] of [
      [a, b],
      [b, a],
    ] as const) {
      node.sendPacket(to(node, peer, 53, 4003));
      network.run(50);
      expect(icmp(node.takeTunPackets()[0])).toEqual([1, 6]);
      expect(node.engine.drops()["lease-ended"]).toBe(1);
      expect(node.book.get(peer.node)?.revocationUntold).toBe(false);
    }
  });

  it("ends with its bytes, not one of them more, and the peer hears it within a second", () => {
    const { network, a, b } = pair();
    agree(network, a, b, NO_TERMS, terms(undefined, { maxBytes: 1_000_000 }));
    let arrived = 0;
    for (let i = 0; i < 1_200 && b.book.stateOf(a.node) === "mutual"; i++) {
      a.sendPacket(udpPacket({ source: a.node, destination: b.node, payload: new Uint8Array(1_000 - 48) }));
      network.run(5);
      arrived += b.takeTunPackets().filter((packet) => packet.length === 1_000).length;
    }
    expect(arrived).toBe(1_000);
    network.run(SECOND);
    expect([a.book.get(b.node)?.leaseEnd, b.book.get(a.node)?.leaseEnd]).toEqual(["bytes", "bytes"]);
    expect(a.takeTunPackets().map(icmp)).toContainEqual([1, 6]);
  });

  it("counts the bytes of both directions together, and both ends count the same", () => {
    const { network, a, b } = pair();
    agree(network, a, b, NO_TERMS, terms(undefined, { maxBytes: 10_000_000 }));
    for (let i = 0; i < 200; i++) {
      a.sendPacket(udpPacket({ source: a.node, destination: b.node, payload: new Uint8Array(1_000) }));
      b.sendPacket(udpPacket({ source: b.node, destination: a.node, payload: new Uint8Array(500) }));
      network.run(10);
    }
    const left = 10_000_000 - 200 * (1_048 + 548);
    expect(a.engine.leases.leftBytes(b.node)).toBe(left);
    expect(b.engine.leases.leftBytes(a.node)).toBe(left);
    // An orderly end keeps the count; a crash may cost a portion, and never adds a byte.
    b.engine.close();
    b.kill();
    b.start();
    network.run(5_000);
    expect(b.engine.leases.leftBytes(a.node)).toBe(left);
    b.sendPacket(udpPacket({ source: b.node, destination: a.node }));
    network.run(50);
    b.kill();
    b.start();
    network.run(5_000);
    expect(b.engine.leases.leftBytes(a.node)).toBeLessThan(left);
    expect(b.engine.leases.leftBytes(a.node)).toBeGreaterThan(left - 10_000_000 / 32);
  });

  it("survives restarts of both without a second more, and ends while a daemon does not run", () => {
    const { network, a, b } = pair();
    agree(network, a, b, NO_TERMS, terms("udp/53", { durationMs: 100 * SECOND }));
    for (let i = 0; i < 3; i++) {
      for (const node of [a, b]) {
        node.kill();
        network.run(5 * SECOND);
        node.start();
      }
    }
    network.run(2 * SECOND);
    expect(held(a, b)).toEqual({ in: "any", out: "udp/53" });
    expect(arrives(network, a, b, to(a, b, 53))).toBe(true);
    b.kill();
    network.run(80 * SECOND);
    b.start();
    expect(b.book.stateOf(a.node)).toBe("lease-ended"); // at once, before anything can pass
    network.run(SECOND);
    expect(a.book.stateOf(b.node)).toBe("lease-ended");
  });

  it("is neither longer nor shorter when the wall clock is set, ahead or back", () => {
    for (const jumpMs of [-30 * 86_400_000, 30 * 86_400_000]) {
      const { network, a, b } = pair();
      agree(network, a, b, NO_TERMS, terms(undefined, { durationMs: 100 * SECOND }));
      network.wallOffsetMs += jumpMs;
      network.run(90 * SECOND);
      expect(arrives(network, a, b, to(a, b, 53))).toBe(true);
      for (const node of [a, b]) {
        node.kill();
        node.start();
      }
      network.run(10 * SECOND);
      expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["lease-ended", "lease-ended"]);
    }
  });

  it("goes on by the time that the machine slept", () => {
    const { network, a, b } = pair();
    agree(network, a, b, NO_TERMS, terms(undefined, { durationMs: 100 * SECOND }));
    b.command((engine, now) => engine.handleSleep(95 * SECOND, now));
    network.run(6 * SECOND);
    expect(b.book.stateOf(a.node)).toBe("lease-ended");
  });

  it("is not brought back by replays of all that was ever sent, or by restarts", () => {
    const { network, a, b } = pair();
    agree(network, a, b, terms("udp/53"), terms(undefined, { durationMs: 30 * SECOND }));
    const datagrams = [...network.captured];
    network.run(31 * SECOND);
    for (const flight of datagrams) network.inject(flight);
    network.run(SECOND);
    for (const node of [a, b]) {
      node.kill();
      node.start();
    }
    for (const flight of datagrams) network.inject(flight);
    network.run(120 * SECOND);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["lease-ended", "lease-ended"]);
    expect(b.book.get(a.node)?.request).toBeUndefined();
    expect(arrives(network, a, b, to(a, b, 53))).toBe(false);
  });

  it("can be asked for and granted anew after its end", () => {
    const { network, a, b } = pair();
    agree(network, a, b, terms("udp/53"), terms(undefined, { durationMs: 5 * SECOND }));
    network.run(10 * SECOND);
    agree(network, a, b, terms("udp/54"), terms(undefined, { durationMs: HOUR }));
    expect(held(a, b)).toEqual({ in: "", out: "udp/54" });
    expect(arrives(network, a, b, to(a, b, 54))).toBe(true);
    expect(arrives(network, a, b, to(a, b, 53))).toBe(false);
  });
});

describe("an ask for other limits", () => {
  it("waits beside the trust that there is, and takes its place when it is granted", () => {
    const { network, a, b } = pair();
    agree(network, a, b, terms("udp/53"), terms(undefined, { durationMs: 60 * SECOND, maxBytes: 1_000_000 }));
    a.sendPacket(to(a, b, 53));
    network.run(20 * SECOND);
    a.command((engine, now) => engine.introductions.ask(b.node, "more", now, terms("udp/53-54", { durationMs: HOUR })));
    network.runUntil(() => b.book.get(a.node)?.request !== undefined, 40_000);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["mutual", "mutual"]);
    expect(b.book.get(a.node)?.request).toMatchObject({ reason: "more" });
    expect(arrives(network, a, b, to(a, b, 53))).toBe(true);
    expect(arrives(network, a, b, to(a, b, 54))).toBe(false);

    b.command((engine, now) => engine.introductions.approve(a.node, now));
    network.run(SECOND);
    expect(held(a, b)).toEqual({ in: "", out: "udp/53-54" });
    expect(arrives(network, a, b, to(a, b, 54))).toBe(true);
    expect(a.engine.leases.leftBytes(b.node)).toBeLessThan(1_000_000); // what was not named stays
    network.run(100 * SECOND);
    expect(b.book.stateOf(a.node)).toBe("mutual");
    // The same words again are the same ask, and do not wait for the operator.
    expect(b.book.get(a.node)?.request).toBeUndefined();
  });

  it("can be refused, and what was agreed on stays", () => {
    const { network, a, b } = pair();
    agree(network, a, b, terms("udp/53"), NO_TERMS);
    a.command((engine, now) => engine.introductions.ask(b.node, "more", now, terms("udp/53-54")));
    network.runUntil(() => b.book.get(a.node)?.request !== undefined, 40_000);
    b.command((engine, now) => engine.introductions.deny(a.node, now));
    network.run(5 * SECOND);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["mutual", "mutual"]);
    expect(arrives(network, a, b, to(a, b, 53))).toBe(true);
  });

  it("is not needed to narrow: the operator does so at any time, and flows beyond end at both sides", () => {
    const { network, a, b } = pair();
    agree(network, a, b, NO_TERMS, NO_TERMS);
    a.sendPacket(to(a, b, 53));
    a.sendPacket(to(a, b, 54));
    network.run(50);
    a.takeTunPackets();
    b.takeTunPackets();
    b.command((engine, now) => engine.introductions.approve(a.node, now, terms("udp/53")));
    expect(b.takeTunPackets().map(icmp)).toEqual([[1, 1]]);
    network.run(SECOND);
    expect(a.takeTunPackets().map(icmp)).toEqual([[1, 1]]);
    expect(arrives(network, a, b, to(a, b, 53))).toBe(true);
    expect(arrives(network, a, b, to(a, b, 54))).toBe(false);
  });

  it("reaches the peer though the first word of it is lost", () => {
    const { network, a, b } = pair();
    agree(network, a, b, NO_TERMS, NO_TERMS);
    let lost = 0;
    network.tap = (flight) => (flight.from === b.endpoint && lost++ < 1 ? undefined : flight);
    b.command((engine, now) => engine.introductions.approve(a.node, now, terms("udp/53")));
    network.run(SECOND);
    expect(held(a, b)).toEqual({ in: "any", out: "udp/53" });
  });
});

describe("two that ask each other at once", () => {
  it("for ports grant each other nothing by that: each request waits for its own answer", () => {
    const { network, a, b } = pair();
    a.command((engine, now) => engine.introductions.ask(b.node, "a's", now, terms("udp/53")));
    b.command((engine, now) => engine.introductions.ask(a.node, "b's", now, terms("udp/99")));
    network.run(40 * SECOND);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["mutual", "mutual"]);
    expect(held(a, b)).toEqual({ in: "", out: "" });
    b.command((engine, now) => engine.introductions.approve(a.node, now));
    network.run(2 * SECOND);
    expect(held(a, b)).toEqual({ in: "", out: "udp/53" });
    a.command((engine, now) => engine.introductions.approve(b.node, now));
    network.run(2 * SECOND);
    expect(held(a, b)).toEqual({ in: "udp/99", out: "udp/53" });
    expect(held(b, a)).toEqual({ in: "udp/53", out: "udp/99" });
  });
});

describe("two that ask each other one after the other", () => {
  it("each keep what they were granted before", () => {
    const { network, a, b } = pair();
    agree(network, a, b, terms("udp/53"), terms(undefined, { durationMs: HOUR }));
    expect(b.book.get(a.node)?.lease?.outward).toEqual([]); // b knows at once that a lets it begin nothing
    b.command((engine, now) => engine.introductions.ask(a.node, "and b", now, terms("udp/99")));
    network.runUntil(() => a.book.get(b.node)?.request !== undefined, 40_000);
    a.command((engine, now) => engine.introductions.approve(b.node, now));
    network.run(2 * SECOND);
    expect(held(a, b)).toEqual({ in: "udp/99", out: "udp/53" });
    expect(held(b, a)).toEqual({ in: "udp/53", out: "udp/99" });
    expect(b.engine.leases.limitsOf(a.node)!.endsAt! - network.leaseNow).toBeLessThanOrEqual(HOUR);
  });

  it("for ports under trust without limits, limit the asker alone", () => {
    const { network, a, b } = pair();
    agree(network, a, b, NO_TERMS, NO_TERMS);
    a.command((engine, now) => engine.introductions.ask(b.node, "", now, terms("udp/53")));
    network.runUntil(() => b.book.get(a.node)?.request !== undefined, 40_000);
    b.command((engine, now) => engine.introductions.approve(a.node, now));
    network.run(2 * SECOND);
    expect(held(a, b)).toEqual({ in: "any", out: "udp/53" });
  });
});

describe("a plain agent", () => {
  it("reads the terms in the text of the request, and is kept to them by this side alone", () => {
    const network = new SimNetwork(43);
    const a = network.addNode("a");
    const b = network.addNode("b");
    b.kill();
    b.plainOnly = true;
    b.start();
    network.run(200);
    a.command((engine, now) =>
      engine.introductions.ask(b.node, "invoice check", now, terms("udp/53", { durationMs: 60 * SECOND })),
    );
    network.runUntil(() => b.book.get(a.node)?.request !== undefined, 40_000);
    b.command((engine, now) => engine.introductions.approve(a.node, now));
    b.book.put({ ...b.book.get(a.node)!, lease: undefined }); // agents know nothing of leases
    network.runUntil(() => a.book.stateOf(b.node) === "mutual", 40_000);
    network.run(5_000);
    expect(held(a, b)).toEqual({ in: "", out: "udp/53" });
    a.takeTunPackets();
    a.sendPacket(to(a, b, 54));
    network.run(50);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]);
    network.run(60 * SECOND);
    expect(a.book.stateOf(b.node)).toBe("lease-ended");
    expect(b.book.stateOf(a.node)).toBe("revoked-by-peer"); // the only word for it that agents know
  });
});
