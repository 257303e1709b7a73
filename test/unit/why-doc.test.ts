/** The table of stages and codes that programs rely on is the one that is written down. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { WHY_CODES, WHY_STAGES } from "../../src/control/why-api.ts";

const TEXT = readFileSync(fileURLToPath(new URL("../../docs/why.md", import.meta.url)), "utf8");

it("names every code with its stage, in the order in which they are looked at", () => {
  const rows = [...TEXT.matchAll(/^\| ([a-z-]+) \| `([a-z_]+)` \|/gm)].map(([, stage, code]) => [code, stage]);
  expect(rows).toEqual(Object.entries(WHY_CODES));
});

it("shows the stages as the command does", () => {
  const shown = [...TEXT.matchAll(/^([a-z-]+) +(?:ok|NO|-)(?: |$)/gm)].map(([, stage]) => stage);
  expect(shown).toEqual([...WHY_STAGES]);
});
