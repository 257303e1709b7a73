/** Runs `registry-load.c`: requests at a fixed rate, and how long each was waited for. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { buffer } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { concatBytes } from "../../src/base/bytes.ts";

export interface LoadPlan {
  readonly port: number;
  readonly connections: number;
  /** Requests a second. */
  readonly rate: number;
  /** Requests at the beginning that are not measured: compilers and caches get going. */
  readonly warmUp: number;
}

export interface LoadResult {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
  /** How late the bench itself sent, by want of a processor: in every latency above. */
  readonly senderLateP99Ms: number;
  readonly refused: number;
}

/** Builds the program into `folder`; returns its path. */
export function buildLoad(folder: string): string {
  const program = `${folder}/registry-load`;
  const source = fileURLToPath(new URL("./registry-load.c", import.meta.url));
  execFileSync(process.env["CC"] ?? "cc", ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source]);
  return program;
}

export async function runLoad(program: string, plan: LoadPlan, frames: readonly Uint8Array[]): Promise<LoadResult> {
  const args = [plan.port, plan.connections, plan.rate].map(String);
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  const output = buffer(child.stdout);
  const ended = once(child, "close");
  child.stdin.end(concatBytes(...frames));
  const [code] = await ended;
  if (code !== 0) throw new Error(`registry-load ended with ${code}`);
  const words = new Uint32Array(Uint8Array.from(await output).buffer);
  const measured = words.subarray(plan.warmUp * WORDS);
  const column = (word: number) => measured.filter((_, index) => index % WORDS === word).sort();
  const latency = column(0);
  return {
    p50Ms: percentile(latency, 0.5),
    p99Ms: percentile(latency, 0.99),
    p999Ms: percentile(latency, 0.999),
    maxMs: percentile(latency, 1),
    senderLateP99Ms: percentile(column(1), 0.99),
    refused: column(2).reduce((sum, refused) => sum + refused, 0),
  };
}

function percentile(sorted: Uint32Array, part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]! / 1000;
}

/** Of a result: latency, lateness, refusal. */
const WORDS = 3;
