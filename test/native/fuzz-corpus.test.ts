/** What fuzzing the shim's packet functions learned, run again under sanitizers with the compiler that builds the shim. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const SCRIPT = fileURLToPath(new URL("../../scripts/fuzz-native", import.meta.url));

test("no input of the corpora makes the shim read or write where it must not, or break a packet", {
  timeout: 120_000,
}, () => {
  const { stdout, stderr, status } = spawnSync(SCRIPT, ["--replay"], { encoding: "utf8", timeout: 110_000 });
  expect(status, stderr.slice(-8_000)).toBe(0);
  const counts = [...stdout.matchAll(/^(\d+) inputs$/gm)].map(([, count]) => Number(count));
  expect(counts).toHaveLength(7);
  expect(Math.min(...counts)).toBeGreaterThan(10);
});
