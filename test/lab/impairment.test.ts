/** Networks that lose, delay, reorder and duplicate: everything still happens, and programs see nothing of it but time. */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import { LabNat } from "../helpers/lab-nat.ts";
import { LabWire } from "../helpers/lab-wire.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const SEED = Number(process.env["LAB_SEED"] ?? Date.now() & 0xffff);
const ROUTED = ["n", "m"] as const;

let lab: Lab;
/** The cable of a; of n, which is behind a router, the router's. */
let wire: LabWire;
let routed: LabWire;
const routers = new Map<string, LabNat>();

beforeAll(async () => {
  lab = await Lab.create("impair", { hosts: ["a", "b", "p", "n", "m", "rn", "rm"] });
  await lab.startRendezvous();
  for (const [index, host] of ROUTED.entries()) {
    const router = new LabNat(lab, `r${host}`, index + 1);
    await router.create("port-dependent");
    await router.adopt(host);
    routers.set(host, router);
  }
  wire = await LabWire.insert(lab, "a", SEED);
  routed = await LabWire.insert(lab, "rn", SEED + 1);
  await Promise.all([lab.startNode("a"), lab.startNode("b"), lab.startNode("p", { extraArgs: ["--plain-only"] })]);
});

afterEach(async () => {
  const counts = [await wire.become({}), await routed.become({})];
  expect(counts.map(({ overflowed }) => overflowed)).toEqual([0, 0]);
});

afterAll(() => lab?.close());

const peerOf = async (host: string, other: string): Promise<Reply> => {
  const { peers } = await lab.peers(host);
  return peers.find((peer: Reply) => peer.node === lab.node(other).node);
};

/** Sends so many, 50 a second; how many were answered, and what ping says of copies. */
async function ping(from: string, to: string, count: number): Promise<{ received: number; copies: number }> {
  const args = ["-6", "-q", "-i", "0.02", "-c", String(count), "-W", "2", lab.overlay(to)];
  const { stdout } = await lab.exec(from, "ping", args);
  const copies = Number(/\+(\d+) duplicates/.exec(stdout)?.[1] ?? 0);
  return { received: Number(/(\d+) received/.exec(stdout)?.[1]), copies };
}

/** How long until the first of many pings was answered, in ms. */
async function firstAnswer(from: string, to: string, withinMs: number): Promise<number> {
  const startedAt = performance.now();
  const process = lab.spawn(from, "ping", ["-6", "-i", "0.2", lab.overlay(to)]);
  await process.waitForLine(/bytes from/, withinMs);
  const tookMs = performance.now() - startedAt;
  await process.stop();
  return tookMs;
}

describe("over a wire that loses and reorders", () => {
  it("two nodes come to trust each other, and a plain agent and a pilot-tun do", async () => {
    await wire.become({ loss: 0.2, reorder: 0.2, duplicate: 0.1, delayMs: 5, jitterMs: 10 });
    await lab.trust("a", "b");
    await lab.trust("a", "p");
    const { lost, reordered, duplicated } = await wire.become({});
    for (const count of [lost, reordered, duplicated]) expect(count).toBeGreaterThan(0);
  });

  it("keys are agreed on after each start, with a pilot-tun and with a plain agent, though a fifth is lost", async () => {
    await wire.become({ loss: 0.2, reorder: 0.2, delayMs: 5, jitterMs: 10 });
    const tookMs: number[] = [];
    for (const signal of ["SIGKILL", "SIGTERM", "SIGKILL"] as const) {
      await lab.stopNode("a", signal);
      await lab.startNode("a");
      tookMs.push(await firstAnswer("a", "b", 15_000), await firstAnswer("a", "p", 15_000));
    }
    console.log(`first answers with 20 % loss: ${tookMs.map((ms) => ms.toFixed(0)).join(" ")} ms`);
    expect(tookMs.sort((x, y) => x - y)[2]).toBeLessThan(2_000); // one or two lost datagrams cost no more than that
  });

  it("a download is complete, byte for byte, though 5 % are lost and a fifth comes out of order", async () => {
    await waitUntil("a direct path", async () => (await peerOf("a", "b")).path === "direct");
    await expectDownload({ loss: 0.05, reorder: 0.2, reorderMs: 5, duplicate: 0.02, delayMs: 1, jitterMs: 2 }, 8);
  });

  it("a plain agent's streams carry a download just so", async () => {
    await expectDownload({ loss: 0.05, reorder: 0.2, reorderMs: 5, duplicate: 0.02, delayMs: 1, jitterMs: 2 }, 1, "p");
  });

  it("what was revoked is told to the peer, though a third is lost", async () => {
    await wire.become({ loss: 0.33, delayMs: 5 });
    await lab.pilot("a", "trust", "revoke", String(lab.node("p").node));
    await lab.waitForTrust("p", "a", "revoked-by-peer", 30_000);
  });
});

