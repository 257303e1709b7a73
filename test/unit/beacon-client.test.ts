import { describe, expect, test } from "vitest";
import { fromHex, toHex } from "../../src/base/bytes.ts";
import { type Instant, instant } from "../../src/base/instant.ts";
import { BeaconClient, type BeaconEvent } from "../../src/beacon/client.ts";
import { nodeId } from "../../src/wire/ids.ts";

const REPLY = "0204c63364070fa0"; // 198.51.100.7:4000
const OBSERVED = { kind: "observed", endpoint: { address: "198.51.100.7", port: 4000 } };

class Beacon {
  readonly client: BeaconClient;
  now: Instant = instant(1000);

  constructor(node: number) {
    this.client = new BeaconClient(nodeId(node), this.now);
  }

  get sent(): string[] {
    const sent: string[] = [];
    for (let bytes = this.client.pollDatagram(); bytes !== undefined; bytes = this.client.pollDatagram()) {
      sent.push(toHex(bytes));
    }
    return sent;
  }

  receive(hex: string): BeaconEvent[] {
    this.client.handleDatagram(fromHex(hex)!, this.now);
    const events: BeaconEvent[] = [];
    for (let event = this.client.pollEvent(); event !== undefined; event = this.client.pollEvent()) events.push(event);
    return events;
  }

  /** Jumps to the next deadline; says how long that was. */
  wake(): number {
    const before = this.now;
    this.now = this.client.pollTimeout().at;
    this.client.handleTimeout(this.now);
    return this.now - before;
  }
}

test("the first discovery is due at once, in both forms, and repeats faster than the keepalive until answered", () => {
  const beacon = new Beacon(0);
  expect(beacon.wake()).toBe(0);
  expect(beacon.sent).toEqual(["0100000000", "0800000000"]);
  expect([1, 2, 3, 4, 5, 6].map(() => beacon.wake())).toEqual([500, 1000, 2000, 4000, 8000, 16_000]);
  expect(beacon.wake()).toBeGreaterThanOrEqual(16_000);
});

test.each([1, 2, 77, 4_000_000_000])("node %i keeps its mapping open every 20 to 25 s", (node) => {
  const beacon = new Beacon(node);
  beacon.wake();
  for (let i = 0; i < 3; i++) {
    expect(beacon.receive(REPLY)).toEqual([OBSERVED]);
    expect(beacon.receive(REPLY)).toEqual([OBSERVED]); // to the second form
    const period = beacon.wake();
    expect(period).toBeGreaterThanOrEqual(20_000);
    expect(period).toBeLessThanOrEqual(25_000);
  }
  expect(beacon.client.observed).toEqual(OBSERVED.endpoint);
});

test("silence after a reply is asked about quickly again", () => {
  const beacon = new Beacon(1);
  beacon.wake();
  beacon.receive(REPLY);
  beacon.wake();
  expect(beacon.wake()).toBe(500);
});

test("a new number is told at once", () => {
  const beacon = new Beacon(0);
  beacon.wake();
  beacon.receive(REPLY);
  expect(beacon.sent).toHaveLength(2);
  beacon.client.setLocalNode(nodeId(9), beacon.now);
  expect(beacon.sent).toEqual(["0100000009", "0800000009"]);
  beacon.client.setLocalNode(nodeId(9), beacon.now);
  expect(beacon.sent).toEqual([]);
});

describe("punch", () => {
  test("is requested with both numbers, and not before we have one", () => {
    const nobody = new Beacon(0);
    nobody.client.requestPunch(nodeId(2));
    expect(nobody.sent).toEqual([]);
    const beacon = new Beacon(1);
    beacon.client.requestPunch(nodeId(2));
    expect(beacon.sent).toEqual(["030000000100000002"]);
  });

  test("commands become events for unicast targets only, and not without limit", () => {
    const beacon = new Beacon(1);
    const endpoint = { address: "198.51.100.2", port: 4001 };
    expect(beacon.receive("0404c63364020fa1")).toEqual([{ kind: "punch", endpoint }]);
    expect(beacon.receive("0404ffffffff0fa1")).toEqual([]); // broadcast
    expect(beacon.receive("0404000000000fa1")).toEqual([]); // unspecified
    expect(beacon.receive("0404c63364020000")).toEqual([]); // port 0
    let punches = 0;
    for (let i = 0; i < 1000; i++) punches += beacon.receive("0404c63364020fa1").length;
    expect(punches).toBeLessThan(60);
  });
});

test("notices are passed on once until they are read; unknown kinds are not", () => {
  const beacon = new Beacon(1);
  beacon.client.handleDatagram(fromHex("0a01")!, beacon.now);
  expect(beacon.receive("0a01")).toEqual([{ kind: "notify" }]);
  expect(beacon.receive("0a02")).toEqual([]);
  expect(beacon.receive("0a")).toEqual([]);
});

test("a suspicion asks again, but not while an answer may still be on its way", () => {
  const beacon = new Beacon(7);
  beacon.wake();
  expect(beacon.sent).toHaveLength(2);
  beacon.client.suspect(beacon.now);
  expect(beacon.sent).toEqual([]);
  beacon.now = instant(beacon.now + 2000);
  beacon.client.suspect(beacon.now);
  expect(beacon.sent).toHaveLength(2);
});
