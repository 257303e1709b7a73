/** The changes that `scripts/simulate --mutants` makes to the product still have their places in it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { changesOf, MUTANTS, mutate } from "../scenarios/mutants.ts";

const ROOT = join(import.meta.dirname, "../..");

it.each(MUTANTS)("there is exactly one place for each change of the mutant: $name", (mutant) => {
  for (const change of changesOf(mutant)) {
    const text = readFileSync(join(ROOT, change.file), "utf8");
    expect(mutate(text, change)).not.toBe(text);
  }
});
