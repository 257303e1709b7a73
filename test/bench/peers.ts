/**
 * `scripts/bench-peers`: what thousands of trusted peers cost a node. It is measured with one peer and with that one among
 * thousands, in turns, on the same state and in the same namespaces, so that each ratio is taken within minutes. The others are
 * played by one process (crowd.ts): every one has a session whose keys both sides agreed on.
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ControlClient } from "../../src/control/client.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { LAUNCHER, type Lab } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import type { Bed } from "./candidates.ts";
import { befriendCrowd, type Crowd, pairWithCrowd, registerCrowd } from "./crowd-state.ts";
import { cpuSeconds, exactCpuSeconds, type Percentiles, pings, rssMib, startServer, tcp, udpAt } from "./measure.ts";
import { BenchProgram } from "./program.ts";
import { aligned, fixed, median } from "./report.ts";

const USAGE = `usage: scripts/bench-peers [--rounds N] [--seconds S] [--peers N] [--away] [--json]
  --rounds N    how often each state is measured (2)
  --seconds S   length of each TCP transfer (5)
  --peers N     trusted peers with sessions, besides the one that is measured with (10000)
  --away        they are trusted and nowhere to be reached: no sessions
  --json        one JSON object on stdout in place of the table
Wanted: <= 150 MB of memory, and no slow-down: throughput >= 0.9 of that with one peer.`;
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "2" },
    seconds: { type: "string", default: "5" },
    peers: { type: "string", default: "10000" },
    away: { type: "boolean", default: false },
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
const PEERS = Number(values.peers);
const HOSTS = ["a", "b"] as const;
const FIRST_PORT = 20_000;
const WANTED_BYTES = 150e6;
const WANTED_RATIO = 0.9;
/** What the start set off is over, links doze. Those that nobody answers are given up one after another. */
const SETTLE_MS = values.away ? 120_000 : 45_000;
const IDLE_MS = 20_000;
const POLL_MS = 500;
/** An agreement on keys whose answers came too late is tried again after one to two minutes. */
const QUIET_MS = 130_000;
const MOST_CALLS = 2;
const CALLS_AT_ONCE = 16;
const CALL = { timeoutMs: 30_000 };
const crypto = new NodeCrypto();

interface Figures {
  /** From the start of the program until the interface can be used. */
  readonly readyMs: number;
  /** With the crowd, and until there were so many. */
  readonly sessions: number;
  readonly sessionsS: number;
  /** Of one core, after all that. */
  readonly idlePercent: number;
  readonly rssMib: number;
  readonly tcp1Mbps: number;
  readonly tcp4Mbps: number;
  readonly cpuPerGb: number;
  readonly udpKpps: number;
  readonly rtt: Percentiles;
  /** How long `pilot-tun peers` takes, and how long packets wait for it at most. */
  readonly listMs: number;
  readonly listStallMs: number;
}

interface Identity {
  readonly node: number;
  readonly publicKey: string;
}

interface Round {
  readonly alone: Figures;
  readonly crowded: Figures;
}

const program = new BenchProgram("bench-peers");
const say = (line: string): void => program.say(line);
await program.run(async () => report(await program.inLab({ hosts: HOSTS, topology: "pair" }, run)));

async function run(lab: Lab): Promise<Round[]> {
  const crowd: Crowd = { count: PEERS, address: lab.network.addressOf("b"), firstPort: FIRST_PORT };
  registerCrowd(crypto, `${lab.folder}/rendezvous`, crowd);
  await lab.startRendezvous();
  for (const host of HOSTS) await lab.startNode(host);
  await lab.trust("a", "b");
  await lab.rendezvous.stop();
  pairWithCrowd(`${lab.folder}/rendezvous`, lab.node("a").node, crowd);
  await lab.startRendezvous();
  await startServer({ lab, target: lab.overlay("b"), daemons: [], restart: undefined, stop: async () => undefined });
  const identity: Identity = await lab.pilot("a", "status");
  await lab.stopNode("a");
  const rounds: Round[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    const alone = await measure(lab, undefined, `${round}/${ROUNDS} alone`);
    await lab.stopNode("a");
    const leave = befriendCrowd(crypto, lab.node("a").stateDir, crowd);
    const players = values.away ? undefined : await startCrowd(lab, crowd, identity);
    const crowded = await measure(lab, players, `${round}/${ROUNDS} with ${PEERS} more`);
    await lab.stopNode("a");
    await players?.stop();
    leave();
    rounds.push({ alone, crowded });
  }
  return rounds;
}

