/**
 * HTTP requests a second over connections that stay open, one request under way on each: small packets in both directions that
 * nobody can gather into large ones. What counts is what a wake-up and a single packet cost.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { waitUntil } from "../helpers/lab.ts";
import type { Bed } from "./candidates.ts";
import { findProgram } from "./programs.ts";

export interface HttpPrograms {
  readonly wrk: string;
  readonly nginx: string;
}

export interface HttpRate {
  readonly requestsPerSecond: number;
  readonly p99Us: number;
}

/** Undefined when one of them is not installed: WRK and NGINX name others than those on the PATH. */
export function findHttpPrograms(): HttpPrograms | undefined {
  const wrk = findProgram("wrk", "WRK");
  const nginx = findProgram("nginx", "NGINX");
  return wrk === undefined || nginx === undefined ? undefined : { wrk, nginx };
}

/** On b; it ends with the lab. */
export async function startHttpServer(bed: Bed, { nginx }: HttpPrograms): Promise<void> {
  const folder = `${bed.lab.folder}/http`;
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  writeFileSync(`${folder}/nginx.conf`, configuration(folder));
  bed.lab.spawn("b", nginx, ["-c", `${folder}/nginx.conf`, "-e", `${folder}/error.log`]);
  const url = urlOf(bed);
  await waitUntil("the HTTP server", async () => {
    return (await bed.lab.exec("a", "curl", ["-gsf", "-m", "2", "-o", "/dev/null", url])).code === 0;
  });
}

export async function httpRate(bed: Bed, { wrk }: HttpPrograms, seconds: number): Promise<HttpRate> {
  const args = ["-t1", `-c${CONNECTIONS}`, `-d${seconds}s`, "--latency", urlOf(bed)];
  const { code, stdout, stderr } = await bed.lab.exec("a", wrk, args, { timeoutMs: (seconds + 15) * 1_000 });
  const requestsPerSecond = Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]);
  const [, p99, unit] = /99%\s+([\d.]+)(us|ms|s)\b/.exec(stdout) ?? [];
  const failed = /Socket errors|Non-2xx/.test(stdout);
  if (code !== 0 || failed || !(requestsPerSecond > 0)) throw new Error(`wrk failed: ${stdout}${stderr}`);
  return { requestsPerSecond, p99Us: Number(p99) * MICROSECONDS[unit as keyof typeof MICROSECONDS] };
}

function urlOf(bed: Bed): string {
  return `http://[${bed.target}]:${PORT}/`;
}

function configuration(folder: string): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return `daemon off;
master_process off;
worker_processes 1;
pid ${folder}/pid;
user root;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 1000000000;
  ${temporary.map((kind) => `${kind}_temp_path ${folder}/${kind};`).join(" ")}
  server {
    listen [::]:${PORT};
    location / { default_type text/plain; return 200 "${"x".repeat(BODY_BYTES)}"; }
  }
}
`;
}

const CONNECTIONS = 16;
const PORT = 8080;
const BODY_BYTES = 128;
const MICROSECONDS = { us: 1, ms: 1_000, s: 1_000_000 };
