/** Files that change while the daemon runs, on a disk that is full for a while. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Problem } from "../../src/base/error-code.ts";
import { PilotError } from "../../src/base/pilot-error.ts";
import { KeptFiles } from "../../src/daemon/kept-files.ts";

let isFull: boolean;
let written: string[];
let problems: Map<string, Problem>;
let files: KeptFiles;

beforeEach(() => {
  vi.useFakeTimers();
  isFull = true;
  written = [];
  problems = new Map();
  files = new KeptFiles(problems);
});

afterEach(() => vi.useRealTimers());

const write = (what: string) => () => {
  if (isFull) throw new PilotError("state_unwritable", `Cannot write ${what}: ENOSPC`, "Make room.");
  written.push(what);
};

describe("a write that a full disk refused", () => {
  it("is shown, and is done by itself when there is room", () => {
    files.keep("trust.json", write("trust"));
    expect(problems.get("state_unwritable")?.message).toContain("ENOSPC");
    vi.advanceTimersByTime(10_000);
    expect(problems.size).toBe(1);
    isFull = false;
    vi.advanceTimersByTime(2_000);
    expect(written).toEqual(["trust"]);
    expect(problems.size).toBe(0);
  });

  it("is still shown when another file could be written meanwhile", () => {
    files.keep("trust.json", write("trust"));
    isFull = false;
    files.keep("node.json", write("node"));
    expect(problems.size).toBe(1);
    vi.advanceTimersByTime(2_000);
    expect(written).toEqual(["node", "trust"]);
    expect(problems.size).toBe(0);
  });

  it("is made up for by writing the whole file, not the change again", () => {
    files.keep("node.json", write("change"), write("file"));
    isFull = false;
    vi.advanceTimersByTime(60_000);
    expect(written).toEqual(["file"]);
  });

  it("lets nobody who asked for it believe that it is on the disk", () => {
    files.keep("node.json", write("node"));
    expect(() => files.demandWritten("trust.json")).not.toThrow();
    files.keep("trust.json", write("trust"));
    expect(() => files.demandWritten("trust.json")).toThrow(/lost if the daemon ends now.*ENOSPC/);
    isFull = false;
    vi.advanceTimersByTime(2_000);
    expect(() => files.demandWritten("trust.json")).not.toThrow();
  });

  it("is not tried any more after the end", () => {
    files.keep("trust.json", write("trust"));
    files.close();
    isFull = false;
    vi.advanceTimersByTime(60_000);
    expect(written).toEqual([]);
  });
});

it("what is no refusal of the disk is a mistake of the program's, and is thrown", () => {
  const broken = () => {
    throw new TypeError("a mistake");
  };
  expect(() => files.keep("trust.json", broken)).toThrow(TypeError);
});
