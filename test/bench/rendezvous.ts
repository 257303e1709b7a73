/**
 * How fast a rendezvous answers, and what a node costs it: many registered nodes, an open loop of signed `resolve`
 * requests at a fixed rate for pairs that trust each other, each pair new (nothing is remembered from before) or each
 * asked again. Latency counts from the moment a request was due, so that a server that falls behind cannot hide it.
 * Loopback only; the server is a process of its own.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { toBase64, utf8 } from "../../src/base/bytes.ts";
import type { WallClock } from "../../src/base/instant.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { SqliteStore } from "../../src/io/sqlite-store.ts";
import { FrameDecoder } from "../../src/wire/frame-decoder.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { encodeRegistryFrame, MAX_FRAME_BYTES, signedText } from "../../src/wire/registry.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const HELP = `Usage: scripts/bench-rendezvous [--nodes N] [--rate N] [--seconds N] [--json]

Registers N nodes (100000) and sends resolve requests at a rate (5000 a second) for some seconds (10),
after one second that is not measured.
Wanted: p99 <= 5 ms, and <= 1 KB of memory a node beyond the storage cache.
`;
const { values } = parseArgs({
  options: {
    nodes: { type: "string", default: "100000" },
    rate: { type: "string", default: "5000" },
    seconds: { type: "string", default: "10" },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
const NODES = Number(values.nodes);
const RATE = Number(values.rate);
const SECONDS = Number(values.seconds);
const SEED = 1;
const REQUESTERS = Math.min(1000, NODES / 2);
const CONNECTIONS = 64;
/** Not measured: compilers on both sides get going. */
const WARM_UP_SECONDS = 1;

interface Facts {
  readonly port: number;
  readonly rss: number;
  readonly used: number;
  readonly cpuMs: number;
}

class Server {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  constructor(state: string) {
    const program = fileURLToPath(new URL("./rendezvous-server.ts", import.meta.url));
    this.#child = spawn(process.execPath, ["--expose-gc", program, state], { stdio: ["pipe", "pipe", "inherit"] });
    const reader: Interface = createInterface({ input: this.#child.stdout });
    this.#lines = reader[Symbol.asyncIterator]();
  }

  async facts(ask = true): Promise<Facts> {
    if (ask) this.#child.stdin.write("\n");
    const { value } = await this.#lines.next();
    return JSON.parse(value ?? "null") as Facts;
  }

  async stop(): Promise<void> {
    const gone = once(this.#child, "exit");
    this.#child.stdin.end();
    await gone;
  }
}

/** Sends frames and tells when each was answered, in order. */
class Client {
  readonly #socket: Socket;
  readonly #waiting: ((reply: Uint8Array) => void)[] = [];
  #head = 0;

  constructor(port: number, index: number) {
    this.#socket = connect({ host: "127.0.0.1", port, localAddress: `127.0.0.${2 + index}`, noDelay: true });
    const decoder = new FrameDecoder(MAX_FRAME_BYTES);
    this.#socket.on("data", (chunk) => {
      decoder.push(chunk);
      for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) this.#waiting[this.#head++]!(frame);
    });
  }

  send(frame: Uint8Array, answered: (reply: Uint8Array) => void): void {
    this.#waiting.push(answered);
    this.#socket.write(frame);
  }

  close(): void {
    this.#socket.destroy();
  }
}

