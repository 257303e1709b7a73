/** The changes that `scripts/simulate --mutants` makes to the product still have their places in it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { MUTANTS, mutate } from "../scenarios/mutants.ts";

const ROOT = join(import.meta.dirname, "../..");

it.each(MUTANTS)("there is exactly one place for the mutant: $name", (mutant) => {
  const text = readFileSync(join(ROOT, mutant.file), "utf8");
  expect(mutate(text, mutant)).not.toBe(text);
});
