import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { MtuSearch, type MtuSearchGoal } from "../../src/tunnel/mtu-search.ts";

const GOAL: MtuSearchGoal = { first: [1458, 1500], enough: 1458, known: 0, waitMs: 100 };

/** Runs a search over a path; `passes` says whether a probe of this size is answered, the n-th time it is sent. */
function run(goal: MtuSearchGoal, passes: (size: number, attempt: number) => boolean) {
  const search = new MtuSearch(goal, instant(0));
  const attempts = new Map<number, number>();
  let now = 0;
  while (search.deadline !== undefined) {
    const flight: number[] = [];
    for (let size = search.pollProbe(); size !== undefined; size = search.pollProbe()) flight.push(size);
    for (const size of flight) {
      attempts.set(size, (attempts.get(size) ?? 0) + 1);
      if (passes(size, attempts.get(size)!)) search.handleAnswer(size, instant(now + 1));
    }
    if (search.deadline === undefined) break;
    now = search.deadline;
    search.handleTimeout(instant(now));
  }
  const probes = [...attempts.values()].reduce((sum, count) => sum + count, 0);
  return { found: search.found, tookMs: now, probes };
}

describe("the search for a path's MTU", () => {
  it("ends with one flight where a full Ethernet frame passes", () => {
    expect(run(GOAL, () => true)).toEqual({ found: 1500, tookMs: 0, probes: 2 });
  });

  it("finds every MTU from 576 up exactly, in less than three seconds of waiting and few probes", () => {
    for (let mtu = 576; mtu < 1458; mtu++) {
      const { found, tookMs, probes } = run(GOAL, (size) => size <= mtu);
      expect(found).toBe(mtu);
      expect(tookMs).toBeLessThan(3_000);
      expect(probes).toBeLessThan(100);
    }
  });

  it("asks for no more than is enough", () => {
    expect(run(GOAL, (size) => size <= 1470).found).toBe(1458);
  });

  it("is not misled by two lost probes of each size", () => {
    expect(run(GOAL, (size, attempt) => size <= 1280 && attempt >= 3).found).toBe(1280);
  });

  it("finds nothing where nothing is answered, and ends", () => {
    const { found, probes } = run(GOAL, () => false);
    expect(found).toBeUndefined();
    expect(probes).toBeLessThan(40);
  });

  it("ends after one round when a known size is not outdone", () => {
    const raise = { first: [1500, 1458, 1280], enough: 1458, known: 1100, waitMs: 100 };
    expect(run(raise, (size) => size <= 1100)).toEqual({ found: 1100, tookMs: 300, probes: 9 });
    expect(run(raise, (size) => size <= 1300).found).toBe(1300);
  });

  it("counts an answer that comes after the next try has begun", () => {
    const search = new MtuSearch(GOAL, instant(0));
    search.handleTimeout(instant(100));
    search.handleTimeout(instant(200));
    search.handleTimeout(instant(300));
    search.handleAnswer(1458, instant(301));
    expect(search.found).toBe(1458);
    expect(search.deadline).toBeUndefined();
  });
});
