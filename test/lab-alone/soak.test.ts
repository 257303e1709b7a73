/** Every fault of scripts/soak once, in an order of its seed; and that its eye for leaks sees a daemon that leaks. */
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "../helpers/lab.ts";
import { growthOf, leakIn, type Sample, sampleOf } from "../soak/leak.ts";
import { accountLines, soak } from "../soak/run.ts";
import { pause } from "../soak/world.ts";

const SEED = Number(process.env["LAB_SEED"] ?? Date.now() % 100_000);
const LEAKING = fileURLToPath(new URL("../helpers/leaking.ts", import.meta.url));
/** A short life is over before memory that is kept for reuse has grown to its size; scripts/soak looks closer. */
const LIMITS = { rssMiB: 32, descriptors: 2 };

it("nothing acknowledged is lost and nothing is leaked through every fault", { timeout: 400_000 }, async () => {
  const say = (line: string): void => console.log(line);
  say(`LAB_SEED=${SEED}`);
  // sleep.test.ts has one of 33 s.
  const lengths = { shortPauseMs: 3_000, longPauseMs: 15_000, everywhere: false };
  const account = await soak({
    ...lengths,
    seed: SEED,
    durationMs: 0,
    limits: LIMITS,
    memoryMaxMiB: 256,
    warmUp: 1_000,
    churn: 60,
    say,
  });
  for (const line of accountLines(account)) say(line);
  expect(account.growth).toBeDefined();
  expect(Math.min(...account.records.values())).toBeGreaterThan(100);
});

describe("the eye for leaks", () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await Lab.create("leaks", { hosts: ["a", "b"] });
    await lab.startRendezvous();
    const leaking = (what: string) => ({ env: { NODE_OPTIONS: `--import=${LEAKING}`, PILOT_LEAK: what } });
    await Promise.all([lab.startNode("a", leaking("descriptors")), lab.startNode("b", leaking("memory"))]);
  });

  afterAll(() => lab?.close());

  it("sees a descriptor, or four MiB, that a daemon leaks ten times a second", async () => {
    const samples = new Map<string, Sample[]>([
      ["a", []],
      ["b", []],
    ]);
    for (let i = 0; i < 12; i++) {
      await pause(400);
      for (const [host, taken] of samples) taken.push(sampleOf(lab.node(host).process.pid!)!);
    }
    const [descriptors, memory] = [...samples.values()].map((taken) => leakIn(growthOf(taken)!, LIMITS));
    expect(descriptors).toMatch(/descriptors grew/);
    expect(memory).toMatch(/memory grew/);
  });
});
