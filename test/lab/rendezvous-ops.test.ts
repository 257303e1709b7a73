/** A rendezvous in operation: what it proves, measures and keeps while real nodes relay through it. */
import { chmodSync, chownSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { blockDirect } from "../helpers/direct-block.ts";
import { LAUNCHER, Lab, waitUntil } from "../helpers/lab.ts";

const FLOOD = fileURLToPath(new URL("./flood-program.ts", import.meta.url));

let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("ops", { hosts: ["a", "b", "c"] });
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b")]);
  await lab.trust("a", "b");
  await blockDirect(lab, ["a", "b"]);
  await waitUntil("the relay", async () => (await ping(1)).stdout.includes("1 received"), 60_000);
});

afterAll(() => lab?.close());

const state = () => join(lab.folder, "rendezvous");

async function operate(...args: readonly string[]) {
  const where = ["--state", state()];
  return await lab.exec(lab.rendezvousHost, LAUNCHER, ["--json", "rendezvous", ...args, ...where]);
}

async function metric(line: RegExp): Promise<number> {
  const { metrics } = JSON.parse((await operate("metrics")).stdout);
  return Number(line.exec(metrics)?.[1] ?? 0);
}

const ping = (count: number) =>
  lab.exec("a", "ping", ["-6", "-c", String(count), "-i", "0.2", "-W", "2", lab.overlay("b")]);

it("a relayed pair shows in the metrics, and a third host's claim does not redirect it", async () => {
  expect(JSON.parse((await operate("health")).stdout)).toMatchObject({ healthy: true, beacon: { provenNodes: 2 } });
  const node = lab.node("b").node;
  const claim = `const s=require('dgram').createSocket('udp4');const d=Buffer.alloc(5);d[0]=8;d.writeUInt32BE(${node},1);
    const [h,p]='${lab.beacon}'.split(':');let n=0;const t=setInterval(()=>{s.send(d,+p,h);if(++n===20){clearInterval(t);s.close()}},20)`;
  const before = await metric(/beacon_unproven_moves_total (\d+)/);
  expect((await lab.exec("c", process.execPath, ["-e", claim])).code).toBe(0);
  expect(await metric(/beacon_unproven_moves_total (\d+)/)).toBeGreaterThanOrEqual(before + 15);
  expect((await ping(3)).stdout).toContain("3 received");
  expect((await lab.peers("a")).peers[0].path).toBe("relay");
  const pair = new RegExp(`relay_pair_frames_total\\{sender="${lab.node("a").node}",destination="${node}"\\} (\\d+)`);
  expect(await metric(pair)).toBeGreaterThan(0);
}, 120_000);

it("the relay carries what passes between the two, and none of it can be read there", async () => {
  const file = join(lab.folder, "relay.pcap");
  const capture = lab.spawn(lab.rendezvousHost, "tcpdump", ["--immediate-mode", "-i", "any", "-U", "-w", file, "udp"]);
  await capture.waitForLine(/listening on/);
  const pattern = "feedfacecafebeef";
  const words = ["-6", "-c", "5", "-i", "0.2", "-p", pattern, "-s", "400", lab.overlay("b")];
  expect((await lab.exec("a", "ping", words)).stdout).toContain("5 received");
  await capture.stop();
  const seen = readFileSync(file).toString("latin1");
  expect(seen.split("PILS").length - 1).toBeGreaterThanOrEqual(20); // five each way, in and out
  expect(seen).not.toContain(Buffer.from(pattern, "hex").toString("latin1"));
}, 120_000);

it("a flood of requests, discoveries and frames from one host does not stop service to the others", async () => {
  const victim = String(lab.node("b").node);
  const flood = lab.spawn("c", process.execPath, [FLOOD, lab.registry, lab.beacon, victim]);
  await flood.waitForLine(/flooding/);
  const pings = await lab.exec("a", "ping", ["-6", "-c", "50", "-i", "0.1", "-W", "2", lab.overlay("b")]);
  const startedAt = performance.now();
  expect((await lab.pilot("a", "addr", "b")).address).toBe(lab.overlay("b")); // asks the registry
  const askedMs = performance.now() - startedAt;
  await lab.stopNode("b");
  await lab.startNode("b"); // registers, proves its number, and is found again through the flood
  await waitUntil("b to be back", async () => (await ping(1)).stdout.includes("1 received"), 30_000);
  await flood.stop();

  const trips = [...pings.stdout.matchAll(/time=([\d.]+) ms/g)].map((match) => Number(match[1])).sort((a, b) => a - b);
  console.log(
    `during a flood: ${trips.length} of 50 pings, median ${trips[25]} ms; a question ${askedMs.toFixed(0)} ms`,
  );
  expect(trips.length).toBeGreaterThanOrEqual(45);
  expect(trips[25]).toBeLessThan(500); // a few without it, and next to nothing is answered where the flood is served first
  expect(await metric(/requests_total\{type="unknown",outcome="limited"\} (\d+)/)).toBeGreaterThan(100);
  for (const limit of ["control", "bytes"]) {
    expect(await metric(new RegExp(`beacon_limited_total\\{limit="${limit}"\\} (\\d+)`))).toBeGreaterThan(1000);
  }
  const forged = new RegExp(`relay_pair_frames_total\\{sender="999999",destination="${victim}"\\} (\\d+)`);
  expect(await metric(forged)).toBeGreaterThan(1000);
}, 180_000);

it("a backup taken while it runs brings everything back", async () => {
  const file = join(lab.folder, "backup.db");
  expect(JSON.parse((await operate("backup", file)).stdout)).toMatchObject({ file, nodes: 2 });
  expect((await lab.exec(lab.rendezvousHost, LAUNCHER, ["rendezvous", "restore", file, "--state", state()])).code).toBe(
    1,
  );
  await lab.rendezvous.stop();
  expect((await operate("health")).code).toBe(3);
  // The service's own user has the folder, and root restores.
  chownSync(state(), 12_345, 12_345);
  chmodSync(file, 0o644);
  expect(JSON.parse((await operate("restore", file)).stdout)).toMatchObject({ nodes: 2 });
  const { uid, mode } = statSync(join(state(), "rendezvous.db"));
  expect([uid, mode & 0o777]).toEqual([12_345, 0o600]);
  await lab.startRendezvous();
  await waitUntil("both nodes", async () => (await metric(/beacon_nodes\{number="proven"\} (\d+)/)) === 2, 60_000);
  expect((await lab.pilot("a", "addr", "b")).address).toBe(lab.overlay("b"));
}, 120_000);
