import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RelayQueue } from "../../src/rendezvous/relay-queue.ts";

const KB = 1024;

function filled(flows: Readonly<Record<string, number>>, bytes: number): RelayQueue<string> {
  const queue = new RelayQueue<string>({ maxBytes: 64 * 1024 * KB, maxFlowBytes: 64 * 1024 * KB });
  for (const [flow, count] of Object.entries(flows)) {
    for (let i = 0; i < count; i++) queue.push(flow, flow, bytes);
  }
  return queue;
}

function take(queue: RelayQueue<string>, count: number): string[] {
  return Array.from({ length: count }, () => queue.pop() ?? "nothing");
}

describe("order", () => {
  test("a ping that arrives behind a long bulk goes out next", () => {
    const queue = filled({ bulk: 100 }, 60 * KB);
    take(queue, 10);
    queue.push("ping", "ping", 100);
    expect(take(queue, 2)).toContain("ping");
  });

  test("two bulks of different frame sizes get the same bytes", () => {
    const queue = new RelayQueue<[string, number]>({ maxBytes: 1e9, maxFlowBytes: 1e9 });
    for (let i = 0; i < 1000; i++) queue.push("large", ["large", 60_000], 60_000);
    for (let i = 0; i < 10_000; i++) queue.push("small", ["small", 3000], 3000);
    const sums = { large: 0, small: 0 };
    for (let i = 0; i < 4000; i++) {
      const [flow, bytes] = queue.pop()!;
      sums[flow as keyof typeof sums] += bytes;
    }
    expect(Math.abs(sums.large - sums.small)).toBeLessThan(140_000);
  });

  test("a flow that is always just empty does not pass the others for ever", () => {
    const queue = filled({ bulk: 50 }, 60 * KB);
    let bulkServed = 0;
    for (let i = 0; i < 40; i++) {
      queue.push("greedy", "greedy", 60 * KB);
      if (queue.pop() === "bulk") bulkServed++;
    }
    expect(bulkServed).toBeGreaterThanOrEqual(15);
  });

  test("within a flow nothing is overtaken, nothing is lost, and the sums end at zero", () => {
    const frames = fc.array(fc.record({ flow: fc.constantFrom("a", "b", "c", "d"), bytes: fc.nat(65_535) }));
    fc.assert(
      fc.property(frames, fc.nat(20), (pushed, popEvery) => {
        const queue = new RelayQueue<{ flow: string; index: number }>({ maxBytes: 1e9, maxFlowBytes: 1e9 });
        const out: { flow: string; index: number }[] = [];
        pushed.forEach(({ flow, bytes }, index) => {
          queue.push(flow, { flow, index }, bytes);
          const item = popEvery > 0 && index % popEvery === 0 ? queue.pop() : undefined;
          if (item !== undefined) out.push(item);
        });
        for (let item = queue.pop(); item !== undefined; item = queue.pop()) out.push(item);
        expect(out).toHaveLength(pushed.length);
        for (const flow of ["a", "b", "c", "d"]) {
          const order = out.filter((item) => item.flow === flow).map((item) => item.index);
          expect(order).toEqual([...order].sort((x, y) => x - y));
        }
        expect([queue.bytes, queue.items, queue.flows]).toEqual([0, 0, 0]);
      }),
    );
  });
});

describe("bounds", () => {
  test("a flow that is full loses what comes, the others lose nothing", () => {
    const queue = new RelayQueue<string>({ maxBytes: 100 * KB, maxFlowBytes: 10 * KB });
    for (let i = 0; i < 5; i++) expect(queue.push("bulk", `bulk ${i}`, 2 * KB)).toEqual([]);
    expect(queue.push("bulk", "bulk 5", 2 * KB)).toEqual(["bulk 5"]);
    expect(queue.push("ping", "ping", 64)).toEqual([]);
  });

  test("when all is full the longest flow makes room", () => {
    const queue = new RelayQueue<string>({ maxBytes: 20 * KB, maxFlowBytes: 16 * KB });
    for (let i = 0; i < 8; i++) queue.push("long", `long ${i}`, 2 * KB);
    queue.push("short", "short 0", 2 * KB);
    queue.push("short", "short 1", 2 * KB);
    expect(queue.push("third", "third", 100)).toEqual(["long 0"]);
    expect(queue.bytes).toBeLessThanOrEqual(20 * KB);
  });

  test("no pushes take it over its bounds, and what is dropped is told", () => {
    const frames = fc.array(fc.record({ flow: fc.nat(9), bytes: fc.nat(70_000) }), { maxLength: 300 });
    fc.assert(
      fc.property(frames, (pushed) => {
        const limits = { maxBytes: 300_000, maxFlowBytes: 100_000 };
        const queue = new RelayQueue<number>(limits);
        let dropped = 0;
        pushed.forEach(({ flow, bytes }, index) => {
          dropped += queue.push(String(flow), index, bytes).length;
          expect(queue.bytes).toBeLessThanOrEqual(limits.maxBytes);
        });
        expect(queue.items + dropped).toBe(pushed.length);
      }),
    );
  });
});
