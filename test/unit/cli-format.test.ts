import { describe, expect, it } from "vitest";
import { ago, bytes, coloured, counted, duration, plain, roundTrip, table } from "../../src/cli/format.ts";

describe("a value for people", () => {
  it.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.0 KiB"],
    [90_214, "88.1 KiB"],
    [1024 * 100, "100 KiB"],
    [1_048_575, "1.0 MiB"],
    [1024 ** 3 * 1.5, "1.5 GiB"],
    [1024 ** 6, "1024 PiB"],
  ])("of %i bytes is %s", (count, text) => {
    expect(bytes(count)).toBe(text);
  });

  it.each([
    [0, "0 s"],
    [59.9, "59 s"],
    [60, "1 min"],
    [3599, "59 min"],
    [7500, "2 h 5 min"],
    [273_600, "3 d 4 h"],
  ])("of %d seconds is %s", (seconds, text) => {
    expect(duration(seconds)).toBe(text);
  });

  it.each([
    [null, "-"],
    [0.421, "0.42 ms"],
    [4.12, "4.1 ms"],
    [61.4, "61 ms"],
    [1234, "1.2 s"],
  ])("of a round trip of %j ms is %s", (ms, text) => {
    expect(roundTrip(ms)).toBe(text);
  });

  it("counts in words and says since when", () => {
    expect([counted(0, "flow"), counted(1, "flow"), counted(2, "flow")]).toEqual(["0 flows", "1 flow", "2 flows"]);
    expect([ago(null), ago(12)]).toEqual(["-", "12 s ago"]);
  });
});

describe("a table", () => {
  it("aligns its columns, coloured or not, and leaves no blanks at the end", () => {
    const rows = [
      ["PEER", "TRUST", "NOTE"],
      ["b", { text: "mutual", colour: "green" }, ""],
      ["grün", "", "seen"],
    ] as const;
    expect(table(rows, plain)).toEqual(["PEER  TRUST   NOTE", "b     mutual", "grün          seen"]);
    expect(table(rows, coloured)[1]).toBe("b     \x1b[32mmutual\x1b[0m");
  });
});