async function startCrowd(lab: Lab, { count, address, firstPort }: Crowd, target: Identity): Promise<LabProcess> {
  const { publicKey, node } = target;
  const program = fileURLToPath(new URL("./crowd.ts", import.meta.url));
  const words = [address, String(firstPort), "1", String(count), String(node), publicKey];
  const players = lab.spawn("b", process.execPath, [program, ...words]);
  await players.waitForLine(/^listening/, 60_000);
  return players;
}

/** Starts the node and measures from there. */
async function measure(lab: Lab, players: LabProcess | undefined, what: string): Promise<Figures> {
  const startedAt = performance.now();
  const node = await lab.startNode("a", { timeoutMs: 60_000 });
  const readyMs = performance.now() - startedAt;
  const sessions = players === undefined ? 0 : await untilSessionsAreMade(players, node.control);
  const sessionsS = players === undefined ? 0 : (performance.now() - startedAt) / 1_000;
  say(`${what}: ready after ${readyMs.toFixed(0)} ms, ${sessions} sessions after ${sessionsS.toFixed(0)} s`);
  await sleep(SETTLE_MS);
  const before = exactCpuSeconds(node.process);
  await sleep(IDLE_MS);
  const idlePercent = ((exactCpuSeconds(node.process) - before) / IDLE_MS) * 100_000;
  const idleMib = rssMib([node.process])!;
  say(`${what}: idle ${idlePercent.toFixed(2)} % of a core, ${idleMib.toFixed(0)} MiB`);
  const daemons = HOSTS.map((host) => lab.node(host).process);
  const bed: Bed = { lab, target: lab.overlay("b"), daemons, restart: undefined, stop: async () => undefined };
  await tcp(bed, 1, 2); // so that code is compiled in both states
  const cpuBefore = cpuSeconds(daemons);
  const one = await tcp(bed, 1, SECONDS);
  const cpuPerGb = (cpuSeconds(daemons) - cpuBefore) / ((one.mbps * SECONDS) / 8_000);
  const four = await tcp(bed, 4, SECONDS);
  const udpKpps = (await udpAt(bed, 0)).received / 1_000;
  const rtt = await pings(bed, 0.002, 1_500);
  const list = await timeList(bed);
  const figures = {
    ...{
      readyMs,
      sessions,
      sessionsS,
      idlePercent,
      tcp1Mbps: one.mbps,
      tcp4Mbps: four.mbps,
      cpuPerGb,
      udpKpps,
      rtt,
      ...list,
    },
    rssMib: Math.max(idleMib, rssMib([node.process])!),
  };
  say(`${what}: ${one.mbps.toFixed(0)} Mbit/s, p50 ${rtt.p50Us} us, peers in ${list.listMs.toFixed(0)} ms`);
  return figures;
}

/**
 * Until all have one. The process that plays thousands answers too late for some of them when the machine has other work: these are
 * called again, as the packet of a program would, when for long no more sessions came.
 */
async function untilSessionsAreMade(players: LabProcess, control: string): Promise<number> {
  const count = () => Number([...players.stdout.matchAll(/^sessions (\d+)$/gm)].at(-1)?.[1] ?? 0);
  let best = 0;
  for (let [quietMs, calls] = [0, 0]; best < PEERS && calls <= MOST_CALLS; quietMs += POLL_MS) {
    await sleep(POLL_MS);
    if (count() > best) quietMs = 0;
    best = Math.max(best, count());
    if (quietMs < QUIET_MS) continue;
    if (calls++ < MOST_CALLS) await callThoseWithout(control);
    quietMs = 0;
  }
  return best;
}

