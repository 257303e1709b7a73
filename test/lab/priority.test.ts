/** A daemon that the operator prefers to ordinary programs, as docs/service.md has it. */
import { readdirSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { LAUNCHER, Lab } from "../helpers/lab.ts";

let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("priority");
  await lab.startRendezvous();
  const launcher = `${lab.folder}/preferred`;
  writeFileSync(launcher, `#!/bin/sh\nexec chrt --rr --reset-on-fork 1 ${LAUNCHER} "$@"\n`, { mode: 0o755 });
  await lab.startNode("a", { launcher });
  await lab.startNode("b");
  await lab.trust("a", "b");
});

afterAll(() => lab?.close());

/** Thread → what the scheduler does with it. */
async function policiesOf(host: string): Promise<Map<number, string>> {
  const { pid } = lab.node(host).process;
  const threads = readdirSync(`/proc/${pid}/task`).map(Number);
  const entries = threads.map(async (thread): Promise<[number, string]> => {
    const { stdout } = await lab.exec(host, "chrt", ["--pid", String(thread)]);
    return [thread, /policy: (\S+)/.exec(stdout)?.[1] ?? stdout];
  });
  return new Map(await Promise.all(entries));
}

it("the thread that moves packets keeps the priority it was started with, and gives it to no other", async () => {
  const policies = await policiesOf("a");
  const { pid } = lab.node("a").process;
  expect(policies.size).toBeGreaterThan(1);
  for (const [thread, policy] of policies) {
    expect(policy, `thread ${thread}`).toMatch(thread === pid ? /^SCHED_RR/ : /^SCHED_OTHER$/);
  }
});

it("traffic passes between a preferred daemon and an ordinary one", async () => {
  for (const policy of (await policiesOf("b")).values()) expect(policy).toBe("SCHED_OTHER");
  const { stdout } = await lab.exec("a", "ping", ["-6", "-c", "5", "-i", "0.1", lab.overlay("b")]);
  expect(stdout).toContain("5 received");
});
