import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { concatBytes, equalBytes } from "../../src/base/bytes.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";
import { type LinkTraits, PERFECT_LINK, StreamNetwork, Transfer } from "../helpers/stream-network.ts";

const TEN_MINUTES_MS = 600_000;

/** A client and a server that each send some bytes, end, and wait for the other's end. */
function exchange(link: LinkTraits, seed: number, upBytes: number, downBytes: number, fill?: Uint8Array) {
  const network = new StreamNetwork(link, seed);
  network.keepPackets = false;
  const up = fill === undefined ? seededBytes(seed + 1)(upBytes) : repeated(fill, upBytes);
  const down = fill === undefined ? seededBytes(seed + 2)(downBytes) : repeated(fill, downBytes);
  const client = new Transfer(up);
  const server = new Transfer(down);
  network.b.table.listen(80, "accept");
  network.a.program = client.handle;
  network.b.program = server.handle;
  network.a.table.dial(network.b.address, 80, network.now);
  const isOver = () => client.events.includes("closed") && server.events.includes("closed");
  const finished = network.run(isOver, TEN_MINUTES_MS);
  const arrived = equalBytes(concatBytes(...server.received), up) && equalBytes(concatBytes(...client.received), down);
  return { finished, arrived, client, server };
}

function repeated(bytes: Uint8Array, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => bytes[index % bytes.length]!);
}

function without(events: string[], kind: string): string[] {
  return events.filter((event) => event !== kind);
}

describe("a transfer in both directions", () => {
  const bad = { duplication: 0.05, reorder: 0.1, reorderMs: 30 };
  it.each([
    ["a perfect link", PERFECT_LINK],
    ["1 % loss", { ...PERFECT_LINK, loss: 0.01 }],
    ["5 % loss", { ...PERFECT_LINK, loss: 0.05 }],
    ["10 % loss", { ...PERFECT_LINK, loss: 0.1 }],
    ["20 % loss", { ...PERFECT_LINK, loss: 0.2 }],
    ["reordering and duplicates", { ...PERFECT_LINK, ...bad }],
    ["20 % loss, reordering and duplicates", { ...PERFECT_LINK, loss: 0.2, ...bad }],
    ["a link with a delay of 300 ms and 5 % loss", { ...PERFECT_LINK, delayMs: 300, loss: 0.05 }],
    ["a link with hardly any delay and 5 % loss", { ...PERFECT_LINK, delayMs: 0.05, loss: 0.05 }],
  ])("delivers every byte and ends cleanly over %s", (_, link) => {
    for (const seed of [11, 12, 13]) {
      const { finished, arrived, client, server } = exchange(link, seed, 300_000, 200_000);
      expect({ seed, finished, arrived }).toEqual({ seed, finished: true, arrived: true });
      expect(without(client.events, "readable")).toEqual(["established", "ended", "closed"]);
      expect(without(server.events, "readable")).toEqual(["accepted", "ended", "closed"]);
    }
  });

  it("delivers bytes that look like acknowledgements throughout, over a bad link", () => {
    const fills = ["SACK", "SACK\x01\x00\x00\x00\x01\x00\x00\x10\x00", "SSACK\x04"].map((text) =>
      Uint8Array.from(text, (character) => character.charCodeAt(0)),
    );
    for (const [index, fill] of fills.entries()) {
      const { finished, arrived } = exchange({ ...PERFECT_LINK, loss: 0.05, ...bad }, 40 + index, 60_000, 60_000, fill);
      expect({ index, finished, arrived }).toEqual({ index, finished: true, arrived: true });
    }
  });

  it("says the same, packet by packet and at the same time, when segments are given out in runs", () => {
    const link = { ...PERFECT_LINK, ...bad, loss: 0.02 };
    const packetsOf = (maxRunSegments: number) => {
      const network = new StreamNetwork(link, 31, { streamOptions: { maxRunSegments } });
      const client = new Transfer(seededBytes(32)(400_000));
      network.b.table.listen(80, "accept");
      network.a.program = client.handle;
      network.b.program = new Transfer(seededBytes(33)(100_000)).handle;
      network.a.table.dial(network.b.address, 80, network.now);
      expect(network.run(() => client.events.includes("closed"), TEN_MINUTES_MS)).toBe(true);
      return network.sent;
    };
    expect(packetsOf(56)).toEqual(packetsOf(1));
  });

  it("delivers every byte for any link, seed and size", () => {
    const share = (max: number) => fc.double({ min: 0, max, noNaN: true });
    const link = fc.record({
      delayMs: fc.integer({ min: 1, max: 200 }),
      loss: share(0.2),
      duplication: share(0.2),
      reorder: share(0.3),
      reorderMs: fc.integer({ min: 0, max: 100 }),
    });
    const size = fc.integer({ min: 0, max: 40_000 });
    fc.assert(
      fc.property(link, fc.nat(1e6), size, size, (traits, seed, up, down) => {
        const { finished, arrived } = exchange(traits, seed, up, down);
        expect([finished, arrived]).toEqual([true, true]);
      }),
      { numRuns: 40 },
    );
  });
});