async function callThoseWithout(control: string): Promise<void> {
  const client = new ControlClient(control);
  const { peers } = await client.call("peers", {}, CALL);
  const waiting = peers.filter(({ session }) => session === "none");
  say(`calling ${waiting.length} once more`);
  const call = async () => {
    for (let peer = waiting.pop(); peer !== undefined; peer = waiting.pop())
      await client.call("ping", { peer: peer.pilot, count: 1, timeoutMs: 5_000 }, CALL);
  };
  await Promise.all(Array.from({ length: CALLS_AT_ONCE }, call));
}

async function timeList(bed: Bed): Promise<Pick<Figures, "listMs" | "listStallMs">> {
  const pinging = bed.lab.exec("a", "ping", ["-6", "-n", "-i", "0.005", "-w", "4", bed.target]);
  await sleep(1_000);
  const startedAt = performance.now();
  const { code } = await bed.lab.exec("a", LAUNCHER, ["--control", bed.lab.node("a").control, "--json", "peers"]);
  const listMs = performance.now() - startedAt;
  if (code !== 0) throw new Error("pilot-tun peers failed");
  const { stdout } = await pinging;
  return {
    listMs,
    listStallMs: Math.max(...[...stdout.matchAll(/time=([\d.]+) ms/g)].map((match) => Number(match[1]))),
  };
}

function report(rounds: readonly Round[]): void {
  const of = (figure: (figures: Figures) => number) => ({
    alone: median(rounds.map(({ alone }) => figure(alone))),
    crowded: median(rounds.map(({ crowded }) => figure(crowded))),
    ratio: median(rounds.map(({ alone, crowded }) => (figure(alone) > 0 ? figure(crowded) / figure(alone) : null))),
  });
  const figures = {
    "memory, MiB": of((each) => each.rssMib),
    "idle, % of a core": of((each) => each.idlePercent),
    "TCP, 1 stream, Mbit/s": of((each) => each.tcp1Mbps),
    "TCP, 4 streams, Mbit/s": of((each) => each.tcp4Mbps),
    "both daemons, CPU s/GB": of((each) => each.cpuPerGb),
    "UDP, 64 bytes, unpaced, kpps": of((each) => each.udpKpps),
    "round trip, p50, us": of((each) => each.rtt.p50Us),
    "round trip, p99, us": of((each) => each.rtt.p99Us),
    "ready after the start, ms": of((each) => each.readyMs),
    "sessions with the others": of((each) => each.sessions),
    "these after the start, s": of((each) => each.sessionsS),
    "pilot-tun peers, ms": of((each) => each.listMs),
    "longest wait meanwhile, ms": of((each) => each.listStallMs),
  };
  const wanted = {
    memory: (figures["memory, MiB"].crowded ?? Number.POSITIVE_INFINITY) * 2 ** 20 <= WANTED_BYTES,
    speed: [figures["TCP, 1 stream, Mbit/s"], figures["TCP, 4 streams, Mbit/s"]].every(
      ({ ratio }) => (ratio ?? 0) >= WANTED_RATIO,
    ),
  };
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ peers: PEERS, figures, wanted, rounds })}\n`);
    return;
  }
  const rows = Object.entries(figures).map(([title, { alone, crowded, ratio }]) => {
    return [title, fixed(alone, 2), fixed(crowded, 2), fixed(ratio, 2)];
  });
  const said = (holds: boolean) => (holds ? "yes" : "NO");
  const lines = [
    aligned([["", "one peer", `${PEERS} more`, "ratio"], ...rows]),
    `wanted: <= ${WANTED_BYTES / 1e6} MB: ${said(wanted.memory)}; throughput >= ${WANTED_RATIO}: ${said(wanted.speed)}`,
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
