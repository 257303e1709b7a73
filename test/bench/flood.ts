/**
 * `scripts/bench-flood`: what is left of a TCP transfer's speed while the receiving host is flooded from made-up sources.
 * Quiet and flooded take turns on the same running daemons, which reach each other directly, and through the relay where it
 * is the beacon that is flooded. Beside pilot-tun stand wireguard-go, flooded with initiations
 * of handshakes, and the bare wire, flooded with anything: that is what the flood takes from the machine by itself.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { blake2s } from "@noble/hashes/blake2.js";
import { concatBytes, fromBase64, utf8 } from "../../src/base/bytes.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { allowDirect, blockDirect, usePath } from "../helpers/direct-block.ts";
import { Flooder, type FloodTarget, sentBy } from "../helpers/flood.ts";
import * as datagrams from "../helpers/flood-datagrams.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";
import { type Bed, type Candidate, findWireguard, HOSTS, pilotTun, raw, wireguardGo } from "./candidates.ts";
import { pings, startServer, tcp } from "./measure.ts";
import { BenchProgram } from "./program.ts";

const USAGE = `usage: scripts/bench-flood [--rounds N] [--seconds S] [--rate R] [--only NAME]... [--json]
  --rounds N    how often each is measured (3)
  --seconds S   length of each TCP transfer (4)
  --rate R      datagrams a second of each flood (20000)
  --only NAME   pilot-tun, wireguard-go or raw; may be given again
  --json        one JSON object on stdout in place of the table
WGGO names the wireguard-go to compare with, if it is not on the PATH.`;
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "4" },
    rate: { type: "string", default: "20000" },
    only: { type: "string", multiple: true, default: [] },
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
const RATE = Number(values.rate);
const PINGS = 400;

interface Flood {
  readonly name: string;
  readonly target: FloodTarget;
  readonly datagrams: readonly datagrams.FloodDatagram[];
  readonly from?: string;
  /** The two reach each other through the relay meanwhile. */
  readonly isRelayed?: true;
}

/** Of one flood in one round; throughput and round trip as parts of what they were without it. */
interface Outcome {
  readonly candidate: string;
  readonly flood: string;
  readonly throughput: number;
  readonly rttP99: number;
  /** Of the pings beside the flood. */
  readonly lost: number;
  /** That the flood really sent. */
  readonly perSecond: number;
}

const CANDIDATES: readonly { readonly candidate: Candidate; floodsOf(bed: Bed): Promise<Flood[]> }[] = [
  { candidate: pilotTun, floodsOf: pilotFloods },
  { candidate: wireguardGo(findWireguard()), floodsOf: wireguardFloods },
  { candidate: raw, floodsOf: async ({ lab }) => [anything({ address: lab.network.addressOf("b"), port: 9 })] },
];

const program = new BenchProgram("bench-flood");
const say = (line: string): void => program.say(line);
await program.run(async () => report(await run()));

async function run(): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const { candidate, floodsOf } of CANDIDATES) {
    if (values.only.length > 0 && !values.only.includes(candidate.name)) continue;
    if (candidate.missing !== undefined) say(`left out: ${candidate.missing}`);
    else outcomes.push(...(await runOne(candidate, floodsOf)));
  }
  return outcomes;
}

function runOne(candidate: Candidate, floodsOf: (bed: Bed) => Promise<Flood[]>): Promise<Outcome[]> {
  return program.inLab({ hosts: ["a", "b", "x"] }, async (lab) => {
    let bed: Bed | undefined;
    try {
      bed = await candidate.start(lab);
      await pings(bed, 0.05, 20);
      await startServer(bed);
      await tcp(bed, 1, 2); // so that the first round is measured with compiled code
      const flooder = await Flooder.create(lab, "x");
      const floods = await floodsOf(bed);
      const outcomes: Outcome[] = [];
      for (let round = 1; round <= ROUNDS; round++) {
        for (const flood of floods) {
          if (flood.isRelayed) await blockDirect(lab, HOSTS);
          if (flood.isRelayed) await usePath(lab, HOSTS, "relay");
          outcomes.push(await measure(bed, candidate.name, flooder, flood));
          if (flood.isRelayed) await allowDirect(lab, HOSTS);
        }
        if (floods.some(({ isRelayed }) => isRelayed)) await usePath(lab, HOSTS, "direct");
      }
      return outcomes;
    } finally {
      await bed?.stop();
    }
  });
}

