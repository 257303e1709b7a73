import { execFile, type SpawnSyncReturns, spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BOB_STATUS, fakeBackend, temporaryDirectory, withServer } from "../helpers/control-fixture.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const LAUNCHER = fileURLToPath(new URL("../../scripts/pilot-tun", import.meta.url));

describe("the real process", () => {
  it("prints its version and leaves with 0", () => {
    const ran = spawnSync(process.execPath, [MAIN, "version", "--json"], { encoding: "utf8" });
    expect([ran.status, ran.stderr]).toEqual([0, ""]);
    expect(JSON.parse(ran.stdout).schema).toBe("pilot-tun/1");
  });

  it("leaves with the exit code of the refusal", () => {
    const ran = spawnSync(process.execPath, [MAIN, "--control", "/nonexistent/x.sock"], { encoding: "utf8" });
    expect([ran.status, ran.stdout]).toEqual([3, ""]);
    expect(ran.stderr).toContain("code:  not_running");
  });

  it("is quiet when its reader goes away in the middle", async () => {
    // Far more than a pipe holds.
    const peers = Array.from({ length: 5000 }, () => BOB_STATUS);
    const script = `"$1" "$2" peers --control "$3" | head -1; echo "\${PIPESTATUS[0]}"`;
    const ran = await withServer(fakeBackend({ peers: async () => ({ peers }) }), (path) =>
      promisify(execFile)("bash", ["-c", script, "bash", process.execPath, MAIN, path]),
    );
    expect(ran.stdout).toMatch(/^PEER .*\n0\n$/);
    expect(ran.stderr).toBe("");
  });
});

describe("the launcher", () => {
  let directory: ReturnType<typeof temporaryDirectory>;
  let launcher: string;

  beforeEach(() => {
    directory = temporaryDirectory();
    mkdirSync(join(directory.path, "scripts"));
    launcher = join(directory.path, "scripts", "pilot-tun");
    copyFileSync(LAUNCHER, launcher);
  });

  afterEach(() => directory.remove());

  function launch(path: string, ...argv: readonly string[]): SpawnSyncReturns<string> {
    return spawnSync("bash", [path, ...argv], { encoding: "utf8", cwd: "/" });
  }

  it("says what to do when nothing is built", () => {
    const ran = launch(launcher);
    expect([ran.status, ran.stdout]).toEqual([1, ""]);
    expect(ran.stderr).toContain("run ./scripts/setup");
  });

  it("runs the built program of its own checkout, also through a symlink", () => {
    mkdirSync(join(directory.path, "dist", "cli"), { recursive: true });
    writeFileSync(join(directory.path, "dist", "cli", "main.js"), "");
    const bin = join(directory.path, "node_modules", `node-linux-${process.arch}`, "bin");
    mkdirSync(bin, { recursive: true });
    writeFileSync(join(bin, "node"), '#!/bin/sh\nprintf "%s\\n" "$@"\n');
    chmodSync(join(bin, "node"), 0o755);
    const link = join(directory.path, "elsewhere");
    symlinkSync(launcher, link);
    const ran = launch(link, "trust", "ask", "b", "--reason", "two words");
    expect(ran.status).toBe(0);
    expect(ran.stdout.split("\n").slice(0, -1)).toEqual([
      "--max-semi-space-size=4",
      join(directory.path, "dist", "cli", "main.js"),
      "trust",
      "ask",
      "b",
      "--reason",
      "two words",
    ]);
  });
});
