/** Nodes that are to be reached through the relay only, by their own wish or because UDP is blocked around them. */
import { describe, expect, it } from "vitest";
import { formatEndpoint } from "../../src/base/endpoint.ts";
import { udpPacket } from "../helpers/inner-packets.ts";
import { BEACON, befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

function overlay(seed = 1) {
  const network = new SimNetwork(seed);
  const replies: string[] = [];
  network.registryTap = (request, reply) => {
    if (request.includes('"resolve"')) replies.push(reply);
    return reply;
  };
  const a = network.addNode("a");
  const hidden = network.addNode("hidden", true);
  network.run(500);
  return { network, a, hidden, replies };
}

const send = (from: SimNode, to: SimNode) => from.sendPacket(udpPacket({ source: from.node, destination: to.node }));
const registrations = (network: SimNetwork, name: string) =>
  network.requests
    .filter((text) => text.includes('"register"') && text.includes(`"${name}"`))
    .map((text) => JSON.parse(text));

function straight(network: SimNetwork, a: SimNode, b: SimNode): number {
  const ends = new Set([formatEndpoint(a.endpoint), formatEndpoint(b.endpoint)]);
  return network.captured.filter(({ from, to }) => ends.has(formatEndpoint(from)) && ends.has(formatEndpoint(to)))
    .length;
}

describe("a node that wants to be reached through the relay only", () => {
  it("talks with its peers, and no datagram passes straight between them, in either direction", () => {
    const { network, a, hidden } = overlay();
    befriend(network, a, hidden);
    for (let at = 0; at < 60_000; at += 500) {
      send(a, hidden);
      send(hidden, a);
      network.run(500);
    }
    expect(a.takeTunPackets().length).toBeGreaterThan(100);
    expect(hidden.takeTunPackets().length).toBeGreaterThan(100);
    expect(a.engine.linkFacts(hidden.node)).toMatchObject({ path: "relay" });
    expect(hidden.engine.linkFacts(a.node)).toMatchObject({ path: "relay" });
    expect(straight(network, a, hidden)).toBe(0);
  });

  it("tells the registry no address, so that peers are told none", () => {
    const { network, a, hidden, replies } = overlay();
    befriend(network, a, hidden);
    a.command((engine) => engine.link(hidden.node) && a.client.resolve(hidden.node));
    network.run(1_000);
    const [registration] = registrations(network, "hidden");
    expect(registration).toMatchObject({ listen_addr: "0.0.0.0:0", relay_only: true });
    expect(registration).not.toHaveProperty("lan_addrs");
    const ofHidden = replies.map((reply) => JSON.parse(reply)).filter((reply) => reply.node_id === hidden.node);
    expect(ofHidden.length).toBeGreaterThan(0);
    for (const reply of ofHidden) expect(reply).toMatchObject({ type: "resolve_ok", real_addr: "", relay_only: true });
  });

  it("is not betrayed by the beacon to who asks for a punch", () => {
    const { network, a, hidden } = overlay();
    const punch = Uint8Array.of(3, 0, 0, 0, a.node, 0, 0, 0, hidden.node);
    network.send(a.endpoint, BEACON, punch);
    network.run(1_000);
    expect(network.captured.filter(({ from, bytes }) => from === BEACON && bytes[0] === 4)).toEqual([]);
  });

  it("does not answer, and does not take, what comes straight", () => {
    const { network, a, hidden } = overlay();
    befriend(network, a, hidden);
    // What the beacon would deliver, kept from it: fresh frames, which a node that took them would answer.
    const frames: Uint8Array[] = [];
    network.tap = (flight) => {
      if (flight.to !== hidden.endpoint || flight.bytes[0] !== 9) return flight;
      frames.push(flight.bytes.slice(9));
      return undefined;
    };
    for (let i = 0; i < 10; i++) {
      if (i === 5) a.kill();
      if (i === 5) a.start(); // from now on it offers a new key, which asks for an answer
      send(a, hidden);
      network.run(500);
    }
    network.tap = (flight) => flight;
    expect(frames.length).toBeGreaterThan(10);
    const before = network.captured.length;
    hidden.takeTunPackets();
    for (const bytes of frames)
      network.inject({ from: { address: "203.0.113.66", port: 7 }, to: hidden.endpoint, bytes });
    network.run(200);
    const answers = network.captured.slice(before).filter(({ to }) => to.address === "203.0.113.66");
    expect(answers).toEqual([]);
    expect(hidden.takeTunPackets()).toEqual([]);
    expect(hidden.engine.drops()["direct-refused"]).toBeGreaterThan(0);
  });
});

describe("a node around which UDP is blocked", () => {
  it("says so to the registry while it lasts, and peers do not look for a direct way meanwhile", () => {
    const network = new SimNetwork(3);
    const [a, b] = [network.addNode("a"), network.addNode("b")];
    network.run(500);
    network.tap = (flight) => (flight.from === a.endpoint ? undefined : flight);
    a.command((engine, now) => engine.setBeaconEndpoint({ address: "127.0.0.1", port: 9 }, "tcp", now));
    network.run(6_000);
    expect(registrations(network, "a").at(-1)).toMatchObject({ relay_only: true });
    const before = network.captured.length;
    b.command((engine, now) => engine.introductions.ask(a.node, "", now));
    a.command((engine, now) => engine.introductions.ask(b.node, "", now));
    network.run(5_000);
    const tried = network.captured
      .slice(before)
      .filter(({ from, to }) => from === b.endpoint && to.address === a.endpoint.address);
    expect(tried).toEqual([]);
    network.tap = (flight) => flight;
    a.command((engine, now) => engine.setBeaconEndpoint(BEACON, "udp", now));
    network.run(10_000);
    expect(registrations(network, "a").at(-1)).not.toHaveProperty("relay_only");
  });
});
