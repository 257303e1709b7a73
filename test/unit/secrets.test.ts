/** How secrets are compared: in a time that says nothing about them, wherever one can be guessed at. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it, test } from "vitest";
import { equalSecrets } from "../../src/base/bytes.ts";
import { listFiles } from "../helpers/source-text.ts";

const SOURCES = fileURLToPath(new URL("../../src/", import.meta.url));
/** What holds a secret, by the words in its name. `tokenType` or `tagged` are others. */
const SECRET = String.raw`[\w.#"\[\]]*(?:[tT]oken|[sS]ecret|[pP]assphrase|[cC]ookie|[tT]okenHash|authTag|mac)"?\]?`;
/** What tells nothing of a secret: whether there is one, how long it is. */
const HARMLESS = String.raw`undefined|null|""|"[a-z]+"|typeof`;
const COMPARISONS = [
  new RegExp(String.raw`(?<![\w.])${SECRET} [!=]==? (?!${HARMLESS})`),
  new RegExp(String.raw`[!=]==? (?!${HARMLESS})${SECRET}(?![\w.])`),
  new RegExp(String.raw`equalBytes\([^;]*(?<![\w])${SECRET}(?![\w])`),
];

function leaks(text: string): string[] {
  return text.split("\n").filter((line) => COMPARISONS.some((pattern) => pattern.test(line)));
}

test("no secret in the sources is compared in a time that depends on what it is", () => {
  const found = listFiles(SOURCES)
    .filter((file) => file.endsWith(".ts"))
    .flatMap((file) => leaks(readFileSync(SOURCES + file, "utf8")).map((line) => `${file}: ${line.trim()}`));
  expect(found).toEqual([]);
});

describe("the search", () => {
  it.each([
    'const isAdmin = message["admin_token"] === context.adminToken;',
    "if (given !== this.#secret) return;",
    "if (secret === given) return;",
    "return equalBytes(answer.token, request.token);",
    "[1, 2].some((at) => equalBytes(this.#cookie(at), claim.cookie));",
  ])("finds %j", (line) => {
    expect(leaks(line)).toEqual([line]);
  });

  it.each([
    "if (token === undefined || secret === null) return;",
    'if (joinRule === "token" && token !== "") return;',
    'const token = typeof body.token === "string";',
    "if (secret.length !== 32) return equalSecrets(token, secret);",
  ])("leaves %j alone", (line) => {
    expect(leaks(line)).toEqual([]);
  });
});

describe("the comparison of secrets", () => {
  it("says whether all bytes are equal", () => {
    const secret = Uint8Array.of(1, 2, 3, 255);
    expect(equalSecrets(secret, Uint8Array.of(1, 2, 3, 255))).toBe(true);
    for (let at = 0; at < secret.length; at++) {
      for (const bit of [1, 128]) {
        const other = secret.slice();
        other[at]! ^= bit;
        expect([at, bit, equalSecrets(secret, other)]).toEqual([at, bit, false]);
      }
    }
    expect(equalSecrets(secret, secret.subarray(0, 3))).toBe(false);
    expect(equalSecrets(new Uint8Array(0), new Uint8Array(0))).toBe(true);
  });
});
