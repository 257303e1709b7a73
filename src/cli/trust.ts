/**
 * `pilot-tun trust …`: consent of both sides. Nothing passes between two nodes before both said yes; `revoke` takes it
 * back at once, cuts what is running, and stays until this side consents again.
 */
import type { Command } from "commander";
import { EXIT, type ExitCode } from "../control/api.ts";
import {
  MAX_REASON_LENGTH,
  type RevokeReply,
  type TrustAskReply,
  type TrustChangeReply,
  type TrustEntry,
  type TrustRequest,
} from "../control/trust-api.ts";
import { type Context, type Declare, examples, type Input, type Perform } from "./context.ts";
import { flowLines } from "./flows.ts";
import { ago, type Cell, counted, peerName, printable, table, UNKNOWN } from "./format.ts";
import { trustCell } from "./peer-table.ts";
import { UsageError, usageProblem } from "./refusal.ts";

export const declareTrust: Declare = (program, perform) => {
  const trust = program
    .command("trust")
    .description("ask for trust, answer those who ask, take it back")
    .addHelpText("after", examples("pilot-tun trust ask alice --reason 'invoice check'", "pilot-tun trust pending"));
  declareAsk(trust, perform);
  trust
    .command("pending")
    .description("who asked this node and waits for an answer")
    .addHelpText("after", examples("pilot-tun trust pending"))
    .action(perform(pending));
  declareForPeer(trust, "approve", "consent to a peer that asked", perform(approve));
  declareForPeer(trust, "deny", "refuse a peer that asked", perform(deny));
  trust
    .command("ls")
    .description("every peer with a record: trusted, asked, revoked")
    .addHelpText("after", examples("pilot-tun trust ls", "pilot-tun trust ls --json"))
    .action(perform(list));
  declareForPeer(trust, "revoke", "stop trusting a peer: cuts its flows, tells it, and lasts", perform(revoke));
};

function declareAsk(trust: Command, perform: Perform): void {
  trust
    .command("ask")
    .description("ask a peer for trust, which is also this side's consent")
    .argument("<PEER>", PEER_HELP)
    .option("--reason <TEXT>", "shown to the peer's operator")
    .addHelpText("after", examples("pilot-tun trust ask alice --reason 'nightly backup'"))
    .action(perform(ask));
}

function declareForPeer(trust: Command, verb: string, description: string, action: ReturnType<Perform>): void {
  trust
    .command(verb)
    .description(description)
    .argument("<PEER>", PEER_HELP)
    .addHelpText("after", examples(`pilot-tun trust ${verb} alice`, `pilot-tun trust ${verb} 0:0000.0000.0005`))
    .action(action);
}

const PEER_HELP = "hostname, Pilot address, overlay IPv6 address or node number";

async function ask(context: Context, input: Input): Promise<ExitCode> {
  const reason = input.options.reason as string | undefined;
  if (reason !== undefined && reason.length > MAX_REASON_LENGTH) {
    const message = `--reason has ${reason.length} characters`;
    throw new UsageError([usageProblem(message, `Write at most ${MAX_REASON_LENGTH}.`)]);
  }
  const peer = input.args[0]!;
  const reply = await context.call("trust/ask", reason === undefined ? { peer } : { peer, reason });
  context.answer(reply, () => [askLine(reply)]);
  return EXIT.ok;
}

function askLine(reply: TrustAskReply): string {
  const name = peerName(reply.peer);
  if (reply.trust === "mutual") return `${name} had consented already: trust is mutual`;
  return `asked ${name} ${DELIVERED[reply.delivered]}; trust is ${reply.trust} until it answers`;
}

const DELIVERED: Readonly<Record<TrustAskReply["delivered"], string>> = {
  direct: "directly",
  registry: "through the registry",
  queued: "(not delivered yet, it will be tried again)",
};

async function pending(context: Context): Promise<ExitCode> {
  const reply = await context.call("trust/pending", {});
  context.answer(reply, () => listLines(PENDING_COLUMNS, reply.requests.map(requestRow), context));
  if (reply.requests.length > 0) context.advise("answer with: pilot-tun trust approve PEER, or deny PEER");
  return EXIT.ok;
}

const PENDING_COLUMNS = ["PEER", "ADDRESS", "ASKED", "KEY", "REASON"];

function requestRow(request: TrustRequest): Cell[] {
  const reason = request.reason === "" ? UNKNOWN : printable(request.reason);
  return [peerName(request), request.address, ago(request.askedAgoS), request.fingerprint ?? UNKNOWN, reason];
}

async function approve(context: Context, input: Input): Promise<ExitCode> {
  const reply = await context.call("trust/approve", { peer: input.args[0]! });
  context.answer(reply, () => [changeLine("approved", reply)]);
  return EXIT.ok;
}

async function deny(context: Context, input: Input): Promise<ExitCode> {
  const reply = await context.call("trust/deny", { peer: input.args[0]! });
  context.answer(reply, () => [changeLine("denied", reply)]);
  return EXIT.ok;
}

function changeLine(verb: string, reply: TrustChangeReply): string {
  return `${verb} ${peerName(reply.peer)}: trust is ${reply.trust}`;
}

async function list(context: Context): Promise<ExitCode> {
  const reply = await context.call("trust/ls", {});
  context.answer(reply, () => listLines(LIST_COLUMNS, reply.entries.map(entryRow), context));
  return EXIT.ok;
}

const LIST_COLUMNS = ["PEER", "ADDRESS", "TRUST", "SINCE", "EPOCH", "KEY"];

function entryRow(entry: TrustEntry): Cell[] {
  return [
    peerName(entry),
    entry.address,
    trustCell(entry.trust),
    ago(entry.sinceS),
    String(entry.epoch),
    entry.fingerprint ?? UNKNOWN,
  ];
}

function listLines(columns: readonly string[], rows: readonly Cell[][], context: Context): string[] {
  return rows.length === 0 ? ["(none)"] : table([columns, ...rows], context.paint);
}

async function revoke(context: Context, input: Input): Promise<ExitCode> {
  const reply = await context.call("trust/revoke", { peer: input.args[0]! });
  context.answer(reply, () => [revokeLine(reply), ...(reply.cut.length === 0 ? [] : flowLines(reply.cut, context))]);
  return EXIT.ok;
}

function revokeLine(reply: RevokeReply): string {
  const cut = `${counted(reply.cutFlows, "flow")} cut in ${reply.elapsedMs.toFixed(0)} ms`;
  return `revoked ${peerName(reply.peer)} (epoch ${reply.epoch}): ${cut}, ${toldWords(reply)}`;
}

function toldWords(reply: RevokeReply): string {
  if (reply.peerTold === "unreachable") return "peer not reachable, it will be told later";
  if (reply.peerTold === "sent" || reply.toldAfterMs === null) return "peer told, no acknowledgement yet";
  return `peer acknowledged after ${reply.toldAfterMs.toFixed(0)} ms`;
}
