import { expect, test } from "vitest";
import { REPLAY_WINDOW_WIDTH, ReplayWindow } from "../../src/tunnel/replay-window.ts";

test("the window is wide enough for a reordered burst of offloaded segments", () => {
  const window = new ReplayWindow();
  expect(window.accept(0, REPLAY_WINDOW_WIDTH)).toBe(true);
  for (let counter = 1; counter < REPLAY_WINDOW_WIDTH; counter++) expect(window.accept(0, counter)).toBe(true);
  expect(REPLAY_WINDOW_WIDTH).toBeGreaterThanOrEqual(2048);
});

test("what was seen one width ago stands for none of the counters that were skipped since", () => {
  const window = new ReplayWindow();
  for (let counter = 1; counter <= REPLAY_WINDOW_WIDTH; counter++) window.accept(0, counter);
  expect(window.accept(0, REPLAY_WINDOW_WIDTH + 100)).toBe(true);
  for (let late = 1; late < 100; late++) expect(window.accept(0, REPLAY_WINDOW_WIDTH + late)).toBe(true);
  for (let again = 1; again <= 100; again++) expect(window.accept(0, REPLAY_WINDOW_WIDTH + again)).toBe(false);
});

test("counter 0 never passes, first or later", () => {
  const window = new ReplayWindow();
  expect(window.accept(0, 0)).toBe(false);
  expect(window.accept(0, 1)).toBe(true);
  expect(window.accept(0, 0)).toBe(false);
});

test("the counter's lower half may wrap", () => {
  const window = new ReplayWindow();
  expect(window.accept(0, 0xffff_ffff)).toBe(true);
  expect(window.accept(1, 0)).toBe(true);
  expect(window.accept(1, 1)).toBe(true);
  expect(window.accept(0, 0xffff_ffff)).toBe(false);
  expect(window.accept(0, 0xffff_fffe)).toBe(true);
  expect(window.accept(1, 0)).toBe(false);
});

test("the highest counter of all passes once and leaves only its neighbours", () => {
  const window = new ReplayWindow();
  expect(window.accept(0xffff_ffff, 0xffff_ffff)).toBe(true);
  expect(window.accept(0xffff_ffff, 0xffff_ffff)).toBe(false);
  expect(window.accept(0xffff_ffff, 0xffff_ffff - REPLAY_WINDOW_WIDTH + 1)).toBe(true);
  expect(window.accept(0xffff_ffff, 0xffff_ffff - REPLAY_WINDOW_WIDTH)).toBe(false);
  expect(window.accept(0, 1)).toBe(false);
});

test("a width that is no power of two is refused", () => {
  expect(() => new ReplayWindow(1000)).toThrow(RangeError);
  expect(() => new ReplayWindow(16)).toThrow(RangeError);
});
