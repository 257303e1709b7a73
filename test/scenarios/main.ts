/** scripts/simulate: many seeds, or one again. */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { tryMutants } from "./mutants.ts";
import { makeScenario, type Scenario, type Step } from "./scenario.ts";
import { live, type Outcome } from "./world.ts";

const USAGE = `usage: scripts/simulate [--seeds N] [--from S] [--nodes N]
       scripts/simulate --seed S [--nodes N] [--only 1,2,…] [--log]
       scripts/simulate --mutants [--seeds N] [--from MUTANT]

  --seeds N   how many lives (100), from seed --from S (1) on
  --nodes N   in each network; by default each seed chooses, 2 to 50
  --seed S    this one; --only these of its steps; --log shows what happened although all went well
  --first     ends with the first life that breaks an invariant, and shows it as it was
  --mutants   takes one thing after the other out of the product, and looks whether some life shows it`;

function main(): number {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string", default: "100" },
      from: { type: "string", default: "1" },
      seed: { type: "string" },
      nodes: { type: "string" },
      only: { type: "string" },
      log: { type: "boolean", default: false },
      first: { type: "boolean", default: false },
      mutants: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return say(USAGE);
  const from = Number(values.seed ?? values.from);
  const count = values.seed === undefined ? Number(values.seeds) : 1;
  const nodes = values.nodes === undefined ? undefined : Number(values.nodes);
  if (![from, count, nodes ?? 2].every((value) => Number.isInteger(value) && value > 0)) return say(USAGE, 2);
  if (values.mutants) return tryMutants(join(import.meta.dirname, "../.."), count, from) === 0 ? 0 : 1;
  const chosen = values.only?.split(",").map(Number);
  let [failed, sent, delivered, pairs] = [0, 0, 0, 0];
  for (let seed = from; seed < from + count; seed++) {
    const scenario = makeScenario(seed, nodes);
    const steps = chosen === undefined ? scenario.steps : scenario.steps.filter((_, i) => chosen.includes(i));
    const outcome = live(scenario, steps);
    sent += outcome.sent;
    delivered += outcome.delivered;
    pairs += outcome.pairs;
    if (values.log && outcome.violation === undefined) say(outcome.log.join("\n"));
    if (outcome.violation === undefined) continue;
    failed++;
    say(values.first ? headline(scenario, outcome) : report(scenario, steps, outcome, nodes));
    if (values.first) return 1;
  }
  say(
    `${count} lives, ${failed} with a violation; ${sent} packets sent, ${delivered} delivered, ${pairs} pairs that reach each other in the end`,
  );
  return failed === 0 ? 0 : 1;
}

/** What happened, in as few steps as show it, and how to see it again. */
export function report(scenario: Scenario, steps: readonly Step[], outcome: Outcome, nodes?: number): string {
  const [fewest, shown] = shrink(scenario, steps, outcome);
  const only = fewest.map((step) => scenario.steps.indexOf(step)).join(",");
  const command = `scripts/simulate --seed ${scenario.seed}${nodes === undefined ? "" : ` --nodes ${nodes}`}`;
  return [
    headline(scenario, shown),
    ...scenario.nodes.map(
      (node, i) =>
        `  n${i}${i === scenario.hostile ? " (modified)" : ""}: ${node.router === undefined ? "public" : `${node.routerKind}, router ${node.router}`}${node.relayOnly ? ", relay only" : ""}`,
    ),
    ...shown.log.map((line) => `  ${line}`),
    `again: ${command}`,
    `the ${fewest.length} of ${steps.length} steps above: ${command} --only ${only}`,
  ].join("\n");
}

function headline({ seed }: Scenario, { violation }: Outcome): string {
  const { invariant, detail, atMs } = violation!;
  return `seed ${seed}: "${invariant}" does not hold at ${(atMs / 1000).toFixed(3)} s: ${detail}`;
}

/** Leaves out steps as long as the same invariant breaks: halves first, then ever smaller parts, at most MAX_TRIES times. */
function shrink(scenario: Scenario, steps: readonly Step[], outcome: Outcome): [readonly Step[], Outcome] {
  let [best, shown] = [steps, outcome];
  let tries = 1;
  const quiet = steps.filter(({ act }) => act.kind !== "send");
  const silent = live(scenario, quiet);
  if (silent.violation?.invariant === outcome.violation!.invariant) [best, shown] = [quiet, silent];
  for (let size = best.length >> 1; size >= 1 && tries < MAX_TRIES; size >>= 1) {
    for (let at = 0; at < best.length && tries < MAX_TRIES; ) {
      const fewer = [...best.slice(0, at), ...best.slice(at + size)];
      const again = live(scenario, fewer);
      tries++;
      if (again.violation?.invariant === outcome.violation!.invariant) [best, shown] = [fewer, again];
      else at += size;
    }
  }
  return [best, shown];
}

function say(text: string, status = 0): number {
  console.log(text);
  return status;
}

const MAX_TRIES = 120;

if (import.meta.main) process.exitCode = main();
