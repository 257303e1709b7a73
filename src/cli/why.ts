/** `pilot-tun why PEER [tcp|udp]/PORT`: the first thing that stands in the way, and what mends it. */
import { EXIT, type ExitCode, exitCodeOf } from "../control/api.ts";
import type { WhyReply, WhyRequest } from "../control/policy-api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { type Cell, peerName, printable, table } from "./format.ts";
import { UsageError, usageProblem } from "./refusal.ts";

export const declareWhy: Declare = (program, perform) => {
  program
    .command("why")
    .description("why something passes or not: name, consent, local rule, path")
    .argument("<PEER>", "hostname, Pilot address, overlay IPv6 address or node number")
    .argument("[FLOW]", "tcp/PORT, udp/PORT or icmp")
    .option("--inbound", "what the peer begins, in place of what this host does")
    .addHelpText("after", examples("pilot-tun why bob tcp/443", "pilot-tun why bob udp/53 --inbound"))
    .action(perform(why));
};

async function why(context: Context, input: Input): Promise<ExitCode> {
  const direction = input.options.inbound === true ? ("in" as const) : ("out" as const);
  const reply = await context.call("why", { peer: input.args[0]!, direction, ...parseFlow(input.args[1]) });
  context.answer(reply, () => lines(reply, context));
  return exitOf(reply);
}

function parseFlow(text: string | undefined): Pick<WhyRequest, "protocol" | "port"> {
  if (text === undefined) return {};
  if (text === "icmp") return { protocol: "icmp" };
  const match = /^(tcp|udp)\/(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match !== null && port >= 1 && port <= 65_535) return { protocol: match[1] as "tcp" | "udp", port };
  const message = `${JSON.stringify(text.slice(0, 80))} is no flow`;
  throw new UsageError([usageProblem(message, "Write tcp/PORT, udp/PORT or icmp; for example tcp/443.")]);
}

function lines(reply: WhyReply, context: Context): string[] {
  const rows = reply.stages.map(({ stage, state, detail }): Cell[] => [
    stage,
    state === "failed" ? { text: "NO", colour: "red" } : state === "ok" ? "ok" : "-",
    printable(detail),
  ]);
  const peer = reply.peer === null ? "the peer" : peerName(reply.peer);
  const verdict =
    reply.verdict === "allow"
      ? `nothing on this side stands in the way to ${peer}`
      : `stopped at ${reply.stage} (${reply.side}), code ${reply.code}`;
  return [...table(rows, context.paint), verdict, ...(reply.fix === null ? [] : [`fix: ${printable(reply.fix)}`])];
}

function exitOf(reply: WhyReply): ExitCode {
  switch (reply.stage) {
    case null:
      return EXIT.ok;
    case "local-rule":
      return EXIT.policy;
    case "consent":
      return EXIT.notTrusted;
    case "path":
      return EXIT.unreachable;
    case "name":
      return exitCodeOf(reply.code);
  }
}
