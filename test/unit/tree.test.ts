/** Rules that every file of the checkout keeps, whatever it holds. */
import { readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { listFiles } from "../helpers/source-text.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const NOT_OURS: ReadonlySet<string> = new Set([".git", "node_modules", "dist"]);
const TEXT_LIMIT_BYTES = 2 * 1024 * 1024;
const MOST_LINES = 600;

// Joined here so that this file does not hold what it looks for.
const MACHINE_PATHS = new RegExp(["/work/", "/root/", "/home/[a-z]", "/Users/", "/tmp/[a-z]+[.]\\w{6,}"].join("|"));
const REGISTRY_HOSTS = /registry[.](?:npmjs|yarnpkg)|"resolved": /;

// In a linked work tree `.git` is a file, so the name is asked of both.
const files = listFiles(ROOT, (name) => NOT_OURS.has(name)).filter(
  (file) => !NOT_OURS.has(file) && !file.endsWith(".log") && statSync(ROOT + file).size < TEXT_LIMIT_BYTES,
);

it("no file names a path of somebody's machine", () => {
  expect(files.filter((file) => file !== "test/unit/tree.test.ts" && MACHINE_PATHS.test(textOf(file)))).toEqual([]);
});

it("no file names a package registry's host, so that any mirror serves", () => {
  expect(files.filter((file) => file !== "test/unit/tree.test.ts" && REGISTRY_HOSTS.test(textOf(file)))).toEqual([]);
});

it(`no source file is over ${MOST_LINES} lines`, () => {
  const long = files
    .filter((file) => /^(?:src|native-shims|test|scripts)\//.test(file) && !file.endsWith(".json"))
    .map((file) => ({ file, lines: textOf(file).split("\n").length - 1 }))
    .filter((source) => source.lines > MOST_LINES);
  expect(long).toEqual([]);
});

it("every script that is run is executable and starts with its interpreter", () => {
  const scripts = files.filter((file) => /^(?:scripts|\.ci)\/[^.]+$/.test(file));
  expect(scripts).toContain("scripts/test");
  const wrong = scripts.filter((file) => (statSync(ROOT + file).mode & 0o111) === 0 || !textOf(file).startsWith("#!/"));
  expect(wrong).toEqual([]);
});

function textOf(file: string): string {
  return readFileSync(ROOT + file, "utf8");
}
