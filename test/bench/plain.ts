/**
 * `scripts/bench-plain`: two pilot-tun nodes of which one is told to be a plain agent, beside the same two in packet mode.
 * One TCP stream each way, in turns, so that each ratio is taken between runs of the same minutes; then many idle
 * connections through the plain agent, and what they added to the memory of each daemon. stdout carries the result alone.
 */
import { parseArgs } from "node:util";
import { type Lab, waitUntil } from "../helpers/lab.ts";
import { type Bed, HOSTS, pilotTun, restartPilot } from "./candidates.ts";
import { rssMib, startServer, type Transfer, tcp } from "./measure.ts";
import { BenchProgram } from "./program.ts";
import { aligned, fixed, median } from "./report.ts";

const USAGE = `usage: scripts/bench-plain [--rounds N] [--seconds S] [--idle N] [--json]
  --rounds N    how often each mode is measured (3); 0 measures no transfers
  --seconds S   length of each TCP transfer (5)
  --idle N      idle connections whose memory is measured (10000); 0 for none
  --json        one JSON object on stdout in place of the table`;

interface Mode {
  readonly upMbps: number;
  readonly downMbps: number;
  readonly upCpuSecondsPerGb: number;
  readonly downCpuSecondsPerGb: number;
}

interface Round {
  readonly packets: Mode;
  readonly plain: Mode;
}

/** What each daemon's memory grew by. a dialled, b, the plain agent, was dialled. */
interface Idle {
  readonly connections: number;
  readonly mibOfA: number;
  readonly mibOfB: number;
  readonly secondsToOpen: number;
}

const PLAIN = ["--plain-only"];
const WARM_UP = 300;
const SETTLE_MS = 5_000;

const HOLDING_SERVER = `
import resource, selectors, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
s = socket.socket(socket.AF_INET6); s.bind((sys.argv[1], 7500)); s.listen(4096); print('ready')
ready = selectors.DefaultSelector(); ready.register(s, selectors.EVENT_READ)
while True:
    for key, _ in ready.select():
        if key.fileobj is s: ready.register(s.accept()[0], selectors.EVENT_READ); continue
        d = key.fileobj.recv(4096)
        if d: key.fileobj.send(d)
        else: ready.unregister(key.fileobj); key.fileobj.close()
`;
/** Each connection has carried a byte both ways before it is idle. At most 200 are being opened at a time. */
const HOLDING_CLIENT = `
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held = []; n = int(sys.argv[2])
while len(held) < n:
    some = [socket.socket(socket.AF_INET6) for _ in range(min(200, n - len(held)))]
    for s in some: s.setblocking(False); s.connect_ex((sys.argv[1], 7500))
    for s in some: s.settimeout(20); s.sendall(b'x')
    for s in some: assert s.recv(1) == b'x'
    held += some
print('holding', len(held)); time.sleep(600)
`;

const program = new BenchProgram("bench-plain");
const say = (line: string): void => program.say(line);
await program.run(async () => {
  const plan = parsePlan();
  const rounds: Round[] = [];
  for (let round = 1; round <= plan.rounds; round++) {
    rounds.push(await inLab((lab) => runRound(lab, plan.seconds, (line) => say(`${round}/${plan.rounds} ${line}`))));
  }
  const idle = plan.idle === 0 ? undefined : await inLab((lab) => holdIdle(lab, plan.idle));
  const report = { ratios: ratiosOf(rounds), rounds, idle };
  process.stdout.write(`${plan.json ? JSON.stringify(report) : tableOf(rounds, idle)}\n`);
});

function inLab<T>(act: (lab: Lab) => Promise<T>): Promise<T> {
  return program.inLab({ hosts: HOSTS, topology: "pair" }, async (lab) => {
    await pilotTun.start(lab);
    return await act(lab);
  });
}

// ---- transfers ------------------------------------------------------------------------------------------------------

async function runRound(lab: Lab, seconds: number, report: (line: string) => void): Promise<Round> {
  const measureMode = async (name: string, bed: Bed): Promise<Mode> => {
    await tcp(bed, 1, 2); // not measured: a daemon that runs for days has its code compiled
    const up = await tcp(bed, 1, seconds);
    const down = await tcp(bed, 1, seconds, true);
    report(`${name}: up ${up.mbps.toFixed(0)} Mbit/s, down ${down.mbps.toFixed(0)} Mbit/s`);
    return modeOf(up, down);
  };
  const bed = await restartPilot(lab);
  await startServer(bed);
  const packets = await measureMode("packets", bed);
  const plain = await measureMode("plain", await plainBed(lab));
  return { packets, plain };
}

