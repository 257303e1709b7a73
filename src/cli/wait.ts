/** `pilot-tun wait`: for scripts and units that need the overlay to be there before they go on. */
import { setTimeout as sleep } from "node:timers/promises";
import { PilotError } from "../base/pilot-error.ts";
import { EXIT, type ExitCode, SCHEMA, type StatusReply } from "../control/api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { UsageError, usageProblem } from "./refusal.ts";

export const declareWait: Declare = (program, perform) => {
  program
    .command("wait")
    .description("wait until something is so; 7 is the exit code when it is not in time (--timeout, 60s)")
    .option(
      "--for <WHAT>",
      "ready: the address can be bound · peer=PEER: trusted and reached · dns: names are answered",
      "ready",
    )
    .addHelpText(
      "after",
      examples("pilot-tun wait --for ready && systemctl start web", "pilot-tun wait --for peer=bob --timeout 5m"),
    )
    .action(perform(wait));
};

type Condition = (status: StatusReply) => boolean;

async function wait(context: Context, input: Input): Promise<ExitCode> {
  const what = String(input.options.for);
  const isSo = conditionOf(what);
  const deadlineMs = performance.now() + (context.options.timeoutMs ?? STANDARD_MS);
  const started = performance.now();
  for (;;) {
    const left = deadlineMs - performance.now();
    if (left <= 0)
      throw new PilotError(
        "timeout",
        `${what} is not so yet`,
        "See pilot-tun status for why, or wait longer with --timeout.",
      );
    if (await holds(context, isSo)) break;
    await sleep(Math.min(PAUSE_MS, left));
  }
  const waitedMs = Math.round(performance.now() - started);
  context.answer({ schema: SCHEMA, for: what, waitedMs }, () => []);
  return EXIT.ok;
}

/** A daemon that does not run yet is one to wait for. */
async function holds(context: Context, isSo: Condition): Promise<boolean> {
  try {
    return isSo(await context.call("status", {}));
  } catch (error) {
    if (error instanceof PilotError && STARTING.has(error.code)) return false;
    throw error;
  }
}

function conditionOf(what: string): Condition {
  if (what === "ready") return (status) => status.address !== null;
  if (what === "dns") return (status) => status.dns.address !== null;
  const peer = /^peer=(.+)$/.exec(what)?.[1]?.replace(/\.pilot\.?$/, "");
  if (peer === undefined) {
    throw new UsageError([
      usageProblem(`--for ${JSON.stringify(what)} is not known`, "Write ready, dns, or peer=NAME."),
    ]);
  }
  return ({ peers }) =>
    peers.some(
      ({ hostname, pilot, address, node, trust, path }) =>
        [hostname, pilot, address, String(node)].includes(peer) && trust === "mutual" && path !== "none",
    );
}

const STARTING: ReadonlySet<string> = new Set(["not_running", "timeout"]);
const STANDARD_MS = 60_000;
const PAUSE_MS = 100;
