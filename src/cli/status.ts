/** `pilot-tun status`: this node, its way to the overlay, its peers and what is wrong, on one screen. */
import { EXIT, type ExitCode, type Problem, type StatusReply } from "../control/api.ts";
import { type Context, type Declare, examples } from "./context.ts";
import { type Cell, duration, hostName, type Paint, printable, table, UNKNOWN } from "./format.ts";
import { BRIEF_COLUMNS, peerRows } from "./peer-table.ts";
import { printableLines } from "./refusal.ts";

export const declareStatus: Declare = (program, perform) => {
  program
    .command("status")
    .description("this node, its peers and its problems; what runs when no command is given")
    .addHelpText("after", examples("pilot-tun", "pilot-tun status --json"))
    .action(perform(status));
};

async function status(context: Context): Promise<ExitCode> {
  const reply = await context.call("status", {});
  context.answer(reply, () => statusLines(reply, context.paint));
  return EXIT.ok;
}

export function statusLines(reply: StatusReply, paint: Paint): string[] {
  const peers = reply.peers.length === 0 ? ["peers      (none)"] : table(peerRows(reply.peers, BRIEF_COLUMNS), paint);
  return [
    ...table(facts(reply), paint),
    "",
    ...peers,
    ...reply.problems.flatMap((problem) => ["", ...noticeLines(problem, paint)]),
  ];
}

function facts(reply: StatusReply): Cell[][] {
  const name = hostName(reply.hostname) ?? "(no hostname)";
  const isUp = reply.registry.state === "connected";
  return [
    ["interface", `${printable(reply.interface)}, mtu ${reply.mtu}, up ${duration(reply.uptimeS)}`],
    ["address", reply.address ?? "(none yet)"],
    ["node", `${name}, ${reply.pilot ?? UNKNOWN}, number ${reply.node ?? UNKNOWN}`],
    ["underlay", underlay(reply)],
    ["registry", isUp ? registry(reply) : { text: registry(reply), colour: "yellow" }],
    ["beacon", beacon(reply)],
    ["names", names(reply)],
    ["requests", requests(reply.pending)],
    ["drops", drops(reply)],
    ["version", reply.version],
  ];
}

function underlay(reply: StatusReply): string {
  const observed = reply.beacon.observed;
  return printable(observed === null ? reply.listen : `${reply.listen}, seen from outside as ${observed}`);
}

function registry(reply: StatusReply): string {
  const { state, address, error, sinceS } = reply.registry;
  const reason = error === null ? "" : ` (${error})`;
  return printable(`${state} for ${duration(sinceS)}, ${address}${reason}`);
}

function beacon({ beacon: { state, address, transport } }: StatusReply): Cell {
  const text = `${state}, ${printable(address)}${transport === "tcp" ? ", over TCP" : ""}`;
  return transport === "tcp" ? { text, colour: "yellow" } : text;
}

function names({ dns: { address, resolved } }: StatusReply): Cell {
  if (address === null) return "not answered here";
  if (resolved === "applied") return `.pilot by systemd-resolved and at ${address}`;
  return { text: `.pilot at ${address} only, see: pilot-tun doctor dns`, colour: "yellow" };
}

function requests(pending: number): Cell {
  if (pending === 0) return "(none)";
  return { text: `${pending} waiting, see: pilot-tun trust pending`, colour: "yellow" };
}

function drops(reply: StatusReply): string {
  const counts = Object.entries(reply.drops).map(([reason, count]) => `${printable(reason)} ${count}`);
  return counts.length === 0 ? "(none)" : counts.join(", ");
}

function noticeLines(problem: Problem, paint: Paint): string[] {
  return [
    `${paint("yellow", "!")} ${printableLines(problem.message)} [${printable(problem.code)}]`,
    `  fix: ${printable(problem.hint)}`,
  ];
}
