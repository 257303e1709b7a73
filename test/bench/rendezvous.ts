/**
 * How fast a rendezvous answers, and what a node costs it: many registered nodes, an open loop of signed `resolve`
 * requests at a fixed rate for pairs that trust each other, each pair new (nothing is remembered from before) or each
 * asked again. Latency counts from the moment a request was due, so that a server that falls behind cannot hide it.
 * Loopback only. With --beside another registry gets the same nodes and the same load, in turns.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Population, type Registry, resolveFrame, startOther, startOurs, targetOf } from "./registries.ts";
import { buildLoad, type LoadResult, runLoad } from "./registry-load.ts";

const HELP = `Usage: scripts/bench-rendezvous [--nodes N] [--rate N] [--seconds N] [--beside PROGRAM] [--json]

Registers N nodes (100000) and sends resolve requests at a rate (5000 a second) for some seconds (10),
after one second that is not measured.
--beside names another registry's program, which takes -registry-addr, -beacon-addr and -store.
Wanted: p99 <= 5 ms, and <= 1 KB of memory a node beyond the storage cache.
`;
const { values } = parseArgs({
  options: {
    nodes: { type: "string", default: "100000" },
    rate: { type: "string", default: "5000" },
    seconds: { type: "string", default: "10" },
    beside: { type: "string" },
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
const REQUESTS = RATE * (Number(values.seconds) + 1);
const CONNECTIONS = 256;
const REQUESTERS = Math.min(1000, NODES / 2);
const POPULATION: Population = {
  seed: 1,
  nodes: NODES,
  requesters: REQUESTERS,
  targets: Math.ceil(REQUESTS / REQUESTERS),
};

interface Run extends LoadResult {
  /** Of one processor. */
  readonly serverCpu: number;
}

interface Measured {
  readonly name: string;
  readonly cold: Run;
  readonly again: Run;
  /** Of the whole process, beyond that of an empty one. */
  readonly residentBytesPerNode: number;
  /** Of what the program holds beside its storage cache. */
  readonly heapBytesPerNode: number | undefined;
}

/** A registry that runs, is filled, and was measured so far. */
interface Contender {
  readonly registry: Registry;
  readonly frames: readonly Uint8Array[];
  readonly emptyResident: number;
  readonly emptyHeap: number | undefined;
}

async function prepare(registry: Registry): Promise<Contender> {
  const emptyResident = registry.residentBytes();
  const emptyHeap = await registry.heapBytes();
  const numbers = await registry.populate(POPULATION);
  say(`${registry.name}: ${NODES} nodes registered`);
  const frames = Array.from({ length: REQUESTS }, (_, index) => {
    const requester = index % REQUESTERS;
    const target = targetOf(POPULATION, requester, Math.floor(index / REQUESTERS));
    return resolveFrame(POPULATION, numbers, requester, target);
  });
  return { registry, frames, emptyResident, emptyHeap };
}

async function loadOnce(program: string, { registry, frames }: Contender): Promise<Run> {
  const before = registry.cpuSeconds();
  const plan = { port: registry.port, connections: CONNECTIONS, rate: RATE, warmUp: RATE };
  const result = await runLoad(program, plan, frames);
  return { ...result, serverCpu: round((registry.cpuSeconds() - before) / (REQUESTS / RATE)) };
}

async function finish(contender: Contender, cold: Run, again: Run): Promise<Measured> {
  const { registry, emptyResident, emptyHeap } = contender;
  const resident = registry.residentBytes();
  const heap = await registry.heapBytes();
  const perNode = (bytes: number) => Math.round(bytes / NODES);
  return {
    name: registry.name,
    cold,
    again,
    residentBytesPerNode: perNode(resident - emptyResident),
    heapBytesPerNode: heap === undefined || emptyHeap === undefined ? undefined : perNode(heap - emptyHeap),
  };
}

