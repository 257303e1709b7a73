import { describe, expect, test } from "vitest";
import { fromHex, toHex } from "../../src/base/bytes.ts";
import { instant } from "../../src/base/instant.ts";
import { type BeaconLimits, BeaconServer } from "../../src/rendezvous/beacon.ts";
import { NOTIFY_HANDSHAKES } from "../../src/wire/beacon.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { parseEndpoint } from "../../src/wire/underlay-address.ts";

const A = "198.51.100.1:4000";
const B = "198.51.100.2:4000";
const MINUTE = 60_000;
const UNLIMITED = { perSecond: 1e9, burst: 1e9 };

class BeaconLab {
  readonly server: BeaconServer;
  nowMs = 1000;

  constructor(limits: Partial<BeaconLimits> = {}) {
    this.server = new BeaconServer({ limits });
  }

  send(from: string, hex: string): Record<string, string> {
    const sent = this.server.handleDatagram(fromHex(hex)!, parseEndpoint(from)!, instant(this.nowMs));
    return Object.fromEntries(sent.map(({ to, bytes }) => [`${to.address}:${to.port}`, toHex(bytes)]));
  }

  notify(node: number): string | undefined {
    const datagram = this.server.notify(nodeId(node), NOTIFY_HANDSHAKES, instant(this.nowMs));
    return datagram && `${datagram.to.address} ${toHex(datagram.bytes)}`;
  }
}

test("a node without a number learns its endpoint and is not remembered", () => {
  const lab = new BeaconLab();
  expect(lab.send(A, "0100000000")).toEqual({ [A]: "0204c63364010fa0" });
  expect(lab.server.nodeCount).toBe(0);
});

test("an extended node gets the extended delivery and notices, a plain one does not", () => {
  const lab = new BeaconLab();
  lab.send(A, "0100000001");
  lab.send(B, "0800000002");
  expect(lab.send(A, "050000000100000002abcd")).toEqual({ [B]: "090000000100000002abcd" });
  expect(lab.send(B, "050000000200000001abcd")).toEqual({ [A]: "0600000002abcd" });
  expect([lab.notify(1), lab.notify(2), lab.notify(3)]).toEqual([undefined, "198.51.100.2 0a01", undefined]);
});

test("a plain discovery or punch request from the same endpoint does not take the extended form away", () => {
  const lab = new BeaconLab();
  lab.send(B, "0800000002");
  lab.send(B, "0100000002");
  lab.send(B, "030000000200000009");
  expect(lab.notify(2)).toBe("198.51.100.2 0a01");
  lab.send("198.51.100.2:5000", "0100000002"); // another program, or another NAT mapping
  expect(lab.notify(2)).toBeUndefined();
});

test("an empty frame is relayed, a truncated relay message is not", () => {
  const lab = new BeaconLab();
  lab.send(B, "0100000002");
  expect(lab.send(A, "050000000100000002")).toEqual({ [B]: "0600000001" });
  expect(lab.send(A, "0500000001000000")).toEqual({});
});

test("an entry ends ten minutes after it was refreshed", () => {
  const lab = new BeaconLab();
  lab.send(B, "0100000002");
  lab.nowMs += 9 * MINUTE;
  lab.send(B, "0100000002");
  lab.nowMs += 9 * MINUTE;
  expect(lab.send(A, "050000000100000002ff")).toEqual({ [B]: "0600000001ff" });
  lab.nowMs += MINUTE;
  expect(lab.send(A, "050000000100000002ff")).toEqual({});
});

test("more than a hundred thousand nodes: the one heard of longest ago goes", () => {
  const lab = new BeaconLab({ control: UNLIMITED, strangers: UNLIMITED });
  for (let node = 1; node <= 100_000; node++) lab.send(A, `01${node.toString(16).padStart(8, "0")}`);
  lab.send(B, "0100000001"); // refreshed
  lab.send(A, "01000f0000");
  expect(lab.server.nodeCount).toBe(100_000);
  expect(lab.send(A, "050000000300000001ff")).toEqual({ [B]: "0600000003ff" });
  expect(lab.send(A, "050000000300000002ff")).toEqual({});
});

describe("limits", () => {
  test("a source's relaying is limited, another source's is not", () => {
    const lab = new BeaconLab({ unprovenRelay: { perSecond: 10, burst: 2 } });
    lab.send(B, "0100000002");
    const relay = "050000000100000002ff";
    expect([lab.send(A, relay), lab.send(A, relay), lab.send(A, relay)]).toEqual([
      { [B]: "0600000001ff" },
      { [B]: "0600000001ff" },
      {},
    ]);
    expect(lab.send("203.0.113.5:1", relay)).toEqual({ [B]: "0600000001ff" });
    lab.nowMs += 100;
    expect(lab.send(A, relay)).toEqual({ [B]: "0600000001ff" });
    expect(lab.server.counters).toMatchObject({ relayed: 4, limited: 1 });
  });

  test("relaying does not use up what a source may discover", () => {
    const lab = new BeaconLab({ unprovenRelay: { perSecond: 1, burst: 1 }, control: { perSecond: 1, burst: 1 } });
    lab.send(A, "050000000100000002ff");
    lab.send(A, "050000000100000002ff");
    expect(lab.send(A, "0100000001")).toHaveProperty(A);
    expect(lab.send(A, "0100000001")).toEqual({});
  });
});

test.each(["", "00", "0a01", "020400000000ffff", "01000000", "0300000001000000", "07000000090001000000", "50494c53"])(
  "%j is ignored and counted",
  (hex) => {
    const lab = new BeaconLab();
    expect(lab.send(A, hex)).toEqual({});
    expect(lab.server.counters.malformed).toBe(1);
  },
);
