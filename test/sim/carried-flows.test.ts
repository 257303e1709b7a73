/** Connections over an orderly restart of the daemon, under a policy that lets the peer begin nothing. */
import { describe, expect, it } from "vitest";
import { type CarriedFlow, parseCarriedFlows } from "../../src/engine/carried-flows.ts";
import { TCP, tcpPacket } from "../helpers/inner-packets.ts";
import type { SimNetwork, SimNode } from "../helpers/sim-network.ts";
import { between, friends, sent, setPolicy, udp } from "../helpers/sim-policy.ts";

const OUT_ONLY = "allow out tcp 80 to b\nallow out udp 53 to b";

/** a has opened a TCP connection to b's port 80 and asked its port 53, and b has answered. */
function connected(): { network: SimNetwork; a: SimNode; b: SimNode } {
  const all = friends();
  const { network, a, b } = all;
  setPolicy(network, a, OUT_ONLY);
  sent(network, a, b, tcpPacket({ ...between(a, b), flags: TCP.SYN }));
  sent(network, b, a, answer(b, a, TCP.SYN | TCP.ACK));
  sent(network, a, b, tcpPacket({ ...between(a, b), flags: TCP.ACK, acknowledgement: 500 }));
  sent(network, a, b, udp(a, b, 4000, 53));
  a.takeTunPackets();
  return all;
}

/** A segment of the connection from the far side. */
function answer(b: SimNode, a: SimNode, flags: number): Uint8Array {
  const packet = tcpPacket({ ...between(b, a), flags, sourcePort: 80 });
  new DataView(packet.buffer).setUint16(42, 40_000);
  return packet;
}

/** As an orderly end and the next start do it; the list goes through its file's form. */
function restart(network: SimNetwork, a: SimNode, policy: string, change = (flows: CarriedFlow[]) => flows): number {
  const taken = a.command((engine, now) => engine.gate.carried.take(now));
  a.kill();
  a.start();
  setPolicy(network, a, policy);
  const flows = change(parseCarriedFlows(JSON.parse(JSON.stringify(taken)))!);
  const restored = a.command((engine, now) => engine.gate.carried.restore(flows, now));
  network.run(2_000);
  a.takeTunPackets();
  return restored;
}

const passes = (network: SimNetwork, a: SimNode, b: SimNode) => [
  sent(network, b, a, answer(b, a, TCP.ACK)).length,
  sent(network, b, a, udp(b, a, 53, 4000)).length,
];

describe("flows carried over a restart", () => {
  it("let the far side go on with what this host began, though it may begin nothing", () => {
    const { network, a, b } = connected();
    expect(restart(network, a, OUT_ONLY)).toBe(2);
    expect(passes(network, a, b)).toEqual([1, 1]);
    expect(sent(network, b, a, udp(b, a, 53, 4001))).toEqual([]);
    expect(sent(network, b, a, answer(b, a, TCP.SYN))).toEqual([]);
  });

  it("are needed for that: without them the far side waits", () => {
    const { network, a, b } = connected();
    expect(restart(network, a, OUT_ONLY, () => [])).toBe(0);
    expect(passes(network, a, b)).toEqual([0, 0]);
  });

  it("are judged anew: what the policy no longer allows stays out", () => {
    const { network, a, b } = connected();
    expect(restart(network, a, "allow out udp 53 to b")).toBe(1);
    expect(passes(network, a, b)).toEqual([0, 1]);
  });

  it("give nothing to a peer that is not trusted any more", () => {
    const { network, a, b } = connected();
    const taken = a.command((engine, now) => engine.gate.carried.take(now));
    a.command((engine, now) => engine.introductions.revoke(b.node, now));
    a.takeTunPackets(); // resets
    expect(a.command((engine, now) => engine.gate.carried.restore(taken, now))).toBe(0);
    expect(passes(network, a, b)).toEqual([0, 0]);
  });

  it("are of no use with addresses that are not this node's or the peer's", () => {
    const { network, a, b } = connected();
    const swapped = (flows: CarriedFlow[]) =>
      flows.map((flow) => ({ ...flow, local: flow.remote, remote: flow.local }));
    expect(restart(network, a, OUT_ONLY, swapped)).toBe(0);
    expect(passes(network, a, b)).toEqual([0, 0]);
  });

  it("can be reset by a revocation, though nothing was said since the restart", () => {
    const { network, a, b } = connected();
    restart(network, a, OUT_ONLY);
    a.command((engine, now) => engine.introductions.revoke(b.node, now));
    const resets = a.takeTunPackets().filter((packet) => packet[6] === 6 && (packet[53]! & TCP.RST) !== 0);
    expect(resets.length).toBeGreaterThan(0);
  });

  it("are not believed from a file that is not one of ours", () => {
    const flow = { protocol: 6, localPort: 1, remotePort: 2, local: "00".repeat(12), remote: "00".repeat(12) };
    const good = { ...flow, beganRemotely: false };
    expect(parseCarriedFlows([good])).toEqual([good]);
    const bad = [
      ...[null, {}, "x", [null], [flow], [{ ...good, protocol: 58 }], [{ ...good, localPort: 65_536 }]],
      ...[[{ ...good, local: "00" }], [{ ...good, remote: "zz".repeat(12) }], [{ ...good, lastAckSent: -1 }]],
      Array.from({ length: 8_193 }, () => good),
    ];
    for (const json of bad) expect(parseCarriedFlows(json)).toBeUndefined();
  });
});
