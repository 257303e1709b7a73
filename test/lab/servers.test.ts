/** Registry and beacon in processes of their own, killed one by one: what goes on without them, and what is said of it. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LAUNCHER, Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import { LabNat } from "../helpers/lab-nat.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import { lateness } from "../helpers/lateness.ts";

let lab: Lab;
let beacon: LabProcess;
let ofA: LabNat;
let ofB: LabNat;

/** a and b behind routers; the beacon of the registry's process serves nobody. */
beforeAll(async () => {
  lab = await Lab.create("servers", { hosts: ["a", "b", "ra", "rb"] });
  await lab.startRendezvous();
  beacon = await startBeacon();
  ofA = new LabNat(lab, "ra", 1);
  ofB = new LabNat(lab, "rb", 2);
  for (const [router, host] of [[ofA, "a"] as const, [ofB, "b"] as const]) {
    await router.create("port-dependent");
    await router.adopt(host);
  }
  // Consent by the registry's own beacon, which tells of a question at once; the other one knows nothing of it.
  await Promise.all([lab.startNode("a"), lab.startNode("b")]);
  await lab.trust("a", "b");
  await Promise.all([lab.stopNode("a"), lab.stopNode("b")]);
  await Promise.all([start("a"), start("b")]);
  expect(await answered("a", "b", 5)).toBe(true);
  await waitForPath("direct");
});

afterAll(() => lab?.close());

const address = (): string => lab.network.addressOf(lab.rendezvousHost);

async function startBeacon(): Promise<LabProcess> {
  const where = ["--registry", `${address()}:9100`, "--beacon", `${address()}:9101`];
  const state = ["--state", `${lab.folder}/beacon`];
  const process = lab.spawn(lab.rendezvousHost, LAUNCHER, ["rendezvous", ...where, ...state]);
  await process.waitForLine(/ready/, 15_000, "stdout");
  return process;
}

const start = (host: string) => lab.startNode(host, { extraArgs: ["--beacon", `${address()}:9101`] });

const answered = async (from: string, to: string, timeoutS: number): Promise<boolean> => {
  const { code } = await lab.exec(from, "ping", ["-6", "-q", "-c", "1", "-W", String(timeoutS), lab.overlay(to)]);
  return code === 0;
};

const statusOf = (host: string): Promise<Reply> => lab.status(host);

async function waitForPath(path: string): Promise<void> {
  for (const host of ["a", "b"]) {
    const isSo = async (): Promise<boolean> => (await statusOf(host)).peers[0].path === path;
    await waitUntil(`${host} to have the path ${path}`, isSo, 20_000);
  }
}

/** So many pings, ten a second, of which none may be lost. */
async function expectNoLoss(count: number): Promise<void> {
  const args = ["-6", "-q", "-i", "0.1", "-c", String(count), "-W", "2", lab.overlay("b")];
  const { stdout } = await lab.exec("a", "ping", args);
  expect(stdout).toContain(` ${count} received`);
}

describe("a beacon that is killed", () => {
  it("costs direct traffic nothing, and status says what is not there", async () => {
    beacon.kill("SIGKILL");
    await beacon.ended;
    await expectNoLoss(60);
    const isTold = async () => (await statusOf("a")).problems.some(({ code }: Reply) => code === "udp_blocked");
    await waitUntil("the problem", isTold);
    const status = await statusOf("a");
    expect(status.registry).toMatchObject({ state: "connected" });
    expect(status.peers[0]).toMatchObject({ path: "direct" });
    expect(status.problems[0].message).toContain(`${address()}:9101`);
  });

  it("is found again when it comes back, by itself, and relays", async () => {
    beacon = await startBeacon();
    for (const host of ["a", "b"]) {
      const isWell = async (): Promise<boolean> => {
        const { problems, beacon: found } = await statusOf(host);
        return problems.length === 0 && found.state === "ok";
      };
      await waitUntil(`${host} to be well again`, isWell, 10_000);
    }
    await ofA.block(ofB.outside);
    // The beacon learns of b with its next keepalive, or as soon as b misses something.
    const pings = lab.spawn("a", "ping", ["-6", "-i", "0.2", lab.overlay("b")]);
    await waitForPath("relay");
    expect(await answered("b", "a", 2)).toBe(true);
    await ofA.block(undefined);
    await waitForPath("direct");
    await pings.stop();
  });
});

describe("a registry that is killed", () => {
  it("costs traffic nothing, direct or relayed, and status says what is not there", async () => {
    lab.rendezvous.kill("SIGKILL");
    await lab.rendezvous.ended;
    await expectNoLoss(30);
    const { registry } = await statusOf("a");
    expect(registry.state).not.toBe("connected");
    expect(registry.error).toMatch(/ECONNREFUSED|closed|ended|reset/);
    const pings = lab.spawn("a", "ping", ["-6", "-i", "0.2", lab.overlay("b")]);
    await ofA.block(ofB.outside);
    await waitForPath("relay");
    await ofA.block(undefined);
    await waitForPath("direct");
    await pings.stop();
  });

  it("is not needed by a node that starts again: direct peers are back within 2 s, and status says so", async () => {
    for (const host of ["a", "b"]) {
      const other = host === "a" ? "b" : "a";
      await lab.stopNode(host, "SIGKILL");
      await start(host);
      const readyAt = performance.now();
      const lateMs = lateness(lab, "a", "b");
      expect(await answered(host, other, 10)).toBe(true);
      const tookMs = performance.now() - readyAt;
      console.log(`${host} without a registry: first answer ${tookMs.toFixed(0)} ms after it was ready`);
      expect(tookMs).toBeLessThan(2_000 + lateMs());
      const { registry, peers, hostname } = await statusOf(host);
      expect(hostname).toBe(host);
      expect(peers[0]).toMatchObject({ hostname: other, path: "direct" });
      expect(registry.state).not.toBe("connected");
      expect(registry.error).toMatch(/ECONNREFUSED/);
    }
  });

  it("has the nodes back with their numbers when it returns", async () => {
    const numbers = ["a", "b"].map((host) => lab.node(host).node);
    await lab.startRendezvous();
    for (const [index, host] of ["a", "b"].entries()) {
      const isBack = async (): Promise<boolean> => (await statusOf(host)).registry.state === "connected";
      await waitUntil(`${host} to be registered`, isBack, 15_000);
      expect((await statusOf(host)).node).toBe(numbers[index]);
    }
    expect((await lab.pilot("a", "whois", lab.overlay("b"))).hostname).toBe("b");
  });
});

describe("with both killed", () => {
  it("a node that is started again has its direct peers back within 2 s", async () => {
    for (const process of [beacon, lab.rendezvous]) {
      process.kill("SIGKILL");
      await process.ended;
    }
    await lab.stopNode("a", "SIGKILL");
    await start("a");
    const readyAt = performance.now();
    const lateMs = lateness(lab, "a", "b");
    expect(await answered("a", "b", 10)).toBe(true);
    expect(performance.now() - readyAt).toBeLessThan(2_000 + lateMs());
  });
});
