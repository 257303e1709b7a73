import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BlockPool } from "../../src/base/block-pool.ts";
import { DeadlineHeap } from "../../src/base/deadline-heap.ts";
import { type Instant, instant, after as later } from "../../src/base/instant.ts";
import { RenoCongestion } from "../../src/stream/congestion.ts";
import { DialPacer } from "../../src/stream/dial-pacer.ts";
import { Fifo } from "../../src/stream/fifo.ts";
import { MemoryBudget } from "../../src/stream/memory-budget.ts";
import { Reassembly } from "../../src/stream/reassembly.ts";
import { RetransmissionQueue } from "../../src/stream/retransmission-queue.ts";
import { RttEstimator } from "../../src/stream/rtt-estimator.ts";
import { SendBuffer } from "../../src/stream/send-buffer.ts";
import { sequenceAdd, sequenceAfter, sequenceBefore, sequenceDistance } from "../../src/stream/sequence.ts";
import { looksLikeSack } from "../../src/wire/stream-sack.ts";
import { pattern } from "../helpers/scripted-stream.ts";

const NOW = instant(1_000);
const MSS = 1152;

describe("sequence numbers", () => {
  it("wrap, and compare by the shorter way around", () => {
    expect(sequenceAdd(0xffff_fffe, 3)).toBe(1);
    expect(sequenceDistance(0xffff_fffe, 1)).toBe(3);
    expect(sequenceDistance(1, 0xffff_fffe)).toBe(-3);
    expect(sequenceBefore(0xffff_ffff, 0)).toBe(true);
    expect(sequenceAfter(0, 0xffff_ffff)).toBe(true);
    expect(sequenceBefore(5, 5) || sequenceAfter(5, 5)).toBe(false);
  });
});

describe("the round-trip estimator", () => {
  it("starts at 1 s and follows RFC 6298 from the first sample on", () => {
    const rtt = new RttEstimator();
    expect(rtt.timeoutMs).toBe(1_000);
    rtt.sample(200);
    expect([rtt.smoothedMs, rtt.timeoutMs]).toEqual([200, 600]);
    rtt.sample(400);
    expect([rtt.smoothedMs, rtt.timeoutMs]).toEqual([225, 225 + 4 * 125]);
  });

  it("stays between 200 ms and 10 s", () => {
    const rtt = new RttEstimator();
    rtt.sample(1);
    expect(rtt.timeoutMs).toBe(200);
    for (let i = 0; i < 10; i++) rtt.backOff();
    expect(rtt.timeoutMs).toBe(10_000);
    rtt.sample(20_000);
    expect(rtt.timeoutMs).toBe(10_000);
  });

  it("doubles at a timeout and returns to the estimate at the next sample, not before (Karn)", () => {
    const rtt = new RttEstimator();
    rtt.sample(100);
    rtt.backOff();
    expect(rtt.timeoutMs).toBe(600);
    rtt.sample(100);
    expect(rtt.timeoutMs).toBe(250);
  });
});

describe("the congestion window", () => {
  it("starts with ten segments and doubles per round trip in slow start", () => {
    const congestion = new RenoCongestion(MSS);
    expect(congestion.windowBytes).toBe(10 * MSS);
    congestion.handleAcknowledged(10 * MSS);
    expect(congestion.windowBytes).toBe(20 * MSS);
  });

  it("grows by one segment per round trip in congestion avoidance", () => {
    const congestion = new RenoCongestion(MSS);
    congestion.handleAcknowledged(10 * MSS);
    congestion.handleFastLoss(20 * MSS);
    for (let i = 0; i < 10; i++) congestion.handleAcknowledged(MSS);
    expect(congestion.windowBytes / MSS).toBeCloseTo(11, 0);
  });

  it("does not leap over the threshold in one step", () => {
    const congestion = new RenoCongestion(MSS);
    congestion.handleTimeout(8 * MSS, true);
    congestion.handleAcknowledged(100 * MSS);
    expect(congestion.windowBytes).toBe(4 * MSS);
  });

  it("falls to half of what was in flight at a loss, and to one segment at a timeout", () => {
    const congestion = new RenoCongestion(MSS);
    congestion.handleAcknowledged(20 * MSS);
    congestion.handleFastLoss(30 * MSS);
    expect(congestion.windowBytes).toBe(15 * MSS);
    congestion.handleTimeout(12 * MSS, true);
    expect([congestion.windowBytes, congestion.thresholdBytes]).toEqual([MSS, 6 * MSS]);
    congestion.handleTimeout(MSS, false);
    expect(congestion.thresholdBytes).toBe(6 * MSS);
  });

  it("falls by half also when what was reported as received makes the flight look twice as large", () => {
    const congestion = new RenoCongestion(MSS);
    congestion.handleFastLoss(20 * MSS);
    expect(congestion.windowBytes).toBe(5 * MSS);
  });

  it("never falls below two segments at a loss", () => {
    const congestion = new RenoCongestion(MSS);
    congestion.handleFastLoss(MSS);
    expect(congestion.windowBytes).toBe(2 * MSS);
  });
});

