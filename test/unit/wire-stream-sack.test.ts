import { describe, expect, it } from "vitest";
import { encodeSack, isPlausibleSack, parseSack, type SackBlock } from "../../src/wire/stream-sack.ts";

const isPlausible = (blocks: readonly SackBlock[], unacknowledged: number, next: number, extraBytes = 0) => {
  const payload = Uint8Array.from([...encodeSack(blocks)!, ...new Uint8Array(extraBytes)]);
  return isPlausibleSack(payload, parseSack(payload)!, unacknowledged, next);
};

describe("a selective acknowledgement is believed", () => {
  it("when its blocks lie within what was sent", () => {
    expect(isPlausible([{ left: 200, right: 300 }], 100, 300)).toBe(true);
    expect(isPlausible([{ left: 100, right: 300 }], 100, 300)).toBe(true);
  });

  it("also where the sequence wraps", () => {
    expect(isPlausible([{ left: 0xffffff00, right: 0x100 }], 0xfffffe00, 0x200)).toBe(true);
  });

  it("not when a block is empty, turned around, or beyond what was sent", () => {
    expect(isPlausible([{ left: 200, right: 200 }], 100, 300)).toBe(false);
    expect(isPlausible([{ left: 250, right: 200 }], 100, 300)).toBe(false);
    expect(isPlausible([{ left: 200, right: 301 }], 100, 300)).toBe(false);
    expect(isPlausible([{ left: 99, right: 200 }], 100, 300)).toBe(false);
    expect(
      isPlausible(
        [
          { left: 120, right: 130 },
          { left: 400, right: 500 },
        ],
        100,
        300,
      ),
    ).toBe(false);
  });

  it("not when anything follows its blocks", () => {
    expect(isPlausible([{ left: 200, right: 300 }], 100, 300, 1)).toBe(false);
  });

  it("and has no encoding without blocks", () => {
    expect(encodeSack([])).toBeUndefined();
  });
});
