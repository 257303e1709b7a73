/** What a policy may name of this host. */
import { describe, expect, it } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import { isInUnified, mayTraceIn, parseNumbers, readAccounts } from "../../src/daemon/accounts.ts";
import { parsePolicy } from "../../src/policy/parse-policy.ts";

const problemsOf = (text: string, sees?: { group: boolean; unit: boolean }) => {
  const source = { file: "p", text, writtenAt: 0 as WallClock };
  return parsePolicy([source], readAccounts(sees)).problems.map(
    ({ column, message, hint }) => `${column}: ${message}. ${hint}`,
  );
};

describe("users and groups", () => {
  it("are read by name and number, and what is no account is passed over", () => {
    const text = "root:x:0:0:root:/:/bin/sh\n\n# no\nann:x:1000:1000::/:\nbad:x:abc:\n:x:5:\n";
    expect([...parseNumbers(text)]).toEqual([
      ["root", 0],
      ["ann", 1000],
    ]);
  });

  it("of this host are known, and a slip in a name is told", () => {
    expect(problemsOf("allow out any to b by user:root\nallow out any to b by group:root")).toEqual([]);
    expect(problemsOf("allow out any to b by user:roo")).toEqual([
      '23: This host has no user "roo". Did you mean root?',
    ]);
    expect(problemsOf("allow out any to b by group:no-such-group-here")[0]).toContain("This host has no group");
  });
});

describe("a daemon that may not look at programs", () => {
  it("takes rules by user, and refuses those that it could not keep, with the cure", () => {
    const blind = { group: false, unit: false };
    expect(problemsOf("allow out any to b by user:root", blind)).toEqual([]);
    const cure = "Start it with --see-programs (docs/service.md), or write user: or unit:.";
    expect(problemsOf("allow out any to b by group:root", blind)[0]).toContain(cure);
    for (const owner of ["unit:a.service", "cgroup:/a"]) {
      expect(problemsOf(`allow out any to b by ${owner}`, blind)[0]).toContain("it cannot know their unit");
      expect(problemsOf(`allow out any to b by ${owner}`, { group: false, unit: true })).toEqual([]);
    }
  });

  it("is told by its capabilities and by where the service manager keeps programs", () => {
    expect(mayTraceIn("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n")).toBe(true);
    expect(mayTraceIn("CapEff:\t0000000000080004\n")).toBe(true);
    // To trace alone: /proc/PID/fd of another user does not open.
    expect(mayTraceIn("CapEff:\t0000000000080000\n")).toBe(false);
    expect(mayTraceIn("CapEff:\t0000000000001000\nCapBnd:\t000001ffffffffff\n")).toBe(false);
    expect(mayTraceIn("")).toBe(false);
    expect(isInUnified("0::/system.slice/pilot-tun.service\n")).toBe(true);
    expect(isInUnified("4:cpu:/x\n1:name=systemd:/a.service\n0::/\n")).toBe(false);
  });
});
