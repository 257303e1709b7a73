import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { toBase64 } from "../../src/base/bytes.ts";
import type { PilotError } from "../../src/base/pilot-error.ts";
import { type Rendezvous, type RendezvousOptions, runRendezvous } from "../../src/daemon/rendezvous.ts";
import { askAdmin } from "../../src/daemon/rendezvous-admin.ts";
import { DATABASE_FILE, SqliteStore } from "../../src/io/sqlite-store.ts";
import { checkBackup, restoreStore } from "../../src/io/store-backup.ts";
import { RegistrySocket } from "../helpers/registry-socket.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const ANY = { address: "127.0.0.1", port: 0 };
let root: string;
let stateDir: string;
let admin: string;
let running: Rendezvous[];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "admin-"));
  stateDir = join(root, "state");
  admin = join(root, "admin.sock");
  running = [];
});

afterEach(async () => {
  for (const rendezvous of running) await rendezvous.close();
  rmSync(root, { recursive: true, force: true });
});

async function run(options: Partial<RendezvousOptions> = {}): Promise<Rendezvous> {
  const rendezvous = await runRendezvous({ registry: ANY, beacon: ANY, stateDir, admin, ...options });
  running.push(rendezvous);
  return rendezvous;
}

async function problemOf(act: () => unknown): Promise<PilotError> {
  try {
    await act();
  } catch (error) {
    return error as PilotError;
  }
  return expect.unreachable("it did not fail");
}

const registration = (seed: number, hostname?: string) => ({
  type: "register",
  listen_addr: "0.0.0.0:4000",
  public_key: toBase64(seededBytes(seed)(32)),
  ...(hostname === undefined ? {} : { hostname }),
});

/** `name{labels} value` lines as a map. */
async function metrics(): Promise<Map<string, number>> {
  const lines = (await askAdmin(admin, "GET", "/metrics")).trimEnd().split("\n");
  const samples = lines.filter((line) => !line.startsWith("#"));
  for (const line of samples)
    expect(line).toMatch(/^[a-z_]+(\{[a-z_]+="[^"\\\n]*"(,[a-z_]+="[^"\\\n]*")*\})? \d+(\.\d+)?(e-?\d+)?$/);
  return new Map(
    samples.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]),
  );
}

describe("the admin socket", () => {
  test("only its own user may open; it is gone after the end", async () => {
    const rendezvous = await run();
    expect(statSync(admin).mode & 0o777).toBe(0o600);
    await rendezvous.close();
    const problem = await problemOf(() => askAdmin(admin, "GET", "/v1/health"));
    expect(problem.code).toBe("not_running");
  });

  test("of a running rendezvous is not taken over, and the second leaves nothing bound", async () => {
    await run();
    const problem = await problemOf(() => run({ stateDir: join(root, "other") }));
    expect(problem.code).toBe("already_running");
  });

  test("health says what works and how much there is of it", async () => {
    const { registry, beacon } = await run();
    const socket = await RegistrySocket.open(registry.port);
    await socket.ask(registration(1));
    expect(JSON.parse(await askAdmin(admin, "GET", "/v1/health"))).toEqual({
      schema: "pilot-tun/1",
      healthy: true,
      registry: { endpoint: `127.0.0.1:${registry.port}`, listening: true, connections: 1 },
      beacon: { endpoint: `127.0.0.1:${beacon.port}`, bound: true, answers: true, nodes: 0, provenNodes: 0 },
      store: { writable: true, nodes: 1, problem: null },
      queue: { bytes: 0, frames: 0, flows: 0 },
    });
    socket.close();
  });

  test("anything else is refused with a code", async () => {
    await run();
    expect((await problemOf(() => askAdmin(admin, "GET", "/v1/nothing"))).code).toBe("unknown_method");
    expect((await problemOf(() => askAdmin(admin, "POST", "/v1/backup", { file: "relative" }))).code).toBe(
      "bad_request",
    );
    expect((await problemOf(() => askAdmin(admin, "POST", "/v1/backup", { file: "/nowhere/at/all" }))).code).toBe(
      "backup_failed",
    );
  });
});

test("metrics count requests by type and outcome, with a closed set of types", async () => {
  const { registry } = await run({ registryLimits: { requests: { perSecond: 0.001, burst: 4 } } });
  const socket = await RegistrySocket.open(registry.port);
  await socket.ask(registration(1));
  await socket.ask({ type: "lookup", node_id: 1 });
  await socket.ask({ type: "lookup", node_id: 99 });
  await socket.ask({ type: 'evil"} 1\n' });
  await socket.ask({ type: "lookup", node_id: 1 });
  const samples = await metrics();
  const requests = [...samples].filter(([name]) => name.startsWith("pilot_rendezvous_requests_total"));
  expect(Object.fromEntries(requests)).toEqual({
    'pilot_rendezvous_requests_total{type="lookup",outcome="ok"}': 1,
    'pilot_rendezvous_requests_total{type="lookup",outcome="refused"}': 1,
    'pilot_rendezvous_requests_total{type="register",outcome="ok"}': 1,
    'pilot_rendezvous_requests_total{type="unknown",outcome="limited"}': 1,
    'pilot_rendezvous_requests_total{type="unknown",outcome="refused"}': 1,
  });
  expect(samples.get("pilot_rendezvous_nodes")).toBe(1);
  expect(samples.get("pilot_rendezvous_commit_seconds_count")).toBe(1);
  expect(samples.get('pilot_rendezvous_commit_seconds_bucket{le="+Inf"}')).toBe(1);
  socket.close();
});

