import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { toBase64, utf8 } from "../../src/base/bytes.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { signedText } from "../../src/wire/registry.ts";
import { crypto } from "../helpers/registry-caller.ts";
import { RegistrySocket } from "../helpers/registry-socket.ts";

const KILLS = 10;
const WORKERS = 6;
const PROGRAM = fileURLToPath(new URL("../helpers/rendezvous-process.ts", import.meta.url));

/** What the rendezvous has acknowledged, and must never forget. */
interface Acknowledged {
  readonly nodes: {
    readonly seed: Uint8Array;
    readonly node: number;
    readonly address: unknown;
    readonly port: number;
  }[];
  readonly pairs: (readonly [number, number])[];
  /** Asked but not polled. */
  readonly requests: (readonly [number, number])[];
  readonly revoked: (readonly [number, number])[];
}

let stateDir: string;
let running: ChildProcess | undefined;

beforeAll(() => {
  stateDir = mkdtempSync(join(tmpdir(), "rendezvous-crash-"));
});

afterAll(() => {
  running?.kill("SIGKILL");
  rmSync(stateDir, { recursive: true, force: true });
});

test(`${KILLS} times kill -9 amid writes loses nothing that was acknowledged`, { timeout: 120_000 }, async () => {
  const acknowledged: Acknowledged = { nodes: [], pairs: [], requests: [], revoked: [] };
  for (let round = 0; round < KILLS; round++) {
    const registry = await start();
    await expectAllRemembered(registry, acknowledged, round % 4 === 0);
    const before = acknowledged.nodes.length;
    const workers = Array.from({ length: WORKERS }, () => work(registry, acknowledged));
    await acknowledgedMore(acknowledged, before);
    await new Promise((resolve) => setTimeout(resolve, 37 * (round % 7)));
    running!.kill("SIGKILL");
    await Promise.all(workers);
    expect(acknowledged.nodes.length).toBeGreaterThan(before);
  }
  const registry = await start();
  await expectAllRemembered(registry, acknowledged, true);
  expect(new Set(acknowledged.nodes.map(({ node }) => node)).size).toBe(acknowledged.nodes.length);
  for (const kind of ["pairs", "requests", "revoked"] as const) expect(acknowledged[kind].length).toBeGreaterThan(0);
});

/** A loaded machine takes its time to the first reply. */
async function acknowledgedMore({ nodes }: Acknowledged, before: number): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (nodes.length === before && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function start(): Promise<number> {
  const child = spawn(process.execPath, [PROGRAM, stateDir], { stdio: ["ignore", "pipe", "inherit"] });
  running = child;
  const ended = once(child, "exit").then(([code]) => {
    throw new Error(`the rendezvous ended with ${code} before it was ready`);
  });
  const [line] = await Promise.race([once(child.stdout!, "data"), ended]);
  ended.catch(() => undefined); // later it is killed, as it should be
  return JSON.parse(String(line)).registry;
}

/** Registers pairs of nodes and joins them, noting each thing only when its reply came; ends with the connection. */
async function work(registry: number, acknowledged: Acknowledged): Promise<void> {
  const socket = await RegistrySocket.open(registry).catch(() => undefined);
  if (socket === undefined) return; // it was killed before this one of the workers had its connection
  for (;;) {
    const a = await registerNew(socket, acknowledged);
    const b = await registerNew(socket, acknowledged);
    if (a === undefined || b === undefined) return;
    const requested = await socket.ask({
      type: "request_handshake",
      from_node_id: a.node,
      to_node_id: b.node,
      justification: "",
      signature: sign(a.seed, signedText.requestHandshake(a.node, b.node)),
    });
    if (requested === undefined) return;
    // A revocation takes the request away, and once sent it may have happened whether or not the reply comes.
    const willRevoke = b.node % 3 === 0;
    if (!willRevoke) acknowledged.requests.push([a.node, b.node]);
    const report = { type: "report_trust", node_id: b.node, peer_id: a.node };
    const reported = await socket.ask({ ...report, signature: sign(b.seed, signedText.reportTrust(b.node, a.node)) });
    if (reported === undefined) return;
    if (!willRevoke) {
      acknowledged.pairs.push([a.node, b.node]);
      continue;
    }
    const revoke = { type: "revoke_trust", node_id: b.node, peer_id: a.node };
    const revoked = await socket.ask({ ...revoke, signature: sign(b.seed, signedText.revokeTrust(b.node, a.node)) });
    if (revoked === undefined) return;
    acknowledged.revoked.push([a.node, b.node]);
  }
}

async function registerNew(socket: RegistrySocket, acknowledged: Acknowledged) {
  const seed = crypto.randomBytes(32);
  const port = 1 + Math.floor(Math.random() * 65535);
  const reply = await register(socket, seed, port);
  if (reply === undefined) return undefined;
  expect(reply["type"]).toBe("register_ok");
  const node = nodeId(reply["node_id"] as number);
  acknowledged.nodes.push({ seed, node, address: reply["address"], port });
  return { seed, node };
}

function register(socket: RegistrySocket, seed: Uint8Array, port: number) {
  const publicKey = toBase64(crypto.ed25519PublicKey(seed));
  const listenAddr = `0.0.0.0:${port}`;
  const signature = sign(seed, signedText.register(listenAddr, publicKey));
  return socket.ask({ type: "register", listen_addr: listenAddr, public_key: publicKey, public: true, signature });
}

async function expectAllRemembered(registry: number, acknowledged: Acknowledged, all: boolean): Promise<void> {
  const socket = await RegistrySocket.open(registry);
  const recent = <T>(list: readonly T[]): readonly T[] => (all ? list : list.slice(-60));
  for (const { seed, node, address, port } of recent(acknowledged.nodes)) {
    const known = await socket.ask({ type: "lookup", node_id: node });
    expect(known).toMatchObject({ public_key: toBase64(crypto.ed25519PublicKey(seed)), address });
    expect(known).toMatchObject({ real_addr: `127.0.0.1:${port}` });
    expect(await register(socket, seed, port)).toMatchObject({ node_id: node, address });
  }
  for (const [a, b] of recent(acknowledged.pairs)) expect(await isTrusted(socket, a, b)).toBe(true);
  for (const [a, b] of recent(acknowledged.revoked)) expect(await isTrusted(socket, a, b)).toBe(false);
  const seeds = new Map(acknowledged.nodes.map(({ node, seed }) => [node as number, seed]));
  for (const [a, b] of recent(acknowledged.requests)) {
    const signature = sign(seeds.get(b)!, signedText.pollHandshakes(nodeId(b)));
    const alone = await RegistrySocket.open(registry); // a poll that nothing confirms takes nothing away
    const polled = await alone.ask({ type: "poll_handshakes", node_id: b, signature });
    alone.close();
    expect(polled).toMatchObject({ requests: [{ from_node_id: a }] });
  }
  socket.close();
}

async function isTrusted(socket: RegistrySocket, a: number, b: number): Promise<unknown> {
  return (await socket.ask({ type: "check_trust", node_id: a, peer_id: b }))?.["trusted"];
}

function sign(seed: Uint8Array, text: string): string {
  return toBase64(crypto.ed25519Sign(seed, utf8(text)));
}
