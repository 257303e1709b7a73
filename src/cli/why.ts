/** `pilot-tun why PEER [tcp|udp]/PORT [--from PEER]`: the first thing that stands in the way, and what mends it. */
import type { ErrorCode } from "../base/error-code.ts";
import { EXIT, type ExitCode, exitCodeOf } from "../control/api.ts";
import type { WhyReply, WhyRequest, WhyStage } from "../control/why-api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { type Cell, peerName, printable, table } from "./format.ts";
import { UsageError, usageProblem } from "./refusal.ts";

export const declareWhy: Declare = (program, perform) => {
  program
    .command("why")
    .description("why a flow passes or not, at both ends: the first stage that fails, whose it is, what mends it")
    .argument("[PEER]", "where it goes: hostname, Pilot address, overlay IPv6 address or node number")
    .argument("[FLOW]", "tcp/PORT, udp/PORT or icmp")
    .option("--from <PEER>", "would that peer reach this node? PEER before it may be left out")
    .addHelpText(
      "after",
      examples("pilot-tun why bob tcp/443", "pilot-tun why tcp/22 --from bob", "pilot-tun why bob udp/53 --json"),
    )
    .action(perform(why));
};

async function why(context: Context, { args, options }: Input): Promise<ExitCode> {
  const from = options.from as string | undefined;
  const isFlowFirst = from !== undefined && args.length === 1 && FLOW.test(args[0]!);
  const [peer, flow] = isFlowFirst ? [undefined, args[0]] : args;
  if (peer === undefined && from === undefined) {
    throw new UsageError([usageProblem("A peer is missing", "For example pilot-tun why bob tcp/443.")]);
  }
  const ends = { ...(peer === undefined ? {} : { peer }), ...(from === undefined ? {} : { from }) };
  const reply = await context.call("why", { ...ends, ...parseFlow(flow) }, { extraMs: LOOK_MS });
  context.answer(reply, () => lines(reply, context));
  return exitOf(reply);
}

function parseFlow(text: string | undefined): Pick<WhyRequest, "protocol" | "port"> {
  if (text === undefined) return {};
  if (text === "icmp") return { protocol: "icmp" };
  const match = FLOW.exec(text);
  const port = Number(match?.[2]);
  if (match !== null && port >= 1 && port <= 65_535) return { protocol: match[1] as "tcp" | "udp", port };
  const message = `${JSON.stringify(text.slice(0, 80))} is no flow`;
  throw new UsageError([usageProblem(message, "Write tcp/PORT, udp/PORT or icmp; for example tcp/443.")]);
}

function lines(reply: WhyReply, context: Context): string[] {
  const rows = reply.stages.map(({ stage, state, detail }): Cell[] => [stage, MARKS[state], printable(detail)]);
  const peer = reply.peer === null ? "the peer" : peerName(reply.peer);
  const way = reply.direction === "out" ? `to ${peer}` : `from ${peer}`;
  const isGuess = reply.stages.some(({ state }) => state === "unknowable");
  const passes = isGuess ? `nothing that can be known stands in the way ${way}` : `nothing stands in the way ${way}`;
  const verdict = reply.verdict === "allow" ? passes : `stopped at ${reply.stage} (${reply.side}), code ${reply.code}`;
  return [...table(rows, context.paint), verdict, ...(reply.fix === null ? [] : [`fix: ${printable(reply.fix)}`])];
}

const MARKS: Readonly<Record<WhyStage["state"], Cell>> = {
  ok: "ok",
  failed: { text: "NO", colour: "red" },
  unknown: "-",
  unknowable: { text: "?", colour: "yellow" },
};

function exitOf({ stage, code }: WhyReply): ExitCode {
  switch (stage) {
    case null:
      return EXIT.ok;
    case "name":
      return exitCodeOf(code as ErrorCode); // a name fails with the codes of errors
    case "local-rule":
    case "budget":
    case "remote-rule":
      return EXIT.policy;
    case "consent":
    case "lease":
      return EXIT.notTrusted;
    case "address":
      return code === "key_changed" ? EXIT.notTrusted : EXIT.unreachable;
    case "path":
    case "mtu":
    case "listener":
      return EXIT.unreachable;
  }
}

const FLOW = /^(tcp|udp)\/(\d{1,5})$|^icmp$/;
/** A peer that is silent is waited for. */
const LOOK_MS = 15_000;