describe("a backup", () => {
  test("is one private file that a new rendezvous starts from", async () => {
    const { registry } = await run();
    const socket = await RegistrySocket.open(registry.port);
    await socket.ask(registration(1, "alice"));
    const file = join(root, "backup.db");
    writeFileSync(file, "an older one");
    const facts = JSON.parse(await askAdmin(admin, "POST", "/v1/backup", { file }));
    expect(facts).toMatchObject({ file, nodes: 1, bytes: statSync(file).size });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    await socket.ask(registration(2, "bob"));
    socket.close();
    expect(readdirSync(root).sort()).toEqual(["admin.sock", "backup.db", "state"]);

    const restored = join(root, "restored");
    expect(restoreStore(file, restored, "x")).toEqual({
      database: join(restored, DATABASE_FILE),
      nodes: 1,
      replaced: null,
    });
    const store = SqliteStore.open(restored);
    expect(store.nodeByHostname("alice")?.node).toBe(1);
    expect(store.nodeByHostname("bob")).toBeUndefined();
    store.close();
  });

  test("written under load holds whole requests, all that were answered before it and none that came after", async () => {
    const { registry } = await run({ registryLimits: { newKeys: { perSecond: 1e6, burst: 1e6 } } });
    const sockets = await Promise.all([0, 1, 2, 3].map(() => RegistrySocket.open(registry.port)));
    let stop = false;
    let seed = 0;
    let answered = 0;
    const load = sockets.map(async (socket) => {
      while (!stop) {
        const mine = ++seed;
        await socket.ask(registration(mine, `host-${mine}`));
        answered++;
      }
    });
    const answeredBefore: number[] = [];
    const startedBefore: number[] = [];
    const files = [0, 1, 2, 3, 4].map((index) => join(root, `backup-${index}.db`));
    for (const file of files) {
      await new Promise((resolve) => setTimeout(resolve, 60));
      answeredBefore.push(answered);
      await askAdmin(admin, "POST", "/v1/backup", { file });
      startedBefore.push(seed);
    }
    stop = true;
    await Promise.all(load);
    for (const socket of sockets) socket.close();
    files.forEach((file, index) => {
      const nodes = checkBackup(file);
      expect(nodes).toBeGreaterThanOrEqual(answeredBefore[index]!);
      expect(nodes).toBeLessThanOrEqual(startedBefore[index]!);
      const database = new DatabaseSync(file, { readOnly: true });
      // A registration writes the node and then its name: a node without one would be half a request.
      expect(database.prepare("SELECT count(*) AS n FROM node WHERE hostname IS NULL").get()).toEqual({ n: 0 });
      expect(database.prepare("SELECT max(id) AS n FROM node").get()).toEqual({ n: nodes });
      database.close();
    });
    expect(answered).toBeGreaterThan(20);
  });

  test("does not go over the database itself", async () => {
    await run();
    const problem = await problemOf(() =>
      askAdmin(admin, "POST", "/v1/backup", { file: join(stateDir, DATABASE_FILE) }),
    );
    expect(problem.code).toBe("backup_failed");
  });
});

describe("a restore", () => {
  async function backupOf(seeds: readonly number[]): Promise<string> {
    const rendezvous = await run();
    const socket = await RegistrySocket.open(rendezvous.registry.port);
    for (const seed of seeds) await socket.ask(registration(seed));
    const file = join(root, `of-${seeds.length}.db`);
    await askAdmin(admin, "POST", "/v1/backup", { file });
    socket.close();
    await rendezvous.close();
    return file;
  }

  test("is refused while a rendezvous runs there, which goes on", async () => {
    const file = await backupOf([1]);
    const { registry } = await run();
    expect((await problemOf(() => restoreStore(file, stateDir, "x"))).code).toBe("state_in_use");
    const socket = await RegistrySocket.open(registry.port);
    expect(await socket.ask(registration(2))).toMatchObject({ node_id: 2 });
    socket.close();
  });

  test("goes back to the backup and keeps what was there", async () => {
    const file = await backupOf([1]);
    const second = await backupOf([1, 2, 3]);
    const facts = restoreStore(file, stateDir, "then");
    expect(facts).toMatchObject({ nodes: 1, replaced: join(stateDir, `${DATABASE_FILE}.replaced-then`) });
    expect(checkBackup(second)).toBe(3);
    const kept = new DatabaseSync(facts.replaced!, { readOnly: true });
    expect(kept.prepare("SELECT count(*) AS n FROM node").get()).toEqual({ n: 3 });
    kept.close();
    const rendezvous = await run();
    expect(rendezvous.stats().nodes).toBe(1);
  });

  test("takes the place of a damaged database and keeps the damaged one", async () => {
    const file = await backupOf([1, 2]);
    writeFileSync(join(stateDir, DATABASE_FILE), "no database at all, and long enough to be read as one".repeat(100));
    const facts = restoreStore(file, stateDir, "bad");
    expect(readFileSync(facts.replaced!, "utf8")).toContain("no database");
    expect((await run()).stats().nodes).toBe(2);
  });

  test("of a damaged backup is refused and touches nothing", async () => {
    const file = await backupOf([1, 2]);
    const before = readFileSync(join(stateDir, DATABASE_FILE));
    const bytes = readFileSync(file);
    bytes.fill(0x5a, 4096, 12_288);
    writeFileSync(file, bytes);
    expect((await problemOf(() => restoreStore(file, stateDir, "x"))).code).toBe("backup_damaged");
    expect((await problemOf(() => restoreStore(join(root, "none"), stateDir, "x"))).code).toBe("backup_damaged");
    expect(readFileSync(join(stateDir, DATABASE_FILE)).equals(before)).toBe(true);
  });
});
