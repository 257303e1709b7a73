/**
 * `pilot-tun trust …`: consent of both sides. Nothing passes between two nodes before both said yes; `revoke` takes it
 * back at once, cuts what is running, and stays until this side consents again.
 */
import type { Command } from "commander";
import { EXIT, type ExitCode, type LeaseStatus } from "../control/api.ts";
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
import { addLeaseOptions, leaseTerms, leaseWords, termsWords } from "./lease-words.ts";
import { trustCell } from "./peer-table.ts";
import { UsageError, usageProblem } from "./refusal.ts";

export const declareTrust: Declare = (program, perform) => {
  const trust = program
    .command("trust")
    .description("ask for trust, answer those who ask, take it back")
    .addHelpText("after", examples("pilot-tun trust ask alice --purpose 'invoice check'", "pilot-tun trust pending"));
  declareAsk(trust, perform);
  trust
    .command("pending")
    .description("who asked this node and waits for an answer")
    .addHelpText("after", examples("pilot-tun trust pending"))
    .action(perform(pending));
  declareApprove(trust, perform);
  declareForPeer(trust, "deny", "refuse a peer that asked", perform(deny));
  trust
    .command("ls")
    .alias("list")
    .description("every peer with a record: trusted, asked, revoked")
    .addHelpText("after", examples("pilot-tun trust ls", "pilot-tun trust ls --json"))
    .action(perform(list));
  declareForPeer(trust, "revoke", "stop trusting a peer: cuts its flows, tells it, and lasts", perform(revoke));
};

function declareAsk(trust: Command, perform: Perform): void {
  const ask = trust
    .command("ask")
    .description("ask a peer for trust, which is also this side's consent; for other limits when there is trust")
    .argument("<PEER>", PEER_HELP)
    .option("--purpose <TEXT>", "shown to the peer's operator")
    .option("--reason <TEXT>", "the same");
  addLeaseOptions(ask, "what this node wants to reach over there")
    .addHelpText(
      "after",
      examples(
        "pilot-tun trust ask alice --purpose 'nightly backup'",
        "pilot-tun trust ask alice --ports tcp/443,udp/53 --for 2h --purpose 'invoice check'",
      ),
    )
    .action(perform(askPeer));
}

function declareApprove(trust: Command, perform: Perform): void {
  const approve = trust
    .command("approve")
    .description(
      "consent to a peer that asked, to no more than it asked for; or set other limits for one that is trusted",
    )
    .argument("<PEER>", PEER_HELP);
  addLeaseOptions(approve, "what the peer may reach here")
    .addHelpText(
      "after",
      examples(
        "pilot-tun trust approve alice",
        "pilot-tun trust approve alice --for 2h --ports tcp/443,udp/53 --max 50MB",
      ),
    )
    .action(perform(approvePeer));
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

async function askPeer(context: Context, { args, options }: Input): Promise<ExitCode> {
  const reason = (options.purpose ?? options.reason) as string | undefined;
  if (reason !== undefined && reason.length > MAX_REASON_LENGTH) {
    const message = `--purpose has ${reason.length} characters`;
    throw new UsageError([usageProblem(message, `Write at most ${MAX_REASON_LENGTH}.`)]);
  }
  const request = { peer: args[0]!, ...leaseTerms(options) };
  const reply = await context.call("trust/ask", reason === undefined ? request : { ...request, reason });
  context.answer(reply, () => [askLine(reply), ...leaseLines(reply.lease)]);
  return EXIT.ok;
}

function askLine(reply: TrustAskReply): string {
  const name = peerName(reply.peer);
  if (reply.trust === "mutual" && reply.waits) {
    return `asked ${name} ${DELIVERED[reply.delivered]} for other limits; until it answers those hold that there are`;
  }
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

const PENDING_COLUMNS = ["PEER", "ADDRESS", "ASKED", "KEY", "FOR", "REASON"];

function requestRow(request: TrustRequest): Cell[] {
  const reason = request.reason === "" ? UNKNOWN : printable(request.reason);
  const terms = termsWords(request.ports, request.forS, request.maxBytes);
  return [peerName(request), request.address, ago(request.askedAgoS), request.fingerprint ?? UNKNOWN, terms, reason];
}

async function approvePeer(context: Context, { args, options }: Input): Promise<ExitCode> {
  const reply = await context.call("trust/approve", { peer: args[0]!, ...leaseTerms(options) });
  context.answer(reply, () => [
    changeLine("approved", reply),
    ...(reply.lease === null ? [] : [`granted: ${leaseWords(reply.lease)}`]),
  ]);
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

function leaseLines(lease: LeaseStatus | null): string[] {
  return lease === null ? [] : [`lease: ${leaseWords(lease)}`];
}

async function list(context: Context): Promise<ExitCode> {
  const reply = await context.call("trust/ls", {});
  context.answer(reply, () => listLines(LIST_COLUMNS, reply.entries.map(entryRow), context));
  return EXIT.ok;
}

const LIST_COLUMNS = ["PEER", "ADDRESS", "TRUST", "SINCE", "EPOCH", "KEY", "LEASE"];

function entryRow(entry: TrustEntry): Cell[] {
  return [
    peerName(entry),
    entry.address,
    trustCell(entry.trust),
    ago(entry.sinceS),
    String(entry.epoch),
    entry.fingerprint ?? UNKNOWN,
    entry.lease === null ? UNKNOWN : leaseWords(entry.lease),
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
