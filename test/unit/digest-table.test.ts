import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { DigestTable } from "../../src/base/digest-table.ts";

const digest = (of: number) => createHash("sha256").update(`digest ${of}`).digest("binary");

test("a table remembers the bit of each digest until there are too many, and never a wrong one", () => {
  const table = new DigestTable(1024);
  for (let i = 0; i < 512; i++) table.set(digest(i), i % 3 === 0);
  const known = Array.from({ length: 512 }, (_, i) => i).filter((i) => table.get(digest(i)) !== undefined);
  // Half full: few buckets of four have more than four.
  expect(known.length).toBeGreaterThan(450);
  for (const i of known) expect(table.get(digest(i))).toBe(i % 3 === 0);
  for (let i = 512; i < 5000; i++) expect(table.get(digest(i))).toBeUndefined();
});

test("what is set last is always there, and setting it again changes its bit", () => {
  const table = new DigestTable(16);
  for (let i = 0; i < 1000; i++) {
    table.set(digest(i), true);
    expect(table.get(digest(i))).toBe(true);
    table.set(digest(i), false);
    expect(table.get(digest(i))).toBe(false);
  }
});
