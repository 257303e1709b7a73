/** Machines whose clocks are set wrong, and letters that the registry stamps by its own; found by simulation. */
import { describe, expect, it } from "vitest";
import { befriend, type SimNode } from "../helpers/sim-network.ts";
import { ask, revoke, statesOf, twoNodes } from "../helpers/sim-trust.ts";

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

describe("an approval that was lost on its way through the registry", () => {
  it("is heard in the session that the other side looks for, though no program there sends anything", () => {
    const { network, a, b } = twoNodes(24, 0);
    let isParted = true;
    network.tap = (flight) => (isParted ? undefined : flight);
    ask(a, b);
    network.runUntil(() => isAsked(b, a), 40_000);
    b.command((engine, now) => engine.introductions.approve(a.node, now));
    network.runUntil(() => network.store.inbox(a.node).length > 0, 1_000);
    network.store.removeInboxFrom(a.node, b.node);
    network.run(20_000);
    expect(statesOf(a, b)).toEqual(["asked", "mutual"]);
    isParted = false;
    network.run(60_000);
    expect(statesOf(a, b)).toEqual(["mutual", "mutual"]);
  });
});
