/** Daemons that go before ordinary programs: by their operator, and by themselves while somebody waits beside a transfer. */
import { readdirSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { mayPrefer } from "../../src/daemon/preference.ts";
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

const PREFERRED = "SCHED_RR|SCHED_RESET_ON_FORK";
/** Where this machine gives its programs a part of a processor only, or has but one, a daemon stays as it is. */
const IN_TRANSFER = mayPrefer() ? PREFERRED : "SCHED_OTHER";

describe("a daemon beside whose transfer somebody waits for answers", () => {
  const policyOf = async (host: string) => (await policiesOf(host)).get(lab.node(host).process.pid ?? 0);

  /** The policy of b's thread that moves packets, while a ping runs beside a transfer to b. */
  async function policyInTransfer(): Promise<string | undefined> {
    const server = lab.spawn("b", "iperf3", ["-s", "-1", "-p", "5201", "--forceflush"]);
    await server.waitForLine(/listening/i);
    const transfer = lab.exec("a", "iperf3", ["-6", "-c", lab.overlay("b"), "-p", "5201", "-t", "3"], {
      timeoutMs: 15_000,
    });
    const pings = lab.exec("a", "ping", ["-6", "-c", "25", "-i", "0.1", lab.overlay("b")]);
    let seen: string | undefined;
    for (let look = 0; look < 10 && seen !== PREFERRED; look++) {
      await sleep(200);
      seen = await policyOf("b");
    }
    expect((await pings).stdout).toContain("25 received");
    expect((await transfer).code).toBe(0);
    await server.ended;
    return seen;
  }

  it("goes before ordinary programs, and is one of them again afterwards", async () => {
    expect(await policyInTransfer()).toBe(IN_TRANSFER);
    await expect.poll(() => policyOf("b"), { timeout: 10_000 }).toMatch(/^SCHED_OTHER/);
    for (const [thread, policy] of await policiesOf("b"))
      if (thread !== lab.node("b").process.pid) expect(policy).toBe("SCHED_OTHER");
  });

  it("stays an ordinary program where its operator says so", async () => {
    await lab.stopNode("b");
    await lab.startNode("b", { extraArgs: ["--no-prefer"] });
    expect(await policyInTransfer()).toBe("SCHED_OTHER");
  });
});
