import { afterAll, beforeAll, expect, it } from "vitest";
import { exactCpuSeconds } from "../bench/measure.ts";
import { Lab } from "../helpers/lab.ts";

let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("idle", { hosts: ["a", "b"], topology: "pair" });
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b")]);
  await lab.trust("a", "b");
}, 60_000);

afterAll(() => lab.close());

it("a daemon with a session and nothing to do takes half a percent of a core at most", async () => {
  expect((await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "5", lab.overlay("b")])).code).toBe(0);
  await sleep(3_000);
  const shares: number[] = [];
  for (let window = 0; window < 3; window++) shares.push(await cpuShare("b", 4_000));
  // The collector of what the start has left works in one of them.
  expect(Math.min(...shares), `shares of a core: ${shares}`).toBeLessThanOrEqual(0.005);
}, 40_000);

async function cpuShare(host: string, ms: number): Promise<number> {
  const { process } = lab.node(host);
  const before = exactCpuSeconds(process);
  await sleep(ms);
  return ((exactCpuSeconds(process) - before) / ms) * 1_000;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
