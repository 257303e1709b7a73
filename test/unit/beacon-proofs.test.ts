import { describe, expect, test } from "vitest";
import { toHex, utf8 } from "../../src/base/bytes.ts";
import { instant } from "../../src/base/instant.ts";
import { BeaconClient } from "../../src/beacon/client.ts";
import { type BeaconOptions, BeaconServer } from "../../src/rendezvous/beacon.ts";
import { PortableCrypto } from "../../src/tunnel/portable-crypto.ts";
import {
  beaconProofText,
  encodeDiscover,
  encodeProofWanted,
  encodeProvenDiscover,
  encodePunchRequest,
  encodeRelayPrefix,
  parseBeaconToNode,
} from "../../src/wire/beacon.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { parseEndpoint } from "../../src/wire/underlay-address.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const crypto = new PortableCrypto(seededBytes(7));
const SEEDS = new Map([1, 2].map((node) => [node, new Uint8Array(32).fill(node)]));
const keyOf = (node: number) => {
  const seed = SEEDS.get(node);
  return seed === undefined ? undefined : crypto.ed25519PublicKey(seed);
};
const HERE = "00112233445566778899aabbccddeeff";
const HOME = "198.51.100.1:4000";
const ELSEWHERE = "203.0.113.9:4000";
const B = "198.51.100.2:4000";
const MINUTE = 60_000;
const UNLIMITED = { perSecond: 1e9, burst: 1e9 };

class ProofLab {
  readonly server: BeaconServer;
  nowMs = 1_000_000;

  constructor(options: BeaconOptions = {}) {
    this.server = new BeaconServer({ proofs: { crypto, rendezvous: HERE, keyOf }, ...options });
  }

  send(from: string, datagram: Uint8Array): Record<string, string[]> {
    const sent: Record<string, string[]> = {};
    for (const { to, bytes } of this.server.handleDatagram(datagram, parseEndpoint(from)!, instant(this.nowMs))) {
      const at = `${to.address}:${to.port}`;
      sent[at] = [...(sent[at] ?? []), toHex(bytes)];
    }
    return sent;
  }

  /** The cookie that the beacon wants signed, if it wants one. */
  ask(node: number, from: string, keyNode = node): Uint8Array | undefined {
    const claim = { publicKey: keyOf(keyNode)!, cookie: new Uint8Array(16), signature: undefined };
    const datagram = encodeProvenDiscover(nodeId(node), claim);
    for (const { bytes } of this.server.handleDatagram(datagram, parseEndpoint(from)!, instant(this.nowMs))) {
      const message = parseBeaconToNode(bytes);
      if (message?.kind === "proof-wanted") return message.cookie;
    }
    return undefined;
  }

  answer(node: number, from: string, cookie: Uint8Array, signedBy = node, rendezvous = HERE): boolean {
    const signature = crypto.ed25519Sign(SEEDS.get(signedBy)!, utf8(beaconProofText(nodeId(node), rendezvous, cookie)));
    const datagram = encodeProvenDiscover(nodeId(node), { publicKey: keyOf(node)!, cookie, signature });
    const before = this.server.counters.proofs;
    this.send(from, datagram);
    return this.server.counters.proofs > before;
  }

  prove(node: number, from: string): void {
    expect(this.answer(node, from, this.ask(node, from)!)).toBe(true);
  }

  /** Where a frame for the node goes. */
  reach(node: number, sender = 9, from = "192.0.2.77:1"): string[] {
    const frame = new Uint8Array([...encodeRelayPrefix(nodeId(sender), nodeId(node)), 0x50]);
    return Object.keys(this.send(from, frame));
  }
}

