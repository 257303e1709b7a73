/** One target in a thread of its own, so that an input that never ends can be seen from outside and ended. */
import { parentPort, workerData } from "node:worker_threads";
import { runFuzzer, shortestFinding } from "./fuzzer.ts";
import { sourceWords } from "./source-words.ts";
import { loadFuzz } from "./targets.ts";

export interface FuzzJob {
  readonly name: string;
  readonly maxBytes: number;
  readonly corpus: readonly Uint8Array[];
  readonly seed: number;
  readonly seconds: number;
  /** Two words, inputs begun and the length of the current one, and its bytes: written before each input. */
  readonly watch: SharedArrayBuffer;
}

const job = workerData as FuzzJob;
const words = new Int32Array(job.watch, 0, 2);
const current = new Uint8Array(job.watch, 8);
const fuzz = await loadFuzz(job.name);
const outcome = runFuzzer({
  ...job,
  fuzz,
  words: sourceWords(),
  began: (input) => {
    current.set(input.subarray(0, current.length));
    words[1] = input.length;
    Atomics.add(words, 0, 1);
  },
  learned: (input) => parentPort!.postMessage({ learned: input.slice() }),
});
const { finding } = outcome;
const shortest = finding && { ...finding, input: shortestFinding(fuzz, finding) };
parentPort!.postMessage({ outcome: { ...outcome, finding: shortest } });
