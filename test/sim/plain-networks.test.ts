/** Plain agents at their addresses in networks, which both nodes are members of: as at their first address, and no others. */
import { describe, expect, it } from "vitest";
import { transportChecksum } from "../../src/wire/checksum.ts";
import { encodeEcho, ICMPV6_TYPE, parseEcho } from "../../src/wire/icmpv6.ts";
import { networkId } from "../../src/wire/ids.ts";
import { encodeVirtualPacket, FLAG, PROTOCOL } from "../../src/wire/virtual-packet.ts";
import { TCP } from "../helpers/inner-packets.ts";
import {
  bound,
  commands,
  connect,
  datagram,
  flagsOf,
  icmp,
  LISTENER,
  learned,
  type Pair,
  pair,
  portsOf,
  syn,
  tell,
  written,
} from "../helpers/plain-pair.ts";
import { ADMIN_TOKEN, type SimNode } from "../helpers/sim-network.ts";
import { setPolicy } from "../helpers/sim-policy.ts";

const OPS = networkId(1);

/** Both are in one network; each has heard that the other is. */
function members(): Pair {
  const all = pair();
  learned(all);
  const { network, a, b } = all;
  const create = { kind: "create-network", name: "ops", joinRule: "open", adminToken: ADMIN_TOKEN } as const;
  a.command((engine, now) => engine.networks.request(create, now));
  network.run(100);
  b.command((engine, now) => engine.networks.request({ kind: "join-network", network: OPS }, now));
  network.run(4_000);
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.sendPacket(datagram(from, to, "who is in it?", OPS));
    network.run(500);
  }
  a.takeTunPackets();
  b.takeTunPackets();
  expect([a, b].map((node) => node.engine.networks.memberships())).toEqual([[OPS], [OPS]]);
  return all;
}

const networksOf = (packet: Uint8Array) => [(packet[14]! << 8) | packet[15]!, (packet[30]! << 8) | packet[31]!];
const inNetwork = (node: SimNode) => {
  const address = node.engine.addressOf(node.node);
  address[7] = OPS;
  return address;
};