describe("the send buffer", () => {
  it("gives out what went in, in segments of at most the limit, none of which looks like a SACK", () => {
    const mark = Uint8Array.from([83, 65, 67, 75, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9]);
    const poison = fc.constantFrom(
      mark,
      Uint8Array.from({ length: 280 }, (_, at) => mark[at % mark.length]!),
    );
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ maxLength: 400 }), poison)),
        fc.integer({ min: 5, max: 50 }),
        fc.integer({ min: 0, max: 9 }),
        (chunks, limit, mostInRun) => {
          const buffer = new SendBuffer(new BlockPool());
          for (const chunk of chunks) buffer.push(chunk);
          const out: number[] = [];
          while (buffer.bytes > 0) {
            const run = buffer.takeRun(limit, mostInRun);
            for (let at = 0; run !== undefined && at < run.length; at += limit) {
              expect(looksLikeSack(run.subarray(at, at + limit))).toBe(false);
            }
            if (run !== undefined) {
              expect(run.length % limit).toBe(0);
              expect(run.length / limit).toBeLessThanOrEqual(mostInRun);
              out.push(...run);
              continue;
            }
            const segment = buffer.take(limit);
            expect(segment.length).toBeGreaterThan(0);
            expect(segment.length).toBeLessThanOrEqual(limit);
            expect(looksLikeSack(segment)).toBe(false);
            out.push(...segment);
          }
          expect(out).toEqual(chunks.flatMap((chunk) => [...chunk]));
        },
      ),
    );
  });
});

describe("reassembly", () => {
  it("delivers the same bytes for any order, overlap and repetition of segments", () => {
    const bytes = pattern(300);
    const start = 0xffff_ff80; // wraps on the way
    const piece = fc.tuple(fc.integer({ min: 0, max: 299 }), fc.integer({ min: 1, max: 60 }));
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
        const reassembly = new Reassembly(start, 10_000, new MemoryBudget(20_000), new BlockPool());
        const whole = Array.from({ length: 30 }, (_, i) => [i * 10, 10] as const);
        for (const [from, length] of [...pieces, ...whole]) {
          reassembly.place(sequenceAdd(start, from), bytes.subarray(from, from + length));
        }
        const out: number[] = [];
        for (let chunk = reassembly.read(); chunk !== undefined; chunk = reassembly.read()) out.push(...chunk);
        expect(out).toEqual([...bytes]);
        expect(reassembly.hasEarly).toBe(false);
        expect(reassembly.freeBytes).toBe(10_000);
      }),
    );
  });

  it("reports kept segments as merged blocks in order, the first four", () => {
    const reassembly = new Reassembly(0, 10_000, new MemoryBudget(2_000_000), new BlockPool());
    for (const at of [70, 10, 20, 40, 90, 110]) reassembly.place(at, pattern(10));
    expect(reassembly.sackBlocks()).toEqual([
      { left: 10, right: 30 },
      { left: 40, right: 50 },
      { left: 70, right: 80 },
      { left: 90, right: 100 },
    ]);
  });

  it("keeps no more than its limit of early bytes, and still takes what is next", () => {
    const reassembly = new Reassembly(0, 100, new MemoryBudget(2_000_000), new BlockPool());
    expect(reassembly.place(50, pattern(60))).toBe("early");
    expect(reassembly.place(120, pattern(60))).toBe("no-room");
    expect(reassembly.place(0, pattern(50))).toBe("filled");
    expect(reassembly.next).toBe(110);
  });

  it("keeps no more than 1024 early segments", () => {
    const reassembly = new Reassembly(0, 1_000_000, new MemoryBudget(2_000_000), new BlockPool());
    for (let i = 1; i <= 1_024; i++) expect(reassembly.place(2 * i, pattern(1))).toBe("early");
    expect(reassembly.place(4_000, pattern(1))).toBe("no-room");
  });
});

