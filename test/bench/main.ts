/**
 * `scripts/bench`: the candidates one after another in fresh namespaces, round by round, so that each ratio is taken
 * between runs of the same minutes. stdout carries the result alone: a table, or with --json one object.
 */
import { parseArgs } from "node:util";
import {
  type Bed,
  type Candidate,
  findWireguard,
  HOSTS,
  pilotTun,
  pilotTunRealtime,
  raw,
  wireguardGo,
} from "./candidates.ts";
import { findHttpPrograms } from "./http.ts";
import { type Figures, type Measurement, measure } from "./measure.ts";
import { BenchProgram } from "./program.ts";
import { type Round, summarise, tableOf } from "./report.ts";

const USAGE = `usage: scripts/bench [--rounds N] [--seconds S] [--only NAME]... [--json]
  --rounds N    how often each candidate is measured (3)
  --seconds S   length of each TCP transfer (5)
  --only NAME   pilot-tun, preferred (the same, before ordinary programs), wireguard-go or raw; may be given again
  --json        one JSON object on stdout in place of the table
WGGO names the wireguard-go to compare with, if it is not on the PATH. HTTP requests are measured where wrk and nginx
are installed, or named by WRK and NGINX.`;

interface Plan {
  readonly rounds: number;
  readonly seconds: number;
  readonly only: readonly string[];
  readonly json: boolean;
}

const candidates: readonly Candidate[] = [pilotTun, wireguardGo(findWireguard()), raw, pilotTunRealtime];

const program = new BenchProgram("bench");
const say = (line: string): void => program.say(line);

await program.run(async () => {
  const plan = parsePlan();
  const chosen = choose(plan);
  const http = findHttpPrograms();
  if (http === undefined)
    say("left out: HTTP requests, for wrk or nginx is not installed, and WRK and NGINX name none");
  const rounds: Round[] = [];
  for (let round = 1; round <= plan.rounds; round++) {
    const figures: Record<string, Figures> = {};
    for (const candidate of chosen) {
      figures[candidate.name] = await runOne(candidate, { ...plan, http }, (line) =>
        say(`${round}/${plan.rounds} ${line}`),
      );
    }
    rounds.push(figures);
  }
  const report = summarise(rounds);
  process.stdout.write(`${plan.json ? JSON.stringify(report) : tableOf(report)}\n`);
});

function runOne(candidate: Candidate, how: Measurement, report: (line: string) => void): Promise<Figures> {
  return program.inLab({ hosts: HOSTS, topology: "pair" }, async (lab) => {
    let bed: Bed | undefined;
    try {
      bed = await candidate.start(lab);
      // Once more, so that the first packet is one between daemons that know each other and have no keys yet.
      bed = (await bed.restart?.()) ?? bed;
      return await measure(bed, how, (line) => report(`${candidate.name}: ${line}`));
    } finally {
      await bed?.stop();
    }
  });
}

function choose(plan: Plan): Candidate[] {
  const unknown = plan.only.find((name) => !candidates.some((candidate) => candidate.name === name));
  if (unknown !== undefined) throw new Error(`there is no candidate ${unknown}\n${USAGE}`);
  const wanted = candidates.filter((candidate) => plan.only.length === 0 || plan.only.includes(candidate.name));
  for (const candidate of wanted) if (candidate.missing !== undefined) say(`left out: ${candidate.missing}`);
  const chosen = wanted.filter((candidate) => candidate.missing === undefined);
  if (chosen.length === 0) throw new Error("there is nothing to measure");
  return chosen;
}

function parsePlan(): Plan {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "3" },
      seconds: { type: "string", default: "5" },
      only: { type: "string", multiple: true, default: [] },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    process.exit(0);
  }
  return {
    rounds: whole("--rounds", values.rounds, 100),
    seconds: whole("--seconds", values.seconds, 600),
    only: values.only,
    json: values.json,
  };
}

function whole(option: string, text: string, most: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new Error(`${option} must be a whole number from 1 to ${most}\n${USAGE}`);
}
