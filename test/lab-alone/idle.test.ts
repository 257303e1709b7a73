import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Lab } from "../helpers/lab.ts";

let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("idle", { hosts: ["a", "b"], topology: "pair" });
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b")]);
  await lab.trust("a", "b");
}, 60_000);

afterAll(() => lab.close());

/** Wake-ups and not CPU time: that is a matter of the machine, this of the program. */
it("a daemon with a session and nothing to do wakes up ten times a second at most", async () => {
  expect((await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "5", lab.overlay("b")])).code).toBe(0);
  await sleep(3_000);
  const rates: number[] = [];
  for (let window = 0; window < 3; window++) rates.push(await wakeUpsPerSecond("b", 4_000));
  // The collector of what the start has left works in one of them.
  expect(Math.min(...rates), `wake-ups a second: ${rates}`).toBeLessThanOrEqual(10);
}, 40_000);

/** Of the thread that moves packets: proc_pid_status(5). */
async function wakeUpsPerSecond(host: string, ms: number): Promise<number> {
  const { pid } = lab.node(host).process;
  const count = () =>
    Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
  const before = count();
  await sleep(ms);
  return ((count() - before) / ms) * 1_000;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
