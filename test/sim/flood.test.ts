/**
 * Floods from made-up sources at a real engine, counted exactly: what strangers can make a node do, and who gets through
 * meanwhile. The clock is not real, so the numbers are.
 */
import { describe, expect, it } from "vitest";
import { readU32, toHex } from "../../src/base/bytes.ts";
import type { Endpoint } from "../../src/base/endpoint.ts";
import { PortableCrypto } from "../../src/tunnel/portable-crypto.ts";
import { encodeDiscover, BEACON as MESSAGE } from "../../src/wire/beacon.ts";
import { encodePila, PILA_BYTES } from "../../src/wire/frame.ts";
import { nodeId } from "../../src/wire/ids.ts";
import * as floods from "../helpers/flood-datagrams.ts";
import { udpPacket } from "../helpers/inner-packets.ts";
import { BEACON, befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

/** Notes whose key exchanges had their signatures checked. */
class CountingCrypto extends PortableCrypto {
  readonly checks: number[] = [];

  override ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    if (message.length === 40 && readU32(message, 0) === AUTH) this.checks.push(readU32(message, 4));
    return super.ed25519Verify(publicKey, message, signature);
  }
}

const AUTH = 0x61757468;

interface Friends {
  readonly network: SimNetwork;
  readonly a: SimNode;
  readonly b: SimNode;
  /** Signatures of exchanges in b's name that were looked at. */
  checksOfB(): number;
}

function friends(seed: number): Friends {
  let crypto: CountingCrypto | undefined;
  const network = new SimNetwork(seed, (random) => {
    crypto = new CountingCrypto(random);
    return crypto;
  });
  const [a, b] = [network.addNode("a"), network.addNode("b")];
  network.run(200);
  befriend(network, a, b);
  network.run(2_000);
  const checksOfB = () => crypto!.checks.filter((node) => node === b.node).length;
  return { network, a, b, checksOfB };
}

/** What is flooded with, each time otherwise, and where it seems to come from. */
interface Flood {
  readonly datagram: (index: number) => Uint8Array;
  readonly from: (index: number) => Endpoint;
}

const anywhere = (index: number): Endpoint => ({
  address: `198.18.${(index >> 8) & 255}.${index & 255}`,
  port: 1024 + (index % 60_000),
});

/** `perSecond` datagrams at `node` for `seconds`, from now on; nothing waits for it. */
function flood(
  network: SimNetwork,
  node: SimNode,
  { datagram, from }: Flood,
  perSecond: number,
  seconds: number,
): void {
  for (let i = 0; i < perSecond * seconds; i++) {
    network.inject({ from: from(i), to: node.endpoint, bytes: datagram(i) }, (i * 1_000) / perSecond);
  }
}

const identityOf = (of: SimNode, peer: SimNode): Uint8Array => of.book.get(peer.node)!.publicKey!;

/** Key exchanges in b's name at a, with b's public key and all else made up; every other one with a tag. */
function asB(network: SimNetwork, { a, b }: Pick<Friends, "a" | "b">): Flood["datagram"] {
  const templates = floods.exchangesAs(b.node, identityOf(a, b), a.node);
  return (index) =>
    floods.randomized(templates[index % templates.length]!, (length) => network.crypto.randomBytes(length));
}

/** Packets of b that reach a's programs, one every 10 ms; how many of `count` did. */
function passed({ network, a, b }: Friends, count: number): number {
  a.takeTunPackets();
  for (let i = 0; i < count; i++) {
    b.sendPacket(udpPacket({ source: b.node, destination: a.node }));
    network.run(10);
  }
  network.run(200);
  return a.takeTunPackets().filter((packet) => packet[6] === 17).length;
}

