/** What fuzzing found and learned, run through the same targets again, without the fuzzer: regressions show here. */
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { FUZZ_TARGETS, loadFuzz } from "../fuzz/targets.ts";

const CORPUS = new URL("../fuzz/corpus/", import.meta.url);

test.for(FUZZ_TARGETS.map(({ name }) => name))("no input of the corpus of %s breaks it", async (name) => {
  const fuzz = await loadFuzz(name);
  const files = readdirSync(new URL(`${name}/`, CORPUS));
  expect(files.length).toBeGreaterThan(5);
  for (const file of files) {
    const input = new Uint8Array(readFileSync(new URL(`${name}/${file}`, CORPUS)));
    expect(() => fuzz(input), `scripts/fuzz --target ${name} --replay test/fuzz/corpus/${name}/${file}`).not.toThrow();
  }
});