describe("over a wire that only reorders, or only duplicates", () => {
  it("every packet arrives, however late", async () => {
    await wire.become({ reorder: 0.5, reorderMs: 100, delayMs: 1 });
    expect(await ping("a", "b", 150)).toEqual({ received: 150, copies: 0 });
    expect((await wire.become({})).reordered).toBeGreaterThan(50);
  });

  it("no packet arrives twice", async () => {
    const before = await replayed();
    const { duplicated: already } = await wire.become({ duplicate: 0.5, jitterMs: 30 });
    expect(await ping("a", "b", 150)).toEqual({ received: 150, copies: 0 });
    const { duplicated } = await wire.become({});
    expect(duplicated - already).toBeGreaterThan(50);
    expect((await replayed()) - before).toBeGreaterThan(50);
  });
});

describe("hosts behind routers, over a wire that loses", () => {
  it("punch their way to each other, though a fifth is lost", async () => {
    await routed.become({ loss: 0.2, delayMs: 10, jitterMs: 10 });
    await Promise.all(ROUTED.map((host) => lab.startNode(host)));
    await lab.trust("n", "m");
    const firstMs = await firstAnswer("n", "m", 15_000);
    const startedAt = performance.now();
    const pings = lab.spawn("n", "ping", ["-6", "-i", "0.2", lab.overlay("m")]);
    for (const [from, to] of [ROUTED, [...ROUTED].reverse()] as const) {
      const isDirect = async () => (await peerOf(from!, to!)).path === "direct";
      await waitUntil(`${from} to reach ${to} directly`, isDirect, 30_000);
    }
    const directMs = performance.now() - startedAt;
    await pings.stop();
    console.log(
      `behind routers with 20 % loss: first answer ${firstMs.toFixed(0)} ms, direct ${directMs.toFixed(0)} ms`,
    );
    expect((await peerOf("n", "m")).endpoint).toContain(routers.get("m")!.outside);
    expect((await routed.become({})).lost).toBeGreaterThan(0);
  });
});

/** Copies of frames that a and b refused. */
async function replayed(): Promise<number> {
  const drops = await Promise.all(["a", "b"].map(async (host) => (await lab.status(host)).drops.replayed ?? 0));
  return drops.reduce((sum, count) => sum + count, 0);
}

async function expectDownload(
  impairment: Parameters<LabWire["become"]>[0],
  megabytes: number,
  from = "b",
): Promise<void> {
  const folder = `${lab.folder}/www`;
  mkdirSync(folder, { recursive: true });
  const body = Buffer.alloc(megabytes << 20, Buffer.from(seededBytes(7)(65_521)));
  writeFileSync(`${folder}/file`, body);
  const where = ["--bind", lab.overlay(from), "-d", folder];
  const server = lab.spawn(from, "python3", ["-u", "-m", "http.server", "8000", ...where]);
  await server.waitForLine(/Serving HTTP/);
  const before = await wire.become(impairment);
  const args = ["-gsSf", "-m", "60", "-o", `${lab.folder}/got`, "-w", "%{num_connects} %{time_total}"];
  const url = `http://[${lab.overlay(from)}]:8000/file`;
  const curl = await lab.exec("a", "curl", [...args, url], { timeoutMs: 70_000 });
  const { seen, lost, reordered, duplicated } = await wire.become({});
  await server.stop();
  expect({ code: curl.code, stderr: curl.stderr }).toEqual({ code: 0, stderr: "" });
  const [connections, seconds] = curl.stdout.split(" ");
  console.log(
    `${megabytes} MB from ${from} in ${seconds} s, of ${seen - before.seen} datagrams ${lost - before.lost} lost`,
  );
  expect(connections).toBe("1");
  expect(sha256(readFileSync(`${lab.folder}/got`))).toBe(sha256(body));
  expect(lost - before.lost).toBeGreaterThan(0.02 * (seen - before.seen));
  expect(reordered - before.reordered).toBeGreaterThan(0.1 * (seen - before.seen));
  expect(duplicated - before.duplicated).toBeGreaterThan(0);
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
