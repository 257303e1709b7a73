/** Networks between real engines, the real registry and beacon: addresses, who may use them, and what they consent to. */
import { describe, expect, it } from "vitest";
import { type NetworkId, networkId } from "../../src/wire/ids.ts";
import { TCP, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";
import { ADMIN_TOKEN, befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";
import { cutOff } from "../helpers/sim-trust.ts";

const OPS = networkId(1);
const CLUB = networkId(2);

/** Three nodes; `ops` is open, `club` takes invitations; nobody is in either. */
function overlay(seed = 1) {
  const network = new SimNetwork(seed);
  const [a, b, c] = ["a", "b", "c"].map((name) => network.addNode(name)) as [SimNode, SimNode, SimNode];
  network.run(200);
  for (const [name, joinRule] of [
    ["ops", "open"],
    ["club", "invite"],
  ] as const) {
    c.command((engine, now) =>
      engine.networks.request({ kind: "create-network", name, joinRule, adminToken: ADMIN_TOKEN }, now),
    );
    network.run(100);
  }
  for (const left of [OPS, CLUB]) leave(network, c, left);
  for (const node of [a, b, c]) node.command((engine, now) => engine.networks.request({ kind: "list-networks" }, now));
  network.run(100);
  return { network, a, b, c };
}

function join(network: SimNetwork, node: SimNode, joined: NetworkId = OPS): void {
  node.command((engine, now) => engine.networks.request({ kind: "join-network", network: joined }, now));
  network.run(200);
}

function leave(network: SimNetwork, node: SimNode, left: NetworkId = OPS): void {
  node.command((engine, now) => engine.networks.request({ kind: "leave-network", network: left }, now));
  network.run(100);
}

const datagram = (from: SimNode, to: { node: number }, network: number) =>
  udpPacket({ source: from.node, destination: to.node, network, payload: new Uint8Array(9) });

const icmp = (packet: Uint8Array | undefined) => (packet?.[6] === 58 ? [packet[40], packet[41]] : undefined);
const NO_ROUTE = [1, 0];
const FOREIGN_SOURCE = [1, 5];
const PROHIBITED = [1, 1];

/** What `from` is told about a packet, or "arrived". */
function attempt(network: SimNetwork, from: SimNode, to: SimNode, inNetwork: number): unknown {
  from.takeTunPackets();
  to.takeTunPackets();
  from.sendPacket(datagram(from, to, inNetwork));
  network.run(500);
  if (to.takeTunPackets().some((packet) => packet[6] === 17)) return "arrived";
  return icmp(from.takeTunPackets()[0]);
}

describe("an address in a network", () => {
  it("carries packets between two members that trust each other", () => {
    const { network, a, b } = overlay();
    befriend(network, a, b);
    join(network, a);
    join(network, b);
    network.run(4_000);
    attempt(network, a, b, OPS); // asks who is in it
    network.run(100);
    expect(attempt(network, a, b, OPS)).toBe("arrived");
    expect(attempt(network, b, a, OPS)).toBe("arrived");
    expect(attempt(network, a, b, 0)).toBe("arrived");
  });

  it("is prohibited to who is not in it, nowhere when there is no such network, and nobody when the peer is not in it", () => {
    const { network, a, b } = overlay();
    befriend(network, a, b);
    expect(attempt(network, a, b, OPS)).toEqual(FOREIGN_SOURCE);
    a.sendPacket(mixed(a, b, OPS));
    network.run(50);
    expect(icmp(a.takeTunPackets()[0])).toEqual(PROHIBITED);
    a.sendPacket(mixed(a, b, 77));
    network.run(50);
    expect(icmp(a.takeTunPackets()[0])).toEqual(NO_ROUTE);
    join(network, a);
    network.run(100);
    expect(attempt(network, a, b, OPS)).toEqual(NO_ROUTE);
    expect(a.engine.drops()["not-member"]).toBe(3);
  });

  it("opens nothing by itself: members that never consented stay prohibited", () => {
    const { network, a, b } = overlay();
    join(network, a);
    join(network, b);
    expect(attempt(network, a, b, OPS)).toEqual(PROHIBITED);
    expect(attempt(network, a, b, 0)).toEqual(PROHIBITED);
  });

  it("is not believed of a trusted peer that is not a member, though its frames are authentic", () => {
    const { network, a, b } = overlay();
    befriend(network, a, b);
    join(network, b);
    a.engine.routes.setNetworks([networkId(0), OPS]); // a lies to itself
    const inbound = () => b.engine.drops()["not-member"] ?? 0;
    Object.defineProperty(a.engine.networks, "admits", { value: () => "yes" });
    a.sendPacket(datagram(a, b, OPS));
    network.run(100);
    a.sendPacket(datagram(a, b, OPS));
    network.run(100);
    expect(inbound()).toBe(2);
    expect(b.takeTunPackets()).toEqual([]);
  });

  it("goes at once when its node leaves, with resets for what was open, also while the registry is away", () => {
    const { network, a, b } = overlay();
    befriend(network, a, b);
    join(network, a);
    join(network, b);
    network.run(4_000);
    attempt(network, a, b, OPS);
    expect(attempt(network, a, b, OPS)).toBe("arrived");
    a.sendPacket(tcpPacket({ source: a.node, destination: b.node, network: OPS, sequence: 5, acknowledgement: 9 }));
    network.run(50);
    a.disconnectRegistry();
    a.takeTunPackets();
    a.command((engine, now) => engine.networks.request({ kind: "leave-network", network: OPS }, now));
    expect(a.takeTunPackets().some((packet) => packet[6] === 6 && (packet[53]! & TCP.RST) !== 0)).toBe(true);
    expect(a.engine.networks.memberships()).toEqual([]);
    b.takeTunPackets();
    b.sendPacket(datagram(b, a, OPS));
    network.run(100);
    expect(a.takeTunPackets()).toEqual([]);
    expect(attempt(network, a, b, 0)).toBe("arrived"); // trust in person is not the network's to take
    // A restart before the registry heard of it does not bring it back.
    a.kill("lost");
    a.reachesRegistry = true;
    a.start();
    network.run(1_000);
    expect(a.engine.networks.memberships()).toEqual([]);
    expect(a.engine.networks.toStored().leaving).toEqual([]);
  });

  it("is as its operator said last, also where a crash follows at once and the registry heard of nothing", () => {
    const { network, a } = overlay();
    const restart = () => {
      a.kill("lost");
      a.start();
    };
    join(network, a);
    network.run(4_000);
    const joined = a.networks;
    network.registryIsUp = false;
    restart();
    leave(network, a);
    join(network, a);
    restart();
    network.registryIsUp = true;
    network.run(10_000);
    expect(a.engine.networks.memberships()).toEqual([OPS]); // it left in vain
    network.registryIsUp = false;
    a.kill("lost");
    a.networks = { ...joined, memberships: [], joined: [] }; // it does not know that it is a member
    a.start();
    leave(network, a);
    restart();
    network.registryIsUp = true;
    network.run(10_000);
    expect([a.engine.networks.memberships(), a.engine.networks.toStored().leaving]).toEqual([[], []]);
  });

  it("is there again after a restart without a registry, with the trusted peers' memberships", () => {
    const { network, a, b } = overlay();
    befriend(network, a, b);
    join(network, a);
    join(network, b);
    network.run(200_000);
    network.registryIsUp = false;
    for (const node of [a, b]) {
      node.kill();
      node.start();
    }
    network.run(3_000);
    expect(attempt(network, a, b, OPS)).toBe("arrived");
  });

  it("in a network made since the last list is prohibited, not nowhere, and so while the registry is away", () => {
    const { network, a, b, c } = overlay();
    befriend(network, a, b);
    network.run(60_000);
    c.command((engine, now) =>
      engine.networks.request({ kind: "create-network", name: "new", joinRule: "open", adminToken: ADMIN_TOKEN }, now),
    );
    network.run(100);
    for (let i = 0; i < 2; i++) {
      a.sendPacket(mixed(a, b, 3));
      network.run(50);
      expect(icmp(a.takeTunPackets()[0])).toEqual(PROHIBITED);
    }
    network.run(1_000);
    a.sendPacket(mixed(a, b, 77));
    network.run(50);
    expect(icmp(a.takeTunPackets()[0])).toEqual(NO_ROUTE);
    network.run(1_000);
    a.disconnectRegistry();
    a.sendPacket(mixed(a, b, 77));
    network.run(500);
    expect(icmp(a.takeTunPackets()[0])).toEqual(PROHIBITED);
  });
});

describe("trust between members", () => {
  it("is given at once to the request of a member, because both operators joined", () => {
    const { network, a, b } = overlay();
    join(network, a);
    join(network, b);
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    network.runUntil(() => a.book.stateOf(b.node) === "mutual", 40_000);
    expect(b.book.get(a.node)).toMatchObject({ state: "mutual", consentNetwork: OPS });
    expect(a.book.get(b.node)?.consentNetwork).toBeUndefined(); // a asked in person
    network.runUntil(() => attempt(network, a, b, OPS) === "arrived", 3_000);
  });

  it("is not given because a registry alone says that the node is a member", () => {
    const { network, a, b } = overlay();
    join(network, a);
    network.store.addMember(OPS, b.node); // nobody at b joined
    network.run(200_000);
    expect(b.engine.networks.memberships()).toEqual([OPS]);
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    network.run(60_000);
    expect(b.book.stateOf(a.node)).toBe("pending");
  });

  it("is given to a request that waited when its sender is found to be a member of a network just joined", () => {
    const { network, a, b } = overlay();
    join(network, a);
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    network.run(60_000);
    expect(b.book.stateOf(a.node)).toBe("pending");
    join(network, b);
    network.runUntil(() => a.book.stateOf(b.node) === "mutual", 60_000);
  });

  it("ends with the shared membership when it came with it, and stays when an operator consented in person", () => {
    const { network, a, b, c } = overlay();
    for (const node of [a, b, c]) join(network, node);
    for (const node of [a, c]) {
      node.command((engine, now) => engine.introductions.ask(b.node, "", now));
      network.runUntil(() => node.book.stateOf(b.node) === "mutual", 40_000);
    }
    b.command((engine, now) => engine.introductions.ask(c.node, "yes, it", now)); // now in person
    network.run(500);
    leave(network, b);
    expect(b.book.stateOf(a.node)).toBe("none");
    expect(b.book.stateOf(c.node)).toBe("mutual");
    expect(attempt(network, a, b, 0)).not.toBe("arrived");
    expect(attempt(network, c, b, 0)).toBe("arrived");
  });

  it("ends over there, too, when the peer was away as it ended, and its own ask then waits for an operator", () => {
    const { network, a, b } = overlay(); // found by simulation, seed 65 with 3 nodes
    for (const node of [a, b]) join(network, node);
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    network.runUntil(() => a.book.stateOf(b.node) === "mutual", 40_000);
    network.run(1_000);
    a.sleep();
    network.run(30_000);
    leave(network, b);
    network.run(60_000);
    b.kill();
    b.start();
    network.run(10_000);
    a.wake();
    network.run(90_000);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["asked", "pending"]);
    expect([a.engine.link(b.node), b.engine.link(a.node)].map((link) => link !== undefined)).toEqual([true, false]);
    expect(attempt(network, a, b, 0)).toEqual(PROHIBITED);
  });

  it("is told to be over, and its ask waits for an operator, where a member gave it who had not heard that the asker left", () => {
    const { network, a, b } = overlay(); // found by simulation, seed 20507 with 6 nodes
    for (const node of [a, b]) join(network, node);
    attempt(network, b, a, OPS); // learns that a is in it, and not which key that has
    leave(network, a);
    const mend = cutOff(network);
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    network.runUntil(() => network.requests.some((text) => JSON.parse(text).type === "respond_handshake"), 40_000);
    network.run(1_000);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["asked", "none"]);
    mend();
    network.run(60_000);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["asked", "pending"]);
  });

  it("leaves an ask open and seen when it ended before the asker heard that it had answered", () => {
    const { network, a, b } = overlay();
    for (const node of [a, b]) join(network, node);
    const mend = cutOff(network);
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    network.runUntil(() => network.store.inbox(a.node).length > 0, 40_000);
    leave(network, b);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["asked", "none"]);
    mend();
    network.run(60_000);
    expect([a.book.stateOf(b.node), b.book.stateOf(a.node)]).toEqual(["asked", "pending"]);
  });

  it("does not lift a tombstone", () => {
    const { network, a, b } = overlay();
    befriend(network, a, b);
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(1_000);
    join(network, a);
    join(network, b);
    a.command((engine, now) => engine.introductions.ask(b.node, "again", now));
    network.run(300_000);
    expect(b.book.stateOf(a.node)).toBe("revoked");
    expect(attempt(network, a, b, OPS)).not.toBe("arrived");
  });

  it("ends when the registry takes the peer out, and a return opens nothing until the operator joins again", () => {
    const { network, a, b } = overlay();
    join(network, a);
    join(network, b);
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    network.runUntil(() => a.book.stateOf(b.node) === "mutual", 40_000);
    network.store.removeMember(OPS, b.node);
    network.run(200_000);
    expect(b.engine.networks.memberships()).toEqual([]);
    expect(b.book.stateOf(a.node)).not.toBe("mutual");
    network.store.addMember(OPS, b.node);
    network.run(400_000);
    expect(b.engine.networks.memberships()).toEqual([OPS]);
    expect(b.engine.networks.hasJoined(OPS)).toBe(false);
    expect(b.book.stateOf(a.node)).not.toBe("mutual");
  });
});

