/** The policy language, line by line. */
import { describe, expect, it } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import { failedTests } from "../../src/policy/evaluate.ts";
import { parsePolicy } from "../../src/policy/parse-policy.ts";
import { nodeId } from "../../src/wire/ids.ts";

const WRITTEN = Date.UTC(2030, 0, 1) as WallClock;
const parse = (text: string) => parsePolicy([{ file: "policy", text, writtenAt: WRITTEN }]);
const problems = (text: string) =>
  parse(text).problems.map(({ line, column, message, hint }) => `${line}:${column}: ${message}. ${hint}`);

describe("a rule", () => {
  it("is read with its ports, peer, end and place", () => {
    const { rules } = parse("default deny\n  allow in tcp 80,8000-8099 from Bob.pilot for 2h # web\n");
    expect(rules).toEqual([
      {
        action: "allow",
        direction: "in",
        protocol: "tcp",
        ports: [
          { first: 80, last: 80 },
          { first: 8000, last: 8099 },
        ],
        peer: { kind: "name", name: "bob" },
        until: WRITTEN + 7_200_000,
        source: { file: "policy", line: 2, column: 3 },
        text: "allow in tcp 80,8000-8099 from Bob.pilot for 2h",
      },
    ]);
  });

  it("that ends on a day holds until the day is over, and one with a time until then", () => {
    const { rules } = parse(
      "allow in any from trusted until 2030-02-28\nallow out icmp to network:3 until 2030-03-01T12:30Z",
    );
    expect(rules.map((rule) => rule.until)).toEqual([Date.UTC(2030, 2, 1), Date.UTC(2030, 2, 1, 12, 30)]);
  });
});

describe("a mistake", () => {
  it.each([
    ["alow in tcp 22 from bob", '1:1: Unknown word "alow" at the start of a rule. Did you mean allow?'],
    ["allow in tpc 22 from bob", '1:10: Unknown word "tpc" after in. Did you mean tcp?'],
    ["allow in tcp 22 to bob", '1:17: Unknown word "to" in a rule for in. Write from.'],
    ["allow in tcp 70000 from bob", '1:14: "70000" is not a list of ports.'],
    ["allow in tcp 90-80 from bob", '1:14: "90-80" is not a list of ports.'],
    ["allow in icmp 22 from bob", "1:15: icmp has no ports."],
    ["allow in tcp 22 from", "1:21: A peer is missing after from."],
    ["allow in tcp 22 from trustd", '1:22: "trustd" could be taken for trusted. Did you mean trusted?'],
    ["allow in tcp 22 from any", '1:22: "any" could be taken for trusted. Did you mean trusted?'],
    ["allow in tcp 22 from bob until 2030-02-30", '1:32: "2030-02-30" is not a date.'],
    ["allow in tcp 22 from bob for ever", '1:30: "ever" is not a duration.'],
    ["allow in tcp 22 from bob for 2h 3", '1:33: Unknown word "3" here, where the line should end.'],
    ["default allow", '1:9: Unknown word "allow" after default. Write deny.'],
    ["test allow in tcp from bob", "1:1: A test speaks of one flow."],
    ["allow in tcp 22 from 1:0002.0000.0001", '1:22: "1:0002.0000.0001" is not a Pilot address'],
  ])("in %j is told with its place and what would be right", (line, told) => {
    expect(problems(line)).toHaveLength(1);
    expect(problems(line)[0]).toContain(told);
  });

  it.each(["limit 5MB/s", "budget 50MB/h", "flows 20/m", "via direct"])(
    "%s is refused: it would not be kept",
    (words) => {
      expect(problems(`allow out tcp 443 to bob ${words}`)[0]).toMatch(/^1:26: "\w+" is not supported: /);
    },
  );

  it.each(["user:ann", "group:ops", "unit:a.service", "tag:web", "chain(a)"])(
    "%s selects nobody, and is refused",
    (peer) => {
      expect(problems(`allow in tcp 22 from ${peer}`)).toHaveLength(1);
    },
  );

  it("does not hide the next one", () => {
    expect(problems("alow in tcp 1 from b\n\nallow inn tcp 1 from b\nallow in tcp 1 from b")).toHaveLength(2);
  });
});

describe("a test line", () => {
  it("fails when the rules say otherwise, and names the rule", () => {
    const { rules, tests } = parse(
      "deny in tcp 22 from bob\nallow in tcp from trusted\ntest allow in tcp 22 from bob\ntest allow in tcp 22 from carol\n" +
        "test deny out udp 53 to bob\ntest allow out udp 53 to bob",
    );
    const failed = failedTests(rules, tests, () => undefined, WRITTEN);
    expect(failed.map(({ test, rule }) => [test.source.line, rule?.source.line])).toEqual([
      [3, 1],
      [6, undefined],
    ]);
  });

  it("knows a peer by all its names", () => {
    const { rules, tests } = parse("allow in tcp 22 from 0:0000.0000.0007\ntest allow in tcp 22 from bob");
    const bob = { node: nodeId(7), name: "bob", fingerprint: undefined };
    expect(failedTests(rules, tests, () => undefined, WRITTEN)).toHaveLength(1);
    expect(failedTests(rules, tests, () => bob, WRITTEN)).toEqual([]);
  });
});
