import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { type NatSide, TcpNat, turnAround } from "../../src/engine/plain/tcp-nat.ts";
import { WaitingPackets } from "../../src/engine/plain/waiting-packets.ts";
import { segmentPacket } from "../../src/tunnel/segment.ts";
import { transportChecksum } from "../../src/wire/checksum.ts";
import { BACKBONE, type NodeId, networkId, nodeId } from "../../src/wire/ids.ts";
import { superpacket, TCP, tcpPacket, udpPacket, whole } from "../helpers/inner-packets.ts";

const port = fc.integer({ min: 1, max: 65_535 });
const network = fc.constantFrom(0, 1, 0xfffe).map(networkId);
const side: fc.Arbitrary<NatSide> = fc.record({ network, localPort: port, remotePort: port });
const packet = fc
  .record({
    network,
    source: fc.nat(0xffff),
    destination: fc.nat(0xffff),
    sourcePort: port,
    sequence: fc.nat(0xffff_ffff),
    payload: fc.uint8Array({ maxLength: 2_000 }),
  })
  .map((fields) => tcpPacket(fields));
const PEER = nodeId(7);

function sideOf(bytes: Uint8Array): NatSide {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return { network: networkId(view.getUint16(14)), localPort: view.getUint16(40), remotePort: view.getUint16(42) };
}

describe("turning a packet around", () => {
  it("swaps the addresses, takes the other side's network and ports, and leaves a right checksum right", () => {
    fc.assert(
      fc.property(packet, side, (original, to) => {
        const turned = original.slice();
        turnAround(turned, to, false);
        const swapped = [...original.subarray(24, 40), ...original.subarray(8, 24)];
        for (const at of [6, 22]) swapped.splice(at, 2, to.network >> 8, to.network & 0xff);
        expect([...turned.subarray(8, 40)]).toEqual(swapped);
        expect(sideOf(turned)).toEqual({ ...to, localPort: to.remotePort, remotePort: to.localPort });
        expect(transportChecksum(turned, 40, 6)).toBe(0);
        expect(turned.subarray(44, 56)).toEqual(original.subarray(44, 56));
        expect(turned.subarray(60)).toEqual(original.subarray(60));
      }),
    );
  });

  it("leaves a superpacket one whose segments all have right checksums", () => {
    fc.assert(
      fc.property(packet, side, fc.integer({ min: 1, max: 1_400 }), (original, to, size) => {
        const given = superpacket(original, size);
        const bytes = given.bytes.slice();
        turnAround(bytes, to, true);
        const segments = segmentPacket({ ...given, bytes }) ?? [];
        expect(segments.length).toBeGreaterThan(0);
        for (const segment of segments) expect(transportChecksum(segment, 40, 6)).toBe(0);
      }),
    );
  });

  it("and back again makes the same packet", () => {
    fc.assert(
      fc.property(packet, side, (original, to) => {
        const bytes = original.slice();
        const from = sideOf(bytes);
        turnAround(bytes, to, false);
        turnAround(bytes, { ...from, localPort: from.remotePort, remotePort: from.localPort }, false);
        // 0 and 0xffff are the same number to a checksum.
        expect(transportChecksum(bytes, 40, 6)).toBe(0);
        bytes.set(original.subarray(56, 58), 56);
        expect(bytes).toEqual(original);
      }),
    );
  });
});

