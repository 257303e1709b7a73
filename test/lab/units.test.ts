/** The units: what systemd itself says of them, and that they say what the program takes. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { run } from "../../src/cli/program.ts";
import { instancePaths } from "../../src/control/instance.ts";
import { CapturedProcess } from "../helpers/control-fixture.ts";

const UNITS = fileURLToPath(new URL("../../systemd/", import.meta.url));
const units = readdirSync(UNITS).filter((name) => name.endsWith(".service"));
/** systemd-analyze counts in tenths up to 100. */
const MOST_EXPOSURE = "25";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "units-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function analyze(...words: string[]): string {
  return execFileSync("systemd-analyze", words, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 20_000,
  });
}

function settings(text: string, key: string): string[] {
  return [...text.matchAll(new RegExp(`^${key}=(.*)$`, "gm"))].map((match) => match[1]!);
}

describe.each(units)("%s", (unit) => {
  const text = readFileSync(join(UNITS, unit), "utf8");

  it("is understood by systemd, without a warning", () => {
    // Everything but the program, which is not installed here.
    const copy = join(folder, unit);
    writeFileSync(copy, text.replaceAll(/=\/usr\/bin\/pilot-tun/g, "=/bin/true"));
    analyze("verify", "--man=no", copy.replace("@.service", "@work.service"));
  });

  it("leaves little of the system exposed", () => {
    analyze("security", "--offline=yes", `--threshold=${MOST_EXPOSURE}`, join(UNITS, unit));
  });

  it("calls the program as it may be called", async () => {
    const commands = ["ExecStartPre", "ExecStart", "ExecReload"].flatMap((key) => settings(text, key));
    expect(commands.length).toBeGreaterThan(0);
    for (const command of commands) {
      const words = command.replace("/usr/bin/pilot-tun ", "").replaceAll("%i", "work").split(" ");
      const captured = new CapturedProcess();
      expect([command, await run([...words, "--help"], captured)]).toEqual([command, 0]);
    }
  });

  it("says why with every setting that takes something away", () => {
    const [, service = ""] = text.split("[Service]");
    for (const block of service.split(/\n\n+/)) {
      if (/^(Protect|Restrict|Private|Capability|SystemCall|Limit|Device)/m.test(block)) {
        expect(block.trimStart()).toMatch(/^#/);
      }
    }
  });
});

describe("the folders of a unit", () => {
  it("are those in which the program looks", () => {
    for (const [unit, name] of [
      ["pilot-tun.service", undefined],
      ["pilot-tun@.service", "work"],
    ] as const) {
      const text = readFileSync(join(UNITS, unit), "utf8").replaceAll("%i", "work");
      const paths = instancePaths(name);
      expect(`/var/lib/${settings(text, "StateDirectory")}`).toBe(paths.stateDir);
      expect(`/run/${settings(text, "RuntimeDirectory")}/control.sock`).toBe(paths.control);
      expect(`/etc/${settings(text, "ConfigurationDirectory")}/config.toml`).toBe(paths.config);
    }
  });
});
