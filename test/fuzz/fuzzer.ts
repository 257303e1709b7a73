/**
 * The loop: takes an input, damages it, runs the target, and keeps what reached code that nothing reached before. Why an
 * own loop: the fuzzers for Node that are kept up come with binaries for newer C libraries than the oldest system this
 * project runs on has; what V8 counts by itself is all that is needed of them.
 */
import { Random } from "../helpers/random.ts";
import { CodeCoverage } from "./coverage.ts";
import { Mutations } from "./mutations.ts";
import type { Fuzz } from "./targets.ts";

export interface FuzzRun {
  readonly fuzz: Fuzz;
  readonly maxBytes: number;
  readonly words: readonly Uint8Array[];
  readonly corpus: readonly Uint8Array[];
  readonly seed: number;
  readonly seconds: number;
  /** Told of every input before it runs. */
  readonly began: (input: Uint8Array) => void;
  /** An input that reaches what none before did. */
  readonly learned: (input: Uint8Array) => void;
}

export interface FuzzOutcome {
  readonly inputs: number;
  readonly reached: number;
  readonly kept: number;
  readonly finding: Finding | undefined;
}

export interface Finding {
  readonly input: Uint8Array;
  readonly error: string;
}

export function runFuzzer(run: FuzzRun): FuzzOutcome {
  const coverage = new CodeCoverage();
  const random = new Random(run.seed);
  const mutations = new Mutations(random, run.words, run.maxBytes);
  const corpus: Uint8Array[] = [];
  let [inputs, kept, finding] = [0, 0, undefined as Finding | undefined];
  const end = Date.now() + run.seconds * 1_000;

  const one = (input: Uint8Array): boolean => {
    inputs++;
    run.began(input);
    finding ??= findingOf(run.fuzz, input);
    return finding === undefined;
  };
  const learn = (input: Uint8Array): void => {
    corpus.push(input);
    kept++;
    run.learned(input);
  };

  const given = [...run.corpus].sort((a, b) => a.length - b.length);
  for (const input of given.length > 0 ? given : [new Uint8Array(0)]) {
    if (!one(input)) break;
    coverage.newlyReached();
    corpus.push(input);
  }
  while (finding === undefined && Date.now() < end) {
    const batch = Array.from({ length: BATCH }, () => mutations.of(pick(random, corpus), random.pick(corpus)));
    if (!batch.every(one)) break;
    const ahead = coverage.lookAhead();
    if (ahead.fresh === 0) continue;
    for (const input of batch) {
      coverage.reset();
      if (!one(input)) break;
      if (coverage.newlyReached() > 0) learn(input);
    }
    ahead.takeIn(); // what only showed the first time, such as tables made at first use
  }
  return { inputs, reached: coverage.reached, kept, finding };
}

/** Inputs whose union reaches all that `inputs` reach, the shortest that will do. */
export function minimised(fuzz: Fuzz, inputs: readonly Uint8Array[]): Uint8Array[] {
  const coverage = new CodeCoverage();
  fuzz(new Uint8Array(0));
  coverage.reset();
  return [...inputs]
    .sort((a, b) => a.length - b.length)
    .filter((input) => {
      fuzz(input);
      return coverage.newlyReached() > 0;
    });
}

/** The shortest input by taking parts away that still fails in the same way. */
export function shortestFinding(fuzz: Fuzz, { input, error }: Finding): Uint8Array {
  let best = input;
  for (let size = Math.max(1, best.length >> 1); size >= 1; size = size === 1 ? 0 : size >> 1) {
    for (let at = 0; at < best.length; ) {
      const shorter = Uint8Array.from([...best.subarray(0, at), ...best.subarray(at + size)]);
      if (firstLine(findingOf(fuzz, shorter)?.error) === firstLine(error)) best = shorter;
      else at += size;
    }
  }
  return best;
}

export function findingOf(fuzz: Fuzz, input: Uint8Array): Finding | undefined {
  try {
    fuzz(input);
    return undefined;
  } catch (error) {
    return { input: input.slice(), error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
}

/** What failed, without the values that it failed with. */
function firstLine(error: string | undefined): string | undefined {
  return error === undefined ? undefined : /^[^\n]{0,80}?(?=: ["{[\d]|\n|$)/.exec(error)?.[0];
}

/** What was learned last is looked at more often. */
function pick(random: Random, corpus: readonly Uint8Array[]): Uint8Array {
  if (random.chance(0.3)) return corpus[corpus.length - 1 - random.between(0, Math.min(8, corpus.length - 1))]!;
  return random.pick(corpus);
}

/** So many inputs share one reading of the coverage. */
const BATCH = 64;