describe("a proof", () => {
  test("binds the number to the endpoint: an unproven discovery from elsewhere is answered and moves nothing", () => {
    const lab = new ProofLab();
    lab.prove(1, HOME);
    for (const extended of [false, true]) {
      const reply = lab.send(ELSEWHERE, encodeDiscover(nodeId(1), extended));
      expect(reply[ELSEWHERE]).toEqual(["0204cb0071090fa0"]);
    }
    expect(lab.reach(1)).toEqual([HOME]);
    expect(lab.server.counters.unprovenMove).toBe(2);
  });

  test("moves with its owner", () => {
    const lab = new ProofLab();
    lab.prove(1, HOME);
    lab.prove(1, ELSEWHERE);
    expect(lab.reach(1)).toEqual([ELSEWHERE]);
  });

  test("overheard, is worth nothing from another source", () => {
    const lab = new ProofLab();
    const cookie = lab.ask(1, HOME)!;
    expect(lab.answer(1, ELSEWHERE, cookie)).toBe(false);
    expect(lab.answer(1, HOME, cookie)).toBe(true);
  });

  test("under another key than the registered one is refused, and no cookie is sent for it", () => {
    const lab = new ProofLab();
    expect(lab.ask(1, HOME, 2)).toBeUndefined();
    expect(lab.answer(1, HOME, lab.ask(1, HOME)!, 2)).toBe(false);
    expect(lab.server.counters.proofsRefused).toBe(2);
  });

  test("with a cookie of three minutes ago is not accepted", () => {
    const lab = new ProofLab();
    const cookie = lab.ask(1, HOME)!;
    lab.nowMs += 3 * MINUTE;
    expect(lab.answer(1, HOME, cookie)).toBe(false);
  });

  test("ends ten minutes after it was given; then the number is anybody's again", () => {
    const lab = new ProofLab();
    lab.prove(1, HOME);
    lab.nowMs += 9 * MINUTE;
    lab.send(HOME, encodeDiscover(nodeId(1), true));
    lab.send(ELSEWHERE, encodeDiscover(nodeId(1), true));
    expect(lab.reach(1)).toEqual([HOME]);
    lab.nowMs += MINUTE;
    lab.send(ELSEWHERE, encodeDiscover(nodeId(1), true));
    expect(lab.reach(1)).toEqual([ELSEWHERE]);
  });

  test("is asked for again in the second half of its life, and not before", () => {
    const lab = new ProofLab();
    lab.prove(1, HOME);
    lab.nowMs += 4 * MINUTE;
    expect(lab.ask(1, HOME)).toBeUndefined();
    lab.nowMs += 2 * MINUTE;
    expect(lab.ask(1, HOME)).toBeDefined();
  });

  test("costs the beacon no more than its limit", () => {
    const lab = new ProofLab({ limits: { proofs: { perSecond: 1, burst: 3 } } });
    const cookie = lab.ask(1, HOME)!;
    for (let i = 0; i < 10; i++) lab.answer(1, HOME, cookie, 2);
    expect(lab.server.counters).toMatchObject({ proofsRefused: 3, limitedProofs: 7, limited: 7 });
  });
});

describe("a proven number", () => {
  test("cannot be used as a sender, nor to ask for a punch, from elsewhere", () => {
    const lab = new ProofLab();
    lab.prove(1, HOME);
    lab.send(B, encodeDiscover(nodeId(2), true));
    expect(lab.reach(2, 1, ELSEWHERE)).toEqual([]);
    expect(lab.send(ELSEWHERE, encodePunchRequest(nodeId(1), nodeId(2)))).toEqual({});
    expect(lab.server.counters.forgedSender).toBe(2);
    expect(lab.reach(2, 1, HOME)).toEqual([B]);
    expect(lab.reach(1)).toEqual([HOME]);
  });

  test("is not pushed out by a flood of made-up ones", () => {
    const lab = new ProofLab({ limits: { control: UNLIMITED, strangers: UNLIMITED } });
    lab.prove(1, HOME);
    for (let node = 10; node < 100_020; node++) lab.send(ELSEWHERE, encodeDiscover(nodeId(node), false));
    expect(lab.reach(1)).toEqual([HOME]);
  });

  test("admitted over a connection is reached there until the connection ends", () => {
    const lab = new ProofLab();
    lab.prove(1, HOME);
    lab.server.admitProven(nodeId(1), parseEndpoint(B)!, instant(lab.nowMs));
    expect(lab.reach(1)).toEqual([B]);
    lab.server.forgetProven(nodeId(1), parseEndpoint(HOME)!, instant(lab.nowMs));
    expect(lab.reach(1)).toEqual([B]);
    lab.server.forgetProven(nodeId(1), parseEndpoint(B)!, instant(lab.nowMs));
    expect(lab.reach(1)).toEqual([]);
  });
});

