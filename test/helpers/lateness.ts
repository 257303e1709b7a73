/** By how much the machine, and not the daemons, was late: a time that was promised holds beside it on a busy machine too. */
import { readFileSync } from "node:fs";
import type { Lab } from "./lab.ts";

/** For how many seconds the daemon on a host was ready to run and had no processor, since its start. */
export function waitedForProcessorS(lab: Lab, host: string): number {
  const [, waitedNs] = readFileSync(`/proc/${lab.node(host).process.pid}/schedstat`, "utf8").split(" ");
  return Number(waitedNs) / 1e9;
}

/** From now until it is asked, of these hosts together, in ms; of a daemon that is started meanwhile from its start on. */
export function lateness(lab: Lab, ...hosts: readonly string[]): () => number {
  const pidOf = (host: string) => lab.node(host).process.pid;
  const before = new Map(hosts.map((host) => [pidOf(host), waitedForProcessorS(lab, host)]));
  const since = (host: string) => waitedForProcessorS(lab, host) - (before.get(pidOf(host)) ?? 0);
  return () => 1_000 * hosts.reduce((sum, host) => sum + since(host), 0);
}
