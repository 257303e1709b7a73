/**
 * `scripts/bench-policy`: how much throughput is left with 10,000 rules and 100,000 live flows. Both states take turns
 * with the same two nodes in the same namespaces, so that each ratio is taken within minutes.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { Lab } from "../helpers/lab.ts";
import type { Bed } from "./candidates.ts";
import { cpuSeconds, type Percentiles, pings, rssMib, startServer, tcp, udpAt } from "./measure.ts";
import { BenchProgram } from "./program.ts";
import { aligned, fixed, median } from "./report.ts";

const USAGE = `usage: scripts/bench-policy [--rounds N] [--seconds S] [--rules N] [--flows N] [--json]
  --rounds N    how often each state is measured (3)
  --seconds S   length of each TCP transfer (5)
  --rules N     rules on both sides (10000)
  --flows N     live flows on both sides (100000)
  --json        one JSON object on stdout in place of the table
Wanted: throughput with rules and flows >= 0.9 of that with none.`;
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "5" },
    rules: { type: "string", default: "10000" },
    flows: { type: "string", default: "100000" },
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
const RULES = Number(values.rules);
const FLOWS = Number(values.flows);
const HOSTS = ["a", "b"] as const;
const WANTED = 0.9;
/** Datagrams from two ports to as many others as it takes. */
const SPREAD = `
import socket, sys, time
address, flows = sys.argv[1], int(sys.argv[2])
sockets = []
while len(sockets) * 50000 <= flows:
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.setblocking(True); sockets.append(s)
sent = 0
for s in sockets:
    for port in range(10000, 60000):
        if sent == flows + flows // 100: break
        while True:
            try: s.sendto(b"x", (address, port)); break
            except OSError: pass # what the last one was told
        sent += 1
        if sent % 100 == 0: time.sleep(0.01) # so that no queue overflows
`;

interface Figures {
  readonly tcp1Mbps: number;
  readonly tcp4Mbps: number;
  /** 64-byte datagrams that arrive of those that a program sends as fast as it can. */
  readonly udpKpps: number;
  readonly rtt: Percentiles;
  readonly cpuPerGb: number;
  readonly rssMib: number | null;
}

interface Round {
  readonly none: Figures;
  readonly full: Figures;
  /** Flows that began in a second, while all were made. */
  readonly beginKps: number;
  /** The longest that a ping waited while the policy was read anew, with all flows alive. */
  readonly reloadStallMs: number;
}

const program = new BenchProgram("bench-policy");
const say = (line: string): void => program.say(line);
await program.run(async () => report(await program.inLab({ hosts: HOSTS, topology: "pair" }, run)));

async function run(lab: Lab): Promise<Round[]> {
  await lab.startRendezvous();
  for (const host of HOSTS) await lab.startNode(host);
  await lab.trust("a", "b");
  for (const host of HOSTS) writeFileSync(policyOf(lab, host), rulesText(lab), { mode: 0o600 });
  const bed: Bed = { lab, target: lab.overlay("b"), daemons: [], restart: undefined, stop: async () => undefined };
  await startServer(bed);
  const rounds: Round[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    const none = await measure(await restart(lab, false), `${round}/${ROUNDS} none`);
    const withRules = await restart(lab, true);
    const beginKps = await makeFlows(lab);
    const full = await measure(withRules, `${round}/${ROUNDS} full`);
    await expectFlows(lab);
    const reloadStallMs = await stallOfReload(lab);
    say(
      `${round}/${ROUNDS} full: ${beginKps.toFixed(1)} k flows begun a second, reload stalls ${reloadStallMs.toFixed(0)} ms`,
    );
    rounds.push({ none, full, beginKps, reloadStallMs });
  }
  return rounds;
}

async function restart(lab: Lab, hasRules: boolean): Promise<Bed> {
  await Promise.all(HOSTS.map((host) => lab.stopNode(host)));
  await Promise.all(
    HOSTS.map((host) => lab.startNode(host, { extraArgs: hasRules ? ["--policy", policyOf(lab, host)] : [] })),
  );
  const daemons = HOSTS.map((host) => lab.node(host).process);
  return { lab, target: lab.overlay("b"), daemons, restart: undefined, stop: async () => undefined };
}

function policyOf(lab: Lab, host: string): string {
  return `${lab.folder}/${host}.policy`;
}

/** Of every kind, and the ones that let the benchmark pass are the last. */
function rulesText(lab: Lab): string {
  const peer = (index: number) => {
    const kinds = [
      `host${index}`,
      `0:0000.0001.${hex(index)}`,
      `network:${1 + (index % 60_000)}`,
      `tag:t${index}`,
      "trusted",
    ];
    return kinds[index % kinds.length]!;
  };
  const lines = Array.from({ length: RULES - 2 }, (_, index) => {
    const [direction, preposition] = index % 2 === 0 ? ["in", "from"] : ["out", "to"];
    const first = 20_000 + (index % 10_000);
    return `deny ${direction} tcp ${first},${first + 20_000}-${first + 20_003} ${preposition} ${peer(index)}`;
  });
  const [a, b] = HOSTS.map((host) => lab.node(host).pilot);
  return [
    ...lines,
    `allow in any from trusted`,
    `allow out any to trusted`,
    `test allow in tcp 5201 from ${a}`,
    `test allow out tcp 5201 to ${b}`,
    "",
  ].join("\n");
}

