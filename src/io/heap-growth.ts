/**
 * What a process with a large heap keeps for itself. Left alone V8 waits until the heap has grown to up to four times of what was
 * left the last time, which with ten thousand peers is a hundred megabytes of nothing; and malloc keeps the pages that thousands of key
 * exchanges needed.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { nativeShim } from "./native.ts";

/**
 * Collects now, and from now on when the heap has grown by an eighth; gives back what malloc keeps, once a minute. A collection
 * stops the program for some 15 ms for each 50 MB, so this is for nodes whose heap is large, while they start. Call the result to
 * end it.
 */
export function keepHeapTight(): () => void {
  setFlagsFromString(`--heap-growing-percent=${GROWTH_PERCENT}`);
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  setFlagsFromString("--no-expose-gc");
  const timer = setInterval(() => nativeShim().trimMemory(), TRIM_INTERVAL_MS).unref();
  return () => clearInterval(timer);
}

const GROWTH_PERCENT = 12;
const TRIM_INTERVAL_MS = 60_000;