test("a number that never proved itself is served as everywhere, also with the newest reference's key field", () => {
  const lab = new ProofLab();
  const withKey = new Uint8Array([...encodeDiscover(nodeId(2), true), ...keyOf(2)!]);
  expect(lab.send(HOME, withKey)).toEqual({ [HOME]: ["0204c63364010fa0"] });
  lab.send(ELSEWHERE, encodeDiscover(nodeId(2), false));
  expect(lab.reach(2)).toEqual([ELSEWHERE]);
  expect(lab.reach(2, 77, B)).toEqual([ELSEWHERE]);
});

test("of numbers that nobody registered no more than 50,000 are remembered, so that those of plain agents stay", () => {
  const lab = new ProofLab({ limits: { control: UNLIMITED, strangers: UNLIMITED } });
  lab.send(HOME, encodeDiscover(nodeId(1), false));
  for (let i = 0; i < 120_000; i++) {
    lab.send(`203.0.${(i >> 8) & 255}.${i & 255}:4000`, encodeDiscover(nodeId(1_000 + i), false));
  }
  expect(lab.server.nodeCount).toBe(50_000);
  expect(lab.server.counters.claimsFull).toBe(70_001);
  expect(lab.reach(1, 3, B)).toEqual([HOME]);
  lab.send(B, encodeDiscover(nodeId(2), false)); // registered, and new
  expect(lab.reach(2, 1, HOME)).toEqual([B]);
});

test("senders whose addresses may be made up share four times the limit of one, however many those are", () => {
  const few = { perSecond: 1, burst: 30 };
  const lab = new ProofLab({ limits: { unprovenRelay: few } });
  lab.prove(1, HOME);
  lab.prove(2, B);
  let reached = 0;
  for (let i = 0; i < 1_000; i++) reached += lab.reach(1, 5_000 + i, `203.0.${i >> 8}.${i & 255}:4000`).length;
  expect(reached).toBe(4 * 30);
  expect(lab.reach(1, 2, B)).toEqual([HOME]);
  expect(lab.reach(1, 7, ELSEWHERE)).toEqual([]);
  lab.server.sources.noteConnection("203.0.113.9", instant(lab.nowMs)); // of ELSEWHERE: a plain agent that is registered
  expect(lab.reach(1, 7, ELSEWHERE)).toEqual([HOME]);
});

test("sources that may be made up share a limit of discoveries, and those that showed themselves have their own", () => {
  const lab = new ProofLab({ limits: { strangers: { perSecond: 1, burst: 30 } } });
  lab.prove(1, HOME);
  let answered = 0;
  for (let i = 0; i < 1_000; i++) {
    const from = `203.0.${i >> 8}.${i & 255}:4000`;
    answered += Object.keys(lab.send(from, encodeDiscover(nodeId(5_000 + i), false))).length;
  }
  expect(answered).toBe(30 - 2); // the two of the proof came from a stranger
  expect(lab.server.counters.limitedStrangers).toBe(1_000 - answered);
  expect(Object.keys(lab.send(HOME, encodeDiscover(nodeId(1), false)))).toEqual([HOME]);
  expect(lab.send(B, encodeDiscover(nodeId(2), false))).toEqual({});
  lab.server.sources.noteConnection("198.51.100.2", instant(lab.nowMs));
  expect(Object.keys(lab.send(B, encodeDiscover(nodeId(2), false)))).toEqual([B]);
});

