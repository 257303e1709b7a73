/** The eye for leaks must see small ones through noise, and no leak where there is only noise. */
import { describe, expect, it } from "vitest";
import { Random } from "../helpers/random.ts";
import { type GrowthLimits, growthOf, leakIn, type Sample } from "../soak/leak.ts";

const LIMITS: GrowthLimits = { rssMiB: 12, descriptors: 2 };
const SEED = Date.now() & 0xffff;

/** 24 cycles of a process of 90 MiB with 40 descriptors, noise of 8 MiB and 2 descriptors, and what it leaks in each. */
function life(leak: { readonly rssMiB?: number; readonly descriptors?: number }, seed: number): Sample[] {
  const random = new Random(seed);
  return Array.from({ length: 24 }, (_, cycle) => ({
    rssMiB: 90 + 8 * random.fraction() + cycle * (leak.rssMiB ?? 0),
    descriptors: 40 + random.between(0, 2) + cycle * (leak.descriptors ?? 0),
  }));
}

function verdicts(leak: Parameters<typeof life>[0]): (string | undefined)[] {
  return Array.from({ length: 200 }, (_, i) => leakIn(growthOf(life(leak, SEED + i))!, LIMITS));
}

describe(`samples of a process (seed ${SEED})`, () => {
  it("with nothing but noise are no leak", () => {
    expect(verdicts({}).filter((verdict) => verdict !== undefined)).toEqual([]);
  });

  it("show one descriptor or one and a half MiB leaked in each cycle", () => {
    expect(verdicts({ descriptors: 1 }).every((verdict) => verdict?.startsWith("descriptors grew"))).toBe(true);
    expect(verdicts({ rssMiB: 1.5 }).every((verdict) => verdict?.startsWith("memory grew"))).toBe(true);
  });

  it("too few of them say nothing", () => {
    expect(growthOf(life({ descriptors: 9 }, SEED).slice(0, 5))).toBeUndefined();
  });
});
