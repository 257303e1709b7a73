/** Runs one program of the host, without a shell, bounded in time. */
import { execFile } from "node:child_process";

export interface Outcome {
  /** Exit status; undefined when the program could not be started or did not end in time. */
  readonly status: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

export function runCommand(program: string, args: readonly string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(program, [...args], { timeout: TIMEOUT_MS, maxBuffer: 1 << 20 }, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === "number" ? error.code : undefined;
      resolve({ status, stdout, stderr: stderr || (error?.message ?? "") });
    });
  });
}

const TIMEOUT_MS = 5_000;