test("made-up senders are few flows in the relay's queue, and a proven node is one of its own", () => {
  const lab = new ProofLab();
  lab.prove(1, HOME);
  lab.prove(2, B);
  const flowOf = (from: string, sender: number): string | undefined => {
    const frame = new Uint8Array([...encodeRelayPrefix(nodeId(sender), nodeId(1)), 0x50]);
    return lab.server.handleDatagram(frame, parseEndpoint(from)!, instant(lab.nowMs))[0]?.flow;
  };
  const strangers = new Set(
    Array.from({ length: 2_000 }, (_, i) => flowOf(`203.0.${i >> 8}.${i & 255}:4000`, 5_000 + i)),
  );
  expect(strangers.size).toBeGreaterThan(32);
  expect(strangers.size).toBeLessThanOrEqual(64);
  expect(strangers).not.toContain(flowOf(B, 2));
});

test("where the operator wants proofs, frames pass only between proven nodes", () => {
  const lab = new ProofLab({ provenOnly: true });
  lab.prove(1, HOME);
  lab.send(B, encodeDiscover(nodeId(2), true));
  expect(lab.reach(2, 1, HOME)).toEqual([]);
  lab.prove(2, B);
  expect(lab.reach(2, 1, HOME)).toEqual([B]);
  expect(lab.reach(2, 9, ELSEWHERE)).toEqual([]);
  expect(lab.server.counters.proofMissing).toBe(2);
});

test("limits count bytes and frames, for a proven node apart from others at its address", () => {
  const few = { perSecond: 1, burst: 30 };
  const lab = new ProofLab({ limits: { relayBytes: { perSecond: 1, burst: 50 }, unprovenRelayBytes: few } });
  lab.prove(1, HOME);
  lab.send(B, encodeDiscover(nodeId(2), true));
  const fromSite = "198.51.100.1:5000";
  expect([1, 2, 3, 4].map(() => lab.reach(2, 7, fromSite).length)).toEqual([1, 1, 1, 0]);
  expect([1, 2, 3, 4, 5, 6].map(() => lab.reach(2, 1, HOME).length)).toEqual([1, 1, 1, 1, 1, 0]);
  expect(lab.server.counters).toMatchObject({ limitedBytes: 2, relayed: 8, relayedBytes: 80 });
});

test("who relays for whom is counted, for the pairs with the most bytes by name", () => {
  const lab = new ProofLab();
  lab.send(B, encodeDiscover(nodeId(2), true));
  lab.reach(2, 1); // from an address that may be made up: it has no place in the table
  expect(lab.server.ledger.top(9)).toEqual({ pairs: [], others: { frames: 1, bytes: 10 } });
  lab.server.sources.noteConnection("192.0.2.77", instant(lab.nowMs));
  for (const sender of [1, 1, 1, 3, 3, 4]) lab.reach(2, sender);
  const { pairs, others } = lab.server.ledger.top(2);
  expect(pairs).toEqual([
    { sender: 1, destination: 2, frames: 3, bytes: 30 },
    { sender: 3, destination: 2, frames: 2, bytes: 20 },
  ]);
  expect(others).toEqual({ frames: 2, bytes: 20 });
  for (let sender = 100; sender < 5000; sender++) lab.reach(2, sender);
  const all = lab.server.ledger.top(0).others;
  expect(all).toEqual({ frames: 4907, bytes: 49_070 });
  expect(lab.server.ledger.size).toBe(4096);
});

