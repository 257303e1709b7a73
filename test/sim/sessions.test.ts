/** Keys that two pilot-tun nodes agree on inside their session: when there are some, when others, and what passes without. */
import { describe, expect, it } from "vitest";
import { toHex } from "../../src/base/bytes.ts";
import type { KeySpec } from "../../src/tunnel/data-plane.ts";
import { PortableDataPlane } from "../../src/tunnel/portable-data-plane.ts";
import { isSealedFrame } from "../../src/tunnel/portable-frame.ts";
import { bridgePacket } from "../../src/wire/bridge.ts";
import { udpPacket } from "../helpers/inner-packets.ts";
import { befriend, type Flight, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

interface Friends {
  readonly network: SimNetwork;
  readonly a: SimNode;
  readonly b: SimNode;
}

const level = (of: SimNode, peer: SimNode) => of.engine.linkFacts(peer.node)?.security?.level;
const areSecure = ({ a, b }: Friends) => level(a, b) === "noise" && level(b, a) === "noise";

function friends(seed: number, change: (node: SimNode) => void = () => {}): Friends {
  const network = new SimNetwork(seed);
  const [a, b] = [network.addNode("a"), network.addNode("b")];
  for (const node of [a, b]) {
    node.kill();
    change(node);
    node.start();
  }
  network.run(200);
  befriend(network, a, b);
  return { network, a, b };
}

function secureFriends(seed: number, change?: (node: SimNode) => void): Friends {
  const all = friends(seed, change);
  all.network.runUntil(() => areSecure(all), 1_000);
  all.network.run(100);
  return all;
}

/** Numbered, and longer than all that is said about keys. */
function numbered(from: SimNode, to: SimNode, number: number): Uint8Array {
  const payload = new Uint8Array(DATA_BYTES);
  new DataView(payload.buffer).setUint32(0, number);
  return udpPacket({ source: from.node, destination: to.node, payload });
}

/** Numbers of those that arrived since the last look. */
const arrivedAt = (node: SimNode): number[] =>
  node
    .takeTunPackets()
    .filter((packet) => packet[6] === 17)
    .map((packet) => new DataView(packet.buffer, packet.byteOffset).getUint32(48));

/** Each sends one packet every 10 ms; what arrived of them, in order of their numbers. */
function talk({ network, a, b }: Friends, count: number): { atA: number[]; atB: number[] } {
  const [atA, atB]: [number[], number[]] = [[], []];
  network.run(200);
  for (const node of [a, b]) node.takeTunPackets();
  for (let i = 0; i < count; i++) {
    a.sendPacket(numbered(a, b, i));
    b.sendPacket(numbered(b, a, i));
    network.run(10);
    atA.push(...arrivedAt(a));
    atB.push(...arrivedAt(b));
  }
  network.run(500);
  atA.push(...arrivedAt(a));
  atB.push(...arrivedAt(b));
  for (const arrived of [atA, atB]) arrived.sort((one, other) => one - other);
  return { atA, atB };
}

const isData = ({ bytes }: Flight) => bytes.length > DATA_BYTES;
const prefixesOf = (flights: readonly Flight[], from: SimNode) =>
  new Set(
    flights
      .filter((flight) => flight.from === from.endpoint && isData(flight) && isSealedFrame(flight.bytes))
      .map(({ bytes }) => toHex(bytes.subarray(8, 12))),
  );
const upTo = (count: number) => Array.from({ length: count }, (_, i) => i);

/** Knows which keys are installed, and sees the memory that they came in. */
class WatchedPlane extends PortableDataPlane {
  readonly installed = new Set<number>();
  readonly keys: Uint8Array[] = [];

  override installKey(slot: number, spec: KeySpec): void {
    super.installKey(slot, spec);
    this.installed.add(slot);
    this.keys.push(spec.key);
    if (spec.receive !== undefined) this.keys.push(spec.receive.key);
  }

  override removeKey(slot: number): number {
    this.installed.delete(slot);
    return super.removeKey(slot);
  }
}

describe("two nodes that meet", () => {
  it("agree on keys within three round trips, lose nothing meanwhile, and go on under them alone", () => {
    const { network, a, b } = friends(1);
    network.conditions.latencyMs = 20;
    expect(talk({ network, a, b }, 50)).toEqual({ atA: upTo(50), atB: upTo(50) });
    expect(areSecure({ network, a, b })).toBe(true);
    const before = network.captured.length;
    talk({ network, a, b }, 20);
    const later = network.captured.slice(before);
    const between = later.filter(({ from, to }) => from.port === 4000 && to.port === 4000);
    expect(between.filter(({ bytes }) => !isSealedFrame(bytes))).toEqual([]);
    expect(prefixesOf(later, a).size).toBe(1);
    expect(a.book.get(b.node)?.agreesOnKeys).toBe(true);
    expect(b.book.get(a.node)?.agreesOnKeys).toBe(true);
  });

  it.each([1, 2, 3, 4])(
    "start at the same moment, with packets for each other, and nothing but latency is lost (seed %i)",
    (seed) => {
      const { network, a, b } = secureFriends(seed);
      network.conditions.latencyMs = 40;
      network.conditions.jitterMs = 10;
      for (const node of [a, b]) node.kill();
      for (const node of [a, b]) node.start();
      a.sendPacket(numbered(a, b, 1));
      b.sendPacket(numbered(b, a, 2));
      const arrived: number[] = [];
      const tookMs = network.runUntil(() => {
        arrived.push(...arrivedAt(a), ...arrivedAt(b));
        return arrived.length === 2;
      }, 5_000);
      expect(tookMs).toBeLessThan(600);
      expect(areSecure({ network, a, b })).toBe(true);
      expect(talk({ network, a, b }, 20)).toEqual({ atA: upTo(20), atB: upTo(20) });
    },
  );

  it("agree through the relay when there is no other way, and again when one was started anew", () => {
    const network = new SimNetwork(17);
    const all = { network, a: network.addNode("a", true), b: network.addNode("b", true) };
    network.run(200);
    befriend(network, all.a, all.b);
    network.runUntil(() => areSecure(all), 2_000);
    expect(talk(all, 20)).toEqual({ atA: upTo(20), atB: upTo(20) });
    all.b.kill();
    all.b.start();
    all.b.sendPacket(numbered(all.b, all.a, 1));
    network.runUntil(() => areSecure(all), 3_000);
    expect(talk(all, 20)).toEqual({ atA: upTo(20), atB: upTo(20) });
    expect(all.a.engine.linkFacts(all.b.node)?.path).toBe("relay");
  });

  it("do without where one of them is of an older build", () => {
    const { network, a, b } = friends(3);
    for (const node of [a, b]) node.kill();
    const older = new SimNetwork(4);
    const [c, d] = [older.addNode("c"), older.addNode("d")];
    d.kill();
    d.agreesOnKeys = false;
    d.start();
    older.run(200);
    befriend(older, c, d);
    expect(talk({ network: older, a: c, b: d }, 300)).toEqual({ atA: upTo(300), atB: upTo(300) });
    expect([level(c, d), level(d, c)]).toEqual(["base", "base"]);
    expect(c.engine.problems.size).toBe(0);
    expect(d.engine.drops()["unknown-bridge-message"]).toBeUndefined();
    void network;
  });
});

describe("two nodes that know each other", () => {
  it.each([
    ["the one that sends", "a"],
    ["the one that is sent to", "b"],
  ] as const)(
    "say nothing under the keys of the exchange when %s was started anew, and are back one round trip later",
    (_who, which) => {
      const all = secureFriends(5);
      const { network, a, b } = all;
      network.conditions.latencyMs = 50;
      const restarted = which === "a" ? a : b;
      network.run(5_000);
      restarted.kill();
      restarted.start();
      const start = network.now;
      let first: number | undefined;
      let number = 0;
      network.runUntil(() => {
        if (number++ % 10 === 0) a.sendPacket(numbered(a, b, number));
        if (arrivedAt(b).length > 0) first ??= network.now - start;
        return first !== undefined && areSecure(all);
      }, 10_000);
      // From the one that starts, an exchange, an agreement and the packet: five times over the network.
      expect(first).toBeLessThan(which === "a" ? 300 : 3_500);
      expect(a.engine.drops()["base-session"]).toBeUndefined();
      expect(b.engine.drops()["base-session"]).toBeUndefined();
      expect(talk(all, 20)).toEqual({ atA: upTo(20), atB: upTo(20) });
    },
  );

  it("need no new trust when one of them forgot that the other agrees on keys", () => {
    const all = secureFriends(6);
    const { network, a, b } = all;
    a.kill();
    a.book.put({ ...a.book.get(b.node)!, agreesOnKeys: undefined });
    a.start();
    a.sendPacket(numbered(a, b, 1));
    network.runUntil(() => areSecure(all), 2_000);
    expect(talk(all, 20)).toEqual({ atA: upTo(20), atB: upTo(20) });
    expect(a.engine.problems.size + b.engine.problems.size).toBe(0);
  });
});

describe("keys in use", () => {
  it.each([1, 2, 3])(
    "are replaced in time without the loss of a packet, however what is said about them is lost, doubled and late (seed %i)",
    (seed) => {
      const all = secureFriends(seed, (node) => {
        node.rekey = { everyMs: 1_000 };
      });
      const { network, a, b } = all;
      network.conditions.jitterMs = 30;
      network.tap = (flight) => {
        if (isData(flight)) return flight;
        if (network.fraction() < 0.3) network.inject(flight, 40);
        return network.fraction() < 0.3 ? undefined : flight;
      };
      const before = network.captured.length;
      expect(talk(all, 1_000)).toEqual({ atA: upTo(1_000), atB: upTo(1_000) });
      const flights = network.captured.slice(before);
      for (const node of [a, b]) expect(prefixesOf(flights, node).size).toBeGreaterThan(4);
      for (const node of [a, b]) expect(prefixesOf(flights, node).size).toBeLessThan(14);
    },
  );

  it.each([
    ["bytes", { bytes: 20_000 }],
    ["packets", { packets: 50 }],
  ] as const)("are replaced when they have carried enough %s", (_what, rekey) => {
    const all = secureFriends(7, (node) => {
      node.rekey = rekey;
    });
    const before = all.network.captured.length;
    expect(talk(all, 300)).toEqual({ atA: upTo(300), atB: upTo(300) });
    expect(prefixesOf(all.network.captured.slice(before), all.a).size).toBeGreaterThan(5);
  });

  it.each([
    ["nothing that is said about them arrives", ({ bytes }: Flight) => bytes.length < DATA_BYTES],
    [
      "nothing shows that the other end has the new ones",
      (flight: Flight) => isSealedFrame(flight.bytes) && !isData(flight),
    ],
  ])(
    "are given up a minute after they should have been replaced, though packets arrive under them, when %s",
    (_what, isLost) => {
      const all = secureFriends(17, (node) => {
        node.rekey = { everyMs: 5_000 };
      });
      const { network, a, b } = all;
      const exchange = (seconds: number) => {
        for (const node of [a, b]) node.takeTunPackets();
        for (let i = 0; i < seconds; i++) {
          for (const [from, to] of [
            [a, b],
            [b, a],
          ] as const)
            from.sendPacket(numbered(from, to, i));
          network.run(1_000);
        }
        return [arrivedAt(a), arrivedAt(b)];
      };
      const since = () => [a, b].map((node) => node.engine.linkFacts((node === a ? b : a).node)?.security?.since);
      const agreedAt = since();
      network.tap = (flight) => (isLost(flight) ? undefined : flight);
      expect(exchange(60)).toEqual([upTo(60), upTo(60)]);
      expect(since()).toEqual(agreedAt);
      exchange(30);
      for (const [i, now] of since().entries()) expect(now).not.toBe(agreedAt[i]);
      network.tap = (flight) => flight;
      exchange(10);
      expect(exchange(3)).toEqual([upTo(3), upTo(3)]);
      expect(areSecure(all)).toBe(true);
    },
  );

  it("stay what they are while nothing is sent, but those that carried something are replaced once", () => {
    const all = secureFriends(8);
    const { network, a, b } = all;
    talk(all, 3);
    network.run(200_000);
    const agreedAt = a.engine.linkFacts(b.node)!.security!.since;
    network.run(600_000);
    expect(a.engine.linkFacts(b.node)!.security!.since).toBe(agreedAt);
    const before = network.captured.length;
    network.run(3_600_000);
    const said = network.captured.slice(before).filter(({ from, to }) => from.port === 4000 && to.port === 4000);
    expect(said).toEqual([]);
    expect(talk(all, 20)).toEqual({ atA: upTo(20), atB: upTo(20) });
    network.run(1_000);
    expect(a.engine.linkFacts(b.node)!.security!.since).toBeGreaterThan(agreedAt);
  });

  it("are the only ones there soon after: those before are removed, and no copy of any is left", () => {
    const planes: WatchedPlane[] = [];
    const all = secureFriends(9, (node) => {
      node.rekey = { everyMs: 5_000 };
      node.makePlane = () => {
        const plane = new WatchedPlane();
        planes.push(plane);
        return plane;
      };
    });
    talk(all, 1_200);
    all.network.run(30_000);
    for (const plane of planes) {
      expect(plane.installed.size).toBe(1);
      expect(plane.keys.length).toBeGreaterThan(6);
      for (const key of plane.keys) expect(key).toEqual(new Uint8Array(32));
    }
  });

  it("are replaced under the identity that the peer has pinned, also after this node has got another one", () => {
    const all = secureFriends(16, (node) => {
      node.rekey = { everyMs: 500 };
    });
    const { network, a, b } = all;
    a.rotateKey(77);
    const before = network.captured.length;
    expect(talk(all, 300)).toEqual({ atA: upTo(300), atB: upTo(300) });
    for (const node of [a, b]) expect(prefixesOf(network.captured.slice(before), node).size).toBeGreaterThan(3);
  });

  it("do not mind that the clock is set", () => {
    const all = secureFriends(10, (node) => {
      node.rekey = { everyMs: 500 };
    });
    for (const jumpMs of [86_400_000, -2 * 86_400_000]) {
      all.network.wallOffsetMs += jumpMs;
      expect(talk(all, 100)).toEqual({ atA: upTo(100), atB: upTo(100) });
    }
  });
});

it("a trusted peer that begins an agreement again and again costs eight handshakes and two a second, and its session goes on", () => {
  const all = secureFriends(18);
  const { network, a, b } = all;
  for (let i = 0; i < 300; i++) {
    const noise = network.crypto.randomBytes(48);
    b.command((engine) => engine.link(a.node)?.sendVirtual(bridgePacket(b.node, a.node, { kind: "agree", noise })));
    network.run(10);
  }
  const { "bad-key-exchange": looked = 0, "key-exchange-limited": limited = 0 } = a.engine.drops();
  expect(looked).toBeLessThan(16);
  expect(looked + limited).toBe(300);
  expect(talk(all, 20)).toEqual({ atA: upTo(20), atB: upTo(20) });
});

describe("who plays the peer with less", () => {
  /** b's place is taken by somebody with keys that a takes for b's in the exchange, and no more. */
  function downgraded(seed: number, how: "plain" | "older"): Friends {
    const all = secureFriends(seed);
    const { network, b } = all;
    talk(all, 2);
    b.kill();
    if (how === "plain") b.plainOnly = true;
    else b.agreesOnKeys = false;
    b.start();
    network.run(100);
    return all;
  }

  it.each(["plain", "older"] as const)(
    "(%s) gets nothing and gets nothing through, and the operator is told",
    (how) => {
      const all = downgraded(11, how);
      const { network, a, b } = all;
      const before = network.captured.length;
      expect(talk(all, 1_500)).toEqual({ atA: [], atB: [] });
      network.run(20_000);
      // What still went out is of the time when a had not noticed yet, under keys that only the true b had.
      const known = prefixesOf(network.captured.slice(0, before), a);
      for (const prefix of prefixesOf(network.captured.slice(before), a)) expect(known).toContain(prefix);
      if (how === "older") expect(a.engine.drops()["base-session"]).toBeGreaterThan(0);
      expect(a.engine.linkFacts(b.node)?.isUp).toBe(false);
      expect([...a.engine.problems.keys()]).toEqual([`session_downgraded ${b.node}`]);
      expect(a.book.stateOf(b.node)).toBe("mutual");
    },
  );

  it("is not believed after a restart of ours either", () => {
    const all = downgraded(12, "older");
    all.a.kill();
    all.a.start();
    expect(talk(all, 1_500)).toEqual({ atA: [], atB: [] });
    expect([...all.a.engine.problems.keys()]).toEqual([`session_downgraded ${all.b.node}`]);
  });

  it("cannot end trust", () => {
    const all = downgraded(13, "older");
    const { network, a, b } = all;
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(2_000);
    expect(a.book.stateOf(b.node)).toBe("mutual");
  });

  it.each(["plain", "older"] as const)("(%s) is taken for what it is once the operator asks for trust again", (how) => {
    const all = downgraded(14, how);
    const { network, a, b } = all;
    talk(all, 1_500);
    a.command((engine, now) => engine.introductions.revoke(b.node, now));
    expect(a.engine.problems.size).toBe(0);
    network.run(5_000);
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    network.runUntil(() => {
      b.command((engine, now) => engine.introductions.approve(a.node, now)); // if it was asked
      return a.book.stateOf(b.node) === "mutual" && b.book.stateOf(a.node) === "mutual";
    }, 60_000);
    network.run(5_000);
    expect(talk(all, 20)).toEqual({ atA: upTo(20), atB: upTo(20) });
    expect(level(a, b)).toBe("base");
  });

  it("does not disturb a working session by exchanges of earlier lives, sent again and again", () => {
    const all = secureFriends(15);
    const { network, a, b } = all;
    for (let life = 0; life < 3; life++) {
      b.kill();
      b.start();
      b.sendPacket(numbered(b, a, life));
      network.runUntil(() => areSecure(all), 5_000);
      network.run(2_000);
    }
    const old = network.captured.filter((flight) => flight.from === b.endpoint && flight.bytes[3] === 0x41);
    expect(old.length).toBeGreaterThan(3);
    const attacker = { address: "203.0.113.66", port: 666 };
    for (let i = 0; i < 100; i++)
      network.after(i * 40, () => network.inject({ ...old[i % old.length]!, from: attacker }));
    expect(talk(all, 500)).toEqual({ atA: upTo(500), atB: upTo(500) });
    expect(areSecure(all)).toBe(true);
  });
});

describe("two nodes that agree on no keys, so that those of the exchange carry everything", () => {
  it("open nothing of the life before a restart again, though its exchange comes again with it", () => {
    const { network, a, b } = friends(16, (node) => {
      node.agreesOnKeys = false;
    });
    b.sendPacket(numbered(b, a, 7));
    network.run(500);
    expect(arrivedAt(a)).toEqual([7]);
    const recorded = network.captured.filter((flight) => flight.from === b.endpoint);
    b.kill();
    b.start();
    b.sendPacket(numbered(b, a, 8));
    network.run(15_000); // the keys before are forgotten
    expect(arrivedAt(a)).toEqual([8]);
    for (const flight of recorded) {
      network.inject(flight);
      network.run(5);
    }
    expect(arrivedAt(a)).toEqual([]);
    expect(a.engine.drops()["stale-key-exchange"]).toBeGreaterThan(0);
  });
});

const DATA_BYTES = 400;