const crypto = new NodeCrypto();
const seedOf = (node: number) => seededBytes(SEED + node)(32);

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Every node in the database, and trust from each requester to its targets. */
function fill(state: string, targetsEach: number): void {
  const store = SqliteStore.open(state);
  const at = Date.now() as WallClock;
  for (let node = 1; node <= NODES; node++) {
    store.addNode({
      publicKey: node <= REQUESTERS ? crypto.ed25519PublicKey(seedOf(node)) : seedOf(node),
      hostname: `node-${node}`,
      endpoint: { address: "192.0.2.1", port: 4000 },
      lanAddrs: ["10.0.0.1:4000"],
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
  for (let requester = 1; requester <= REQUESTERS; requester++) {
    for (let index = 0; index < targetsEach; index++) {
      const target = targetOf(requester, index);
      store.addConsent(nodeId(requester), nodeId(target));
      store.addConsent(nodeId(target), nodeId(requester));
    }
  }
  store.close();
}

/** Spread over all nodes, so that the storage cache does not hold them. */
function targetOf(requester: number, index: number): number {
  return REQUESTERS + 1 + ((requester * 7919 + index * 104_729) % (NODES - REQUESTERS));
}

/** As at the start of every node: from now on the server remembers when it heard of each. */
async function registerAll(clients: readonly Client[]): Promise<void> {
  let next = 1;
  await Promise.all(
    clients.flatMap((client) =>
      Array.from({ length: 4 }, async () => {
        while (next <= NODES) {
          const node = next++;
          const key = node <= REQUESTERS ? crypto.ed25519PublicKey(seedOf(node)) : seedOf(node);
          const request = { type: "register", listen_addr: "0.0.0.0:4000", public_key: toBase64(key) };
          await new Promise((resolve) => client.send(encodeRegistryFrame(JSON.stringify(request)), resolve));
        }
      }),
    ),
  );
}

function resolveFrames(count: number): Uint8Array[] {
  const seeds = Array.from({ length: REQUESTERS + 1 }, (_, node) => seedOf(node));
  return Array.from({ length: count }, (_, index) => {
    const requester = 1 + (index % REQUESTERS);
    const target = targetOf(requester, Math.floor(index / REQUESTERS));
    const signature = crypto.ed25519Sign(
      seeds[requester]!,
      utf8(signedText.resolve(nodeId(requester), nodeId(target))),
    );
    const request = { type: "resolve", node_id: target, requester_id: requester, signature: toBase64(signature) };
    return encodeRegistryFrame(JSON.stringify(request));
  });
}

interface Run {
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** How late the bench itself sent, by want of a processor: in every latency above. */
  readonly senderLateP99Ms: number;
  readonly refused: number;
  /** Of one processor. */
  readonly serverCpu: number;
}

async function load(server: Server, clients: readonly Client[], frames: readonly Uint8Array[]): Promise<Run> {
  const before = await server.facts();
  const latencies: number[] = [];
  const lateness: number[] = [];
  let answered = 0;
  let refused = 0;
  const startedAt = performance.now();
  let sent = 0;
  await new Promise<void>((resolve) => {
    const tick = setInterval(() => {
      const due = Math.min(frames.length, Math.floor(((performance.now() - startedAt) * RATE) / 1000));
      for (; sent < due; sent++) {
        const dueAt = startedAt + (sent * 1000) / RATE;
        const isWarm = sent >= RATE * WARM_UP_SECONDS;
        if (isWarm) lateness.push(performance.now() - dueAt);
        clients[sent % clients.length]!.send(frames[sent]!, (reply) => {
          answered++;
          if (isWarm) latencies.push(performance.now() - dueAt);
          if (reply[9] === 0x65) refused++; // {"type":"error"
          if (answered === frames.length) resolve();
        });
      }
      if (sent === frames.length) clearInterval(tick);
    }, 1);
  });
  const seconds = (performance.now() - startedAt) / 1000;
  const after = await server.facts();
  return {
    rate: Math.round(frames.length / seconds),
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    maxMs: percentile(latencies, 1),
    senderLateP99Ms: percentile(lateness, 0.99),
    refused,
    serverCpu: round((after.cpuMs - before.cpuMs) / 1000 / seconds),
  };
}

function percentile(values: number[], part: number): number {
  values.sort((a, b) => a - b);
  return round(values[Math.min(values.length - 1, Math.floor(values.length * part))]!);
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

async function main(): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "bench-rendezvous-"));
  try {
    const count = RATE * (SECONDS + WARM_UP_SECONDS);
    say(`seed ${SEED}: ${NODES} nodes, ${count} requests at ${RATE}/s`);
    const idle = new Server(join(root, "empty"));
    const empty = await idle.facts(false);
    await idle.stop();
    fill(join(root, "full"), Math.ceil(count / REQUESTERS));
    const frames = resolveFrames(count);
    const server = new Server(join(root, "full"));
    const { port } = await server.facts(false);
    const clients = Array.from({ length: CONNECTIONS }, (_, index) => new Client(port, index));
    await registerAll(clients);
    say("registered");
    const live = await server.facts();
    const cold = await load(server, clients, frames);
    const again = await load(server, clients, frames);
    const end = await server.facts();
    for (const client of clients) client.close();
    await server.stop();
    report({ cold, again, live, end, empty });
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

function report({
  cold,
  again,
  live,
  end,
  empty,
}: Record<"cold" | "again", Run> & Record<"live" | "end" | "empty", Facts>) {
  const bytesPerNode = {
    live: Math.round((live.used - empty.used) / NODES),
    end: Math.round((end.used - empty.used) / NODES),
  };
  const verdict = { p99: Math.max(cold.p99Ms, again.p99Ms) <= 5, memory: bytesPerNode.end <= 1024 };
  const result = { nodes: NODES, rate: RATE, cpus: availableParallelism(), cold, again, bytesPerNode, verdict };
  if (values.json) return process.stdout.write(`${JSON.stringify(result)}\n`);
  const row = (name: string, run: Run) =>
    `${name}  ${run.rate}/s  p50 ${run.p50Ms} ms  p99 ${run.p99Ms} ms  max ${run.maxMs} ms  (sent late p99 ${run.senderLateP99Ms} ms)  server ${run.serverCpu} cpu  refused ${run.refused}`;
  const lines = [
    `${NODES} nodes, resolve at ${RATE}/s, ${result.cpus} cpus`,
    row("new pairs  ", cold),
    row("asked again", again),
    `memory a node: ${bytesPerNode.live} bytes registered, ${bytesPerNode.end} after the load`,
    `wanted: p99 <= 5 ms ${verdict.p99 ? "yes" : "NO"}, memory <= 1024 bytes ${verdict.memory ? "yes" : "NO"}`,
  ];
  return process.stdout.write(`${lines.join("\n")}\n`);
}

await main();
