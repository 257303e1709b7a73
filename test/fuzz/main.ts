/**
 * scripts/fuzz: lets the fuzzer loose on each target in turn. What it learns is kept under `.fuzz/` (not committed) and
 * grows from run to run; `--keep` folds into the committed corpus what reaches code that nothing there does.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { type FuzzOutcome, findingOf, minimised } from "./fuzzer.ts";
import { FUZZ_TARGETS, type FuzzTarget, loadFuzz } from "./targets.ts";
import type { FuzzJob } from "./worker.ts";

const HERE = dirname(fileURLToPath(import.meta.url));
const WORK = resolve(HERE, "../../.fuzz");
/** No input takes so long unless it never ends. */
const STUCK_MS = 10_000;

const USAGE = `usage: scripts/fuzz [--seconds N] [--target NAME …] [--seed N] [--keep]
       scripts/fuzz --target NAME --replay FILE …
       scripts/fuzz --list

  --seconds N   for all targets together (600)
  --target X    only this one; may be repeated
  --seed N      of the fuzzer's choices; by default another one each time
  --keep        afterwards take into the committed corpus what reaches new code, and put out what is no longer needed
  --replay      run these files or folders once, without the fuzzer, and show what fails
  --list        the targets`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      seconds: { type: "string", default: "600" },
      target: { type: "string", multiple: true },
      seed: { type: "string", default: String(Date.now() % 2 ** 31) },
      keep: { type: "boolean", default: false },
      replay: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return say(USAGE);
  if (values.list) return say(FUZZ_TARGETS.map(({ name, about }) => `${name.padEnd(9)} ${about}`).join("\n"));
  const targets = FUZZ_TARGETS.filter(({ name }) => values.target?.includes(name) ?? true);
  const [seconds, seed] = [Number(values.seconds), Number(values.seed)];
  const isUnderstood =
    targets.length === (values.target?.length ?? targets.length) && seconds > 0 && Number.isInteger(seed);
  if (!isUnderstood || (values.replay && targets.length !== 1)) return say(USAGE, 2);
  if (values.replay) return replay(targets[0]!, positionals);
  say(`seed ${seed}`);
  let status = 0;
  for (const target of targets) {
    if (!(await fuzz(target, seconds / targets.length, seed))) status = 1;
    else if (values.keep) await keep(target);
  }
  return status;
}

/** False when there was a finding. */
async function fuzz(target: FuzzTarget, seconds: number, seed: number): Promise<boolean> {
  const { outcome, learned } = await runInThread(target, seconds, seed);
  for (const input of learned) save(learnedBy(target), input);
  const { inputs, reached, kept, finding } = outcome;
  if (finding === undefined) {
    const rate = Math.round(inputs / seconds);
    say(
      `${target.name.padEnd(9)} ${inputs} inputs, ${rate} a second, ${reached} characters of code reached, ${kept} learned`,
    );
    return true;
  }
  const file = relative(process.cwd(), save(join(WORK, "findings", target.name), finding.input));
  say(`${target.name.padEnd(9)} a finding: ${finding.error}\n`);
  say(`Reproduce it with\n\n  scripts/fuzz --target ${target.name} --replay ${file}\n`);
  return false;
}

function runInThread(
  { name, maxBytes }: FuzzTarget,
  seconds: number,
  seed: number,
): Promise<{ outcome: FuzzOutcome; learned: Uint8Array[] }> {
  const watch = new SharedArrayBuffer(8 + maxBytes);
  const corpus = inputsIn(corpusOf({ name }), learnedBy({ name }));
  const job: FuzzJob = { name, maxBytes, corpus, seed, seconds, watch };
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { workerData: job });
  const learned: Uint8Array[] = [];
  const words = new Int32Array(watch, 0, 2);
  return new Promise((done, failed) => {
    let seen = -1;
    const timer = setInterval(() => {
      const begun = Atomics.load(words, 0);
      const isStuck = begun === seen && begun > 0;
      seen = begun;
      if (!isStuck) return;
      const input = new Uint8Array(watch, 8, Math.min(words[1]!, maxBytes)).slice();
      const finding = { input, error: `an input takes longer than ${STUCK_MS / 1000} s` };
      finish({ inputs: begun, reached: 0, kept: learned.length, finding });
    }, STUCK_MS);
    const finish = (outcome: FuzzOutcome) => {
      clearInterval(timer);
      void worker.terminate();
      done({ outcome, learned });
    };
    worker.on("error", failed);
    worker.on("message", (message: { learned?: Uint8Array; outcome?: FuzzOutcome }) => {
      if (message.learned !== undefined) learned.push(message.learned);
      if (message.outcome !== undefined) finish(message.outcome);
    });
  });
}

/** The committed corpus becomes the shortest inputs that together reach what all known ones reach. */
async function keep(target: FuzzTarget): Promise<void> {
  const folder = corpusOf(target);
  const before = inputsIn(folder);
  const chosen = minimised(await loadFuzz(target.name), inputsIn(folder, learnedBy(target)));
  // What was put there by hand, under a name, stays.
  for (const file of filesIn(folder)) if (/^[0-9a-f]{12}$/.test(file)) rmSync(join(folder, file));
  for (const input of chosen) save(folder, input);
  say(`${target.name.padEnd(9)} ${before.length} inputs in the corpus before, ${filesIn(folder).length} now`);
}

async function replay(target: FuzzTarget, paths: readonly string[]): Promise<number> {
  const run = await loadFuzz(target.name);
  const files = paths.flatMap((path) =>
    statSync(path).isDirectory() ? filesIn(path).map((f) => join(path, f)) : [path],
  );
  let failed = 0;
  for (const file of files) {
    const finding = findingOf(run, new Uint8Array(readFileSync(file)));
    if (finding === undefined) continue;
    failed++;
    say(`${file}: ${finding.error}\n`);
  }
  return say(`${files.length} inputs, ${failed} fail`, failed === 0 ? 0 : 1);
}

function save(folder: string, input: Uint8Array): string {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, createHash("sha256").update(input).digest("hex").slice(0, 12));
  writeFileSync(file, input);
  return file;
}

function inputsIn(...folders: readonly string[]): Uint8Array[] {
  return folders.flatMap((folder) => filesIn(folder).map((file) => new Uint8Array(readFileSync(join(folder, file)))));
}

function filesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).sort() : [];
}

function corpusOf({ name }: Pick<FuzzTarget, "name">): string {
  return join(HERE, "corpus", name);
}

function learnedBy({ name }: Pick<FuzzTarget, "name">): string {
  return join(WORK, "corpus", name);
}

function say(text: string, status = 0): number {
  console.log(text);
  return status;
}

process.exitCode = await main();
