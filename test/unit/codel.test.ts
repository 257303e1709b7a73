import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { CoDel, INTERVAL_MS, TARGET_MS } from "../../src/tunnel/codel.ts";

const MANY_BYTES = 1_000_000;
const LONG_MS = 4 * TARGET_MS;

/** When something is dropped from a queue that is looked at every millisecond. */
function dropsOf(codel: CoDel, fromMs: number, toMs: number, waitedMs = LONG_MS): number[] {
  const drops: number[] = [];
  for (let at = fromMs; at < toMs; at++) if (codel.shouldDrop(instant(at), waitedMs, MANY_BYTES)) drops.push(at);
  return drops;
}

describe("CoDel", () => {
  it("drops nothing of a queue that is short, and nothing of a burst that drains within an interval", () => {
    const codel = new CoDel();
    expect(dropsOf(codel, 0, 1_000, TARGET_MS - 1)).toEqual([]);
    expect(dropsOf(codel, 1_000, 1_000 + INTERVAL_MS - 1)).toEqual([]);
    expect(dropsOf(codel, 1_100, 1_101, TARGET_MS - 1)).toEqual([]);
    expect(dropsOf(codel, 1_101, 1_101 + INTERVAL_MS)).toEqual([]);
  });

  it("drops one packet after an interval, and further ones sooner by the square root of their number", () => {
    const drops = dropsOf(new CoDel(), 0, 800);
    expect(drops[0]).toBe(INTERVAL_MS);
    const [, ...pauses] = drops.map((at, i) => at - (drops[i - 1] ?? 0));
    for (const [i, pause] of pauses.entries()) {
      // Each was due at a moment between two looks.
      expect(Math.abs(pause - INTERVAL_MS / Math.sqrt(i + 1))).toBeLessThanOrEqual(1);
    }
    expect(pauses.length).toBeGreaterThan(8);
  });

  it("stops at once when the wait is short, and goes on near its last rate if it soon is long again", () => {
    const codel = new CoDel();
    const before = dropsOf(codel, 0, 600);
    expect(dropsOf(codel, 600, 650, 0)).toEqual([]);
    const again = dropsOf(codel, 650, 650 + INTERVAL_MS + 100);
    expect(again[0]).toBe(650 + INTERVAL_MS);
    expect(again[1]! - again[0]!).toBeLessThan(INTERVAL_MS / Math.sqrt(before.length / 2));
  });

  it("begins anew when the queue was short for long", () => {
    const codel = new CoDel();
    dropsOf(codel, 0, 600);
    expect(dropsOf(codel, 600, 3_000, 0)).toEqual([]);
    const [first, second] = dropsOf(codel, 3_000, 3_400);
    expect(second! - first!).toBe(INTERVAL_MS);
  });

  it("does not take one packet for a queue, however long it waits", () => {
    const codel = new CoDel();
    for (let at = 0; at < 1_000; at++) expect(codel.shouldDrop(instant(at), 50, 1_500)).toBe(false);
  });
});
