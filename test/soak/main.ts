/** scripts/soak: an hour of faults, or as many minutes as are asked for. */
import { appendFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { accountLines, soak } from "./run.ts";

const USAGE = `usage: scripts/soak [MINUTES] [--seed N] [--only TEXT] [--log FILE]

  MINUTES     how long (60), plus the round that is under way then
  --seed N    the order of faults of an earlier run; without it a new one, which is printed
  --only TEXT only faults with that in their names
  --log FILE  what is printed, too
  --warm-up N short conversations before the first fault (8000), and
  --churn N   after each (200)`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: {
      seed: { type: "string" },
      only: { type: "string" },
      log: { type: "string" },
      "warm-up": { type: "string", default: "8000" },
      churn: { type: "string", default: "200" },
      help: { type: "boolean", short: "h", default: false },
    },
    allowPositionals: true,
  });
  const say = (line: string): void => {
    console.log(line);
    if (values.log !== undefined) appendFileSync(values.log, `${line}\n`);
  };
  const minutes = Number(positionals[0] ?? 60);
  const seed = Number(values.seed ?? Date.now() % 100_000);
  const [warmUp, churn] = [Number(values["warm-up"]), Number(values.churn)];
  const isSane =
    minutes > 0 &&
    minutes <= MOST_MINUTES &&
    Number.isInteger(seed) &&
    [warmUp, churn].every((count) => Number.isInteger(count) && count > 0);
  if (values.help || !isSane) {
    console.log(USAGE);
    return values.help ? 0 : 2;
  }
  say(`soak of ${minutes} minutes; again: scripts/soak ${minutes} --seed ${seed}`);
  try {
    const account = await soak({ ...LONG, seed, warmUp, churn, only: values.only, durationMs: minutes * 60_000, say });
    for (const line of accountLines(account)) say(line);
    return 0;
  } catch (error) {
    say(`failed: ${error instanceof Error ? error.message : error}`);
    return 1;
  }
}

const MOST_MINUTES = 7 * 24 * 60;
const LONG = {
  shortPauseMs: 10_000,
  longPauseMs: 30_000,
  everywhere: true,
  limits: { rssMiB: 16, descriptors: 2 },
  memoryMaxMiB: 256,
};

process.exitCode = await main();
