import { describe, expect, it } from "vitest";
import { codeOf, importsOf } from "../helpers/source-text.ts";

describe("finding imports", () => {
  it.each([
    ['import { a } from "../wire/a.ts";', "../wire/a.ts", false],
    ['import {\n  a,\n  type B,\n} from "../wire/a.ts";', "../wire/a.ts", false],
    ['import type { A } from "../wire/a.ts";', "../wire/a.ts", true],
    ['export type { A } from "./a.ts";', "./a.ts", true],
    ['export * from "./a.ts";', "./a.ts", false],
    ['import "./effect.ts";', "./effect.ts", false],
    ['import def from "node:fs";', "node:fs", false],
    ['const a = await import("../daemon/up.ts");', "../daemon/up.ts", false],
  ])("sees %j", (text, from, typeOnly) => {
    expect(importsOf(text)).toEqual([{ from, typeOnly }]);
  });

  it.each(['// import { a } from "a";', '/*\nimport { a } from "a";\n*/', 'export const a = f("b");'])(
    "sees none in %j",
    (text) => {
      expect(importsOf(text)).toEqual([]);
    },
  );
});

it("code is what is left without comments and quoted text", () => {
  expect(codeOf('a("Date.now // no"); // Date.now\n`$' + "{b}`;")).toBe('a("");  \n`$' + "{b}`;");
});