describe("key exchanges in a peer's name", () => {
  const places: [string, (all: Friends) => Flood["from"]][] = [
    ["from made-up addresses", () => anywhere],
    [
      "from the peer's own address",
      ({ b }) =>
        () =>
          b.endpoint,
    ],
  ];
  it.each(places)("%s cost eight signature checks and two a second, and the session loses nothing", (_, from) => {
    const all = friends(1);
    const { network, a } = all;
    const before = all.checksOfB();
    flood(network, a, { datagram: asB(network, all), from: from(all) }, 500, 10);
    expect(passed(all, 950)).toBe(950);
    network.run(500);
    expect(all.checksOfB() - before).toBeGreaterThanOrEqual(8 + 2 * 9);
    expect(all.checksOfB() - before).toBeLessThanOrEqual(8 + 2 * 10);
    const { "key-exchange-limited": limited = 0, "bad-key-exchange": bad = 0 } = a.engine.drops();
    expect(limited + bad).toBe(5_000);
  });

  it.each(places)("%s keep the peer from nothing: killed and back, it is reached as soon as ever", (_, from) => {
    const all = friends(2);
    const { network, a, b } = all;
    const back = (): number => {
      b.kill();
      network.run(3_000);
      const sessions = a.engine.counters().sessions;
      b.start();
      b.sendPacket(udpPacket({ source: b.node, destination: a.node }));
      const tookMs = network.runUntil(() => a.engine.counters().sessions > sessions, 20_000);
      network.run(1_000);
      return tookMs;
    };
    const quiet = back();
    flood(network, a, { datagram: asB(network, all), from: from(all) }, 500, 30);
    network.run(2_000);
    for (let i = 0; i < 3; i++) expect(back()).toBeLessThanOrEqual(quiet + 1);
    expect(passed(all, 20)).toBe(20);
  });

  it("without tags, as plain agents send them, are looked at where the peer may be before those from elsewhere", () => {
    const all = friends(3);
    const { network, a, b } = all;
    network.tap = (flight) =>
      flight.bytes[3] === 0x41 && flight.bytes.length > PILA_BYTES
        ? { ...flight, bytes: flight.bytes.slice(0, PILA_BYTES) }
        : flight;
    flood(network, a, { datagram: asB(network, all), from: anywhere }, 500, 15);
    network.run(2_000);
    b.kill();
    network.run(3_000);
    b.start();
    const sessions = a.engine.counters().sessions;
    b.sendPacket(udpPacket({ source: b.node, destination: a.node }));
    expect(network.runUntil(() => a.engine.counters().sessions > sessions, 5_000)).toBeLessThan(1_000);
    network.run(1_000);
    expect(passed(all, 20)).toBe(20);
  });

  it("recorded, of the peer's earlier lives, cost their sender one check each, and the peer comes back meanwhile", () => {
    const all = friends(4);
    const { network, a, b } = all;
    for (let life = 0; life < 6; life++) {
      b.kill();
      b.start();
      b.sendPacket(udpPacket({ source: b.node, destination: a.node }));
      network.run(4_000);
    }
    const recorded = new Map<string, Uint8Array>();
    for (const { from, bytes } of network.captured) {
      if (from === b.endpoint && bytes[3] === 0x41) recorded.set(toHex(bytes.subarray(8, 40)), bytes);
    }
    const copies = [...recorded.values()];
    expect(copies.length).toBeGreaterThanOrEqual(6);
    const before = all.checksOfB();
    flood(network, a, { datagram: (i) => copies[i % copies.length]!, from: anywhere }, 500, 10);
    network.run(4_000);
    b.kill();
    network.run(1_000);
    const sessions = a.engine.counters().sessions;
    b.start();
    b.sendPacket(udpPacket({ source: b.node, destination: a.node }));
    expect(network.runUntil(() => a.engine.counters().sessions > sessions, 5_000)).toBeLessThan(1_000);
    network.run(6_000);
    expect(passed(all, 20)).toBe(20);
    expect(all.checksOfB() - before).toBeLessThanOrEqual(copies.length + 1 + 8 + 2 * 10);
  });

  it("under another key than the pinned one cost no signature check, and a registry query every two seconds", () => {
    const all = friends(5);
    const { network, a, b } = all;
    const before = all.checksOfB();
    const requests = network.requests.length;
    const frame = encodePila({
      sender: b.node,
      exchangeKey: network.crypto.randomBytes(32),
      identityKey: network.crypto.randomBytes(32),
      signature: network.crypto.randomBytes(64),
    });
    flood(network, a, { datagram: () => frame, from: anywhere }, 500, 10);
    network.run(10_000);
    expect(all.checksOfB()).toBe(before);
    expect(a.engine.drops()["wrong-key"]).toBe(5_000);
    const lookups = network.requests.slice(requests).filter((request) => request.includes('"lookup"'));
    expect(lookups.length).toBeGreaterThan(0);
    expect(lookups.length).toBeLessThanOrEqual(5);
  });
});

describe("frames in a peer's name while there are no keys", () => {
  it("have a node send an exchange every half second", () => {
    const all = friends(6);
    const { network, a, b } = all;
    b.kill();
    a.kill();
    a.start();
    network.run(60_000);
    const before = network.captured.length;
    const sealed = floods.sealedFrames(b.node);
    const datagram = () => floods.randomized(sealed, (length) => network.crypto.randomBytes(length));
    flood(network, a, { datagram, from: anywhere }, 500, 10);
    network.run(10_000);
    const sent = network.captured.slice(before).filter(({ from, bytes }) => from === a.endpoint && bytes[3] === 0x41);
    expect(sent.length).toBeGreaterThan(0);
    expect(sent.length).toBeLessThanOrEqual(2 * 10 + 1);
    b.start();
    b.sendPacket(udpPacket({ source: b.node, destination: a.node }));
    network.run(1_000);
    expect(passed(all, 20)).toBe(20);
  });
});