describe("the NAT's table", () => {
  it("finds either side of a connection, and leads to the other", () => {
    fc.assert(
      fc.property(side, side, (program, daemon) => {
        const nat = new TcpNat();
        const added = nat.add(PEER, 5, { program, daemon });
        expect(added).toBe(JSON.stringify(program) !== JSON.stringify(daemon));
        if (!added) return;
        expect(nat.find(PEER, program.network, program.localPort, program.remotePort)).toEqual({
          id: 5,
          side: "program",
          other: daemon,
        });
        expect(nat.find(PEER, daemon.network, daemon.localPort, daemon.remotePort)).toEqual({
          id: 5,
          side: "daemon",
          other: program,
        });
        expect(nat.find(nodeId(8), program.network, program.localPort, program.remotePort)).toBeUndefined();
        nat.remove(PEER, { program, daemon });
        expect(nat.isEmpty).toBe(true);
      }),
    );
  });

  it("never lets two connections share a side, and holds nothing once all are removed", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(smallSide, smallSide), { maxLength: 60 }), (pairs) => {
        const nat = new TcpNat();
        const taken = new Set<string>();
        const added: [NatSide, NatSide][] = [];
        for (const [program, daemon] of pairs) {
          const keys = [program, daemon].map((each) => JSON.stringify(each));
          const isFree = keys[0] !== keys[1] && keys.every((key) => !taken.has(key));
          expect(nat.add(PEER, added.length, { program, daemon })).toBe(isFree);
          if (!isFree) continue;
          for (const key of keys) taken.add(key);
          added.push([program, daemon]);
        }
        for (const [program, daemon] of added) nat.remove(PEER, { program, daemon });
        expect(nat.isEmpty).toBe(true);
      }),
    );
  });

  it("gives the wanted port while it is free, then others", () => {
    const nat = new TcpNat();
    expect(nat.freeRemotePort(PEER, BACKBONE, 80, 65_535)).toBe(65_535);
    const given = new Set<number>();
    const daemon = { network: BACKBONE, localPort: 1 };
    for (let id = 0; id < 3_001; id++) {
      const remotePort = nat.freeRemotePort(PEER, BACKBONE, 80, 65_535)!;
      expect(remotePort).toBeGreaterThanOrEqual(1_024);
      given.add(remotePort);
      const program = { network: BACKBONE, localPort: 80, remotePort };
      nat.add(PEER, id, { program, daemon: { ...daemon, remotePort: id + 1 } });
    }
    expect(given.size).toBe(3_001);
  });
});

const smallSide: fc.Arbitrary<NatSide> = fc.record({
  network: fc.constantFrom(0, 1).map(networkId),
  localPort: fc.integer({ min: 1, max: 4 }),
  remotePort: fc.integer({ min: 1, max: 4 }),
});

describe("packets that wait", () => {
  it("are copies, in order, and one SYN of a connection is enough", () => {
    const waiting = new WaitingPackets();
    const syn = tcpPacket({ flags: TCP.SYN });
    const other = tcpPacket({ flags: TCP.SYN, sourcePort: 40_001 });
    const datagram = udpPacket({ payload: new Uint8Array(3) });
    for (const bytes of [syn, datagram, syn, other, datagram]) {
      expect(waiting.hold(PEER, whole(bytes), instant(0))).toBe(true);
    }
    const expected = [syn, datagram, other, datagram].map((bytes) => bytes.slice());
    syn.fill(0);
    expect(waiting.release(PEER).map(({ bytes }) => bytes)).toEqual(expected);
    expect(waiting.release(PEER)).toEqual([]);
  });

  it("are bounded for each peer and in all, and overdue after a while, oldest first", () => {
    const waiting = new WaitingPackets();
    const hold = (node: NodeId, at: number) => waiting.hold(node, whole(udpPacket({})), instant(at));
    let held = 0;
    while (held < 1_000 && hold(PEER, 0)) held++;
    expect(held).toBe(64);
    let nodes = 1;
    while (nodes < 1_000 && hold(nodeId(1_000 + nodes), 10)) nodes++;
    expect(nodes).toBe(256);
    expect(waiting.pollTimeout()?.at).toBe(4_000);
    expect(waiting.overdue(instant(3_999))).toEqual([]);
    expect(waiting.overdue(instant(4_005))).toEqual([PEER]);
    expect(waiting.overdue(instant(4_010))).toHaveLength(256);
  });
});