function hex(value: number): string {
  return value.toString(16).toUpperCase().padStart(4, "0");
}

/** UDP from two ports of a to as many of b as it takes; thousands of flows that began in a second. */
async function makeFlows(lab: Lab): Promise<number> {
  await lab.exec("a", "ping", ["-6", "-c", "3", "-i", "0.2", "-W", "2", lab.overlay("b")]);
  const startedAt = performance.now();
  await spread(lab);
  const seconds = (performance.now() - startedAt) / 1_000;
  // What a queue had no room for is sent again.
  for (let again = 0; again < 5 && (await fewestFlows(lab)) < FLOWS; again++) await spread(lab);
  await expectFlows(lab);
  return FLOWS / 1_000 / seconds;
}

async function spread(lab: Lab): Promise<void> {
  const words = ["-c", SPREAD, lab.overlay("b"), String(FLOWS)];
  const { code, stderr } = await lab.exec("a", "python3", words, { timeoutMs: 120_000 });
  if (code !== 0) throw new Error(stderr);
}

async function fewestFlows(lab: Lab): Promise<number> {
  return Math.min(...(await Promise.all(HOSTS.map(async (host) => (await lab.pilot(host, "flows")).total))));
}

/** Both sides hold them still. */
async function expectFlows(lab: Lab): Promise<void> {
  const flows = await fewestFlows(lab);
  if (flows < FLOWS) throw new Error(`there are only ${flows} live flows`);
}

async function stallOfReload(lab: Lab): Promise<number> {
  const pinging = lab.exec("a", "ping", ["-6", "-n", "-i", "0.005", "-w", "4", lab.overlay("b")]);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  await lab.pilot("b", "policy", "reload");
  const { stdout } = await pinging;
  return Math.max(...[...stdout.matchAll(/time=([\d.]+) ms/g)].map((match) => Number(match[1])));
}

async function measure(bed: Bed, what: string): Promise<Figures> {
  await tcp(bed, 1, 2); // so that the first round is measured with compiled code, as the others are
  const before = cpuSeconds(bed.daemons);
  const one = await tcp(bed, 1, SECONDS);
  const cpuPerGb = (cpuSeconds(bed.daemons) - before) / ((one.mbps * SECONDS) / 8_000);
  const four = await tcp(bed, 4, SECONDS);
  const udpKpps = (await udpAt(bed, 0)).received / 1_000;
  const rtt = await pings(bed, 0.002, 1_000);
  say(
    `${what}: ${one.mbps.toFixed(0)} and ${four.mbps.toFixed(0)} Mbit/s, ${udpKpps.toFixed(1)} kpps, p50 ${rtt.p50Us} us`,
  );
  return { tcp1Mbps: one.mbps, tcp4Mbps: four.mbps, udpKpps, rtt, cpuPerGb, rssMib: rssMib(bed.daemons) };
}

function report(rounds: readonly Round[]): void {
  const of = (figure: (figures: Figures) => number | null) => ({
    none: median(rounds.map(({ none }) => figure(none))),
    full: median(rounds.map(({ full }) => figure(full))),
    ratio: median(rounds.map(({ none, full }) => ratio(figure(full), figure(none)))),
  });
  const figures = {
    "TCP, 1 stream, Mbit/s": of((each) => each.tcp1Mbps),
    "TCP, 4 streams, Mbit/s": of((each) => each.tcp4Mbps),
    "UDP, 64 bytes, unpaced, kpps": of((each) => each.udpKpps),
    "round trip, p50, us": of((each) => each.rtt.p50Us),
    "round trip, p99, us": of((each) => each.rtt.p99Us),
    "both daemons, CPU s/GB": of((each) => each.cpuPerGb),
    "both daemons, RSS, MiB": of((each) => each.rssMib),
  };
  const isWanted = [figures["TCP, 1 stream, Mbit/s"], figures["TCP, 4 streams, Mbit/s"]].every(
    ({ ratio: each }) => (each ?? 0) >= WANTED,
  );
  const beginKps = median(rounds.map((round) => round.beginKps));
  const reloadStallMs = median(rounds.map((round) => round.reloadStallMs));
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ figures, beginKps, reloadStallMs, wanted: isWanted, rounds })}\n`);
    return;
  }
  const rows = Object.entries(figures).map(([title, { none, full, ratio: each }]) => {
    return [title, fixed(none, 2), fixed(full, 2), fixed(each, 2)];
  });
  const lines = [
    aligned([["", "none", `${RULES} rules, ${FLOWS} flows`, "ratio"], ...rows]),
    `flows begun a second: ${fixed(beginKps, 1)} thousand; a reload holds packets up for ${fixed(reloadStallMs, 0)} ms`,
    `wanted: throughput >= ${WANTED} of that with none: ${isWanted ? "yes" : "NO"}`,
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

function ratio(full: number | null, none: number | null): number | null {
  return full === null || !none ? null : full / none;
}
