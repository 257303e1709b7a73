/**
 * Lives of networks with faults of every kind, made from seeds: whatever happens, the invariants of test/scenarios/world.ts
 * hold, and in the end who may talk can. `scripts/simulate` runs as many more as there is time for.
 */
import { describe, expect, it } from "vitest";
import { report } from "../scenarios/main.ts";
import { makeScenario } from "../scenarios/scenario.ts";
import { live } from "../scenarios/world.ts";

/** How many seeds with how many nodes: small networks cost little, and show most of what there is to see. */
const PLAN = [
  { nodes: 2, seeds: 110 },
  { nodes: 3, seeds: 80 },
  { nodes: 4, seeds: 14 },
  { nodes: 6, seeds: 3 },
  { nodes: 12, seeds: 1 },
];

describe.each(PLAN)("in $seeds lives of a network of $nodes nodes", ({ nodes, seeds }) => {
  it("no packet passes without both consents, none is lost uncounted, and who may talk can in the end", {
    timeout: 300_000,
  }, () => {
    let delivered = 0;
    for (let seed = 1; seed <= seeds; seed++) {
      const scenario = makeScenario(seed, nodes);
      const outcome = live(scenario);
      delivered += outcome.delivered;
      expect(outcome.violation, outcome.violation && report(scenario, scenario.steps, outcome, nodes)).toBeUndefined();
    }
    expect(delivered).toBeGreaterThan(10 * seeds); // or nothing was tried at all
  });
});