async function plainBed(lab: Lab): Promise<Bed> {
  const bed = await restartPilot(lab, PLAIN);
  await lab.trustAnew("a", "b"); // the two have agreed on keys, and do not go back by themselves
  await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "2", bed.target]);
  await waitUntil("a to know that b is a plain agent", async () => {
    const { peers } = await lab.pilot("a", "peers");
    return peers.some((peer: { kind: string }) => peer.kind === "plain");
  });
  return bed;
}

function modeOf(up: Transfer, down: Transfer): Mode {
  return {
    upMbps: up.mbps,
    downMbps: down.mbps,
    upCpuSecondsPerGb: up.cpuSecondsPerGb!,
    downCpuSecondsPerGb: down.cpuSecondsPerGb!,
  };
}

// ---- idle connections -----------------------------------------------------------------------------------------------

async function holdIdle(lab: Lab, connections: number): Promise<Idle> {
  const bed = await plainBed(lab);
  const server = lab.spawn("b", "python3", ["-u", "-c", HOLDING_SERVER, bed.target]);
  await server.waitForLine(/ready/);
  const [a, b] = [bed.daemons.slice(0, 1), bed.daemons.slice(1)];
  // Once through the whole code, so that what is measured is connections and not compiled code.
  await runClient(lab, bed, WARM_UP);
  const before = { a: rssMib(a)!, b: rssMib(b)! };
  const { client, seconds } = await runClient(lab, bed, connections);
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const idle = {
    connections,
    mibOfA: rssMib(a)! - before.a,
    mibOfB: rssMib(b)! - before.b,
    secondsToOpen: seconds,
  };
  if (!client.isRunning) throw new Error(`the client did not hold its connections\n${client.report()}`);
  return idle;
}

async function runClient(lab: Lab, bed: Bed, connections: number) {
  const startedAt = performance.now();
  const client = lab.spawn("a", "python3", ["-u", "-c", HOLDING_CLIENT, bed.target, String(connections)]);
  await client.waitForLine(/holding/, 20_000 + connections * 20);
  return { client, seconds: (performance.now() - startedAt) / 1_000 };
}

// ---- the result -----------------------------------------------------------------------------------------------------

function ratiosOf(rounds: readonly Round[]): { readonly up: number | null; readonly down: number | null } {
  return {
    up: median(rounds.map(({ plain, packets }) => plain.upMbps / packets.upMbps)),
    down: median(rounds.map(({ plain, packets }) => plain.downMbps / packets.downMbps)),
  };
}

function tableOf(rounds: readonly Round[], idle: Idle | undefined): string {
  const row = (title: string, figure: keyof Mode, digits: number): string[] => {
    const each = rounds.map(({ plain, packets }) => plain[figure] / packets[figure]);
    const medianOf = (mode: keyof Round): string => fixed(median(rounds.map((round) => round[mode][figure])), digits);
    const list = each.map((value) => fixed(value, 2)).join(" ");
    return [title, medianOf("plain"), medianOf("packets"), fixed(median(each), 2), list];
  };
  const transfers = [
    ["", "plain", "packets", "plain / packets", "rounds"],
    row("TCP, 1 stream up, Mbit/s", "upMbps", 0),
    row("TCP, 1 stream down, Mbit/s", "downMbps", 0),
    row("up, both daemons, CPU s/GB", "upCpuSecondsPerGb", 2),
    row("down, both daemons, CPU s/GB", "downCpuSecondsPerGb", 2),
  ];
  const lines = rounds.length === 0 ? [] : [aligned(transfers)];
  if (idle !== undefined) {
    const each = (mib: number): string => `${fixed(mib, 1)} MiB`;
    lines.push(
      `${idle.connections} idle connections: ${each(idle.mibOfA)} in the node that dialled, ` +
        `${each(idle.mibOfB)} in the one that was dialled; opened in ${fixed(idle.secondsToOpen, 1)} s`,
    );
  }
  return lines.join("\n");
}

function parsePlan() {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "3" },
      seconds: { type: "string", default: "5" },
      idle: { type: "string", default: "10000" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    process.exit(0);
  }
  return {
    rounds: whole("--rounds", values.rounds, 0, 100),
    seconds: whole("--seconds", values.seconds, 1, 600),
    idle: whole("--idle", values.idle, 0, 12_000),
    json: values.json,
  };
}

function whole(option: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new Error(`${option} must be a whole number from ${least} to ${most}\n${USAGE}`);
}
