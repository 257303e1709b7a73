import fc from "fast-check";
import { expect, test } from "vitest";
import { ReplayWindow } from "../../src/tunnel/replay-window.ts";

/** The rule as it reads: not zero, above the highest minus the width, not seen. */
class SetModel {
  readonly #seen = new Set<bigint>();
  readonly #width: bigint;
  #highest = 0n;

  constructor(width: number) {
    this.#width = BigInt(width);
  }

  accept(counter: bigint): boolean {
    if (counter === 0n || counter <= this.#highest - this.#width || this.#seen.has(counter)) return false;
    this.#seen.add(counter);
    if (counter > this.#highest) this.#highest = counter;
    return true;
  }
}

const BASES = [0n, 0xffff_ff00n, 2n ** 53n - 100n, 2n ** 63n, 2n ** 64n - 700n];

test("the window agrees with a set of all counters seen", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(32, 64, 256),
      fc.constantFrom(...BASES),
      fc.array(fc.oneof(fc.nat(40), fc.nat(680)), { maxLength: 200 }),
      fc.array(fc.nat(199), { maxLength: 10 }),
      (width, base, offsets, small) => {
        const window = new ReplayWindow(width);
        const model = new SetModel(width);
        for (const counter of [...small.map(BigInt), ...offsets.map((offset) => base + BigInt(offset))]) {
          const accepted = window.accept(Number(counter >> 32n), Number(counter & 0xffff_ffffn));
          expect({ counter, accepted }).toEqual({ counter, accepted: model.accept(counter) });
        }
      },
    ),
    { numRuns: 300 },
  );
});
