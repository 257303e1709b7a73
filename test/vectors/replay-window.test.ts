import { expect, test } from "vitest";
import { ReplayWindow } from "../../src/tunnel/replay-window.ts";
import vector from "./replay-window.json" with { type: "json" };

test("a window of the reference's width gives the reference's verdicts", () => {
  const window = new ReplayWindow(256);
  const verdicts = vector.counters.map((counter) => {
    const value = BigInt(counter);
    return window.accept(Number(value >> 32n), Number(value & 0xffff_ffffn));
  });
  expect(verdicts).toEqual(vector.accepted);
});
