import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { PacedWrite } from "../../src/daemon/paced-write.ts";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

function pacedWrite(tookMs = 0) {
  let value = 0;
  const written: number[] = [];
  const file = new PacedWrite(() => {
    vi.advanceTimersByTime(tookMs);
    written.push(value);
  });
  const learn = () => {
    value++;
    file.soon();
  };
  return { file, written, learn, set: () => value++ };
}

describe("a file that is written as a whole", () => {
  it("is written at once when it was left alone", () => {
    const { written, learn } = pacedWrite();
    learn();
    expect(written).toEqual([1]);
    vi.advanceTimersByTime(5_000);
    learn();
    expect(written).toEqual([1, 2]);
  });

  it("takes what changes within a second of a write in one more, with the last of it", () => {
    const { written, learn } = pacedWrite();
    for (let i = 0; i < 1_000; i++) learn();
    expect(written).toEqual([1]);
    vi.advanceTimersByTime(1_000);
    expect(written).toEqual([1, 1_000]);
    vi.advanceTimersByTime(10_000);
    expect(written).toEqual([1, 1_000]);
  });

  it("is left alone for twenty times as long as writing took", () => {
    const { written, learn } = pacedWrite(200);
    learn();
    learn();
    vi.advanceTimersByTime(3_900);
    expect(written).toEqual([1]);
    vi.advanceTimersByTime(200);
    expect(written).toEqual([1, 2]);
  });

  it("is written at once when that is asked for, and what waited is not written again", () => {
    const { file, written, learn, set } = pacedWrite();
    learn();
    learn();
    set();
    file.atOnce();
    expect(written).toEqual([1, 3]);
    vi.advanceTimersByTime(10_000);
    expect(written).toEqual([1, 3]);
  });

  it("loses nothing at the end", () => {
    const { file, written, learn } = pacedWrite();
    learn();
    learn();
    file.close();
    expect(written).toEqual([1, 2]);
    file.close();
    expect(written).toEqual([1, 2]);
  });
});