describe("a flood of strangers", () => {
  const kinds: [string, () => floods.FloodDatagram, string][] = [
    ["signed exchanges of unknown nodes", floods.strangeExchanges, "unknown-sender"],
    ["anonymous exchanges", () => floods.anonymousExchanges(nodeId(7)), "anonymous-exchange-refused"],
    ["sealed frames of unknown nodes", () => floods.sealedFrames(nodeId(0x7f000001)), "unknown-sender"],
    ["packets in the clear", floods.plaintext, "plaintext-refused"],
    ["beacon's messages of somebody else", floods.observations, "beacon-spoofed"],
  ];
  it.each(kinds)(
    "of %s costs no check, no query, no answer and no memory, and peers get through",
    (_, make, reason) => {
      const all = friends(7);
      const { network, a } = all;
      const template = make();
      const before = all.checksOfB();
      const requests = network.requests.length;
      const datagram = () => floods.randomized(template, (length) => network.crypto.randomBytes(length));
      flood(network, a, { datagram, from: anywhere }, 500, 8);
      expect(passed(all, 780)).toBe(780);
      network.run(1_000);
      expect(a.engine.drops()).toMatchObject({ [reason]: 4_000 });
      expect(all.checksOfB()).toBe(before);
      const queries = network.requests.slice(requests).filter((request) => /lookup|resolve|handshake"/.test(request));
      expect(queries).toEqual([]);
      const answers = network.captured.filter(({ to }) => to.address.startsWith("198.18."));
      expect(answers).toEqual([]);
      expect(a.engine.counters()).toMatchObject({ flows: 1, staged: 0 });
    },
  );

  it("does not keep a peer that is trusted meanwhile, through the registry, from being reached", () => {
    const all = friends(8);
    const { network, a } = all;
    const template = floods.strangeExchanges();
    const datagram = () => floods.randomized(template, (length) => network.crypto.randomBytes(length));
    flood(network, a, { datagram, from: anywhere }, 500, 20);
    flood(network, a, { datagram: asB(network, all), from: anywhere }, 500, 20);
    const c = network.addNode("c");
    network.run(500);
    befriend(network, c, a);
    network.run(500);
    c.sendPacket(udpPacket({ source: c.node, destination: a.node }));
    network.run(200);
    expect(a.takeTunPackets().filter((packet) => packet[6] === 17)).toHaveLength(1);
  });
});

describe("words in the beacon's name", () => {
  it("that this node is elsewhere each time lead to eight registrations and one every five seconds", () => {
    const all = friends(9);
    const { network, a } = all;
    const before = { requests: network.requests.length, captured: network.captured.length };
    const template = floods.observations();
    const datagram = () => floods.randomized(template, (length) => network.crypto.randomBytes(length));
    flood(network, a, { datagram, from: () => BEACON }, 200, 20);
    expect(passed(all, 1_950)).toBe(1_950);
    network.run(1_000);
    const registrations = network.requests.slice(before.requests).filter((request) => request.includes('"register"'));
    // Each change that is believed, and perhaps the true one after it.
    expect(registrations.length).toBeLessThanOrEqual(2 * (8 + 0.2 * 21));
    const asked = network.captured.slice(before.captured).filter(({ from, to, bytes }) => {
      return from === a.endpoint && to === BEACON && bytes[0] === MESSAGE.DISCOVER;
    });
    expect(asked.length).toBeLessThanOrEqual(2 * (8 + 0.2 * 21) + 2);
    expect(a.engine.drops()["beacon-limited"]).toBeGreaterThan(3_900);
  });

  it("that handshakes wait lead to four questions and two a second", () => {
    const all = friends(10);
    const { network, a } = all;
    const before = network.requests.length;
    const notice = Uint8Array.from([MESSAGE.NOTIFY, 1]);
    flood(network, a, { datagram: () => notice, from: () => BEACON }, 200, 10);
    network.run(10_000);
    const polls = network.requests.slice(before).filter((request) => request.includes("poll_handshakes"));
    expect(polls.length).toBeGreaterThan(10);
    expect(polls.length).toBeLessThanOrEqual(4 + 2 * 10 + 1);
  });
});

it("a beacon's own answers are never more than what it was sent", () => {
  const network = new SimNetwork(11);
  const seen = network.captured.length;
  for (let i = 0; i < 500; i++) {
    network.inject({ from: anywhere(i), to: BEACON, bytes: encodeDiscover(nodeId(1 + i), false) }, i);
  }
  network.run(1_000);
  const answers = network.captured.slice(seen).filter(({ from }) => from === BEACON);
  expect(answers.length).toBe(500);
});