describe("the client", () => {
  const prover = (seed: number) => ({
    publicKey: keyOf(seed)!,
    rendezvous: () => HERE as string | undefined,
    sign: (text: string) => crypto.ed25519Sign(SEEDS.get(seed)!, utf8(text)),
  });

  function converse(client: BeaconClient, lab: ProofLab, from: string): number {
    let sent = 0;
    for (let datagram = client.pollDatagram(); datagram !== undefined; datagram = client.pollDatagram()) {
      sent++;
      const replies = lab.server.handleDatagram(datagram, parseEndpoint(from)!, instant(lab.nowMs));
      for (const { bytes } of replies) client.handleDatagram(bytes, instant(lab.nowMs));
    }
    return sent;
  }

  test("proves itself when asked, and at once again from a new endpoint", () => {
    const lab = new ProofLab();
    const client = new BeaconClient(nodeId(1), instant(lab.nowMs), prover(1));
    client.handleTimeout(instant(lab.nowMs));
    converse(client, lab, HOME);
    expect(lab.server.provenCount).toBe(1);
    expect(client.pollTimeout().at - lab.nowMs).toBeGreaterThan(15_000);
    client.rediscover(instant(lab.nowMs));
    converse(client, lab, ELSEWHERE);
    expect(lab.reach(1)).toEqual([ELSEWHERE]);
    expect(lab.server.counters.proofs).toBe(2);
  });

  test("proves nothing before the registry said whose beacon it is, and then at once", () => {
    const lab = new ProofLab();
    let rendezvous: string | undefined;
    const client = new BeaconClient(nodeId(1), instant(lab.nowMs), { ...prover(1), rendezvous: () => rendezvous });
    client.handleTimeout(instant(lab.nowMs));
    converse(client, lab, HOME);
    expect(lab.server.provenCount).toBe(0);
    rendezvous = HERE;
    client.registered(instant(lab.nowMs));
    converse(client, lab, HOME);
    expect(lab.server.provenCount).toBe(1);
    client.registered(instant(lab.nowMs));
    expect(client.pollDatagram()).toBeUndefined();
  });

  test("another rendezvous' beacon gains nothing by handing on this one's cookie", () => {
    const lab = new ProofLab();
    const victim = new BeaconClient(nodeId(1), instant(lab.nowMs), { ...prover(1), rendezvous: () => "ff".repeat(16) });
    victim.handleTimeout(instant(lab.nowMs));
    while (victim.pollDatagram() !== undefined);
    const cookie = lab.ask(1, ELSEWHERE)!;
    victim.handleDatagram(encodeProofWanted(cookie), instant(lab.nowMs));
    const proof = victim.pollDatagram()!;
    expect(proof.length).toBeGreaterThan(100);
    lab.send(ELSEWHERE, proof);
    expect(lab.server.counters).toMatchObject({ proofs: 0, proofsRefused: 1 });
    expect(lab.answer(1, ELSEWHERE, cookie)).toBe(true); // signed for this one, the same cookie would have held
  });

  test("tries again soon when its proof got lost", () => {
    const lab = new ProofLab();
    const client = new BeaconClient(nodeId(1), instant(lab.nowMs), prover(1));
    client.handleTimeout(instant(lab.nowMs));
    for (const datagram of [client.pollDatagram()!, client.pollDatagram()!]) {
      for (const { bytes } of lab.server.handleDatagram(datagram, parseEndpoint(HOME)!, instant(lab.nowMs))) {
        client.handleDatagram(bytes, instant(lab.nowMs));
      }
    }
    expect(client.pollDatagram()).toBeDefined(); // the proof, lost
    lab.nowMs += 1000;
    client.handleTimeout(instant(lab.nowMs));
    converse(client, lab, HOME);
    expect(lab.server.provenCount).toBe(1);
  });

  test("signs no more than a few cookies, however many it is sent", () => {
    const client = new BeaconClient(nodeId(1), instant(0), prover(1));
    let sent = 0;
    for (let i = 0; i < 100; i++) {
      client.handleDatagram(new Uint8Array([0x0b, 1, ...new Uint8Array(16)]), instant(i));
      while (client.pollDatagram() !== undefined) sent++;
    }
    expect(sent).toBe(10);
  });
});
