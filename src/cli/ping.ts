/**
 * `pilot-tun ping`: round trips to a peer's daemon through the tunnel, one line each as ping(8) prints them. It asks
 * the daemon for one at a time, so that each line appears when it happens and Ctrl-C ends with the summary.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { PilotError } from "../base/pilot-error.ts";
import {
  EXIT,
  type ExitCode,
  exitCodeOf,
  MAX_PING_TIMEOUT_MS,
  type PeerIdentity,
  type PeerPath,
  type PingReply,
  type Problem,
  SCHEMA,
} from "../control/api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { duration, peerName, plain, roundTrip } from "./format.ts";
import { Checked, parseDuration, parseWhole } from "./parse-options.ts";
import { pathWord } from "./peer-table.ts";
import { problemLines } from "./refusal.ts";

export const declarePing: Declare = (program, perform) => {
  program
    .command("ping")
    .description("round trips to a peer through the tunnel")
    .argument("<PEER>", "hostname, Pilot address, overlay IPv6 address or node number")
    .option("-c, --count <N>", "how many", "4")
    .option("-i, --interval <TIME>", "from one to the next", "1s")
    .addHelpText(
      "after",
      `\n--timeout is how long each is waited for (5s).\n${examples("pilot-tun ping alice", "pilot-tun ping -c 1 --timeout 500ms 5")}`,
    )
    .action(perform(ping));
};

interface PingPlan {
  readonly peer: string;
  readonly count: number;
  readonly intervalMs: number;
  readonly timeoutMs: number;
}

interface Tally {
  peer: PeerIdentity | undefined;
  path: PeerPath;
  readonly replies: { seq: number; rttMs: number | null }[];
}

async function ping(context: Context, input: Input): Promise<ExitCode> {
  const plan = parsePlan(context, input);
  const tally: Tally = { peer: undefined, path: "none", replies: [] };
  const stop = new AbortController();
  const forget = context.environment.onSignal("SIGINT", () => stop.abort());
  try {
    await run(context, plan, tally, stop.signal);
  } catch (error) {
    if (tally.replies.length > 0 && !context.options.json) context.print(summaryLines(tally));
    throw error;
  } finally {
    forget();
  }
  return report(context, plan, tally);
}

function parsePlan(context: Context, input: Input): PingPlan {
  const checked = new Checked();
  const plan = {
    peer: input.args[0]!,
    count: checked.take(parseWhole("--count", input.options.count, 1, MAX_COUNT), 1),
    intervalMs: checked.take(parseDuration("--interval", input.options.interval), 1),
    timeoutMs: Math.min(context.options.timeoutMs ?? REPLY_TIMEOUT_MS, MAX_PING_TIMEOUT_MS),
  };
  checked.end();
  return plan;
}

/** Long enough for keys to be agreed on through a relay before the first answer. */
const REPLY_TIMEOUT_MS = 5000;
const MAX_COUNT = 1_000_000;

async function run(context: Context, plan: PingPlan, tally: Tally, signal: AbortSignal): Promise<void> {
  for (let seq = 1; seq <= plan.count && !signal.aborted; seq++) {
    const startedAt = performance.now();
    const reply = await pingOnce(context, plan, signal);
    if (reply === undefined) return;
    if (!context.options.json) context.print(replyLines(reply, seq, plan.timeoutMs));
    tally.peer = reply.peer;
    tally.path = reply.path;
    tally.replies.push({ seq, rttMs: reply.replies[0]?.rttMs ?? null });
    if (seq < plan.count) await pause(plan.intervalMs - (performance.now() - startedAt), signal);
  }
}

/** Undefined when interrupted. */
async function pingOnce(context: Context, plan: PingPlan, signal: AbortSignal): Promise<PingReply | undefined> {
  const { peer, timeoutMs } = plan;
  try {
    return await context.call("ping", { peer, count: 1, timeoutMs }, { extraMs: CALL_SLACK_MS, signal });
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  }
}

/** The daemon may ask the registry who the peer is before the time of the ping starts. */
const CALL_SLACK_MS = 10_000;

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms <= 0) return;
  await sleep(ms, undefined, { signal }).catch(() => undefined); // it rejects only when aborted
}

function report(context: Context, plan: PingPlan, tally: Tally): ExitCode {
  const received = tally.replies.filter((reply) => reply.rttMs !== null).length;
  if (tally.peer === undefined)
    throw new PilotError("interrupted", "Interrupted before the first answer", "Run it again.");
  const problem = received > 0 ? undefined : silence(tally.peer, tally.path, plan.timeoutMs);
  const { peer, path, replies } = tally;
  const reply = { schema: SCHEMA, peer, path, replies, sent: replies.length, received };
  context.answer(problem === undefined ? reply : { ...reply, error: problem }, () => summaryLines(tally));
  if (problem === undefined) return EXIT.ok;
  if (!context.options.json) context.environment.stderr(`${problemLines(problem, plain).join("\n")}\n`);
  return exitCodeOf(problem.code);
}

function silence(peer: PeerIdentity, path: PeerPath, timeoutMs: number): Problem {
  if (path === "none") {
    const hint = "See `pilot-tun status`: is the peer's daemon up, and the beacon ok?";
    return { code: "unreachable", message: `There is no path to ${peerName(peer)}`, hint };
  }
  const message = `${peerName(peer)} did not answer within ${timeoutMs / 1000} s`;
  return { code: "timeout", message, hint: "Wait longer with --timeout, or look at its line in `pilot-tun peers`." };
}

function replyLines(reply: PingReply, seq: number, timeoutMs: number): string[] {
  const name = peerName(reply.peer);
  const head = seq === 1 ? [`PING ${name} (${reply.peer.address})`] : [];
  const rttMs = reply.replies[0]?.rttMs ?? null;
  if (rttMs === null) return [...head, `no answer from ${name}: seq=${seq} after ${waited(timeoutMs)}`];
  return [...head, `answer from ${name}: seq=${seq} time=${roundTrip(rttMs)} path=${pathWord(reply.path)}`];
}

function waited(timeoutMs: number): string {
  return timeoutMs < 1000 ? `${timeoutMs} ms` : duration(timeoutMs / 1000);
}

function summaryLines(tally: Tally): string[] {
  const times = tally.replies.flatMap((reply) => (reply.rttMs === null ? [] : [reply.rttMs]));
  const sent = tally.replies.length;
  const lostPercent = Math.round((100 * (sent - times.length)) / sent);
  const name = tally.peer === undefined ? "" : peerName(tally.peer);
  const lines = ["", `${name}: ${sent} sent, ${times.length} answered, ${lostPercent}% lost`];
  if (times.length === 0) return lines;
  const mean = times.reduce((total, ms) => total + ms, 0) / times.length;
  const figures = [Math.min(...times), mean, Math.max(...times)].map((ms) => ms.toFixed(2));
  return [...lines, `round trip min/mean/max ${figures.join("/")} ms`];
}
