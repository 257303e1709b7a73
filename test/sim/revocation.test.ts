/** The end of trust: what programs are told, and that nothing but a new consent brings it back. */
import { describe, expect, it } from "vitest";
import { encodeEcho, ICMPV6_TYPE } from "../../src/wire/icmpv6.ts";
import { TCP, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

function friends(seed = 31): { network: SimNetwork; a: SimNode; b: SimNode } {
  const network = new SimNetwork(seed);
  const a = network.addNode("a");
  const b = network.addNode("b");
  network.run(200);
  befriend(network, a, b);
  network.run(1_000);
  a.takeTunPackets();
  b.takeTunPackets();
  return { network, a, b };
}

const between = (from: SimNode, to: SimNode) => ({ source: from.node, destination: to.node });

describe("a revocation", () => {
  it("tells programs on both sides at once, also those that only wait, ping or are still connecting", () => {
    const { network, a, b } = friends();
    const addresses = {
      source: udpPacket(between(a, b)).slice(8, 24),
      destination: udpPacket(between(a, b)).slice(24, 40),
    };
    a.sendPacket(udpPacket({ ...between(a, b), sourcePort: 4000 }));
    a.sendPacket(
      encodeEcho({
        type: ICMPV6_TYPE.ECHO_REQUEST,
        identifier: 77,
        sequence: 1,
        payload: new Uint8Array(8),
        ...addresses,
      }),
    );
    a.sendPacket(tcpPacket({ ...between(a, b), flags: TCP.SYN, sequence: 0xfffffff0, sourcePort: 4001 }));
    network.run(100);
    b.takeTunPackets();
    a.takeTunPackets();
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    // For the ping of the peer no program waits here.
    const [toServer, toListener, ...more] = b.takeTunPackets().sort((one, other) => other[6]! - one[6]!);
    expect(quoted(toServer!)).toEqual({ code: 1, protocol: 17, ports: [53, 4000] });
    expect(toListener![53]).toBe(TCP.RST);
    expect(more).toEqual([]);
    network.run(100);
    const told = a.takeTunPackets().map(quoted);
    expect(told).toHaveLength(3);
    expect(told).toContainEqual({ code: 1, protocol: 17, ports: [4000, 53] });
    expect(told).toContainEqual({ code: 1, protocol: 58, identifier: 77 });
    expect(told).toContainEqual({ code: 1, protocol: 6, ports: [4001, 80], sequence: 0xfffffff0 });
  });

  it("resets connections that have been quiet for long", () => {
    const { network, a, b } = friends();
    a.sendPacket(tcpPacket({ ...between(a, b), sequence: 5, acknowledgement: 9 }));
    network.run(900_000);
    b.takeTunPackets();
    const revoked = b.command((engine, now) => engine.introductions.revoke(a.node, now));
    expect(revoked?.cut).toHaveLength(1);
    expect(b.takeTunPackets().map((packet) => packet[53]! & TCP.RST)).toEqual([TCP.RST]);
  });
});

/** Of an ICMPv6 "destination unreachable": its code, and the packet that it quotes. */
function quoted(packet: Uint8Array) {
  expect([packet[6], packet[40]]).toEqual([58, 1]);
  const view = new DataView(packet.buffer, packet.byteOffset + 48);
  const protocol = view.getUint8(6);
  const head = { code: packet[41], protocol };
  if (protocol === 58) return { ...head, identifier: view.getUint16(44) };
  const ports = [view.getUint16(40), view.getUint16(42)];
  return protocol === 6 ? { ...head, ports, sequence: view.getUint32(44) } : { ...head, ports };
}
