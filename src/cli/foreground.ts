/**
 * A command that stays: starts something, says so once, and ends it on SIGTERM or SIGINT with exit code 0. The second
 * signal does not wait for anything.
 */
import { constants } from "node:os";
import { EXIT, type ExitCode } from "../control/api.ts";
import type { Environment, StopSignal } from "./context.ts";

export interface ForegroundTask {
  /** Settles when it has ended, by itself or not; absent for a task that only ends when told. */
  readonly closed?: Promise<void>;
  close(): Promise<void>;
}

/** `start` is told by the signal when it shall give up before it is ready. */
export async function runForeground<Task extends ForegroundTask>(
  environment: Environment,
  start: (signal: AbortSignal) => Promise<Task>,
  announce: (task: Task) => void,
): Promise<ExitCode> {
  const stop = new AbortController();
  const forget = STOP_SIGNALS.map((signal) =>
    environment.onSignal(signal, () => {
      if (stop.signal.aborted) environment.exit(128 + constants.signals[signal]);
      stop.abort();
    }),
  );
  environment.outliveReader();
  try {
    const task = await start(stop.signal);
    if (!stop.signal.aborted) announce(task);
    await Promise.race(task.closed === undefined ? [aborted(stop.signal)] : [aborted(stop.signal), task.closed]);
    await task.close();
    return EXIT.ok;
  } catch (error) {
    // Giving up on the way to ready is what was asked for.
    if (stop.signal.aborted && (error as Error | undefined)?.name === "AbortError") return EXIT.ok;
    throw error;
  } finally {
    for (const stopListening of forget) stopListening();
  }
}

const STOP_SIGNALS: readonly StopSignal[] = ["SIGTERM", "SIGINT"];

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
