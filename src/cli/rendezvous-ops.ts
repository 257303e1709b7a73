/**
 * `pilot-tun rendezvous health|metrics|backup|restore`: what an operator asks of a rendezvous. All but `restore` talk to
 * the running one over its admin socket; `restore` works on the state of one that is stopped.
 */
import { join } from "node:path";
import type { Command } from "commander";
import { EXIT, type ExitCode, SCHEMA } from "../control/api.ts";
import type { RendezvousHealth } from "../daemon/rendezvous-health.ts";
import { type Action, type Context, examples, type Input, type Perform } from "./context.ts";
import { bytes, counted } from "./format.ts";
import { Checked, parsePath } from "./parse-options.ts";

export const DEFAULT_STATE = "/var/lib/pilot-rendezvous";

/** Where the admin socket is when nothing else is said. */
export function defaultAdminPath(stateDir: string): string {
  return join(stateDir, "admin.sock");
}

export function declareRendezvousOperations(rendezvous: Command, perform: Perform): void {
  // --state and --admin are options of `rendezvous` itself, which takes them wherever they stand.
  const withParents = (action: Action): ReturnType<Perform> =>
    perform((context, input) => action(context, { ...input, options: { ...rendezvous.opts(), ...input.options } }));
  rendezvous
    .command("health")
    .description("whether the running rendezvous works: exit code 0 or 1")
    .addHelpText("after", examples("pilot-tun rendezvous health --state ./rv", "pilot-tun rendezvous health --json"))
    .action(withParents(health));
  rendezvous
    .command("metrics")
    .description("counters of the running rendezvous, for Prometheus")
    .addHelpText("after", examples("pilot-tun rendezvous metrics > /var/lib/node_exporter/rendezvous.prom"))
    .action(withParents(metrics));
  rendezvous
    .command("backup")
    .description("write its database, as it is at this moment, to one file")
    .argument("<FILE>", "made with mode 0600; an older one is replaced when the new one is complete")
    .addHelpText("after", examples("pilot-tun rendezvous backup /var/backups/rendezvous.db"))
    .action(withParents(backup));
  rendezvous
    .command("restore")
    .description("put a backup in place of the database of a stopped rendezvous, and keep the old one beside it")
    .argument("<FILE>", "what `rendezvous backup` wrote")
    .addHelpText("after", examples("pilot-tun rendezvous restore /var/backups/rendezvous.db --state ./rv"))
    .action(withParents(restore));
}

async function health(context: Context, input: Input): Promise<ExitCode> {
  const reply = JSON.parse(await ask(input, "GET", "/v1/health")) as RendezvousHealth;
  context.answer(reply, () => healthLines(reply));
  return reply.healthy ? EXIT.ok : EXIT.failed;
}

function healthLines({ healthy, registry, beacon, store, queue }: RendezvousHealth): string[] {
  return [
    healthy ? "healthy" : "not healthy",
    `registry  ${registry.endpoint} ${registry.listening ? "listening" : "closed"}, ${counted(registry.connections, "connection")}`,
    `beacon    ${beacon.endpoint} ${beaconWord(beacon)}, ${counted(beacon.nodes, "node")}, ${beacon.provenNodes} proven`,
    `store     ${store.writable ? "writable" : `not writable: ${store.problem}`}, ${counted(store.nodes, "node")}`,
    `relay     ${bytes(queue.bytes)} waiting, ${counted(queue.frames, "frame")} of ${counted(queue.flows, "sender")}`,
  ];
}

function beaconWord({ bound, answers }: RendezvousHealth["beacon"]): string {
  return answers ? "answers" : bound ? "does not answer" : "closed";
}

async function metrics(context: Context, input: Input): Promise<ExitCode> {
  const text = await ask(input, "GET", "/metrics");
  context.answer({ schema: SCHEMA, metrics: text }, () => [text.trimEnd()]);
  return EXIT.ok;
}

async function backup(context: Context, input: Input): Promise<ExitCode> {
  const file = checkedPath("FILE", input.args[0]);
  const { checkBackup } = await import("../daemon/rendezvous-restore.ts");
  const reply = JSON.parse(await ask(input, "POST", "/v1/backup", { file })) as { bytes: number };
  const nodes = checkBackup(file); // reads all of it here, where nobody waits for the rendezvous
  context.answer({ ...reply, nodes }, () => [`${file}: ${counted(nodes, "node")}, ${bytes(reply.bytes)}, checked`]);
  return EXIT.ok;
}

async function restore(context: Context, input: Input): Promise<ExitCode> {
  const file = checkedPath("FILE", input.args[0]);
  const stateDir = checkedPath("--state", input.options["state"]);
  const { restoreBackup } = await import("../daemon/rendezvous-restore.ts");
  const facts = restoreBackup(file, stateDir);
  context.answer({ schema: SCHEMA, ...facts }, () => [
    `restored ${counted(facts.nodes, "node")} to ${facts.database}`,
    ...(facts.replaced === null ? [] : [`the old database is kept as ${facts.replaced}`]),
  ]);
  return EXIT.ok;
}

async function ask(input: Input, method: "GET" | "POST", url: string, body?: object): Promise<string> {
  const { admin, state } = input.options;
  const path = admin === undefined ? defaultAdminPath(checkedPath("--state", state)) : checkedPath("--admin", admin);
  const { askAdmin } = await import("../daemon/rendezvous-admin.ts");
  return await askAdmin(path, method, url, body);
}

function checkedPath(option: string, text: unknown): string {
  const checked = new Checked();
  const path = checked.take(parsePath(option, text), "");
  checked.end();
  return path;
}
