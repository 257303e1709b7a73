/** The commands about policy: what they ask, what they print, how they end. */
import { writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { PolicyBackend } from "../../src/control/policy-api.ts";
import { fakeBackend, fakePolicy, runAlone, runCli, temporaryDirectory } from "../helpers/control-fixture.ts";

const withPolicy = (replace: Partial<PolicyBackend>) => fakeBackend({ policy: fakePolicy(replace) });

describe("policy", () => {
  it("show prints each rule with its place and its end", async () => {
    const { code, out } = await runCli(["policy", "show"]);
    expect(code).toBe(0);
    expect(out).toContain("default deny");
    expect(out).toMatch(/policy:3 +allow out tcp 443 to bob +ends in 2 h/);
  });

  it("check names every mistake with its place, fails, and says what would be cut when there is none", async () => {
    const mistake = { file: "/p", line: 2, column: 5, message: 'Unknown word "tpc"', hint: "Did you mean tcp?" };
    const none = { rules: 0, tests: 0, failedTests: [], wouldCut: [], wouldCutFlows: 0 };
    const bad = await runCli(
      ["policy", "check", "p"],
      withPolicy({ check: async () => ({ ...none, mistakes: [mistake] }) }),
    );
    expect(bad.code).toBe(1);
    expect(bad.out).toContain('/p:2:5: Unknown word "tpc". Did you mean tcp?');
    const good = await runCli(["policy", "check"]);
    expect(good.code).toBe(0);
    expect(good.out).toMatch(/would cut 1 live flow:\n.*\n1a-tq +tcp +out +:51514 +bob\.pilot:443/);
  });

  it("check needs no daemon for mistakes and tests, and says what it could not compare with", async () => {
    const directory = temporaryDirectory();
    const file = `${directory.path}/next`;
    const check = (text: string) => {
      writeFileSync(file, text, { mode: 0o600 });
      return runAlone(["--control", `${directory.path}/nobody`, "policy", "check", file]);
    };
    const sound = await check("allow in tcp 22 from bob\ntest allow in tcp 22 from bob\n");
    expect([sound.code, sound.out]).toEqual([
      0,
      "1 rule, 1 test: all is well\nno daemon runs: nothing was compared with peers and live flows\n",
    ]);
    const wrong = await check("allow in tcp 22 from bob\ntest deny in tcp 22 from bob\n");
    expect([wrong.code, wrong.out.split("\n")[0]]).toEqual([
      1,
      `${file}:2: the test fails: test deny in tcp 22 from bob (${file}:1 decides)`,
    ]);
    expect((await check("alow in tcp 22 from bob")).out).toContain(`${file}:1:1: Unknown word "alow"`);
    const gone = await runAlone(["--control", `${directory.path}/nobody`, "policy", "check", `${file}x`]);
    expect([gone.code, gone.err]).toEqual([1, expect.stringContaining("policy_unreadable")]);
    directory.remove();
  });

  it("apply sends an absolute path and the time to confirm in", async () => {
    let asked: unknown;
    const backend = withPolicy({
      apply: async (request) => {
        asked = request;
        return { rules: 2, cut: [], cutFlows: 0, confirmWithinS: 60 };
      },
    });
    const { code, out } = await runCli(["policy", "apply", "new.policy", "--confirm", "60s"], backend);
    expect(code).toBe(0);
    expect(asked).toEqual({ path: `${process.cwd()}/new.policy`, confirmMs: 60_000 });
    expect(out).toContain("taken back in 1 min unless you run: pilot-tun policy confirm");
    expect((await runCli(["policy", "apply", "new.policy", "--confirm", "2"])).code).toBe(2);
  });

  it.each(["confirm", "rollback", "reload"])("%s says what is in force", async (verb) => {
    const { code, out } = await runCli(["policy", verb]);
    expect([code, out.split("\n")[0]]).toEqual([0, "in force: 2 rules"]);
  });
});

describe("flows", () => {
  it("prints one line for each, and ends one by its id", async () => {
    expect((await runCli(["flows"])).out).toMatch(
      /1a-tq +tcp +out +:51514 +bob\.pilot:443 +curl\[4711\] backup\.service +\/etc\/pilot-tun\/policy:3 +12 s .*2\.0 KiB +512 B/,
    );
    expect((await runCli(["flows", "--kill", "1a-tq"])).out).toContain("ended:");
  });
});

describe("lockdown", () => {
  it("asks for its end and its exceptions, and is lifted", async () => {
    const asked: unknown[] = [];
    const backend = withPolicy({
      lockdown: async (request) => {
        asked.push(request);
        return { lockdown: null, cut: [], cutFlows: 0 };
      },
    });
    await runCli(["lockdown", "--for", "10m", "--except", "bob", "carol"], backend);
    await runCli(["lockdown", "--lift"], backend);
    expect(asked).toEqual([
      { on: true, except: ["bob", "carol"], forMs: 600_000 },
      { on: false, except: [] },
    ]);
  });
});

describe("why", () => {
  it("names the first stage that fails and the fix, and ends with the code of that stage", async () => {
    const { code, out } = await runCli(["why", "bob", "tcp/22"]);
    expect(code).toBe(4);
    expect(out).toContain("stopped at local-rule (local), code policy_no_match");
    expect(out).toContain("fix: Add a line to the policy: allow out tcp 22 to bob");
  });

  it.each(["tcp/0", "tcp/70000", "sctp/1", "tcp"])("refuses %s as a flow", async (flow) => {
    expect((await runCli(["why", "bob", flow])).code).toBe(2);
  });
});
