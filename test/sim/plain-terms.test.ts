/** Rules with terms, and rules by owner, towards plain agents. */
import { describe, expect, it } from "vitest";
import { TCP, tcpPacket } from "../helpers/inner-packets.ts";
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
} from "../helpers/plain-pair.ts";
import type { SimNode } from "../helpers/sim-network.ts";
import { setPolicy } from "../helpers/sim-policy.ts";

const known = (seed?: number): Pair => {
  const all = pair(seed);
  learned(all);
  all.network.run(500);
  return all;
};
/** What the daemon's own socket on `node` sends to the other, as the kernel hands it to the TUN. */
const fromSocket = (node: SimNode, other: SimNode, localPort: number, remotePort: number, flags: number) =>
  tcpPacket({
    ...{ source: node.node, destination: other.node, sourcePort: localPort, destinationPort: remotePort, flags },
    payload: flags === TCP.SYN ? new Uint8Array(0) : new Uint8Array(1_000),
  });

/** b's program connects to port 80 of a; until a's daemon connects to its server. The port that it connects to. */
function dialled({ network, a, b }: Pair, sourcePort: number, localPort: number): { id: number; port: number } {
  b.sendPacket(syn(b, a, sourcePort));
  network.run(50);
  const [asked] = commands(a);
  if (asked?.kind !== "connect") throw new Error("a was not asked to connect");
  return { id: asked.id, port: bound(a, asked.id, localPort) };
}

describe("a plain agent's flows", () => {
  it("share the rate, in datagrams each way", () => {
    const { network, a, b } = known();
    setPolicy(network, a, "allow out udp to b limit 1KB/s\nallow in udp from b limit 1KB/s");
    const text = "x".repeat(952);
    for (let i = 0; i < 100; i++) a.sendPacket(datagram(a, b, text));
    for (let i = 0; i < 100; i++) b.sendPacket(datagram(b, a, `${i}`.padStart(952)));
    network.run(100);
    expect(b.takeTunPackets().length).toBe(66);
    expect(a.takeTunPackets().length).toBeLessThanOrEqual(67);
    expect(a.engine.drops()["over-limit"]).toBeGreaterThanOrEqual(67);
  });

  it("end with the budget: what the program writes and what its stream brings both count", () => {
    const { network, a, b } = known();
    setPolicy(network, a, "allow out tcp to b budget 10KB/1h");
    const { atA } = connect(network, a, b);
    commands(a);
    a.takeTunPackets();
    const [local, nat] = [LISTENER, 40_000];
    for (let i = 0; i < 9; i++) a.sendPacket(fromSocket(a, b, local, nat, TCP.ACK));
    expect(a.takeTunPackets()).toHaveLength(9);
    a.sendPacket(fromSocket(a, b, local, nat, TCP.ACK));
    expect(a.engine.drops()["over-budget"]).toBe(1);
    expect(commands(a)).toContainEqual({ kind: "reset", id: atA });
    a.sendPacket(syn(a, b, 40_005));
    expect(a.takeTunPackets().map(icmp)).toContainEqual([1, 1]);
  });

  it("are counted where it begins them, under the rule that lets them in", () => {
    const all = known();
    const { network, a, b } = all;
    setPolicy(network, a, "allow in tcp 80 from b flows 1/1h\nallow out any to b");
    const first = dialled(all, 40_001, 61_001);
    a.sendPacket(fromSocket(a, b, 61_001, first.port, TCP.SYN));
    expect(a.takeTunPackets().map((packet) => [portsOf(packet), flagsOf(packet)])).toEqual([
      [[expect.any(Number), 80], TCP.SYN],
    ]);
    expect(a.engine.admission.list(network.now)).toMatchObject([{ beganRemotely: true, localPort: 80, verdict: 0 }]);
    const second = dialled(all, 40_002, 61_002);
    a.sendPacket(fromSocket(a, b, 61_002, second.port, TCP.SYN));
    expect(a.takeTunPackets()).toEqual([]);
    expect(a.engine.drops()["over-flows"]).toBe(1);
    expect(commands(a)).toContainEqual({ kind: "reset", id: second.id });
    network.run(50);
    expect(b.takeTunPackets().map(flagsOf)).toContain(TCP.RST | TCP.ACK);
  });

  it("wait to hear whose server they are for", () => {
    const all = known();
    const { network, a, b } = all;
    setPolicy(network, a, "allow in tcp 80 from b by user:ann");
    const first = dialled(all, 40_001, 61_001);
    a.events.length = 0;
    a.sendPacket(fromSocket(a, b, 61_001, first.port, TCP.SYN));
    expect(a.takeTunPackets()).toEqual([]);
    const question = a.events.find((event) => event.kind === "owner-wanted")!.question;
    expect(question).toMatchObject({ direction: "in", localPort: 80 });
    a.command((engine, now) => engine.answerOwner(question.id, { uid: 1000, cgroup: undefined, programs: [] }, now));
    expect(a.takeTunPackets().map(flagsOf)).toEqual([TCP.SYN]);
    const second = dialled(all, 40_002, 61_002);
    a.events.length = 0;
    a.sendPacket(fromSocket(a, b, 61_002, second.port, TCP.SYN));
    const again = a.events.find((event) => event.kind === "owner-wanted")!.question;
    a.command((engine, now) => engine.answerOwner(again.id, undefined, now));
    expect(a.takeTunPackets()).toEqual([]);
    expect(commands(a)).toContainEqual({ kind: "reset", id: second.id });
  });

  it("go through the relay where a rule says so, though there is a direct way", () => {
    const { network, a, b } = known();
    setPolicy(network, a, "allow out udp to b via relay\nallow in any from b");
    const text = "x".repeat(300);
    network.captured.length = 0;
    a.sendPacket(datagram(a, b, text));
    network.run(100);
    expect(b.takeTunPackets()).toHaveLength(1);
    const long = network.captured.filter((flight) => flight.bytes.length > 300);
    expect(long.map(({ to }) => to.address)).toEqual(["192.0.2.1", b.endpoint.address]);
  });

  it("of which the way is not there wait in their stream, and nothing of them goes another way", () => {
    const { network, a, b } = known();
    setPolicy(network, a, "allow out tcp to b via direct");
    const { atA, atB } = connect(network, a, b);
    const direct = [a, b].map((node) => node.endpoint.address);
    network.tap = (flight) => {
      return direct.includes(flight.to.address) && direct.includes(flight.from.address) ? undefined : flight;
    };
    for (let i = 0; i < 40 && a.engine.linkFacts(b.node)?.path !== "relay"; i++) {
      a.command((engine, now) => engine.ping(b.node, now));
      network.run(500);
    }
    expect(a.engine.linkFacts(b.node)?.path).toBe("relay");
    network.captured.length = 0;
    tell(a, { kind: "data", id: atA, bytes: new Uint8Array(500).fill(1) });
    network.run(2_000);
    expect(a.engine.drops()["wrong-path"]).toBeGreaterThan(0);
    expect(network.captured.filter((flight) => flight.bytes.length > 500)).toEqual([]);
    network.tap = (flight) => flight;
    a.command((engine, now) => engine.probeEveryWay(b.node, now));
    network.run(10_000);
    expect(commands(b)).toContainEqual({ kind: "write", id: atB, bytes: new Uint8Array(500).fill(1) });
  });
});