async function main(): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "bench-rendezvous-"));
  const registries: Registry[] = [];
  try {
    say(`seed ${POPULATION.seed}: ${REQUESTS} requests at ${RATE}/s`);
    const program = buildLoad(root);
    registries.push(await startOurs(root));
    if (values.beside !== undefined) registries.push(await startOther(values.beside, root));
    const contenders: Contender[] = [];
    for (const registry of registries) contenders.push(await prepare(registry));
    const runs = [];
    for (const contender of contenders) runs.push({ contender, cold: await loadOnce(program, contender) });
    const measured: Measured[] = [];
    for (const { contender, cold } of runs) {
      measured.push(await finish(contender, cold, await loadOnce(program, contender)));
    }
    report(measured);
  } finally {
    for (const registry of registries) await registry.stop();
    rmSync(root, { recursive: true, force: true });
  }
}

function report(measured: readonly Measured[]): void {
  const [ours, other] = measured as [Measured, Measured?];
  const wanted = {
    p99: Math.max(ours.cold.p99Ms, ours.again.p99Ms) <= 5,
    memory: ours.heapBytesPerNode !== undefined && ours.heapBytesPerNode <= 1024,
  };
  const ratios = other && ratiosOf(ours, other);
  const result = { nodes: NODES, rate: RATE, cpus: availableParallelism(), measured, ratios, wanted };
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : textOf(result));
}

/** Ours to the other's; less is better. */
function ratiosOf(ours: Measured, other: Measured) {
  const ofRun = (run: "cold" | "again") => ({
    p50: round(ours[run].p50Ms / other[run].p50Ms),
    p99: round(ours[run].p99Ms / other[run].p99Ms),
    cpu: round(ours[run].serverCpu / other[run].serverCpu),
  });
  const memory = round(ours.residentBytesPerNode / other.residentBytesPerNode);
  return { cold: ofRun("cold"), again: ofRun("again"), memory };
}

type Result = {
  readonly nodes: number;
  readonly rate: number;
  readonly cpus: number;
  readonly measured: readonly Measured[];
  readonly ratios: ReturnType<typeof ratiosOf> | undefined;
  readonly wanted: { readonly p99: boolean; readonly memory: boolean };
};

function textOf({ nodes, rate, cpus, measured, ratios, wanted }: Result): string {
  const row = (name: string, run: Run) =>
    `  ${name}  p50 ${run.p50Ms} ms  p99 ${run.p99Ms} ms  p99.9 ${run.p999Ms} ms  max ${run.maxMs} ms` +
    `  (sent late p99 ${run.senderLateP99Ms} ms)  server ${run.serverCpu} cpu  refused ${run.refused}`;
  const each = measured.flatMap(({ name, cold, again, residentBytesPerNode, heapBytesPerNode }) => [
    name,
    row("new pairs  ", cold),
    row("asked again", again),
    `  memory a node: ${residentBytesPerNode} bytes resident` +
      (heapBytesPerNode === undefined ? "" : `, ${heapBytesPerNode} beside the storage cache`),
  ]);
  const ratioRow = (name: string, { p50, p99, cpu }: { p50: number; p99: number; cpu: number }) =>
    `  ${name}  p50 ${p50}  p99 ${p99}  cpu ${cpu}`;
  const compared =
    ratios === undefined
      ? []
      : [
          `${measured[0]!.name} / ${measured[1]!.name}`,
          ratioRow("new pairs  ", ratios.cold),
          ratioRow("asked again", ratios.again),
          `  memory       ${ratios.memory}`,
        ];
  const said = (holds: boolean) => (holds ? "yes" : "NO");
  const verdict = `wanted: p99 <= 5 ms ${said(wanted.p99)}, memory <= 1024 bytes ${said(wanted.memory)}`;
  return `${[`${nodes} nodes, resolve at ${rate}/s, ${cpus} cpus`, ...each, ...compared, verdict].join("\n")}\n`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

await main();
