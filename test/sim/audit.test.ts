/** What engines say for their audit logs: the same of a flow at both of its ends, and never too much. */
import { describe, expect, it } from "vitest";
import { PEER_AT_ONCE } from "../../src/audit/flow-quota.ts";
import type { AuditEvent } from "../../src/audit/record.ts";
import { superpacket, TCP, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";
import { between, echo, sent, setPolicy, udp } from "../helpers/sim-policy.ts";

// biome-ignore lint/suspicious/noExplicitAny: tests reach into records
type Told = Record<string, any>;

class Notes {
  readonly events: AuditEvent[] = [];

  add(event: AuditEvent): void {
    this.events.push(event);
  }

  /** In order; fields as they would be written now. */
  of(name: string): Told[] {
    return this.events
      .filter(({ event }) => event === name)
      .map((event) => ({ ...event.fields(), byOperator: event.byOperator, matters: event.matters }));
  }
}

/** Two friends whose notes begin when they are friends. */
function friends() {
  const network = new SimNetwork(7);
  const notes = { a: new Notes(), b: new Notes() };
  const [a, b] = (["a", "b"] as const).map((name) => {
    const node = network.addNode(name);
    node.kill();
    node.audit = notes[name];
    node.start();
    return node;
  }) as [SimNode, SimNode];
  network.run(200);
  befriend(network, a, b);
  network.run(1_000);
  a.takeTunPackets();
  b.takeTunPackets();
  return { network, a, b, notes };
}

/** A TCP connection from a to b with a few bytes each way, closed by both. */
function connection(network: SimNetwork, a: SimNode, b: SimNode, sourcePort: number, sequence = 1_000): void {
  const out = { ...between(a, b), sourcePort, destinationPort: 80 };
  const back = { ...between(b, a), sourcePort: 80, destinationPort: sourcePort };
  sent(network, a, b, tcpPacket({ ...out, flags: TCP.SYN, sequence }));
  sent(network, b, a, tcpPacket({ ...back, flags: TCP.SYN | TCP.ACK }));
  a.sendStaged(superpacket(tcpPacket({ ...out, flags: TCP.ACK, payload: new Uint8Array(2_500) }), 1_000));
  sent(network, b, a, tcpPacket({ ...back, flags: TCP.ACK, payload: new Uint8Array(10) }));
  sent(network, a, b, tcpPacket({ ...out, flags: TCP.FIN | TCP.ACK }));
  sent(network, b, a, tcpPacket({ ...back, flags: TCP.FIN | TCP.ACK }));
}

describe("a flow", () => {
  it("has one name and the same bytes in both logs, from its first packet to a moment after its last", () => {
    const { network, a, b, notes } = friends();
    connection(network, a, b, 40_000);
    const [opened, answered] = [notes.a.of("flow-open"), notes.b.of("flow-open")];
    expect(opened).toMatchObject([
      {
        direction: "out",
        protocol: "tcp",
        localPort: 40_000,
        remotePort: 80,
        path: "direct",
        verdict: "allow",
        rule: null,
      },
    ]);
    expect(answered).toMatchObject([{ direction: "in", protocol: "tcp", localPort: 80, remotePort: 40_000 }]);
    expect(opened[0]!.peer).toMatchObject({ node: b.node, name: "b", key: expect.stringMatching(/^SHA256:/) });
    expect(opened[0]!.flow).toBe(answered[0]!.flow);
    expect(notes.a.of("flow-close")).toEqual([]);
    network.run(8_000);
    const [closed, closedThere] = [notes.a.of("flow-close"), notes.b.of("flow-close")];
    expect(closed).toMatchObject([
      { cause: "closed", flow: opened[0]!.flow, txBytes: 2_500 + 5 * 60, rxBytes: 3 * 60 + 10 },
    ]);
    expect(closedThere).toMatchObject([{ cause: "closed", txBytes: closed[0]!.rxBytes, rxBytes: closed[0]!.txBytes }]);
    network.run(200_000);
    expect(notes.a.of("flow-close")).toHaveLength(1);
  });

  it("between the same ports is another one when it is opened anew, and each has its own bytes", () => {
    const { network, a, b, notes } = friends();
    connection(network, a, b, 40_000, 1_000);
    connection(network, a, b, 40_000, 77_000);
    network.run(8_000);
    const [first, second] = notes.a.of("flow-close");
    expect(first!.flow).not.toBe(second!.flow);
    expect([first!.txBytes, first!.rxBytes]).toEqual([second!.txBytes, second!.rxBytes]);
    expect(notes.b.of("flow-close").map(({ flow }) => flow)).toEqual([first!.flow, second!.flow]);
  });

  it("of UDP and of ping has one name in both logs, and ends when it was silent for long enough", () => {
    const { network, a, b, notes } = friends();
    sent(network, a, b, udp(a, b, 4_000, 53));
    sent(network, b, a, udp(b, a, 53, 4_000));
    sent(network, a, b, echo(a, b, 128));
    sent(network, b, a, echo(b, a, 129));
    sent(network, b, a, echo(b, a, 128));
    const here = notes.a.of("flow-open");
    const there = notes.b.of("flow-open");
    expect(here.map(({ protocol, direction }) => [protocol, direction])).toEqual([
      ["udp", "out"],
      ["icmp", "out"],
      ["icmp", "in"],
    ]);
    expect(there.map(({ flow }) => flow)).toEqual(here.map(({ flow }) => flow));
    expect(new Set(here.map(({ flow }) => flow)).size).toBe(3);
    network.run(70_000);
    expect(notes.a.of("flow-close").map(({ protocol, cause }) => [protocol, cause])).toEqual([
      ["icmp", "idle"],
      ["icmp", "idle"],
    ]);
    network.run(120_000);
    expect(notes.b.of("flow-close")).toHaveLength(3);
    expect(a.engine.pollTimeout()?.reason).not.toBe("the audit log");
  });

  it("that was under way when the daemon started is marked, for its name is not the far side's", () => {
    const { network, a, b, notes } = friends();
    setPolicy(network, a, "allow out any to b");
    sent(network, a, b, tcpPacket({ ...between(a, b), flags: TCP.ACK, sequence: 5 }));
    expect(notes.a.of("flow-open")).toMatchObject([{ resumed: true, rule: { file: "policy", line: 1 } }]);
  });

  it.each<[string, (on: ReturnType<typeof friends>) => void, object]>([
    ["revoked", ({ a, b }) => a.command((engine, now) => engine.introductions.revoke(b.node, now)), { rule: null }],
    ["policy", ({ network, a }) => setPolicy(network, a, "deny out udp to b"), { rule: { file: "policy", line: 1 } }],
    ["policy", ({ network, a }) => setPolicy(network, a, "default deny"), { rule: null }],
    [
      "lockdown",
      ({ network, a }) =>
        a.command((engine, now) =>
          engine.admission.setLockdown({ except: [], since: network.wall, until: undefined }, now),
        ),
      { lockdown: true },
    ],
    [
      "killed",
      ({ network, a }) =>
        a.command((engine) => {
          for (const { id } of engine.admission.list(network.now)) engine.admission.kill(id);
        }),
      {},
    ],
  ])("that ends because of this side says so: %s", (cause, act, more) => {
    const on = friends();
    sent(on.network, on.a, on.b, udp(on.a, on.b, 4_000, 53));
    act(on);
    expect(on.notes.a.of("flow-close")).toMatchObject([{ cause, ...more }]);
  });

  it("that the far side revoked says that too, at both ends", () => {
    const { network, a, b, notes } = friends();
    sent(network, a, b, udp(a, b, 4_000, 53));
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(1_000);
    expect(notes.a.of("flow-close")).toMatchObject([{ cause: "revoked-by-peer" }]);
    expect(notes.b.of("flow-close")).toMatchObject([{ cause: "revoked" }]);
  });

  it("is told of when the daemon ends", () => {
    const { network, a, b, notes } = friends();
    sent(network, a, b, udp(a, b, 4_000, 53));
    a.engine.close();
    expect(notes.a.of("flow-close")).toMatchObject([{ cause: "cut", txBytes: 48 }]);
  });
});

describe("many short flows", () => {
  it("get records of their own up to a number, and are counted to the last byte beyond", () => {
    const { network, a, b, notes } = friends();
    const flows = 900;
    for (let i = 0; i < flows; i++) a.sendPacket(udp(a, b, 10_000 + i, 53));
    network.run(300_000);
    for (const side of [notes.a, notes.b]) {
      const own = side.of("flow-open").length;
      expect(own).toBeGreaterThanOrEqual(PEER_AT_ONCE);
      expect(own).toBeLessThan(PEER_AT_ONCE + 50);
      expect(side.of("flow-close")).toHaveLength(own);
      const sums = side.of("flow-sum");
      expect(sums.length).toBeLessThan(30);
      const total = (key: string) => sums.reduce((sum, told) => sum + told[key], 0);
      expect(own + total("began")).toBe(flows);
      expect(own + total("ended")).toBe(flows);
      expect(total("txBytes") + total("rxBytes")).toBe((flows - own) * udpPacket().length);
      expect(sums[0]).toMatchObject({
        peer: { node: side === notes.a ? b.node : a.node },
        protocol: "udp",
        scope: "key",
      });
    }
  });
});

describe("a refusal", () => {
  it("is added up per peer, rule and reason, with the ports, and told soon", () => {
    const { network, a, b, notes } = friends();
    setPolicy(network, a, "allow out udp 53 to b\ndeny out udp to b");
    for (const port of [54, 55, 55]) sent(network, a, b, udp(a, b, 4_000, port));
    network.run(1_500);
    expect(notes.a.of("denial")).toMatchObject([
      {
        ...{ direction: "out", protocol: "udp", reason: "policy", rule: { file: "policy", line: 2 } },
        ...{ count: 3, ports: [54, 55], verdict: "deny", peer: { node: b.node, name: "b" } },
      },
    ]);
    for (let i = 0; i < 90; i++) sent(network, a, b, udp(a, b, 4_000, 1_000 + i));
    network.run(12_000);
    const told = notes.a.of("denial");
    expect(told.length).toBeLessThanOrEqual(3);
    expect(told.reduce((sum, { count }) => sum + count, 0)).toBe(93);
    expect(told.at(-1)!.ports.length).toBe(8);
  });

  it("of what a peer sends is told with the peer whose key sealed it", () => {
    const { network, a, b, notes } = friends();
    setPolicy(network, b, "default deny");
    sent(network, a, b, udp(a, b, 4_000, 22));
    network.run(1_500);
    expect(notes.b.of("denial")).toMatchObject([
      { direction: "in", reason: "policy", rule: null, ports: [22], peer: { node: a.node } },
    ]);
  });

  it("of a stranger names who was meant, and a scan over many stays within bounds", () => {
    const { network, a, notes } = friends();
    for (let node = 100; node < 1_400; node++) a.sendPacket(udpPacket({ source: a.node, destination: node }));
    network.run(5_000);
    const told = notes.a.of("denial");
    expect(told.length).toBeLessThanOrEqual(1_025);
    expect(told.reduce((sum, { count }) => sum + count, 0)).toBe(1_300);
    expect(told[0]).toMatchObject({ reason: "not-trusted", peer: { node: 100, name: null, key: null } });
    expect(told.at(-1)).toMatchObject({ scope: "everybody", peer: null });
  });

  it("of what nobody authenticated is not told: strangers cannot write in the log", () => {
    const { network, a, b, notes } = friends();
    const before = notes.b.events.length;
    for (let i = 0; i < 100; i++)
      network.inject({ from: a.endpoint, to: b.endpoint, bytes: new Uint8Array(90).fill(i) });
    network.run(2_000);
    expect(notes.b.events.length).toBe(before);
  });
});

describe("trust", () => {
  it("is told at every step, with what only an operator can have done marked as such", () => {
    const { network, a, b, notes } = friends();
    expect(notes.a.of("trust")).toMatchObject([
      { from: "none", to: "asked", byOperator: true, peer: { node: b.node } },
      { from: "asked", to: "mutual", byOperator: false },
    ]);
    expect(notes.b.of("trust").map(({ from, to, byOperator }) => [from, to, byOperator])).toEqual([
      ["none", "pending", false],
      ["pending", "mutual", true],
    ]);
    expect(notes.b.of("key")).toMatchObject([{ change: "pinned", was: null, key: expect.stringMatching(/^SHA256:/) }]);
    a.command((engine, now) => engine.introductions.revoke(b.node, now));
    network.run(1_000);
    expect(notes.a.of("trust").at(-1)).toMatchObject({ to: "revoked", epoch: 1, byOperator: true, matters: true });
    expect(notes.b.of("trust").at(-1)).toMatchObject({ to: "revoked-by-peer", byOperator: false });
  });

  it("with limits is told with them, by whom they were set, and that time ended it", () => {
    const { network, a, b, notes } = friends();
    const services = [{ protocol: 17, first: 53, last: 53 }];
    const terms = { services, durationMs: 60_000, maxBytes: undefined };
    b.command((engine, now) => engine.introductions.approve(a.node, now, terms));
    network.run(1_000);
    const until = expect.stringMatching(/^2025-10-09T08:5\d/);
    expect(notes.b.of("trust").at(-1)).toMatchObject({
      ...{ from: "mutual", to: "mutual", byOperator: true },
      lease: { in: ["udp/53"], out: null, until, bytes: null },
    });
    expect(notes.a.of("trust").at(-1)).toMatchObject({ byOperator: false, peerLease: { out: ["udp/53"], until } });
    sent(network, a, b, udp(a, b, 4_000, 53));
    sent(network, a, b, udp(a, b, 4_000, 54));
    network.run(70_000);
    expect(notes.a.of("denial")).toMatchObject([{ reason: "lease", ports: [54], rule: null }]);
    expect(notes.a.of("flow-close")).toMatchObject([{ cause: "lease-ended" }]);
    expect(notes.b.of("trust").at(-1)).toMatchObject({ to: "lease-ended", usedUp: "time", byOperator: false });
  });

  it("that a peer changes all the time is told of once in a while, to its last state", () => {
    const { network, a, b, notes } = friends();
    const told = notes.a.of("trust").length;
    for (let i = 0; i < 300; i++) {
      a.command((engine, now) => engine.introductions.heardConsent(b.node, { consents: i % 2 === 1, epoch: 0 }, now));
    }
    a.command((engine, now) => engine.introductions.heardConsent(b.node, { consents: false, epoch: 0 }, now));
    network.run(70_000);
    const more = notes.a.of("trust").slice(told);
    expect(more.length).toBeLessThan(40);
    expect(more.reduce((sum, { changes }) => sum + (changes ?? 1), 0)).toBeGreaterThanOrEqual(301);
  });
});

describe("the end of a lockdown by the clock", () => {
  it("is told", () => {
    const { network, a, notes } = friends();
    const until = (network.wall + 1_000) as typeof network.wall;
    a.command((engine, now) => engine.admission.setLockdown({ except: [], since: network.wall, until }, now));
    network.run(2_000);
    expect(notes.a.of("policy")).toMatchObject([{ change: "lockdown-ended", byOperator: false }]);
  });
});
