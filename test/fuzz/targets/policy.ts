/** Policy text: read, compiled, and compared with the plain meaning of its rules for flows the input chooses. */
import type { WallClock } from "../../../src/base/instant.ts";
import { CompiledPolicy, NO_RULE } from "../../../src/policy/compiled-policy.ts";
import { failedTests, firstMatch } from "../../../src/policy/evaluate.ts";
import { parseInSteps, parsePolicy } from "../../../src/policy/parse-policy.ts";
import type { Accounts } from "../../../src/policy/parse-selector.ts";
import type { FlowFacts } from "../../../src/policy/rule.ts";
import { networkId, nodeId } from "../../../src/wire/ids.ts";
import { demand, demandSame, FuzzInput, textOf } from "../input.ts";

const WALL = 1_900_000_000_000 as WallClock;

export function fuzz(data: Uint8Array): void {
  const input = new FuzzInput(data);
  const flow = flowFrom(input);
  const source = { file: "policy", text: textOf(input.rest()), writtenAt: WALL };
  const parsed = parsePolicy([source], ACCOUNTS);
  demandSame(drained(parseInSteps([source], ACCOUNTS, 1)), parsed, "a policy read in steps is the same");
  const lines = source.text.split(/\r\n|\r|\n/).length;
  for (const { line, column, message, hint } of parsed.problems) {
    demand(
      line >= 1 && line <= lines && column >= 1 && message !== "" && hint !== "",
      "a problem has a place",
      line,
      column,
    );
  }
  if (parsed.problems.length > 0) return;
  const compiled = new CompiledPolicy(parsed.rules, WALL);
  const plain = firstMatch(parsed.rules, flow, WALL) ?? NO_RULE;
  demand(compiled.decide(flow) === plain, "the compiled policy decides as its text says", compiled.decide(flow), plain);
  compiled.ownerMatters(flow);
  failedTests(parsed.rules, parsed.tests, () => undefined, WALL);
  // What is shown of a rule is what it is: read again, it is the same rule.
  const again = parsePolicy([{ ...source, text: parsed.rules.map(({ text }) => text).join("\n") }], ACCOUNTS);
  demand(again.problems.length === 0, "the text of a rule is a rule", again.problems[0]);
  demand(firstMatchOf(again.rules, flow) === plain, "the text of a rule means the rule");
}

function firstMatchOf(rules: Parameters<typeof firstMatch>[0], flow: FlowFacts): number {
  return firstMatch(rules, flow, WALL) ?? NO_RULE;
}

function flowFrom(input: FuzzInput): FlowFacts {
  return {
    direction: input.pick(["in", "out"] as const),
    protocol: input.pick([6, 17, 58, 132]),
    port: input.pick([0, 22, 80, 443, 8080, 65_535]),
    node: nodeId(1 + input.below(3)),
    network: networkId(input.below(3)),
    name: input.pick([undefined, "alice", "bob", "a"]),
    fingerprint: input.pick([undefined, `SHA256:${"A".repeat(43)}`]),
    tags: input.pick([[], ["web"], ["web", "db"]]),
    owner: input.pick([
      undefined,
      { uid: 0, cgroup: undefined, programs: [] },
      { uid: 1000, cgroup: "/system.slice/a.service", programs: [] },
      { uid: 33, cgroup: "/a/b", programs: [{ pid: 7, name: "a", groups: [100], cgroup: "/a/b" }] },
    ]),
  };
}

function drained<T>(steps: Generator<void, T>): T {
  for (let step = steps.next(); ; step = steps.next()) if (step.done) return step.value;
}

const USERS = new Map([
  ["root", 0],
  ["alice", 1000],
]);
const GROUPS = new Map([
  ["root", 0],
  ["users", 100],
]);
const ACCOUNTS: Accounts = {
  userId: (name) => USERS.get(name),
  groupId: (name) => GROUPS.get(name),
  userNames: [...USERS.keys()],
  groupNames: [...GROUPS.keys()],
  obstacleTo: () => undefined,
};
