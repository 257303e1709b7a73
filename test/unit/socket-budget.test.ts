import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import {
  INITIAL_BYTES,
  MAX_BYTES,
  MIN_BYTES,
  MOST_MS,
  SocketBudget,
  TARGET_MS,
} from "../../src/tunnel/socket-budget.ts";

/** A socket that a network empties at a rate, and that is filled up each time its half is free, or later. */
class Network {
  readonly budget = new SocketBudget();
  #nowMs = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  /** `bytesPerMs`: of the network. `lateMs`: from the moment of room until somebody comes. */
  run(ms: number, bytesPerMs: number, lateMs = 0): void {
    const end = this.#nowMs + ms;
    while (this.#nowMs < end) {
      const held = this.budget.bytes;
      this.budget.noteFull(held, instant(this.#nowMs));
      this.#nowMs += held / 2 / bytesPerMs + lateMs;
      this.budget.noteRoom(Math.max(0, held / 2 - lateMs * bytesPerMs), instant(this.#nowMs));
    }
  }
}

const MBIT = 125; // bytes a millisecond

describe("what the socket may hold", () => {
  it.each([40, 100, 1_000, 10_000])("is what a network of %i Mbit/s takes in 2 ms", (mbit) => {
    const network = new Network();
    network.run(1_000, mbit * MBIT);
    const wanted = Math.max(MIN_BYTES, mbit * MBIT * TARGET_MS);
    expect(network.budget.bytes / wanted).toBeGreaterThan(0.8);
    expect(network.budget.bytes / wanted).toBeLessThan(1.2);
  });

  it("follows a network that becomes slower, and one that becomes faster", () => {
    const network = new Network();
    network.run(500, 1_000 * MBIT);
    network.run(1_500, 50 * MBIT);
    expect(network.budget.bytes).toBeLessThan(50 * MBIT * TARGET_MS * 1.2);
    network.run(500, 2_000 * MBIT);
    expect(network.budget.bytes).toBeGreaterThan(2_000 * MBIT * TARGET_MS * 0.8);
  });

  it("grows when the network ran empty before we came, but not beyond what it takes in 8 ms", () => {
    const network = new Network();
    network.run(1_000, 100 * MBIT);
    network.run(1_000, 100 * MBIT, 3);
    expect(network.budget.bytes).toBeGreaterThan(100 * MBIT * 5);
    network.run(1_000, 100 * MBIT, 100);
    expect(network.budget.bytes).toBeLessThanOrEqual(Math.round(100 * MBIT * MOST_MS * 1.01));
    network.run(3_000, 100 * MBIT);
    expect(network.budget.bytes).toBeLessThan(100 * MBIT * TARGET_MS * 1.2);
  });

  it("stays small when we come too late now and then", () => {
    const network = new Network();
    for (let i = 0; i < 100; i++) {
      network.run(30, 100 * MBIT);
      network.run(5, 100 * MBIT, 4);
    }
    expect(network.budget.bytes).toBeLessThan(100 * MBIT * 3);
  });

  it("has bounds, and stays as it is as long as nothing was full", () => {
    const budget = new SocketBudget();
    expect(budget.noteRoom(0, instant(5))).toBe(false);
    expect(budget.bytes).toBe(INITIAL_BYTES);
    const slow = new Network();
    slow.run(20_000, 1);
    expect(slow.budget.bytes).toBe(MIN_BYTES);
    const fast = new Network();
    fast.run(100, 1e7);
    expect(fast.budget.bytes).toBe(MAX_BYTES);
  });
});
