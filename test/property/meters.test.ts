/** What meters count, against lists of everything that happened. */
import fc from "fast-check";
import { expect, it } from "vitest";
import { type Instant, instant } from "../../src/base/instant.ts";
import { TokenBucket } from "../../src/base/token-bucket.ts";
import { Meter } from "../../src/policy/meters.ts";
import { SlidingCount } from "../../src/policy/sliding-count.ts";

interface Happened {
  readonly at: number;
  readonly amount: number;
}

const steps = fc.array(
  fc.record({ waitMs: fc.oneof(fc.nat(50), fc.nat(2_000), fc.nat(100_000)), amount: fc.integer({ min: 1, max: 400 }) }),
  { maxLength: 200 },
);
const within = (all: readonly Happened[], now: number, ms: number) =>
  all.filter(({ at }) => at > now - ms && at <= now).reduce((sum, { amount }) => sum + amount, 0);

it("counts at least what there was in the window, and nothing older than one piece more", () => {
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 30_000 }), (all, windowMs) => {
      const count = new SlidingCount({ most: 1_000, windowMs });
      const happened: Happened[] = [];
      let now = 5;
      for (const { waitMs, amount } of all) {
        now += waitMs;
        const used = count.used(instant(now));
        expect(used).toBeGreaterThanOrEqual(within(happened, now, windowMs));
        expect(used).toBeLessThanOrEqual(within(happened, now, windowMs * (33 / 32) + 1e-6));
        count.add(amount, instant(now));
        happened.push({ at: now, amount });
      }
    }),
  );
});

it("lets no more than the quota into any stretch of its length, and all of it when nothing else was there", () => {
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 30_000 }), (all, windowMs) => {
      const most = 1_000;
      const meter = new Meter(
        { limitBytesPerS: undefined, budget: { most, windowMs }, flows: undefined, via: undefined },
        instant(0),
      );
      const passed: Happened[] = [];
      let now = 0;
      for (const { waitMs, amount } of all) {
        now += waitMs;
        const spent = meter.pass(amount % 2 === 0 ? "in" : "out", amount, instant(now));
        if (spent === undefined) passed.push({ at: now, amount });
        else expect(within(passed, now, windowMs * (33 / 32) + 1e-6) + amount).toBeGreaterThan(most);
      }
      for (const { at } of passed) expect(within(passed, at, windowMs)).toBeLessThanOrEqual(most);
    }),
  );
});

it("keeps a rate on average, also for things larger than its burst", () => {
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 5_000 }), (all, rate) => {
      const burst = 100;
      const bucket = new TokenBucket(rate, burst, instant(0));
      const passed: Happened[] = [];
      let now = 0;
      for (const { waitMs, amount } of all) {
        now += waitMs;
        if (bucket.takeOnCredit(now as Instant, amount)) passed.push({ at: now, amount });
      }
      passed.forEach((begin, index) => {
        let sum = 0;
        for (const { at, amount } of passed.slice(index)) {
          // What stood in the bucket, what ran in since, and one that went into debt.
          expect(sum).toBeLessThan(burst + (rate * (at - begin.at)) / 1_000 + 1e-6);
          sum += amount;
        }
      });
    }),
  );
});

it("counts flows only when they begin", () => {
  const meter = new Meter(
    { limitBytesPerS: undefined, budget: undefined, flows: { most: 2, windowMs: 1_000 }, via: undefined },
    instant(0),
  );
  expect([1, 2, 3].map(() => meter.mayBegin(instant(0)))).toEqual([undefined, undefined, undefined]);
  meter.noteBegun(instant(0));
  meter.noteBegun(instant(1));
  expect(meter.mayBegin(instant(2))).toBe("over-flows");
  expect(meter.mayBegin(instant(1_100))).toBeUndefined();
});

it("lets no flow begin where the largest run of packets, with their headers, was refused", () => {
  const run = 65_536 + 180 * 72;
  const terms = {
    limitBytesPerS: undefined,
    budget: { most: 2_000_000, windowMs: 3_600_000 },
    flows: undefined,
    via: undefined,
  };
  for (let left = 0; left < run; left += 500) {
    const meter = new Meter(terms, instant(0));
    expect(meter.pass("in", terms.budget.most - left, instant(0))).toBeUndefined();
    expect(meter.pass("in", run, instant(0))).toBe("over-budget");
    expect(meter.mayBegin(instant(0))).toBe("over-budget");
  }
});
