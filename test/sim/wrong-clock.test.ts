/** Machines whose clocks are set wrong, and letters that the registry stamps by its own; found by simulation. */
import { describe, expect, it } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import { befriend, type SimNode } from "../helpers/sim-network.ts";
import { ask, cutOff, revoke, statesOf, twoNodes } from "../helpers/sim-trust.ts";

const DAY_MS = 86_400_000;

const isAsked = (node: SimNode, by: SimNode) => node.book.get(by.node)?.request !== undefined;

describe.each([
  ["a minute and a half ahead", 90_000],
  ["a day ahead", DAY_MS],
  ["a day behind", -DAY_MS],
])("a node whose clock is %s", (_how, skewMs) => {
  it("takes an approval that only the registry could carry for the answer that it is", () => {
    const { network, a, b } = twoNodes(21, skewMs);
    network.tap = () => undefined;
    ask(a, b);
    network.runUntil(() => isAsked(b, a), 40_000);
    b.command((engine, now) => engine.introductions.approve(a.node, now));
    network.run(5_000);
    expect(statesOf(a, b)).toEqual(["mutual", "mutual"]);
  });

  it("takes none for the answer to an ask that was made five minutes after it", () => {
    const { network, a, b } = twoNodes(22, skewMs);
    network.tap = () => undefined;
    const at = network.wall;
    network.run(300_000);
    ask(a, b);
    network.runUntil(() => isAsked(b, a), 40_000);
    network.store.addInboxItem(a.node, { kind: "response", from: b.node, justification: "", accept: true, at });
    for (let i = 0; i < 50; i++) {
      network.run(100);
      expect(a.book.stateOf(b.node)).toBe("asked");
    }
    expect(network.store.inbox(a.node)).toEqual([]);
  });

  it("sees that somebody asks whom it has revoked before", () => {
    const { network, a, b } = twoNodes(23, skewMs);
    befriend(network, a, b);
    network.run(40_000);
    revoke(a, b);
    network.runUntil(() => b.book.stateOf(a.node) === "revoked-by-peer", 1_000);
    ask(b, a);
    network.run(40_000);
    expect(isAsked(a, b)).toBe(true);
    a.command((engine, now) => engine.introductions.approve(b.node, now));
    network.run(5_000);
    expect(statesOf(a, b)).toEqual(["mutual", "mutual"]);
  });
});

/** `b` trusts `a`, whose clock shows so much else when it revokes and has heard that `b` knows. */
function revokedAt(seed: number, skewMs: number) {
  const { network, a, b } = twoNodes(seed);
  befriend(network, a, b);
  network.run(40_000);
  a.wallSkewMs = skewMs;
  revoke(a, b);
  network.runUntil(() => b.book.stateOf(a.node) === "revoked-by-peer", 1_000);
  network.run(1_000);
  return { network, a, b };
}

describe.each([
  ["a day ahead", DAY_MS],
  ["a day behind", -DAY_MS],
])("a node whose clock was set %s before it revoked", (_how, skewMs) => {
  it("sees that it is asked again, though it reaches the registry anew and does not know its time", () => {
    const { network, a, b } = revokedAt(25, skewMs); // found by simulation, seed 40308 with 2 nodes
    a.disconnectRegistry();
    ask(b, a);
    network.run(2_000);
    a.reachesRegistry = true;
    a.loseRegistry();
    network.run(40_000);
    expect(isAsked(a, b)).toBe(true);
  });

  it("sees that it is asked again when the clock was set right meanwhile", () => {
    const { network, a, b } = revokedAt(26, skewMs);
    a.wallSkewMs = 0;
    ask(b, a);
    network.run(40_000);
    expect(isAsked(a, b)).toBe(true);
  });
});

describe("a letter that the registry hands out again", () => {
  it.each([0, DAY_MS, -DAY_MS])("is not shown beside the tombstone, with a clock set by %i ms", (skewMs) => {
    const { network, a, b } = twoNodes(27);
    ask(b, a);
    network.runUntil(() => isAsked(a, b), 40_000);
    const { stamp } = a.book.get(b.node)!.letter!;
    network.run(2_000);
    a.wallSkewMs = skewMs;
    revoke(a, b);
    const handOut = (at: WallClock) =>
      network.store.addInboxItem(a.node, { kind: "request", from: b.node, justification: "", accept: false, at });
    a.kill();
    a.start();
    network.run(2_000);
    handOut(stamp);
    network.run(70_000);
    expect(network.store.inbox(a.node)).toEqual([]);
    expect(isAsked(a, b)).toBe(false);
    handOut(network.wall);
    network.run(40_000);
    expect(isAsked(a, b)).toBe(true);
  });
});

describe("an approval that was lost on its way through the registry", () => {
  it("is heard in the session that the other side looks for, though no program there sends anything", () => {
    const { network, a, b } = twoNodes(24, 0);
    const mend = cutOff(network);
    ask(a, b);
    network.runUntil(() => isAsked(b, a), 40_000);
    b.command((engine, now) => engine.introductions.approve(a.node, now));
    network.runUntil(() => network.store.inbox(a.node).length > 0, 1_000);
    network.store.removeInboxFrom(a.node, b.node, "response");
    network.run(20_000);
    expect(statesOf(a, b)).toEqual(["asked", "mutual"]);
    mend();
    network.run(60_000);
    expect(statesOf(a, b)).toEqual(["mutual", "mutual"]);
  });
});