describe("an agent's address in a network", () => {
  it("carries datagrams both ways, with the addresses that both programs used", () => {
    const { network, a, b } = members();
    a.sendPacket(datagram(a, b, "one", OPS));
    b.sendPacket(datagram(b, a, "two", OPS));
    network.run(50);
    expect(b.takeTunPackets()).toEqual([datagram(a, b, "one", OPS)]);
    expect(a.takeTunPackets()).toEqual([datagram(b, a, "two", OPS)]);
  });

  it("answers an echo request, from that address", () => {
    const { network, a, b } = members();
    const request = { type: ICMPV6_TYPE.ECHO_REQUEST, identifier: 7, sequence: 1, payload: new Uint8Array(9) };
    a.sendPacket(encodeEcho({ ...request, source: inNetwork(a), destination: inNetwork(b) }));
    network.run(50);
    const [reply] = a.takeTunPackets();
    expect(parseEcho(reply!)).toEqual({ ...request, type: ICMPV6_TYPE.ECHO_REPLY });
    expect(reply!.subarray(8, 24)).toEqual(inNetwork(b));
    expect(reply!.subarray(24, 40)).toEqual(inNetwork(a));
  });

  it("carries connections, which the daemon ends in network 0 and the server sees in theirs", () => {
    const { network, a, b } = members();
    a.sendPacket(syn(a, b, 40_000, OPS));
    network.run(50);
    const [asked] = commands(b);
    if (asked?.kind !== "connect") throw new Error("b did not ask its server");
    // What b's daemon sends from its own side reaches the server from the agent's address in the network.
    b.sendPacket(syn(b, a, 50_000, 0, bound(b, asked.id, 50_000)));
    const [toServer] = b.takeTunPackets();
    expect(networksOf(toServer!)).toEqual([OPS, OPS]);
    expect(toServer!.subarray(8, 24)).toEqual(inNetwork(a));
    expect(portsOf(toServer!)[1]).toBe(80);
    expect(transportChecksum(toServer!, 40, 6)).toBe(0);
    tell(b, { kind: "connected", id: asked.id });
    network.run(50);
    const [toListener] = a.takeTunPackets();
    expect(networksOf(toListener!)).toEqual([0, 0]);
    expect(portsOf(toListener!)[1]).toBe(LISTENER);
    expect(transportChecksum(toListener!, 40, 6)).toBe(0);
  });

  it("keeps connections apart that have the same ports at two addresses of one agent", () => {
    const { network, a, b } = members();
    const first = connect(network, a, b);
    const second = connect(network, a, b, OPS);
    expect([first.atA === second.atA, first.atB === second.atB]).toEqual([false, false]);
    tell(a, { kind: "data", id: first.atA, bytes: new Uint8Array(10) });
    tell(a, { kind: "data", id: second.atA, bytes: new Uint8Array(20) });
    network.run(100);
    const all = commands(b);
    const bytesTo = (id: number) => written(all.filter((command) => command.id === id));
    expect([bytesTo(first.atB), bytesTo(second.atB)]).toEqual([10, 20]);
  });

  it("is refused to a packet whose own address is in another network, which no agent could answer", () => {
    const { a, b } = members();
    const mixed = datagram(a, b, "x", OPS);
    mixed[15] = 0;
    a.sendPacket(mixed);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 3]);
    expect(a.engine.drops()["peer-kind"]).toBe(1);
  });

  it("lets nothing in from an agent that is not a member, and nothing whose ends are in two networks", () => {
    const { network, a, b } = members();
    const lookedUp = (node: SimNode) => node.engine.networks.areBothIn(OPS, node === a ? b.node : a.node);
    b.command((engine, now) => engine.networks.request({ kind: "leave-network", network: OPS }, now));
    network.run(100);
    a.client.lookup(b.node);
    a.command(() => undefined);
    network.run(100);
    expect(lookedUp(a)).toBe(false);
    const before = a.engine.drops()["not-member"] ?? 0;
    const header = { sequence: 0, acknowledgement: 0, window: 5, sourcePort: 50_000, destinationPort: 80 };
    const say = (protocol: number, source: number, destination: number) =>
      b.command((engine) =>
        engine.link(a.node)!.sendVirtual(
          encodeVirtualPacket({
            ...header,
            protocol,
            flags: protocol === PROTOCOL.STREAM ? FLAG.SYN : 0,
            source: { network: networkId(source), node: b.node },
            destination: { network: networkId(destination), node: a.node },
            payload: new Uint8Array(protocol === PROTOCOL.STREAM ? 0 : 5),
          }),
        ),
      );
    for (const protocol of [PROTOCOL.STREAM, PROTOCOL.DATAGRAM]) {
      say(protocol, OPS, OPS);
      say(protocol, 0, OPS);
      say(protocol, 0, 0);
    }
    network.run(50);
    expect(a.engine.drops()).toMatchObject({ "not-member": before + 2, "wrong-destination": 2 });
    expect(commands(a)).toHaveLength(1); // that between the first addresses
    expect(a.takeTunPackets().map(networksOf)).toEqual([[0, 0]]);
  });

  it("loses its connections on both sides when either node leaves the network, and no others", () => {
    for (const leaver of ["a", "b"] as const) {
      const all = members();
      const { network, a, b } = all;
      const kept = connect(network, a, b);
      const lost = connect(network, a, b, OPS);
      commands(a);
      commands(b);
      all[leaver].command((engine, now) => engine.networks.request({ kind: "leave-network", network: OPS }, now));
      network.run(100);
      const resets = (node: SimNode) => commands(node).filter(({ kind }) => kind === "reset");
      expect([leaver, resets(a), resets(b)]).toEqual([
        leaver,
        [{ kind: "reset", id: lost.atA }],
        [{ kind: "reset", id: lost.atB }],
      ]);
      tell(a, { kind: "data", id: kept.atA, bytes: new Uint8Array(10) });
      network.run(100);
      expect(written(commands(b))).toBe(10);
    }
  });

  it("refuses a connection to a port without a server with RST from that address", () => {
    const { network, a, b } = members();
    a.sendPacket(syn(a, b, 40_000, OPS));
    network.run(50);
    const [asked] = commands(b);
    tell(b, { kind: "refused", id: asked!.id });
    network.run(50);
    const [reset] = a.takeTunPackets();
    expect(flagsOf(reset)).toBe(TCP.RST | TCP.ACK);
    expect(reset!.subarray(8, 24)).toEqual(inNetwork(b));
  });

  it("is what a policy means by the network, for connections and datagrams", () => {
    const { network, a, b } = members();
    setPolicy(network, a, "allow in any from network:1");
    for (const inner of [0, OPS]) {
      b.sendPacket(datagram(b, a, "x", inner));
      b.sendPacket(syn(b, a, 40_000, inner));
    }
    network.run(50);
    expect(a.takeTunPackets()).toEqual([datagram(b, a, "x", OPS)]);
    expect(commands(a)).toHaveLength(1);
    const [refused] = b.takeTunPackets();
    expect([flagsOf(refused), networksOf(refused!)]).toEqual([TCP.RST | TCP.ACK, [0, 0]]);
  });
});