describe("the retransmission queue", () => {
  function queueOf(count: number): RetransmissionQueue {
    const queue = new RetransmissionQueue(new BlockPool());
    for (let i = 0; i < count; i++) queue.append(i * 100, pattern(100), 100, false, NOW);
    return queue;
  }

  it("removes only segments that are acknowledged whole", () => {
    const queue = queueOf(3);
    expect(queue.acknowledge(250, NOW)).toMatchObject({ segments: 2, bytes: 200 });
    expect([queue.length, queue.outstandingBytes, queue.pipeBytes]).toEqual([1, 100, 100]);
  });

  it("does not time a range that was sent again (Karn)", () => {
    const queue = queueOf(2);
    queue.markFirstLost();
    queue.handleResent(queue.first()!, later(NOW, 50));
    expect(queue.acknowledge(200, later(NOW, 80)).timedSince).toBeUndefined();
  });

  it("finds a lost retransmission by what was sent three transmissions after it", () => {
    const queue = queueOf(5);
    queue.markSacked(100, 400, later(NOW, 20));
    expect(queue.markLost(20, later(NOW, 20)).news).toBe(1);
    queue.handleResent(queue.firstLost()!, later(NOW, 20));
    for (let i = 5; i < 8; i++) queue.append(i * 100, pattern(100), 100, false, later(NOW, 21));
    expect(queue.markLost(20, later(NOW, 21)).news).toBe(0);
    queue.markSacked(500, 800, later(NOW, 41));
    queue.markLost(20, later(NOW, 41));
    expect(queue.firstLost()!.sequence).toBe(0);
  });

  it("finds by time what no three later arrivals show, a quarter of a round trip after it should have come", () => {
    const queue = queueOf(2);
    queue.markSacked(100, 200, later(NOW, 20));
    expect(queue.markLost(20, later(NOW, 20))).toEqual({ news: 0, lookAgainAt: later(NOW, 25) });
    expect(queue.markLost(20, later(NOW, 24.9)).news).toBe(0);
    expect(queue.markLost(20, later(NOW, 25))).toEqual({ news: 1, lookAgainAt: undefined });
    expect(queue.firstLost()!.sequence).toBe(0);
  });

  it("keeps what was reported as received at a first timeout, and believes no report at the next", () => {
    const queue = queueOf(4);
    queue.markSacked(100, 200, later(NOW, 20));
    queue.markAllLost(false);
    expect([queue.sackedSegments, queue.pipeBytes]).toEqual([1, 0]);
    queue.markAllLost(true);
    expect(queue.sackedSegments).toBe(0);
  });

  it("learns from originals that arrive after all how far the path reorders", () => {
    const queue = queueOf(40);
    queue.markSacked(100, 1_000, later(NOW, 20));
    expect([queue.markLost(20, later(NOW, 20)).news, queue.reorderingThreshold]).toEqual([1, 3]);
    queue.handleResent(queue.firstLost()!, later(NOW, 20));
    queue.acknowledge(1_000, later(NOW, 24));
    expect([queue.needlessResends, queue.reorderingThreshold]).toEqual([1, 10]);
  });

  it("keeps its sums true whatever happens to it", () => {
    const action = fc.tuple(
      fc.constantFrom("append", "ack", "sack", "lose", "resend", "timeout"),
      fc.nat(20),
      fc.nat(20),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 80 }), (actions) => {
        const queue = new RetransmissionQueue(new BlockPool());
        let next = 0;
        let acknowledged = 0;
        let now = NOW;
        for (const [kind, a, b] of actions) {
          now = later(now, 3) as Instant;
          if (kind === "append") {
            queue.append(next, pattern(10), 10, false, now);
            next += 10;
          } else if (kind === "ack") {
            acknowledged = Math.min(next, acknowledged + 10 * (a % 4));
            queue.acknowledge(acknowledged, now);
          } else if (kind === "sack") queue.markSacked(acknowledged + 10 * a, acknowledged + 10 * (a + b), now);
          else if (kind === "lose") queue.markLost(a, now);
          else if (kind === "timeout") queue.markAllLost(b % 2 === 0);
          else {
            const lost = queue.firstLost();
            if (lost !== undefined) queue.handleResent(lost, now);
          }
          expect(queue.outstandingBytes).toBe(next - acknowledged);
          expect(queue.pipeBytes).toBeGreaterThanOrEqual(0);
          expect(queue.pipeBytes).toBeLessThanOrEqual(queue.outstandingBytes - 10 * queue.sackedSegments);
        }
        queue.acknowledge(next, now);
        expect([queue.length, queue.outstandingBytes, queue.pipeBytes, queue.sackedSegments]).toEqual([0, 0, 0, 0]);
        expect(queue.firstLost()).toBeUndefined();
      }),
    );
  });
});