describe("a program that reads slowly", () => {
  it("stops the sender and loses nothing", () => {
    const network = new StreamNetwork(PERFECT_LINK, 3);
    network.keepPackets = false;
    const bytes = seededBytes(4)(6_000_000);
    const client = new Transfer(bytes);
    const received: Uint8Array[] = [];
    const events: string[] = [];
    network.b.table.listen(80, "accept");
    network.a.program = client.handle;
    let isReading = false;
    network.b.program = (event, now) => {
      const kind = event.kind === "stream" ? event.event.kind : event.kind;
      events.push(kind);
      if (kind === "ended") event.stream.closeWrite(now);
    };
    network.a.table.dial(network.b.address, 80, network.now);
    network.runFor(60_000);
    const [stream] = [...network.b.table.streams()];
    expect(stream!.statistics!.receivedBytes).toBeLessThanOrEqual(4 << 20);
    isReading = true;
    for (let step = 0; step < 20_000 && isReading; step++) {
      for (let i = 0; i < 20; i++) {
        const chunk = stream!.read(network.now);
        if (chunk !== undefined) received.push(chunk);
      }
      isReading = !events.includes("closed");
      network.runFor(10);
    }
    for (let chunk = stream!.read(network.now); chunk !== undefined; chunk = stream!.read(network.now)) {
      received.push(chunk);
    }
    expect(equalBytes(concatBytes(...received), bytes)).toBe(true);
    expect(events).not.toContain("timed-out");
  });
});

describe("a link that dies", () => {
  it("ends both sides with an error in bounded time", () => {
    const network = new StreamNetwork(PERFECT_LINK, 5);
    const client = new Transfer(seededBytes(1)(2_000_000), false);
    const server = new Transfer(new Uint8Array(0), false);
    network.b.table.listen(80, "accept");
    network.a.program = client.handle;
    network.b.program = server.handle;
    network.a.table.dial(network.b.address, 80, network.now);
    network.run(() => server.receivedBytes > 100_000, 10_000);
    network.filter = () => false;
    network.runFor(200_000);
    expect(client.events.at(-1)).toBe("timed-out");
    expect(server.events.at(-1)).toBe("timed-out");
    expect([network.a.table.size, network.b.table.size]).toEqual([0, 0]);
  });
});

describe("many idle streams", () => {
  it("stay open for an hour and cost a handful of packets", () => {
    const network = new StreamNetwork(PERFECT_LINK, 6);
    const events: string[] = [];
    network.b.table.listen(80, "accept");
    network.b.program = (event) => events.push(event.kind);
    for (let i = 0; i < 20; i++) network.a.table.dial(network.b.address, 80, network.now);
    network.runFor(3_600_000);
    expect(events).toEqual(Array(20).fill("accepted"));
    expect([network.a.table.size, network.b.table.size]).toEqual([20, 20]);
    // Every 25 s one says that it lives, and the other may answer.
    expect(network.sent.length / 20).toBeLessThan(3 * (3_600 / 25));
  });
});
