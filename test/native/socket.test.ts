/** The underlay socket and its wake-ups, over loopback. */
import { closeSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import type { Endpoint } from "../../src/base/endpoint.ts";
import { lockFile } from "../../src/io/native.ts";
import { NativeDataPlane } from "../../src/io/native-data-plane.ts";
import { COUNTER, ROW_KIND } from "../../src/tunnel/data-plane.ts";
import { ENDPOINT_SLOT, KEY_SLOT, keySpec } from "../helpers/data-plane-pair.ts";
import { bytesOf, superpacket, tcpPacket, udpPacket, whole } from "../helpers/inner-packets.ts";
import { builtShim } from "./build-shim.ts";
import { hexOf, rowsOf } from "./twin-planes.ts";

builtShim();

const open: NativeDataPlane[] = [];
function planeAt(address: string, port = 0): { plane: NativeDataPlane; bound: Endpoint } {
  const plane = new NativeDataPlane();
  open.push(plane);
  return { plane, bound: plane.openUdp({ address, port }) };
}
afterEach(() => {
  for (const plane of open.splice(0)) plane.close();
});

/** Node 1 and node 2, each with the other's address; `seen` is how an endpoint of `::` is reached. */
function pairAt(address: string, seen = address) {
  const one = planeAt(address);
  const two = planeAt(address);
  const oneAt = { address: seen, port: one.bound.port };
  const twoAt = { address: seen, port: two.bound.port };
  connect(one.plane, 1, 2, twoAt);
  connect(two.plane, 2, 1, oneAt);
  return { one: one.plane, two: two.plane, oneAt, twoAt };
}

function connect(plane: NativeDataPlane, local: number, peer: number, endpoint: Endpoint): void {
  plane.installKey(KEY_SLOT, keySpec(local, peer));
  plane.setEndpoint(ENDPOINT_SLOT, endpoint, new Uint8Array(0));
  plane.bindKey(KEY_SLOT, ENDPOINT_SLOT);
}

/** Resolves with the rows of the next batch that has any. */
function nextBatch(plane: NativeDataPlane): Promise<ReturnType<typeof rowsOf>> {
  return new Promise((resolve) => {
    plane.startPolling({
      onTunReadable: () => {},
      onUdpWritable: () => {},
      onUdpReadable: () => {
        const count = plane.receiveAndOpen();
        if (count > 0) resolve(rowsOf(plane, count));
      },
    });
  });
}

for (const [family, address, seen] of [
  ["IPv4", "127.0.0.1", "127.0.0.1"],
  ["IPv6", "::1", "::1"],
  ["IPv4 on a socket for both", "::", "127.0.0.1"],
  ["IPv6 on a socket for both", "::", "::1"],
] as const) {
  test(`a superpacket crosses ${family} as runs of frames and is one row again`, async () => {
    const { one, two, oneAt } = pairAt(address, seen);
    const batch = nextBatch(two);
    one.sendStaged(KEY_SLOT, ENDPOINT_SLOT, superpacket(tcpPacket({ payload: bytesOf(30_000) }), 1000));
    expect(await batch).toMatchObject([{ kind: ROW_KIND.PACKET, segments: 30, flags: 0, source: oneAt }]);
    expect(one.counters[COUNTER.TX_DATAGRAMS]).toBe(30);
    expect(two.counters[COUNTER.RX_DATAGRAMS]).toBe(30);
  });
}

test("a datagram is sent as it is and received as another row with its source", async () => {
  const { one, two, oneAt, twoAt } = pairAt("127.0.0.1");
  const batch = nextBatch(two);
  const text = Buffer.from("PILA and what belongs to it");
  expect(one.sendDatagram(twoAt, text)).toBe(true);
  expect(await batch).toMatchObject([{ kind: ROW_KIND.OTHER, bytes: hexOf(text), source: oneAt, keySlot: -1 }]);
});

test("an endpoint without a route is counted and does not keep what follows from being sent", async () => {
  const { one, two } = pairAt("127.0.0.1");
  const batch = nextBatch(two);
  one.setEndpoint(9, { address: "2001:db8::1", port: 9 }, new Uint8Array(0));
  one.sendStaged(KEY_SLOT, 9, whole(udpPacket()));
  one.sendStaged(KEY_SLOT, ENDPOINT_SLOT, whole(udpPacket()));
  expect(await batch).toHaveLength(1);
  expect(one.counters[COUNTER.SEND_FAILED]).toBe(1);
  expect(one.sendBlocked).toBe(false);
});

test("a callback that leaves datagrams behind is called again until none is left", async () => {
  const { one, two } = pairAt("127.0.0.1");
  const packets = 2000;
  let seen = 0;
  const all = new Promise<void>((resolve) => {
    two.startPolling({
      onTunReadable: () => {},
      onUdpWritable: () => {},
      onUdpReadable: () => {
        for (const row of rowsOf(two, two.receiveAndOpen())) seen += row.segments;
        if (seen === packets) resolve();
      },
    });
  });
  // No two of one flow follow each other, so that nothing is joined and rows run out.
  for (let i = 0; i < packets; i++) {
    one.sendStaged(KEY_SLOT, ENDPOINT_SLOT, whole(tcpPacket({ sourcePort: 1000 + (i % 100), sequence: 50 * i })));
  }
  await all;
  expect(two.counters[COUNTER.RX_PACKETS]).toBe(packets);
});

test("what comes while nobody reads is counted once the buffer is full, and takes no room from frames", () => {
  const { one, two, twoAt } = pairAt("127.0.0.1");
  for (let i = 0; i < 5_000; i++) one.sendDatagram(twoAt, Buffer.from("PILA and what belongs to it"));
  expect(two.counters[COUNTER.SECOND_SOCKET_FULL]).toBeGreaterThan(1_000);
  expect(two.counters[COUNTER.SOCKET_FULL]).toBe(0);
});

test("a port that is taken, a foreign address and a text that is no address are named", () => {
  const taken = planeAt("127.0.0.1").bound;
  const codeOf = (endpoint: Endpoint) => {
    try {
      planeAt(endpoint.address, endpoint.port);
    } catch (error) {
      return [(error as { code: string }).code, (error as { hint: string }).hint.length > 0];
    }
    return undefined;
  };
  expect(codeOf(taken)).toEqual(["port_taken", true]);
  expect(codeOf({ address: "2001:db8::77", port: 0 })).toEqual(["address_unavailable", true]);
  expect(codeOf({ address: "localhost", port: 0 })).toEqual(["bad_address", true]);
});

test("a name that no interface can have is refused before the kernel is asked", () => {
  const { plane } = planeAt("127.0.0.1");
  for (const name of ["", "a b", "sixteen-letters0", "a/b"])
    expect(() => plane.openTun(name)).toThrow(/interface name/);
});

test("a closed plane can be closed again and no longer answers", () => {
  const { plane } = planeAt("127.0.0.1");
  plane.startPolling({ onTunReadable: () => {}, onUdpReadable: () => {}, onUdpWritable: () => {} });
  plane.installKey(KEY_SLOT, keySpec(1, 2));
  plane.close();
  plane.close();
  expect(plane.removeKey(KEY_SLOT)).toBe(0);
  expect(plane.receiveAndOpen()).toBe(0);
});

test("a locked file is refused until the lock's descriptor is closed", () => {
  const folder = mkdtempSync(join(tmpdir(), "pilot-lock-"));
  const path = join(folder, "lock");
  const first = lockFile(path);
  expect(first).toBeGreaterThan(0);
  expect(lockFile(path)).toBeUndefined();
  closeSync(first!);
  const second = lockFile(path);
  expect(second).toBeGreaterThan(0);
  closeSync(second!);
  expect(() => lockFile(join(folder, "missing", "lock"))).toThrow(/ENOENT/);
  rmSync(folder, { recursive: true });
});

test("a flood of what is no sealed frame fills a buffer of its own, and pushes out no frame of a peer", async () => {
  const { one, two, twoAt } = pairAt("127.0.0.1");
  const flooder = planeAt("127.0.0.1").plane;
  const exchange = Buffer.concat([Buffer.from("PILA"), Buffer.alloc(150)]);
  for (let i = 0; i < 15_000; i++) flooder.sendDatagram(twoAt, exchange);
  for (let i = 0; i < 40; i++) one.sendStaged(KEY_SLOT, ENDPOINT_SLOT, whole(udpPacket({ payload: bytesOf(100 + i) })));
  one.flush();
  for (let i = 0; i < 5_000; i++) flooder.sendDatagram(twoAt, exchange);
  let [frames, others] = [0, 0];
  for (let batch = 0; batch < 10_000; batch++) {
    const rows = rowsOf(two, two.receiveAndOpen());
    if (rows.length === 0 && frames === 40) break;
    for (const { kind, segments } of rows) {
      if (kind === ROW_KIND.OTHER) others++;
      else frames += Math.max(1, segments);
    }
  }
  expect(frames).toBe(40);
  expect(others).toBeGreaterThan(100);
  expect(others).toBeLessThan(10_000);
});
