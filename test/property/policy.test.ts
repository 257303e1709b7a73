/** The compiled policy against the plain reading of its rules, and the parser against any text. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import { CompiledPolicy, NO_RULE } from "../../src/policy/compiled-policy.ts";
import { firstMatch } from "../../src/policy/evaluate.ts";
import { parsePolicy } from "../../src/policy/parse-policy.ts";
import type { FlowFacts } from "../../src/policy/rule.ts";
import type { SocketOwner } from "../../src/policy/socket-owner.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { ACCOUNTS } from "../helpers/accounts.ts";

const wall = (ms: number) => ms as WallClock;
const key = (letter: string) => `SHA256:${letter.repeat(43)}`;
const NAMES = ["bob", "carol", "toString"];

const selectorText = fc.oneof(
  fc.constant("trusted"),
  fc.constantFrom("bob", "carol.pilot", "constructor"),
  fc.nat(3).map((node) => `1:0001.0000.000${node}`),
  fc.nat(3).map((node) => `0:0000.0000.000${node}`),
  fc.nat(2).map((network) => `network:${network}`),
  fc.constantFrom("A", "B").map((letter) => `key:${key(letter)}`),
  fc.constantFrom("web", "db").map((tag) => `tag:${tag}`),
);
const ownerText = fc.constantFrom(
  ...["user:ann", "user:0", "group:ops", "group:0", "unit:a.service", "unit:session-1.scope"],
  ...["cgroup:/", "cgroup:/system.slice", "cgroup:/system.slice/a.service", "cgroup:/user.slice"],
);
const option = (text: fc.Arbitrary<string>) =>
  fc.oneof({ weight: 3, arbitrary: fc.constant("") }, { weight: 1, arbitrary: text });
const terms = fc
  .tuple(
    option(fc.constantFrom(" limit 5MB/s", " limit 8kbit/s")),
    option(fc.constantFrom(" budget 50MB/h", " budget 1KiB/10m")),
    option(fc.constantFrom(" flows 20/m", " flows 1/2d")),
    option(fc.constantFrom(" via direct", " via relay")),
  )
  .map((words) => words.join(""));
const port = fc.oneof(fc.constantFrom(0, 1, 22, 80, 443, 65_535), fc.nat(65_535), fc.nat(12));
const range = fc.tuple(port, port).map(([a, b]) => (a === b ? `${a}` : `${Math.min(a, b)}-${Math.max(a, b)}`));
const ports = fc.array(range, { minLength: 1, maxLength: 4 }).map((list) => list.join(","));
const end = fc.oneof(
  { weight: 4, arbitrary: fc.constant("") },
  fc.integer({ min: 1, max: 9 }).map((seconds) => ` for ${seconds}s`),
);
const ruleText = fc
  .tuple(
    fc.constantFrom("allow", "deny"),
    fc.constantFrom("in", "out"),
    fc.oneof(
      fc.constantFrom("tcp", "udp", "icmp", "any"),
      fc.tuple(fc.constantFrom("tcp", "udp"), ports).map(([protocol, list]) => `${protocol} ${list}`),
    ),
    selectorText,
    option(ownerText.map((owner) => ` by ${owner}`)),
    end,
    terms,
  )
  .map(([action, direction, what, peer, by, until, granted]) => {
    const owner = direction === "in" && what === "icmp" ? "" : by;
    const head = `${action} ${direction} ${what} ${direction === "in" ? "from" : "to"} ${peer}${owner}${until}`;
    return action === "deny" ? head : head + granted;
  });
const CGROUPS = ["/", "/system.slice/a.service", "/user.slice/user-1.slice/session-1.scope", "/x/a.service/b"];
const owner: fc.Arbitrary<SocketOwner> = fc.record({
  uid: fc.constantFrom(0, 1000, 1001),
  cgroup: fc.constantFrom(undefined, ...CGROUPS),
  programs: fc.array(
    fc.record({
      pid: fc.nat(9),
      name: fc.constant("x"),
      groups: fc.subarray([0, 200, 201]),
      cgroup: fc.constantFrom(undefined, ...CGROUPS),
    }),
    { maxLength: 2 },
  ),
});
const flow: fc.Arbitrary<FlowFacts> = fc.record({
  direction: fc.constantFrom("in" as const, "out" as const),
  protocol: fc.constantFrom(6, 17, 58, 50, 132),
  port,
  node: fc.nat(3).map(nodeId),
  network: fc.nat(2).map(networkId),
  name: fc.constantFrom(undefined, ...NAMES),
  fingerprint: fc.constantFrom(undefined, key("A"), key("B"), key("C")),
  tags: fc.subarray(["web", "db", "x"]),
  owner: fc.option(owner, { nil: undefined }),
});

describe("the compiled policy", () => {
  it("names the same rule as reading the rules one after the other, at every moment", () => {
    fc.assert(
      fc.property(
        fc.array(ruleText, { maxLength: 40 }),
        fc.array(flow, { minLength: 1, maxLength: 40 }),
        fc.nat(10_000),
        (lines, flows, at) => {
          const { rules, problems } = parsePolicy(
            [{ file: "f", text: lines.join("\n"), writtenAt: wall(0) }],
            ACCOUNTS,
          );
          expect(problems).toEqual([]);
          expect(rules).toHaveLength(lines.length);
          const compiled = new CompiledPolicy(rules, wall(at));
          for (const one of flows) {
            expect(compiled.decide(one)).toBe(firstMatch(rules, one, wall(at)) ?? NO_RULE);
            if (compiled.ownerMatters(one)) continue;
            for (const other of flows) {
              expect(compiled.decide({ ...one, owner: other.owner })).toBe(compiled.decide(one));
            }
          }
          const ends = rules.flatMap((rule) => (rule.until !== undefined && rule.until > at ? [rule.until] : []));
          expect(compiled.expiresAt).toBe(ends.length === 0 ? undefined : Math.min(...ends));
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("the parser", () => {
  const anyWord = fc.oneof(
    fc.constantFrom("default", "deny", "allow", "test", "in", "out", "tcp", "any", "80", "80-", "from", "to", "until"),
    fc.constantFrom("for", "2h", "2030-02-30", "trusted", "user:ann", "limit", "__proto__", "constructor", "#", "\t"),
    fc.constantFrom("by", "by user:ann", "limit 5MB/s", "budget 1GB/d", "flows 3/s", "via", "relay", "tag:a", "unit:"),
    fc.constantFrom("0:0000", "network:x", "key:", ",", "-", "99999999999999999999", "\u2028", "\ud800"),
    fc.string({ maxLength: 12 }),
  );
  const anyText = fc
    .array(fc.array(anyWord, { maxLength: 10 }), { maxLength: 12 })
    .map((lines) => lines.map((words) => words.join(" ")).join("\n"));

  it("takes any text without throwing, and each line is a rule, a test, a default, empty or a problem with its place", () => {
    fc.assert(
      fc.property(fc.oneof(anyText, fc.string()), (text) => {
        const { rules, tests, problems } = parsePolicy([{ file: "f", text, writtenAt: wall(0) }], ACCOUNTS);
        const lines = text.split(/\r\n|\r|\n/);
        for (const { file, line, column, message, hint } of problems) {
          expect(file).toBe("f");
          expect(line).toBeGreaterThanOrEqual(1);
          expect(line).toBeLessThanOrEqual(lines.length);
          expect(column).toBeGreaterThanOrEqual(1);
          expect(column).toBeLessThanOrEqual(lines[line - 1]!.length + 1);
          expect(message).not.toBe("");
          expect(hint).not.toBe("");
        }
        const told = new Set([...rules, ...tests].map((part) => part.source.line));
        for (const problem of problems) expect(told.has(problem.line)).toBe(false);
        lines.forEach((line, index) => {
          const words = line.replace(/#.*$/s, "").trim();
          if (words === "" || /^default\s+deny$/.test(words)) return;
          expect(told.has(index + 1) || problems.some((problem) => problem.line === index + 1)).toBe(true);
        });
      }),
      { numRuns: 1_000 },
    );
  });

  /** A line with every word of the language that could be mistyped, and where each begins. */
  const LINES = [
    "allow in tcp 22 from trusted by user:ann for 2h limit 5MB/s",
    "deny out udp 53 to network:1 until 2030-01-01",
    "allow out any to tag:web via direct budget 5MB/h flows 3/m",
    "allow in icmp from trusted via relay",
    "default deny",
    "test deny in tcp 22 from trusted",
  ];
  const WORDS = ["allow", "deny", "test", "default", "in", "out", "tcp", "udp", "icmp", "any", "from", "to", "trusted"];
  const LATER = ["by", "for", "until", "limit", "budget", "flows", "via", "direct", "relay"];
  const PREFIXES = ["user:ann", "network:1", "tag:web"];
  const known = new Set([...WORDS, ...LATER, ...PREFIXES]);
  const places = LINES.flatMap((line, at) =>
    [...line.matchAll(/\S+/g)].map((match) => ({ line: at, word: match[0], index: match.index })),
  ).filter(({ word }) => known.has(word));
  const slip = fc.record({ place: fc.constantFrom(...places), at: fc.nat(20), letter: fc.constantFrom(..."qxz7") });

  it("tells a slip of one letter with its place and the word that was meant", () => {
    fc.assert(
      fc.property(slip, fc.constantFrom("swap", "insert", "replace", "drop"), ({ place, at, letter }, how) => {
        const { word } = place;
        const name = word.replace(/:.*/, "");
        const i = at % name.length;
        const slipped = {
          swap: name.slice(0, i) + (name[i + 1] ?? "") + name[i] + name.slice(i + 2),
          insert: name.slice(0, i) + letter + name.slice(i),
          replace: name.slice(0, i) + letter + name.slice(i + 1),
          drop: name.slice(0, i) + name.slice(i + 1),
        }[how];
        fc.pre(slipped !== name && slipped !== "" && name.length > 2);
        const line = LINES[place.line]!;
        const text = line.slice(0, place.index) + slipped + line.slice(place.index + name.length);
        const { problems, rules, tests } = parsePolicy(
          [{ file: "f", text: `\n${text}`, writtenAt: wall(0) }],
          ACCOUNTS,
        );
        expect([...rules, ...tests]).toEqual([]);
        expect(problems.map((problem) => [problem.line, problem.column])).toEqual([[2, place.index + 1]]);
        expect(`${problems[0]!.message} ${problems[0]!.hint}`).toContain(name);
      }),
      { numRuns: 1_000 },
    );
  });
});
