/** The fuzzer itself, let loose for a moment: it works, and what every change may have broken first is looked for. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { FUZZ_TARGETS } from "../fuzz/targets.ts";

const SCRIPT = fileURLToPath(new URL("../../scripts/fuzz", import.meta.url));

test("a brief run of the fuzzer over every target finds nothing and reaches code in each", () => {
  const { stdout, stderr, status } = spawnSync(SCRIPT, ["--seconds", "12"], { encoding: "utf8", timeout: 55_000 });
  expect(status, `${stdout}${stderr}`).toBe(0);
  for (const { name } of FUZZ_TARGETS) {
    expect(stdout).toMatch(new RegExp(`^${name} +\\d+ inputs, \\d+ a second, [1-9]\\d{2,} characters`, "m"));
  }
});