describe("a network that the registry's operator deletes", () => {
  it("is gone at once where he deleted it, within minutes for its members, and with it the consent it gave", () => {
    const { network, a, b } = overlay();
    join(network, a);
    join(network, b);
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    network.runUntil(() => a.book.stateOf(b.node) === "mutual", 40_000);
    expect(attempt(network, a, b, OPS)).toBe("arrived");
    a.command((engine, now) =>
      engine.networks.request({ kind: "delete-network", network: OPS, adminToken: ADMIN_TOKEN }, now),
    );
    network.run(100);
    expect(a.engine.networks.memberships()).toEqual([]);
    network.run(190_000);
    expect(b.engine.networks.memberships()).toEqual([]);
    expect(b.book.stateOf(a.node)).not.toBe("mutual");
    expect(attempt(network, b, a, OPS)).not.toBe("arrived");
  });
});

describe("invitations", () => {
  it("let a node in that accepts, and say who invited it", () => {
    const { network, a, b } = overlay();
    network.store.addMember(CLUB, a.node);
    const ask = (node: SimNode, command: Parameters<typeof node.engine.networks.request>[0]) => {
      node.events.length = 0;
      node.command((engine, now) => engine.networks.request(command, now));
      network.run(100);
      return node.events.find((event) => event.kind === "network");
    };
    expect(ask(b, { kind: "join-network", network: CLUB })).toMatchObject({
      answer: undefined,
      error: "request failed",
    });
    expect(ask(a, { kind: "invite-to-network", network: CLUB, node: b.node })).toMatchObject({
      answer: { kind: "done" },
    });
    expect(ask(b, { kind: "poll-invites" })).toMatchObject({
      answer: { kind: "invites", invites: [{ network: CLUB, name: "club", inviter: a.node }] },
    });
    expect(ask(b, { kind: "respond-invite", network: CLUB, accept: true })).toMatchObject({
      answer: { network: CLUB },
    });
    expect(b.engine.networks.memberships()).toEqual([CLUB]);
    expect(b.engine.networks.hasJoined(CLUB)).toBe(true);
    expect(ask(b, { kind: "list-nodes", network: CLUB })).toMatchObject({
      answer: { members: [{ node: a.node }, { node: b.node }] },
    });
  });
});

/** From an address on network 0 to one in another network. */
function mixed(from: SimNode, to: SimNode, network: number): Uint8Array {
  const packet = datagram(from, to, 0);
  new DataView(packet.buffer).setUint16(30, network);
  return packet;
}
