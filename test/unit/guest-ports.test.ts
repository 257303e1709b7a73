import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GuestPorts } from "../../src/routing/guest-ports.ts";
import { DEFAULT_OVERLAY_PREFIX, encodeAddressBytes } from "../../src/wire/address.ts";
import { encodeEcho, encodeUnreachable, ICMPV6_TYPE } from "../../src/wire/icmpv6.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { encodeUdpPacket } from "../../src/wire/udp.ts";

const address = (node: number, network = 0) =>
  encodeAddressBytes(DEFAULT_OVERLAY_PREFIX, { network: networkId(network), node: nodeId(node) });
const [own, peer] = [address(5), address(7)];
const service = address(0x53, 0xffff);
const outside = new Uint8Array(16).fill(0x20);

function ports(): GuestPorts {
  const table = new GuestPorts(own);
  table.assign(1, { first: 65_024, count: 512 });
  table.assign(2, { first: 64_512, count: 512 });
  return table;
}

interface Ends {
  from?: Uint8Array;
  to?: Uint8Array;
  sourcePort?: number;
  destinationPort?: number;
}

const udp = ({ from = own, to = peer, sourcePort = 65_100, destinationPort = 80 }: Ends): Uint8Array =>
  encodeUdpPacket({ source: from, destination: to, sourcePort, destinationPort, payload: new Uint8Array(3) });
const asTcp = (packet: Uint8Array): Uint8Array => packet.with(6, 6);
const echo = (kind: "request" | "reply", identifier: number, from: Uint8Array, to: Uint8Array): Uint8Array => {
  const type = kind === "request" ? ICMPV6_TYPE.ECHO_REQUEST : ICMPV6_TYPE.ECHO_REPLY;
  return encodeEcho({ type, identifier, sequence: 1, payload: new Uint8Array(8), source: from, destination: to });
};

describe("what a guest may send", () => {
  it("is what comes from this node's address and its own ports, to another node", () => {
    expect(ports().judge(1, udp({}))).toBe("forward");
    expect(ports().judge(1, asTcp(udp({})))).toBe("forward");
    expect(ports().judge(1, udp({ from: address(5, 3), to: address(7, 3) }))).toBe("forward");
    expect(ports().judge(1, echo("request", 9, own, peer))).toBe("forward");
  });

  it("is no packet from another guest's port, or the host's", () => {
    expect(ports().judge(2, udp({}))).toBe("guest");
    expect(ports().judge(1, udp({ sourcePort: 22 }))).toBe("guest");
    expect(ports().judge(1, asTcp(udp({ sourcePort: 65_023 })))).toBe("guest");
  });

  it("is nothing for this host itself, and nothing outside the overlay", () => {
    expect(ports().judge(1, udp({ to: own }))).toBe("guest");
    expect(ports().judge(1, udp({ to: address(5, 3) }))).toBe("guest");
    expect(ports().judge(1, udp({ to: outside }))).toBe("no-route");
    expect(ports().judge(1, udp({ to: new Uint8Array(16).fill(0xff) }))).toBe("multicast");
    expect(ports().judge(1, udp({ from: peer }))).toBe("spoofed-source");
    expect(ports().judge(1, udp({ from: outside }))).toBe("spoofed-source");
  });

  it("is of the services' addresses only a question about a name", () => {
    expect(ports().judge(1, udp({ to: service, destinationPort: 53 }))).toBe("names");
    expect(ports().judge(1, udp({ to: service, destinationPort: 54 }))).toBe("guest");
    expect(ports().judge(1, asTcp(udp({ to: service, destinationPort: 53 })))).toBe("guest");
    expect(ports().judge(2, udp({ to: service, destinationPort: 53 }))).toBe("guest");
  });

  it("is of ICMP an echo request, or an error about a packet to one of its ports", () => {
    const error = (sourcePort: number, destinationPort: number) => {
      const offending = udp({ from: peer, to: own, sourcePort, destinationPort });
      return encodeUnreachable({ source: own, offending, code: 4 });
    };
    expect(ports().judge(1, error(80, 65_100))).toBe("forward");
    expect(ports().judge(1, error(65_100, 80))).toBe("guest");
    expect(ports().judge(2, error(80, 65_100))).toBe("guest");
    expect(ports().judge(1, echo("reply", 9, own, peer))).toBe("guest");
  });

  it("is judged without an exception, whatever the bytes are", () => {
    const table = ports();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 120 }), fc.boolean(), (bytes, isPlausible) => {
        if (isPlausible && bytes.length >= 40) {
          bytes[0] = 0x60;
          bytes.set(own, 8);
          bytes.set(peer, 24);
        }
        expect(typeof table.judge(1, bytes)).toBe("string");
        expect(table.ownerOfIncoming(bytes, 0, bytes.length)).toBeLessThan(3);
      }),
    );
  });
});

describe("a packet for this node", () => {
  const owner = (table: GuestPorts, packet: Uint8Array): number => {
    const arena = new Uint8Array(packet.length + 20);
    arena.set(packet, 10);
    return table.ownerOfIncoming(arena, 10, packet.length);
  };

  it("is for the guest that has the port, else for the host", () => {
    const to = (destinationPort: number) => udp({ from: peer, to: own, sourcePort: 80, destinationPort });
    expect(owner(ports(), to(65_535))).toBe(1);
    expect(owner(ports(), asTcp(to(64_512)))).toBe(2);
    expect(owner(ports(), to(64_511))).toBe(0);
  });

  it("is for whoever sent what an error quotes", () => {
    const quoting = (offending: Uint8Array) => encodeUnreachable({ source: peer, offending, code: 1 });
    expect(owner(ports(), quoting(udp({ sourcePort: 64_600 })))).toBe(2);
    expect(owner(ports(), quoting(udp({ sourcePort: 80 })))).toBe(0);
  });

  it("is for the guest whose echo it answers, until that one has gone", () => {
    const table = ports();
    const reply = echo("reply", 900, peer, own);
    expect(owner(table, reply)).toBe(0);
    table.judge(2, echo("request", 900, own, peer));
    expect(owner(table, reply)).toBe(2);
    const quoting = encodeUnreachable({ source: peer, offending: echo("request", 900, own, peer), code: 3 });
    expect(owner(table, quoting)).toBe(2);
    table.release(2);
    expect(owner(table, reply)).toBe(0);
    expect(owner(table, udp({ from: peer, to: own, destinationPort: 64_600 }))).toBe(0);
  });
});
