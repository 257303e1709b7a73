/** The policy at the interface: whole engines, and packets made by hand. */
import { describe, expect, it } from "vitest";
import { instant, type WallClock } from "../../src/base/instant.ts";
import { encodeUnreachable, ICMPV6_TYPE, UNREACHABLE } from "../../src/wire/icmpv6.ts";
import { ipv6Packet, TCP, tcpPacket } from "../helpers/inner-packets.ts";
import { befriend } from "../helpers/sim-network.ts";
import { addresses, between, echo, friends, icmp, sent, setPolicy, udp } from "../helpers/sim-policy.ts";

describe("a policy", () => {
  it("denies what no rule allows: the sender's program is told, a peer is not", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp 53 to b");
    setPolicy(network, b, "default deny");
    expect(sent(network, a, b, udp(a, b, 4000, 54))).toEqual([]);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]);
    expect(sent(network, a, b, udp(a, b, 4000, 53))).toEqual([]);
    expect(a.takeTunPackets()).toEqual([]);
    expect(a.engine.drops().policy).toBe(1);
    expect(b.engine.drops().policy).toBe(1);
  });

  it("lets replies of an allowed flow in, and nothing that the peer begins", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out any to b");
    expect(sent(network, a, b, udp(a, b, 4000, 53))).toHaveLength(1);
    expect(sent(network, b, a, udp(b, a, 53, 4000))).toHaveLength(1);
    expect(sent(network, b, a, udp(b, a, 53, 4001))).toEqual([]);
    expect(sent(network, a, b, echo(a, b, 128))).toHaveLength(1);
    expect(sent(network, b, a, echo(b, a, 129))).toHaveLength(1);
    expect(sent(network, b, a, echo(b, a, 128))).toEqual([]);
  });

  it("does not take a SYN from the far side for a reply, and keeps the flow it came upon", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out tcp 80 to b");
    const reply = (flags: number) => {
      const packet = tcpPacket({ ...between(b, a), flags, sourcePort: 80 });
      new DataView(packet.buffer).setUint16(42, 40_000);
      return packet;
    };
    expect(sent(network, a, b, tcpPacket({ ...between(a, b), flags: TCP.SYN }))).toHaveLength(1);
    expect(sent(network, b, a, reply(TCP.SYN | TCP.ACK))).toHaveLength(1);
    expect(sent(network, b, a, reply(TCP.SYN))).toEqual([]);
    expect(sent(network, b, a, reply(TCP.ACK))).toHaveLength(1);
  });

  it("lets an ICMPv6 error in with the flow it speaks of, and no other", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp to b");
    const offending = udp(a, b, 4000, 53);
    sent(network, a, b, offending);
    const error = (about: Uint8Array) =>
      encodeUnreachable({ source: addresses(b, a).source, offending: about, code: UNREACHABLE.PORT });
    expect(sent(network, b, a, error(offending)).map(icmp)).toEqual([[ICMPV6_TYPE.UNREACHABLE, UNREACHABLE.PORT]]);
    expect(sent(network, b, a, error(udp(a, b, 4001, 53)))).toEqual([]);
  });

  it("judges by the transport header behind extension headers, and fragments by their first", () => {
    const { network, a, b } = friends();
    setPolicy(network, b, "allow in udp 53 from a");
    const extended = (port: number) => {
      const inner = udp(a, b, 4000, port).subarray(40);
      const options = Uint8Array.of(17, 0, 1, 4, 0, 0, 0, 0);
      return ipv6Packet(60, new Uint8Array([...options, ...inner]), between(a, b));
    };
    expect(sent(network, a, b, extended(53))).toHaveLength(1);
    expect(sent(network, a, b, extended(54))).toEqual([]);
    const fragment = (id: number, offset: number, more: number, body: Uint8Array) => {
      const header = Uint8Array.of(17, 0, offset >>> 8, (offset & 0xf8) | more, 0, 0, 0, id);
      return ipv6Packet(44, new Uint8Array([...header, ...body]), between(a, b));
    };
    const first = (port: number) => udp(a, b, 4000, port).subarray(40);
    const rest = new Uint8Array(16);
    expect(sent(network, a, b, fragment(1, 8, 0, rest))).toEqual([]);
    expect(sent(network, a, b, fragment(1, 0, 1, first(54)))).toEqual([]);
    expect(sent(network, a, b, fragment(1, 8, 0, rest))).toEqual([]);
    expect(sent(network, a, b, fragment(2, 0, 1, first(53)))).toHaveLength(1);
    expect(sent(network, a, b, fragment(2, 8, 0, rest))).toHaveLength(1);
    expect(sent(network, a, b, fragment(3, 8, 0, rest))).toEqual([]);
  });

  it("cuts the live flows that it no longer allows at once, resets the program, and spares the others", () => {
    const { network, a, b } = friends();
    const packet = tcpPacket({ ...between(a, b), acknowledgement: 500 });
    sent(network, a, b, packet);
    sent(network, a, b, udp(a, b, 4000, 53));
    const cut = setPolicy(network, a, "allow out udp to b");
    expect(cut.map((flow) => [flow.protocol, flow.remotePort])).toEqual([[6, 80]]);
    const reset = a.takeTunPackets()[0]!;
    expect([reset[6], reset[53]! & TCP.RST]).toEqual([6, TCP.RST]);
    expect(sent(network, b, a, udp(b, a, 53, 4000))).toHaveLength(1);
    expect(sent(network, a, b, packet)).toEqual([]);
  });

  it("ends a rule at its time, and cuts what it had let through", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow out udp 53 to b for 10s");
    expect(sent(network, a, b, udp(a, b, 4000, 53))).toHaveLength(1);
    expect(a.engine.admission.list(network.now)).toHaveLength(1);
    network.run(10_100);
    expect(a.engine.admission.list(network.now)).toEqual([]);
    expect(sent(network, a, b, udp(a, b, 4000, 53))).toEqual([]);
    expect(icmp(a.takeTunPackets().at(-1))).toEqual([1, 1]);
  });

  it("lets a flow that the peer began go on when the clock is set a year ahead, or back", () => {
    const { network, a, b } = friends();
    setPolicy(network, a, "allow in any from b");
    expect(sent(network, b, a, udp(b, a, 4000, 53))).toHaveLength(1);
    const [flow] = a.engine.admission.list(network.now);
    for (const days of [365, -730, 365]) {
      network.wallOffsetMs += days * 86_400_000;
      expect(sent(network, a, b, udp(a, b, 53, 4000)), `${days} days`).toHaveLength(1);
      expect(a.engine.admission.list(network.now).map(({ id }) => id)).toEqual([flow!.id]);
    }
    network.run(190_000);
    expect(a.engine.admission.list(network.now)).toEqual([]);
  });

  it("looks at the ends of its rules anew when the clock is set, ahead or back", () => {
    const { network, a, b } = friends();
    const hour = 3_600_000;
    setPolicy(network, a, "deny out udp 53 to b for 30m\nallow out any to b");
    expect(sent(network, a, b, udp(a, b, 4000, 53))).toEqual([]);
    network.wallOffsetMs += hour;
    expect(sent(network, a, b, udp(a, b, 4000, 53))).toHaveLength(1);
    network.wallOffsetMs -= hour;
    expect(sent(network, a, b, udp(a, b, 4000, 53))).toEqual([]);

    const since = network.wall as WallClock;
    const lockdown = { except: [], since, until: (since + hour) as WallClock };
    a.command((engine, now) => engine.admission.setLockdown(lockdown, now));
    expect(sent(network, a, b, udp(a, b, 4000, 54))).toEqual([]);
    network.wallOffsetMs += 2 * hour;
    expect(sent(network, a, b, udp(a, b, 4000, 54))).toHaveLength(1);
  });

  it("is overruled by a lockdown in both directions, and comes back when that is lifted", () => {
    const { network, a, b } = friends();
    const c = network.addNode("c");
    network.run(200);
    befriend(network, a, c);
    network.run(500);
    setPolicy(network, a, "allow out any to trusted\nallow in any from trusted");
    sent(network, a, b, udp(a, b, 4000, 53));
    const since = network.wall as WallClock;
    const cut = a.command((engine, now) =>
      engine.admission.setLockdown({ except: [c.node], since, until: undefined }, now),
    );
    expect(cut).toHaveLength(1);
    expect(sent(network, a, b, udp(a, b, 4000, 53))).toEqual([]);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]);
    expect(sent(network, b, a, udp(b, a, 53, 4000))).toEqual([]);
    expect(sent(network, a, c, udp(a, c, 4000, 53))).toHaveLength(1);
    a.command((engine, now) => engine.admission.setLockdown(undefined, now));
    expect(sent(network, a, b, udp(a, b, 4000, 53))).toHaveLength(1);
  });

  it("says beforehand what it would cut, and kills a single flow", () => {
    const { network, a, b } = friends();
    sent(network, a, b, udp(a, b, 4000, 53));
    sent(network, b, a, udp(b, a, 4000, 53));
    const [one, other] = a.engine.admission.list(instant(network.now));
    expect([one, other].map((flow) => flow!.beganRemotely).sort()).toEqual([false, true]);
    expect(a.engine.admission.kill(one!.id)?.id).toBe(one!.id);
    expect(a.engine.admission.kill(one!.id)).toBeUndefined();
    expect(a.engine.admission.list(network.now).map((flow) => flow.id)).toEqual([other!.id]);
  });
});
