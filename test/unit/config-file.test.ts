/** The configuration file, the environment and the command line: what wins, what is refused, and where it stands. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Problem } from "../../src/base/error-code.ts";
import { parseConfig } from "../../src/cli/config-file.ts";
import { run } from "../../src/cli/program.ts";
import type { DeclaredOption } from "../../src/cli/settings.ts";
import { instancePaths, isInstanceName } from "../../src/control/instance.ts";
import { Configuration } from "../../src/daemon/configuration.ts";
import type { Reread } from "../../src/daemon/up-options.ts";
import { CapturedProcess } from "../helpers/control-fixture.ts";

const EXAMPLE = new URL("../../docs/config.example.toml", import.meta.url);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "config-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const GOOD = `registry = "registry.example:9000"\nbeacon = "registry.example:9001"\n`;

async function check(text: string, words: readonly string[] = [], variables: Record<string, string> = {}) {
  const path = join(folder, "config.toml");
  writeFileSync(path, text);
  const captured = new CapturedProcess();
  captured.variables = variables;
  const code = await run(["up", "--check", "--json", "--config", path, ...words], captured);
  const reply = JSON.parse(captured.out);
  const problems: { code: string; message: string; hint: string }[] = reply.problems ?? [reply.error ?? []].flat();
  return {
    code,
    problems: problems.map((problem) => ({ ...problem, message: problem.message.replace(path, "FILE") })),
  };
}

describe("the configuration file", () => {
  it("is enough to start from", async () => {
    expect(await check(GOOD)).toEqual({ code: 0, problems: [] });
  });

  it("has every problem reported at once, with its line and what would be right", async () => {
    const { code, problems } = await check(`registry = "nowhere"\nbecon = "x:1"\nmtu = true\nregistry_tls = "yes"\n`);
    expect(code).toBe(2);
    expect(problems).toEqual([
      { code: "config_invalid", message: 'FILE:2: there is no key "becon"', hint: "Write beacon." },
      { code: "config_invalid", message: "FILE:3: mtu takes a text", hint: 'Write mtu = "…".' },
      {
        code: "config_invalid",
        message: "FILE:4: registry_tls takes true or false",
        hint: "Write registry_tls = true or registry_tls = false.",
      },
    ]);
  });

  it("has values judged as those of the command line are, in words of the file", async () => {
    const { problems } = await check(`${GOOD}mtu = 12\nhostname = "Alice"\n`);
    expect(problems.map(({ message }) => message)).toEqual([
      'FILE:4: hostname "Alice" is not a hostname',
      'FILE:3: mtu "12" is not a whole number from 1280 to 9000',
    ]);
    expect(problems[0]?.hint).toContain('hostname = "alice"');
  });

  it.each([
    ["registry = ", /^FILE:1:\d+: /],
    ["[node]\nregistry = 1\n", /^FILE:1: there is no key "node"/],
    ["registry = 1\nregistry = 2\n", /^FILE:2:\d+: /],
    ['"a b" = 1\n', /^FILE:1: there is no key "a b"/],
  ])("that reads %j is refused with its place", async (text, message) => {
    const { code, problems } = await check(text);
    expect(code).toBe(2);
    expect(problems[0]?.message).toMatch(message);
  });

  it("must exist when it is named, and need not when it is not", async () => {
    const missing = new CapturedProcess();
    expect(await run(["up", "--check", "--config", join(folder, "none.toml")], missing)).toBe(2);
    expect(missing.err).toContain("There is no configuration file");
    const unnamed = new CapturedProcess();
    const words = ["up", "--check", "--registry", "a:1", "--beacon", "a:2", "--instance", "nothing"];
    expect(await run(words, unnamed)).toBe(0);
  });

  it("gives way to the environment, and both to the command line", async () => {
    const text = `${GOOD}mtu = 10\n`;
    expect((await check(text)).problems[0]?.message).toContain("FILE:3: mtu");
    const variables = { PILOT_TUN_MTU: "11" };
    expect((await check(text, [], variables)).problems[0]?.message).toMatch(/^PILOT_TUN_MTU "11"/);
    expect((await check(text, ["--mtu", "12"], variables)).problems[0]?.message).toMatch(/^--mtu "12"/);
    expect((await check(text, ["--mtu", "1300"], variables)).code).toBe(0);
  });

  it("lets a switch of the environment be on, off, or refused", async () => {
    expect((await check(GOOD, [], { PILOT_TUN_PUBLIC: "yes" })).code).toBe(0);
    expect((await check(GOOD, [], { PILOT_TUN_COMPAT: "off" })).code).toBe(0);
    expect((await check(GOOD, [], { PILOT_TUN_PUBLIC: "perhaps" })).problems[0]?.message).toContain("neither true nor");
  });

  it("never makes its reader throw, whatever it holds (seed printed on failure)", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.string({ unit: "binary" })), (text) => {
        const read = parseConfig("f", text, OPTIONS);
        return "file" in read ? [...read.file.entries.keys()].every((key) => key === "mtu") : read.problems.length > 0;
      }),
    );
  });
});

const OPTIONS: readonly DeclaredOption[] = [
  { attribute: "mtu", flag: "--mtu", key: "mtu", variable: "PILOT_TUN_MTU", takesValue: true, canBeOff: false },
];

describe("the commented example", () => {
  const text = readFileSync(EXAMPLE, "utf8");
  const keys = [...text.matchAll(/^#?([a-z0-9_]+) = /gm)].map((match) => match[1]!);

  it("is accepted as it stands, and with every line of it switched on but what excludes another", async () => {
    expect(await check(text)).toEqual({ code: 0, problems: [] });
    const all = text.replaceAll(/^#([a-z0-9_]+ = )/gm, "$1");
    expect(await check(all)).toEqual({ code: 0, problems: [] });
  });

  it("has every option of `up`, once", async () => {
    const help = new CapturedProcess();
    await run(["up", "--help"], help);
    const own = help.out.slice(0, help.out.indexOf("Global Options"));
    const flags = [...own.matchAll(/^ +(?:-\w, )?--(?:no-)?([a-z0-9-]+)/gm)].map((match) =>
      match[1]!.replaceAll("-", "_"),
    );
    const settable = new Set(flags.filter((flag) => !["config", "check", "help"].includes(flag)));
    expect(keys.toSorted()).toEqual([...settable].toSorted());
  });

  it("says of each key whether a change needs a restart, and the daemon says the same", async () => {
    const daemon = configuration(new Map(keys.map((key) => [key, "x"])));
    const { settings } = await daemon.show();
    const reloaded = settings.filter(({ takesEffect }) => takesEffect === "reload").map(({ key }) => key);
    expect(reloaded.length).toBeGreaterThan(0);
    for (const key of keys) {
      const before = text.slice(0, text.search(new RegExp(`^#?${key} = `, "m")));
      const comment = before.slice(before.lastIndexOf("\n\n"));
      expect([key, /reload$/m.test(comment)]).toEqual([key, reloaded.includes(key)]);
    }
  });
});

describe("a changed configuration file", () => {
  it("is in force at once where it can be, and says what waits for a restart", async () => {
    const registered: unknown[] = [];
    const problems = new Map();
    const before = new Map([
      ["hostname", "alice"],
      ["public", "false"],
      ["tags", ""],
      ["mtu", "1360"],
    ]);
    let after: Reread | undefined;
    const daemon = configuration(before, () => after!, registered, problems);

    const read = (changes: readonly [string, string][], more: Partial<Reread> = {}): Reread => {
      return { settings: new Map([...before, ...changes]), hostname: "bob", public: false, tags: undefined, ...more };
    };
    const bob: [string, string] = ["hostname", "bob"];
    after = read([bob, ["mtu", "1400"]]);
    expect(await daemon.reload()).toMatchObject({ applied: ["hostname"], needRestart: ["mtu"] });
    expect(registered).toEqual(["bob", "sent"]);
    expect([...problems.keys()]).toEqual(["restart_needed"]);

    after = read([bob, ["public", "true"]], { public: true });
    expect(await daemon.reload()).toMatchObject({ applied: ["public"], needRestart: [] });
    expect(registered).toEqual(["bob", "sent", true, "sent"]);
    expect(problems.size).toBe(0);

    after = read([bob, ["public", "true"], ["tags", "web"]], { public: true, tags: ["web"] });
    expect(await daemon.reload()).toMatchObject({ applied: ["tags"], needRestart: [] });
    expect(registered.slice(4)).toEqual([["web"], "sent"]);
  });

  it("that is broken changes nothing, and a signal leaves the reason for status", async () => {
    const problems = new Map();
    const reread = (): Reread => {
      throw new Error("FILE:3: no");
    };
    const daemon = configuration(new Map([["mtu", "1360"]]), reread, [], problems);
    await expect(daemon.reload()).rejects.toMatchObject({ code: "config_invalid", message: "FILE:3: no" });
    daemon.reloadBySignal();
    await new Promise((resolve) => setImmediate(resolve));
    expect([...problems.keys()]).toEqual(["not_reloaded"]);
  });
});

function configuration(
  settings: ReadonlyMap<string, string>,
  reread: () => Reread = () => ({ settings, hostname: undefined, public: false, tags: undefined }),
  registered: unknown[] = [],
  problems: Map<string, Problem> = new Map(),
): Configuration {
  return new Configuration({
    source: { path: "FILE", settings, reread },
    client: {
      setHostname: (name) => void registered.push(name),
      setVisibility: (isPublic) => void registered.push(isPublic),
      setTags: (tags) => void registered.push(tags),
    },
    hostname: undefined,
    problems,
    reloadPolicy: async () => ({ rules: 0, cut: [], cutFlows: 0, confirmWithinS: null }),
    pump: () => void registered.push("sent"),
  });
}

describe("an instance", () => {
  it("has folders of its own by one rule", () => {
    expect(instancePaths(undefined)).toEqual({
      config: "/etc/pilot-tun/config.toml",
      policy: "/etc/pilot-tun/policy",
      stateDir: "/var/lib/pilot-tun",
      control: "/run/pilot-tun/control.sock",
      tun: "pilot0",
    });
    expect(instancePaths("work")).toMatchObject({ stateDir: "/var/lib/pilot-tun-work", tun: "pilot-work" });
  });

  it("has a name that fits an interface, a path and a unit", () => {
    for (const name of ["a", "work", "a23456789"]) expect(isInstanceName(name)).toBe(true);
    for (const name of ["", "A", "1a", "a-b", "a/b", "..", "a234567890"]) expect(isInstanceName(name)).toBe(false);
    expect(instancePaths("a23456789").tun.length).toBeLessThanOrEqual(15);
  });

  it("is refused with a code when its name is none", async () => {
    const captured = new CapturedProcess();
    expect(await run(["--instance", "a/b", "status"], captured)).toBe(2);
    expect(captured.err).toContain("--instance");
  });
});
