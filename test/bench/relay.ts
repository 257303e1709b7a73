/**
 * `scripts/bench-relay`: how much of the direct path's speed is left when the same two hosts reach each other only through
 * the relay. Direct and relayed take turns between the same running daemons, so that each ratio is taken within minutes.
 */
import { parseArgs } from "node:util";
import { allowDirect, blockDirect, usePath } from "../helpers/direct-block.ts";
import type { Lab } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import type { Bed } from "./candidates.ts";
import { cpuSeconds, type Percentiles, pings, startServer, tcp } from "./measure.ts";
import { BenchProgram } from "./program.ts";

const USAGE = `usage: scripts/bench-relay [--rounds N] [--seconds S] [--json]
  --rounds N    how often each path is measured (3)
  --seconds S   length of each TCP transfer (5)
  --json        one JSON object on stdout in place of the table
Wanted: throughput through the relay >= 0.6 of the direct path's.`;
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "5" },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  process.stdout.write(`${USAGE}\n`);
  process.exit(0);
}
const ROUNDS = Number(values.rounds);
const SECONDS = Number(values.seconds);
const HOSTS = ["a", "b"] as const;
const WANTED = 0.6;

interface Figures {
  readonly tcp1Mbps: number;
  readonly tcp4Mbps: number;
  readonly rtt: Percentiles;
  /** Of both daemons together. */
  readonly daemonsCpuPerGb: number;
  readonly rendezvousCpuPerGb: number;
}

interface Round {
  readonly direct: Figures;
  readonly relay: Figures;
}

const program = new BenchProgram("bench-relay");
const say = (line: string): void => program.say(line);
await program.run(async () => report(await program.inLab({ hosts: HOSTS }, run)));

async function run(lab: Lab): Promise<Round[]> {
  const rendezvous = await lab.startRendezvous();
  for (const host of HOSTS) await lab.startNode(host);
  await lab.trust("a", "b");
  const daemons = HOSTS.map((host) => lab.node(host).process);
  const bed: Bed = { lab, target: lab.overlay("b"), daemons, restart: undefined, stop: async () => undefined };
  await startServer(bed);
  const rounds: Round[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    await usePath(lab, HOSTS, "direct");
    const direct = await measure(bed, rendezvous, `${round}/${ROUNDS} direct`);
    await blockDirect(lab, HOSTS);
    await usePath(lab, HOSTS, "relay");
    const relay = await measure(bed, rendezvous, `${round}/${ROUNDS} relay`);
    await allowDirect(lab, HOSTS);
    rounds.push({ direct, relay });
  }
  return rounds;
}

async function measure(bed: Bed, rendezvous: LabProcess, what: string): Promise<Figures> {
  await tcp(bed, 1, 2); // so that the first round is measured with compiled code, as the others are
  const before = cpuSeconds([rendezvous]);
  const one = await tcp(bed, 1, SECONDS);
  const gigabytes = (one.mbps * SECONDS) / 8_000;
  const rendezvousCpuPerGb = (cpuSeconds([rendezvous]) - before) / gigabytes;
  const four = await tcp(bed, 4, SECONDS);
  const rtt = await pings(bed, 0.002, 1_000);
  say(`${what}: ${one.mbps.toFixed(0)} and ${four.mbps.toFixed(0)} Mbit/s, round trip p50 ${rtt.p50Us} us`);
  const daemonsCpuPerGb = one.cpuSecondsPerGb ?? 0;
  say(`${what}: CPU s/GB: daemons ${daemonsCpuPerGb.toFixed(2)}, rendezvous ${rendezvousCpuPerGb.toFixed(2)}`);
  return { tcp1Mbps: one.mbps, tcp4Mbps: four.mbps, rtt, daemonsCpuPerGb, rendezvousCpuPerGb };
}

function report(rounds: readonly Round[]): void {
  const ratio = (of: (figures: Figures) => number) => median(rounds.map(({ direct, relay }) => of(relay) / of(direct)));
  const ratios = {
    tcp1: ratio((figures) => figures.tcp1Mbps),
    tcp4: ratio((figures) => figures.tcp4Mbps),
    rttP50: ratio((figures) => figures.rtt.p50Us),
    rttP99: ratio((figures) => figures.rtt.p99Us),
    cpuPerGb: ratio((figures) => figures.daemonsCpuPerGb + figures.rendezvousCpuPerGb),
  };
  const isWanted = Math.min(ratios.tcp1, ratios.tcp4) >= WANTED;
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ ratios, wanted: isWanted, rounds })}\n`);
    return;
  }
  const lines = [
    "relay / direct, median of the rounds",
    `  TCP throughput, 1 stream      ${ratios.tcp1.toFixed(2)}`,
    `  TCP throughput, 4 streams     ${ratios.tcp4.toFixed(2)}`,
    `  round trip, p50 / p99         ${ratios.rttP50.toFixed(2)} / ${ratios.rttP99.toFixed(2)}`,
    `  CPU seconds per GB, all three ${ratios.cpuPerGb.toFixed(2)}`,
    `wanted: throughput >= ${WANTED} ${isWanted ? "yes" : "NO"}`,
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right);
  return sorted[Math.floor((sorted.length - 1) / 2)]!;
}