describe("the queue", () => {
  it("gives items back in order, whatever is pushed, put in front and taken meanwhile", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("push", "unshift", "shift"), { maxLength: 2_000 }), (actions) => {
        const fifo = new Fifo<number>();
        const model: number[] = [];
        actions.forEach((action, i) => {
          if (action === "shift") expect(fifo.shift()).toBe(model.shift());
          else {
            model[action](i);
            fifo[action](i);
          }
          expect([fifo.length, fifo.peek()]).toEqual([model.length, model[0]]);
        });
      }),
    );
  });
});

describe("the deadline heap", () => {
  it("always names the earliest, however owners move and leave", () => {
    const move = fc.tuple(fc.nat(15), fc.option(fc.nat(100), { nil: undefined }));
    fc.assert(
      fc.property(fc.array(move, { maxLength: 200 }), (moves) => {
        const heap = new DeadlineHeap<number>();
        const model = new Map<number, number>();
        for (const [owner, at] of moves) {
          heap.set(owner, at === undefined ? undefined : { at: instant(at), reason: "test" });
          if (at === undefined) model.delete(owner);
          else model.set(owner, at);
          const earliest = model.size === 0 ? undefined : Math.min(...model.values());
          expect(heap.first()?.deadline.at).toBe(earliest);
          expect(heap.size).toBe(model.size);
        }
      }),
    );
  });
});

describe("the dial pacer", () => {
  it("says when the next SYN may go", () => {
    const pacer = new DialPacer();
    for (let i = 0; i < 8; i++) expect(pacer.take(NOW)).toBe(true);
    expect(pacer.take(NOW)).toBe(false);
    expect(pacer.nextAt).toBe(NOW + 125);
    expect(pacer.take(later(NOW, 125))).toBe(true);
  });
});

describe("a memory budget", () => {
  it("is what the narrowest of it and its parents leaves", () => {
    const all = new MemoryBudget(100);
    const [one, other] = [new MemoryBudget(80, all), new MemoryBudget(80, all)];
    one.reserve(70);
    expect([one.freeBytes, other.freeBytes]).toEqual([10, 30]);
    one.release(70);
    expect([all.heldBytes, other.freeBytes]).toEqual([0, 80]);
  });

  it("has everything back when a stream is over, read to the end or not", () => {
    const piece = fc.tuple(fc.nat(30), fc.integer({ min: 1, max: 8 }), fc.boolean());
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), fc.constantFrom("clear", "leave", "drop"), (pieces, end) => {
        const budget = new MemoryBudget(500);
        const reassembly = new Reassembly(0, 100, budget, new BlockPool());
        for (const [from, length, isRead] of pieces) {
          reassembly.place(reassembly.next - 5 + from, pattern(length));
          if (isRead) reassembly.read();
          expect(budget.heldBytes + reassembly.freeBytes).toBeGreaterThanOrEqual(100);
        }
        if (end === "drop") reassembly.dropFrom(reassembly.next);
        if (end === "leave") reassembly.leaveBudget();
        else reassembly.clear();
        while (reassembly.read() !== undefined);
        expect(budget.heldBytes).toBe(0);
      }),
    );
  });
});
