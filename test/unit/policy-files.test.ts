/** Where a policy is read from and written to. */
import { chmodSync, mkdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readCandidate, readPolicyFiles, writePolicyFile } from "../../src/daemon/policy-files.ts";
import { temporaryDirectory } from "../helpers/control-fixture.ts";

let directory: ReturnType<typeof temporaryDirectory>;
let file: string;

beforeEach(() => {
  directory = temporaryDirectory();
  file = `${directory.path}/policy`;
});

afterEach(() => directory.remove());

const write = (path: string, text: string) => writeFileSync(path, text, { mode: 0o600 });

describe("the policy's files", () => {
  it("are the main one, then those of the folder by name, and undefined when there is none", () => {
    expect(readPolicyFiles(file)).toBeUndefined();
    mkdirSync(`${file}.d`);
    expect(readPolicyFiles(file)).toBeUndefined();
    write(`${file}.d/20-b.policy`, "b");
    write(`${file}.d/10-a.policy`, "a");
    write(`${file}.d/README`, "no rules");
    write(file, "main");
    expect(readPolicyFiles(file)?.map(({ text }) => text)).toEqual(["main", "a", "b"]);
    write(`${directory.path}/next`, "next");
    expect(readCandidate(`${directory.path}/next`, file).map(({ text }) => text)).toEqual(["next", "a", "b"]);
    expect(() => readCandidate(`${directory.path}/gone`, file)).toThrow("There is no file");
  });

  it("are refused when everybody may write them", () => {
    write(file, "main");
    chmodSync(file, 0o666);
    expect(() => readPolicyFiles(file)).toThrow("Everybody may write");
  });

  it("keep the time from which durations count when they are replaced", () => {
    const next = `${directory.path}/next`;
    write(next, "next");
    utimesSync(next, 1_700_000_000, 1_700_000_000);
    const [source] = readCandidate(next, file);
    writePolicyFile(file, source!);
    expect(readFileSync(file, "utf8")).toBe("next");
    expect(statSync(file).mtimeMs).toBe(1_700_000_000_000);
    expect(() => writePolicyFile(`${directory.path}/none/policy`, source!)).toThrow("Cannot write");
  });
});
