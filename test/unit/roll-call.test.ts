import { describe, expect, it } from "vitest";
import { after, type Instant, instant } from "../../src/base/instant.ts";
import { type Call, RollCall } from "../../src/engine/roll-call.ts";
import { nodeId } from "../../src/wire/ids.ts";

const CONNECTS: Call = { connects: true, locates: false };

function rollCall() {
  const called: { node: number; call: Call; at: Instant }[] = [];
  const roll = new RollCall((node, call, at) => called.push({ node, call, at }), instant(0));
  /** Wakes it whenever it wants to be, and no later than a minute after the start. */
  const run = () => {
    let wakeUps = 0;
    for (let at = roll.pollTimeout()?.at; at !== undefined && at < 600_000; at = roll.pollTimeout()?.at) {
      wakeUps++;
      roll.handleTimeout(at);
    }
    return wakeUps;
  };
  return { roll, called, run };
}

describe("peers that are to be reached", () => {
  it("are called at once when they are few, and nobody is woken for them later", () => {
    const { roll, called } = rollCall();
    for (let node = 1; node <= 50; node++) roll.add(nodeId(node), CONNECTS);
    roll.handleTimeout(instant(0));
    expect(called).toHaveLength(50);
    expect(roll.pollTimeout()).toBeUndefined();
  });

  it("are called a hundred a second when they are thousands, each once, in the order in which they were added", () => {
    const { roll, called, run } = rollCall();
    for (let node = 1; node <= 10_000; node++) roll.add(nodeId(node), CONNECTS);
    roll.handleTimeout(instant(0));
    expect(called.length).toBeLessThan(100);
    const wakeUps = run();
    expect(called.map(({ node }) => node)).toEqual(Array.from({ length: 10_000 }, (_, index) => index + 1));
    expect(called.at(-1)!.at).toBeGreaterThan(90_000);
    expect(called.at(-1)!.at).toBeLessThan(110_000);
    expect(wakeUps).toBeLessThan(1_100);
    for (let from = 0; from < 100_000; from += 1_000) {
      const inSecond = called.filter(({ at }) => at > from && at <= after(instant(from), 1_000));
      expect(inSecond.length).toBeLessThanOrEqual(110);
    }
  });

  it("keep their place and get all that is wanted of them when they are added again", () => {
    const { roll, called, run } = rollCall();
    for (let node = 1; node <= 200; node++) roll.add(nodeId(node), CONNECTS);
    roll.handleTimeout(instant(0));
    for (let node = 200; node >= 100; node--) roll.add(nodeId(node), { connects: false, locates: true });
    run();
    expect(called.map(({ node }) => node)).toEqual(Array.from({ length: 200 }, (_, index) => index + 1));
    expect(called[150]!.call).toEqual({ connects: true, locates: true });
    expect(called[20]!.call).toEqual(CONNECTS);
  });
});
