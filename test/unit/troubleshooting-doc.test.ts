/** What an operator may meet is what is written down: every code, every reason, every exit code, and nothing else. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { DROP_REASONS } from "../../src/base/drop-reason.ts";
import { ERROR_CODES } from "../../src/base/error-code.ts";
import { EXIT } from "../../src/control/api.ts";
import { listFiles } from "../helpers/source-text.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TEXT = readFileSync(`${ROOT}docs/troubleshooting.md`, "utf8");
const SOURCES = listFiles(`${ROOT}src`)
  .filter((file) => file !== "base/error-code.ts" && file.endsWith(".ts"))
  .map((file) => readFileSync(`${ROOT}src/${file}`, "utf8"))
  .join("\n");

/** First cells of the rows under a heading. */
function rowsUnder(heading: string): string[] {
  const section = TEXT.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? "";
  return [...section.matchAll(/^\| `?([\w-]+)`? \|/gm)].map((match) => match[1]!);
}

describe("docs/troubleshooting.md", () => {
  it("explains every error code, in the order of the alphabet", () => {
    expect(rowsUnder("Error codes").filter((row) => row !== "code")).toEqual([...ERROR_CODES]);
    expect([...ERROR_CODES]).toEqual([...new Set(ERROR_CODES)].sort());
  });

  it("explains no code that nothing uses any more", () => {
    expect(ERROR_CODES.filter((code) => !SOURCES.includes(`"${code}"`))).toEqual([]);
  });

  it("explains every reason for which a packet is dropped", () => {
    expect(rowsUnder("Drop reasons").filter((row) => row !== "reason")).toEqual([...DROP_REASONS]);
  });

  it("says what each exit code means", () => {
    expect(rowsUnder("Exit codes").filter((row) => /^\d+$/.test(row))).toEqual(Object.values(EXIT).map(String));
  });
});
