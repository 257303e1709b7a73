/** The policy language, line by line. */
import { describe, expect, it } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import { failedTests } from "../../src/policy/evaluate.ts";
import { parsePolicy } from "../../src/policy/parse-policy.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { ACCOUNTS } from "../helpers/accounts.ts";

const WRITTEN = Date.UTC(2030, 0, 1) as WallClock;
const parse = (text: string) => parsePolicy([{ file: "policy", text, writtenAt: WRITTEN }], ACCOUNTS);
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
        owner: undefined,
        terms: undefined,
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

describe("what follows the peer", () => {
  const tail = (words: string) => parse(`allow out tcp 443 to bob ${words}`).rules[0]!;

  it.each([
    ["limit 5MB/s", 5_000_000],
    ["limit 8Mbit/s", 1_000_000],
    ["limit 64KiB/s", 65_536],
    ["limit 900B/s", 900],
  ])("%s is so many bytes a second", (words, bytes) => {
    expect(tail(words).terms?.limitBytesPerS).toBe(bytes);
  });

  it("is amounts in a time, a way and a program, in any order", () => {
    const { terms, owner, until } = tail("via direct flows 20/m by user:ann budget 50MB/10m for 1h");
    expect(terms).toEqual({
      limitBytesPerS: undefined,
      budget: { most: 50_000_000, windowMs: 600_000 },
      flows: { most: 20, windowMs: 60_000 },
      via: "direct",
    });
    expect(owner).toEqual({ kind: "user", uid: 1000 });
    expect(until).toBe(WRITTEN + 3_600_000);
  });

  it.each([
    ["user:1234", { kind: "user", uid: 1234 }],
    ["group:ops", { kind: "group", gid: 200 }],
    ["unit:user@1000.service", { kind: "unit", unit: "user@1000.service" }],
    ["cgroup:/system.slice/", { kind: "cgroup", path: "/system.slice" }],
    ["cgroup:/", { kind: "cgroup", path: "/" }],
  ])("by %s is an owner", (word, owner) => {
    expect(tail(`by ${word}`).owner).toEqual(owner);
  });

  it("is not there: then the rule costs its flows nothing", () => {
    expect(tail("for 1h").terms).toBeUndefined();
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
    [
      "allow in tcp 22 from bob for 2h 3",
      '1:33: Unknown word "3" after the peer. Write by, until, for, limit, budget, flows or via.',
    ],
    ["default allow", '1:9: Unknown word "allow" after default. Write deny.'],
    ["test allow in tcp from bob", "1:1: A test speaks of one flow."],
    ["allow in tcp 22 from 1:0002.0000.0001", '1:22: "1:0002.0000.0001" is not a Pilot address'],
    ["allow in tcp 22 from netwrk:1", '1:22: "netwrk:1" names no peer. Did you mean network:1?'],
    ["allow in tcp 22 from tag:", '1:22: "" is not a tag. '],
    [
      "allow in tcp 22 from user:ann",
      '1:22: "user:ann" names a local program, no peer. Name a peer first, then: by user:ann.',
    ],
    ["allow in tcp 22 from bob limt 5MB/s", '1:26: Unknown word "limt" after the peer. Did you mean limit?'],
    ["allow in tcp 22 from bob limit", "1:31: Nothing is not a rate. Write limit 5MB/s"],
    ["allow in tcp 22 from bob limit 5MB", '1:32: "5MB" is not a rate. '],
    ["allow in tcp 22 from bob limit 5mb/s", '1:32: "5mb/s" is not a rate. '],
    ["allow in tcp 22 from bob limit 0B/s", '1:32: "0B/s" is not a rate. '],
    ["allow in tcp 22 from bob budget 5MB", '1:33: "5MB" is not bytes in a time. Write budget 50MB/h'],
    ["allow in tcp 22 from bob budget 0B/h", '1:33: "0B/h" is not bytes in a time. '],
    ["allow in tcp 22 from bob budget 5MB/0h", '1:33: "5MB/0h" is not bytes in a time. '],
    ["allow in tcp 22 from bob flows 20/min", '1:32: "20/min" is not a count in a time. Write flows 20/m'],
    ["allow in tcp 22 from bob via reley", '1:30: "reley" is not a way. Did you mean relay?'],
    ["allow in tcp 22 from bob via beacon", '1:30: "beacon" is not a way. Write via direct or via relay.'],
    ["allow in tcp 22 from bob via direct via relay", "1:37: via comes after another. Say it once."],
    ["allow in tcp 22 from bob for 2h until 2030-01-01", "1:33: until comes after for. Say it once."],
    ["deny in tcp 22 from bob limit 5MB/s", "1:25: What is denied has no limit. Leave it out, or write allow."],
    ["allow in tcp 22 from bob by ann", '1:29: "ann" names no local program. Write user:NAME, group:NAME'],
    ["allow in tcp 22 from bob by usr:ann", '1:29: "usr:ann" names no local program. Did you mean user:ann?'],
    ["allow in tcp 22 from bob by user:anne", '1:29: This host has no user "anne". Did you mean ann?'],
    ["allow in tcp 22 from bob by group:wbe", '1:29: This host has no group "wbe". Did you mean web?'],
    [
      "allow in tcp 22 from bob by unit:nginx",
      '1:29: "nginx" is not the name of a unit that runs programs. Did you mean unit:nginx.service?',
    ],
    [
      "allow in tcp 22 from bob by unit:a.slice",
      '1:29: "a.slice" is not the name of a unit that runs programs. Write unit:NAME.service',
    ],
    ["allow in tcp 22 from bob by cgroup:a/b", '1:29: "a/b" is not the path of a control group. '],
    ["allow in tcp 22 from bob by cgroup:/a/../b", '1:29: "/a/../b" is not the path of a control group. '],
    ["allow in icmp from bob by user:ann", "1:24: No program answers a ping: the kernel does. Leave it out."],
    ["test allow in tcp 22 from bob limit 5MB/s", '1:31: Unknown word "limit" after the peer. Write by.'],
  ])("in %j is told with its place and what would be right", (line, told) => {
    expect(problems(line)).toHaveLength(1);
    expect(problems(line)[0]).toContain(told);
  });

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
    const bob = { node: nodeId(7), name: "bob", fingerprint: undefined, tags: [] };
    expect(failedTests(rules, tests, () => undefined, WRITTEN)).toHaveLength(1);
    expect(failedTests(rules, tests, () => bob, WRITTEN)).toEqual([]);
  });

  it("speaks of a program and of a tag", () => {
    const { rules, tests } = parse(
      "allow out tcp 443 to tag:web by unit:a.service\ntest allow out tcp 443 to tag:web by unit:a.service\n" +
        "test deny out tcp 443 to tag:web\ntest deny out tcp 443 to tag:web by user:ann\ntest deny out tcp 443 to bob by unit:a.service",
    );
    expect(tests).toHaveLength(4);
    expect(failedTests(rules, tests, () => undefined, WRITTEN)).toEqual([]);
  });
});
