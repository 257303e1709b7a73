/**
 * The registries under test, each a process of its own, filled with the same nodes and the same trust: ours, and, where
 * somebody built one, another program that takes the options `-registry-addr`, `-beacon-addr` and `-store`.
 */
import { type ChildProcess, type ChildProcessByStdio, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { toBase64, utf8 } from "../../src/base/bytes.ts";
import type { WallClock } from "../../src/base/instant.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { SqliteStore } from "../../src/io/sqlite-store.ts";
import { FrameDecoder } from "../../src/wire/frame-decoder.ts";
import { type NodeId, nodeId } from "../../src/wire/ids.ts";
import { encodeRegistryFrame, MAX_FRAME_BYTES, parseRegistryMessage, signedText } from "../../src/wire/registry.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const crypto = new NodeCrypto();

/** Whom there is, and who may locate whom. Nodes are counted from 0; the registry gives them its own numbers. */
export interface Population {
  readonly seed: number;
  readonly nodes: number;
  /** The first so many nodes ask; only these have keys that can sign. */
  readonly requesters: number;
  /** Of each requester. */
  readonly targets: number;
}

export interface Registry {
  readonly name: string;
  readonly port: number;
  /** Registers everybody; the numbers given out, by node. */
  populate(population: Population): Promise<readonly number[]>;
  /** Of the whole process, in bytes. */
  residentBytes(): number;
  /** Of the whole process, since its start. */
  cpuSeconds(): number;
  /** What the program itself says it holds, without its storage cache; undefined where it cannot be asked. */
  heapBytes(): Promise<number | undefined>;
  stop(): Promise<void>;
}

/** Spread over all nodes, so that no small cache holds them. */
export function targetOf({ nodes, requesters }: Population, requester: number, index: number): number {
  return requesters + ((requester * 7919 + index * 104_729) % (nodes - requesters));
}

export function seedOf({ seed }: Population, node: number): Uint8Array {
  return seededBytes(seed + node)(32);
}

/** A node that never signs needs no private key. */
function publicKeyOf(population: Population, node: number): Uint8Array {
  const seed = seedOf(population, node);
  return node < population.requesters ? crypto.ed25519PublicKey(seed) : seed;
}

function registerRequest(population: Population, node: number): object {
  return {
    type: "register",
    listen_addr: "0.0.0.0:4000",
    public_key: toBase64(publicKeyOf(population, node)),
    lan_addrs: ["10.0.0.1:4000"],
  };
}

// ---- ours ---------------------------------------------------------------------------------------------------------

export async function startOurs(folder: string): Promise<Registry> {
  const state = join(folder, "ours");
  const program = fileURLToPath(new URL("./rendezvous-server.ts", import.meta.url));
  const args = ["--expose-gc", program, state];
  let child: ChildProcessByStdio<Writable, Readable, null>;
  let lines: AsyncIterator<string>;
  let port = 0;
  const ask = async (): Promise<{ readonly port: number; readonly heapBytes: number }> =>
    JSON.parse((await lines.next()).value ?? "null");
  const start = async (): Promise<void> => {
    child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
    lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    port = (await ask()).port;
  };
  const stop = async (): Promise<void> => {
    child.stdin.end();
    await exited(child);
  };
  await start();
  return {
    name: "pilot-tun",
    get port() {
      return port;
    },
    populate: async (population) => {
      // Trust takes two signatures here; written to the database, it takes none.
      await stop();
      fillDatabase(state, population);
      await start();
      return await registerAll(port, population);
    },
    residentBytes: () => residentBytes(child),
    cpuSeconds: () => cpuSeconds(child),
    heapBytes: async () => {
      child.stdin.write("\n");
      return (await ask()).heapBytes;
    },
    stop,
  };
}

function fillDatabase(state: string, population: Population): void {
  const store = SqliteStore.open(state);
  const at = Date.now() as WallClock;
  for (let node = 0; node < population.nodes; node++) {
    store.addNode({
      publicKey: publicKeyOf(population, node),
      hostname: `node-${node}`,
      endpoint: undefined,
      lanAddrs: [],
      isPublic: false,
      relayOnly: false,
      mustSign: false,
      taskExec: false,
      tags: [],
      version: "bench",
      keySince: at,
      seenAt: at,
    });
  }
  eachPair(population, (requester, target) => {
    store.addConsent(nodeId(requester + 1), nodeId(target + 1));
    store.addConsent(nodeId(target + 1), nodeId(requester + 1));
  });
  store.close();
}

function eachPair(population: Population, visit: (requester: number, target: number) => void): void {
  for (let requester = 0; requester < population.requesters; requester++) {
    for (let index = 0; index < population.targets; index++) visit(requester, targetOf(population, requester, index));
  }
}

// ---- the other ----------------------------------------------------------------------------------------------------

export async function startOther(program: string, folder: string): Promise<Registry> {
  const port = await freePort();
  const store = join(folder, "other.json");
  const addresses = ["-registry-addr", `127.0.0.1:${port}`, "-beacon-addr", `127.0.0.1:${await freePort()}`];
  const child = spawn(program, [...addresses, "-store", store, "-log-level", "error"], { stdio: "ignore" });
  await listening(port);
  return {
    name: "other",
    port,
    populate: async (population) => {
      const numbers = await registerAll(port, population);
      const reports: object[] = [];
      eachPair(population, (requester, target) => {
        const [node, peer] = [nodeId(numbers[requester]!), nodeId(numbers[target]!)];
        const signature = sign(population, requester, signedText.reportTrust(node, peer));
        reports.push({ type: "report_trust", node_id: node, peer_id: peer, signature });
      });
      await askAll(port, reports);
      return numbers;
    },
    residentBytes: () => residentBytes(child),
    cpuSeconds: () => cpuSeconds(child),
    heapBytes: async () => undefined,
    stop: async () => {
      child.kill("SIGTERM");
      await exited(child);
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

async function listening(port: number): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const socket = connect(port, "127.0.0.1");
    const opened = await Promise.race([once(socket, "connect"), once(socket, "error")]).then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (opened) return;
    await sleep(100);
  }
  throw new Error("the other registry does not listen");
}

// ---- asking -------------------------------------------------------------------------------------------------------

export function resolveFrame(population: Population, numbers: readonly number[], asker: number, target: number) {
  const [from, to]: NodeId[] = [nodeId(numbers[asker]!), nodeId(numbers[target]!)];
  const signature = sign(population, asker, signedText.resolve(from!, to!));
  return encodeRegistryFrame(JSON.stringify({ type: "resolve", node_id: to, requester_id: from, signature }));
}

function sign(population: Population, node: number, text: string): string {
  return toBase64(crypto.ed25519Sign(seedOf(population, node), utf8(text)));
}

async function registerAll(port: number, population: Population): Promise<number[]> {
  const requests = Array.from({ length: population.nodes }, (_, node) => registerRequest(population, node));
  const replies = await askAll(port, requests);
  return replies.map((reply) => Number(reply["node_id"]));
}

/** As fast as it goes, over connections that end before anybody finds them too busy. Rejects when one is refused. */
async function askAll(port: number, requests: readonly object[]): Promise<Readonly<Record<string, unknown>>[]> {
  const replies: Readonly<Record<string, unknown>>[] = new Array(requests.length);
  let next = 0;
  const worker = async (index: number): Promise<void> => {
    while (next < requests.length) {
      const socket = connect({ host: "127.0.0.1", port, localAddress: `127.0.0.${2 + index}`, noDelay: true });
      const ask = asker(socket);
      for (let asked = 0; asked < REQUESTS_PER_CONNECTION && next < requests.length; asked++) {
        const at = next++;
        replies[at] = await ask(requests[at]!);
        if (replies[at]["type"] === "error") throw new Error(`refused: ${replies[at]["error"]}`);
      }
      socket.destroy();
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, (_, index) => worker(index)));
  return replies;
}

function asker(socket: Socket): (request: object) => Promise<Readonly<Record<string, unknown>>> {
  const decoder = new FrameDecoder(MAX_FRAME_BYTES);
  let answered: ((reply: Readonly<Record<string, unknown>>) => void) | undefined;
  socket.on("data", (chunk) => {
    decoder.push(chunk);
    const frame = decoder.next();
    if (frame !== undefined) answered?.(parseRegistryMessage(new TextDecoder().decode(frame)) ?? {});
  });
  return (request) =>
    new Promise((resolve, reject) => {
      answered = resolve;
      socket.once("error", reject);
      socket.write(encodeRegistryFrame(JSON.stringify(request)), () => socket.off("error", reject));
    });
}

const WORKERS = 64;
const REQUESTS_PER_CONNECTION = 400;

// ---- processes ----------------------------------------------------------------------------------------------------

function residentBytes({ pid }: ChildProcess): number {
  return Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]) * PAGE_BYTES;
}

/** proc_pid_stat(5): fields 14 and 15, counted from behind the name, which may hold blanks. */
function cpuSeconds({ pid }: ChildProcess): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

async function exited(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
}

const PAGE_BYTES = Number(execFileSync("getconf", ["PAGESIZE"]));
const TICKS_PER_SECOND = Number(execFileSync("getconf", ["CLK_TCK"]));
