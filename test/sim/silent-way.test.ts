/** What a link does while nothing answers: how often it asks, on which ways, and what becomes of packets meanwhile. */
import { describe, expect, it } from "vitest";
import { formatEndpoint } from "../../src/base/endpoint.ts";
import { TCP, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";
import { BEACON, befriend, type Flight, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

function friends(): { network: SimNetwork; a: SimNode; b: SimNode } {
  const network = new SimNetwork(1);
  const a = network.addNode("a");
  const b = network.addNode("b");
  network.run(200);
  befriend(network, a, b);
  network.run(1_000);
  return { network, a, b };
}

/** Both without a key, as after a reboot of both, and quiet. */
function strangersAgain(): { network: SimNetwork; a: SimNode; b: SimNode } {
  const { network, a, b } = friends();
  for (const node of [a, b]) node.kill();
  network.run(1_000);
  return { network, a, b };
}

const isAt = (flight: Flight, ...ends: SimNode[]): boolean =>
  ends.some(({ endpoint }) => [flight.from, flight.to].some((end) => formatEndpoint(end) === formatEndpoint(endpoint)));

/** Straight, or behind the nine bytes of the relay. */
const exchange = ({ to, bytes }: Flight): "direct" | "relay" | undefined => {
  const at = formatEndpoint(to) === formatEndpoint(BEACON) ? 9 : 0;
  const isPila = new TextDecoder().decode(bytes.subarray(at, at + 4)) === "PILA";
  return isPila ? (at === 0 ? "direct" : "relay") : undefined;
};

describe("a key exchange that is not answered", () => {
  it("is repeated after 250, 500, 1000 and 2000 ms, through the relay too from the first repeat on, then given up", () => {
    const { network, a, b } = strangersAgain();
    const sent: { way: string; atMs: number }[] = [];
    a.start();
    network.run(20_000); // whatever a restart asks for by itself is over
    const startedAt = network.now;
    network.tap = (flight) => {
      const way = exchange(flight);
      if (way !== undefined && isAt(flight, a)) sent.push({ way, atMs: network.now - startedAt });
      return flight; // b is not there
    };
    a.sendPacket(udpPacket({ source: a.node, destination: b.node }));
    network.run(60_000);
    const times = (wanted: string) => sent.filter(({ way }) => way === wanted).map(({ atMs }) => atMs);
    // Also to where the registry says that the peer is; it is asked with the first and the fourth.
    expect([...new Set(times("direct"))]).toEqual([0, 10, 250, 750, 1_750, 1_760, 3_750]);
    expect([...new Set(times("relay"))]).toEqual([250, 750, 1_750, 3_750]);
  });

  it("carries the packet that asked for it although the first three attempts were lost", () => {
    const { network, a, b } = strangersAgain();
    const startedAt = network.now;
    network.tap = (flight) => (isAt(flight, a, b) && network.now - startedAt < 1_000 ? undefined : flight);
    for (const node of [a, b]) node.start();
    const packet = udpPacket({ source: a.node, destination: b.node, payload: new Uint8Array(20) });
    a.sendPacket(packet);
    network.run(1_900);
    expect(b.takeTunPackets()).toEqual([packet]);
  });
});

describe("a way that falls silent", () => {
  const segment = (from: SimNode, to: SimNode) =>
    tcpPacket({ source: from.node, destination: to.node, flags: TCP.ACK, payload: new Uint8Array(100) });

  it("keeps what is sent once no way answers, and lets it go with the first sign of life, on the way that came from", () => {
    const { network, a, b } = friends();
    const send = (): void => b.sendPacket(segment(b, a));
    send();
    network.run(100);
    a.takeTunPackets();
    network.tap = (flight) => (isAt(flight, a) ? undefined : flight); // a's uplink is dead
    for (let i = 0; i < 6; i++) {
      send();
      network.run(500);
    }
    // As when UDP is blocked: the relay is reached again, the peer is not.
    network.tap = (flight) => (isAt(flight, a) && isAt(flight, b) ? undefined : flight);
    const tookMs = network.runUntil(() => a.takeTunPackets().length > 0, 2_000);
    expect(tookMs).toBeLessThan(750);
    expect(b.engine.linkFacts(a.node)?.path).toBe("relay");
  });

  it("delivers what was kept once", () => {
    const { network, a, b } = friends();
    b.sendPacket(segment(b, a));
    network.run(100);
    a.takeTunPackets();
    network.tap = (flight) => (isAt(flight, a) ? undefined : flight);
    b.sendPacket(segment(b, a));
    network.run(2_600);
    const kept = segment(b, a);
    b.sendPacket(kept);
    network.tap = (flight) => flight;
    network.run(5_000);
    expect(a.takeTunPackets()).toEqual([kept]);
  });

  it("tells programs after three seconds that nobody is there", () => {
    const { network, a, b } = friends();
    network.tap = (flight) => (isAt(flight, a) ? undefined : flight);
    b.sendPacket(udpPacket({ source: b.node, destination: a.node }));
    network.run(2_500);
    b.takeTunPackets();
    b.sendPacket(udpPacket({ source: b.node, destination: a.node }));
    network.run(3_100);
    expect(b.takeTunPackets().map((packet) => [packet[6], packet[40], packet[41]])).toEqual([[58, 1, 3]]);
  });
});