async function measure(bed: Bed, candidate: string, flooder: Flooder, flood: Flood): Promise<Outcome> {
  const quiet = await figures(bed);
  const { target, from } = flood;
  const seconds = 3 * SECONDS + 20;
  const plan = { rate: RATE, seconds, ...(from === undefined ? {} : { from }) };
  const startedAt = performance.now();
  const running = await flooder.start(target, flood.datagrams, plan);
  const flooded = await figures(bed);
  if (!running.isRunning) throw new Error(`the flood ended too soon: ${running.report()}`);
  running.kill("SIGTERM");
  const sent = await sentBy(running);
  const outcome = {
    candidate,
    flood: flood.name,
    throughput: flooded.mbps / quiet.mbps,
    rttP99: flooded.p99Us / quiet.p99Us,
    lost: flooded.lost,
    perSecond: (sent * 1_000) / (performance.now() - startedAt),
  };
  say(
    `${candidate}, ${flood.name}: ${quiet.mbps.toFixed(0)} to ${flooded.mbps.toFixed(0)} Mbit/s, ` +
      `round trip p99 ${quiet.p99Us} to ${flooded.p99Us} us, ${flooded.lost} of ${PINGS} lost, ` +
      `${outcome.perSecond.toFixed(0)} datagrams a second`,
  );
  return outcome;
}

async function figures(bed: Bed): Promise<{ readonly mbps: number; readonly p99Us: number; readonly lost: number }> {
  const { mbps } = await tcp(bed, 1, SECONDS);
  const { p99Us, lost } = await pings(bed, 0.005, PINGS);
  return { mbps, p99Us, lost };
}

// ---- the floods -----------------------------------------------------------------------------------------------------

function anything(target: FloodTarget): Flood {
  return { name: "anything", target, datagrams: [datagrams.strangeExchanges()] };
}

async function pilotFloods({ lab }: Bed): Promise<Flood[]> {
  const portOf = async (host: string): Promise<number> => {
    return Number((await lab.pilot(host, "status")).listen.split(":").at(-1));
  };
  const { public_key } = JSON.parse(readFileSync(`${lab.node("a").stateDir}/identity.json`, "utf8"));
  const [a, b] = [nodeId(lab.node("a").node), nodeId(lab.node("b").node)];
  const target = { address: lab.network.addressOf("b"), port: await portOf("b") };
  const exchanges = datagrams.exchangesAs(a, fromBase64(public_key)!, b);
  const home = `${lab.network.addressOf("a")}:${await portOf("a")}`;
  const beacon = { address: lab.network.addressOf(lab.rendezvousHost), port: Number(lab.beacon.split(":").at(-1)) };
  return [
    { name: "exchanges of strangers", target, datagrams: [datagrams.strangeExchanges()] },
    { name: "exchanges in the peer's name", target, datagrams: exchanges },
    { name: "the same from its own address", target, datagrams: exchanges, from: home },
    { name: "sealed frames in its name", target, datagrams: [datagrams.sealedFrames(a)] },
    { name: "SYNs in the clear", target, datagrams: [datagrams.plaintext()] },
    { name: "discoveries at the beacon", target: beacon, datagrams: [datagrams.discoveries()] },
    { name: "the same, relayed", target: beacon, datagrams: [datagrams.discoveries()], isRelayed: true },
    { name: "frames to relay, relayed", target: beacon, datagrams: [datagrams.relayed(b)], isRelayed: true },
  ];
}

/** Initiations of handshakes that pass the first test, mac1, as whoever knows the public key can make them. */
async function wireguardFloods({ lab, farEnd }: Bed): Promise<Flood[]> {
  const { port, publicKey } = farEnd!;
  const target = { address: lab.network.addressOf("b"), port };
  const random = seededBytes(1);
  const macKey = blake2s(concatBytes(utf8("mac1----"), publicKey));
  const initiations = Array.from({ length: 64 }, () => {
    const bytes = concatBytes(Uint8Array.from([1, 0, 0, 0]), random(112), new Uint8Array(32));
    bytes.set(blake2s(bytes.subarray(0, 116), { key: macKey, dkLen: 16 }), 116);
    return { bytes, randomFrom: 0, randomBytes: 0 };
  });
  return [anything(target), { name: "initiations of handshakes", target, datagrams: initiations }];
}

// ---- the result -----------------------------------------------------------------------------------------------------

function report(outcomes: readonly Outcome[]): void {
  const names = [...new Set(outcomes.map(({ candidate, flood }) => `${candidate}: ${flood}`))];
  const rows = names.map((name) => {
    const of = outcomes.filter(({ candidate, flood }) => `${candidate}: ${flood}` === name);
    const column = (pick: (outcome: Outcome) => number) => median(of.map(pick));
    return {
      name,
      throughput: column((outcome) => outcome.throughput),
      rttP99: column((outcome) => outcome.rttP99),
      lost: column((outcome) => outcome.lost),
      perSecond: column((outcome) => outcome.perSecond),
    };
  });
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ rate: RATE, rows, outcomes })}\n`);
    return;
  }
  const lines = [
    `${"flooded / quiet, median of the rounds".padEnd(50)}TCP   p99  lost   per second`,
    ...rows.map(({ name, throughput, rttP99, lost, perSecond }) => {
      const times = `${throughput.toFixed(2)}  ${rttP99.toFixed(1).padStart(4)}`;
      return `${`  ${name}`.padEnd(49)}${times}  ${lost.toFixed(0).padStart(4)}   ${perSecond.toFixed(0)}`;
    }),
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

function median(all: readonly number[]): number {
  const sorted = [...all].sort((left, right) => left - right);
  return sorted[Math.floor((sorted.length - 1) / 2)]!;
}
