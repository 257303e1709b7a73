/** What is in force: no policy, rules, a lockdown; and their ends. */
import { describe, expect, it } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import { parsePolicy } from "../../src/policy/parse-policy.ts";
import { LOCKED_DOWN, NO_POLICY, NO_RULE, Policy } from "../../src/policy/policy.ts";
import type { FlowFacts } from "../../src/policy/rule.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { ACCOUNTS } from "../helpers/accounts.ts";

const wall = (ms: number) => ms as WallClock;
const rulesOf = (text: string) => parsePolicy([{ file: "f", text, writtenAt: wall(0) }], ACCOUNTS).rules;
const flow = (node: number, port: number): FlowFacts => ({
  direction: "in",
  protocol: 6,
  port,
  node: nodeId(node),
  network: networkId(0),
  name: undefined,
  fingerprint: undefined,
  tags: [],
  owner: undefined,
});

describe("a policy", () => {
  it("that was never set lets every trusted peer reach every port, and an empty one nobody", () => {
    const policy = new Policy();
    expect(policy.judge(flow(7, 22))).toBe(NO_POLICY);
    expect(policy.allows(NO_POLICY)).toBe(true);
    policy.replace([], wall(0));
    expect(policy.judge(flow(7, 22))).toBe(NO_RULE);
    expect(policy.allows(NO_RULE)).toBe(false);
  });

  it("loses a rule at its end, and says once that verdicts changed", () => {
    const policy = new Policy();
    policy.replace(rulesOf("allow in tcp 22 from trusted for 2s\nallow in tcp 23 from trusted for 3s"), wall(0));
    expect(policy.expiresAt).toBe(2_000);
    expect(policy.expire(wall(1_999))).toBe(false);
    expect(policy.judge(flow(7, 22))).toBe(0);
    expect(policy.expire(wall(2_000))).toBe(true);
    expect(policy.judge(flow(7, 22))).toBe(NO_RULE);
    expect(policy.judge(flow(7, 23))).toBe(1);
    expect(policy.expire(wall(2_000))).toBe(false);
  });

  it("is overruled by a lockdown for all but the named, until it ends", () => {
    const policy = new Policy();
    policy.replace(rulesOf("allow in tcp 22 from trusted"), wall(0));
    policy.setLockdown({ except: [nodeId(8)], since: wall(0), until: wall(500) });
    expect(policy.judge(flow(7, 22))).toBe(LOCKED_DOWN);
    expect(policy.allows(LOCKED_DOWN)).toBe(false);
    expect(policy.judge(flow(8, 22))).toBe(0);
    expect(policy.judge(flow(8, 23))).toBe(NO_RULE);
    expect(policy.expire(wall(500))).toBe(true);
    expect(policy.lockdown).toBeUndefined();
    expect(policy.judge(flow(7, 22))).toBe(0);
  });
});
