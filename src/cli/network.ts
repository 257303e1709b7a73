/**
 * `pilot-tun network …`: groups of nodes at the registry. A member has an address in the network's own /64, and the
 * requests of other members are approved at once, because joining was this operator's consent to them.
 */
import type { Command } from "commander";
import { EXIT, type ExitCode } from "../control/api.ts";
import { JOIN_RULES, type JoinRule, type NetworkEntry, type NetworkReply } from "../control/network-api.ts";
import { type Context, type Declare, examples, type Input, type Perform } from "./context.ts";
import { ago, type Cell, duration, hostName, peerName, printable, table, UNKNOWN } from "./format.ts";
import { UsageError, usageProblem } from "./refusal.ts";
import { secretIn } from "./secret-file.ts";

export const declareNetwork: Declare = (program, perform) => {
  const network = program
    .command("network")
    .description("networks: groups of nodes with addresses of their own")
    .addHelpText("after", examples("pilot-tun network ls", "pilot-tun network join ops --token-file ./ops.token"));
  network
    .command("ls")
    .description("the registry's networks, and this node's address in each")
    .addHelpText("after", examples("pilot-tun network ls"))
    .action(perform(list));
  declareCreate(network, perform);
  declareDelete(network, perform);
  declareJoin(network, perform);
  declareOne(network, "leave", "leave a network: its address goes, and consent that came with it", perform(leave));
  network
    .command("invite")
    .description("invite a node into a network this node is in")
    .argument("<NETWORK>", NETWORK_HELP)
    .argument("<PEER>", "hostname, Pilot address, overlay IPv6 address or node number")
    .addHelpText("after", examples("pilot-tun network invite ops alice"))
    .action(perform(invite));
  declareOne(network, "members", "who is in a network; for members", perform(members));
  network
    .command("invites")
    .description("invitations that wait for this node's answer")
    .addHelpText("after", examples("pilot-tun network invites"))
    .action(perform(invites));
  declareOne(network, "accept", "accept an invitation: joins the network", perform(accept));
  declareOne(network, "decline", "decline an invitation", perform(decline));
};

const NETWORK_HELP = "name or number of a network";

function declareOne(network: Command, verb: string, description: string, action: ReturnType<Perform>): void {
  network
    .command(verb)
    .description(description)
    .argument("<NETWORK>", NETWORK_HELP)
    .addHelpText("after", examples(`pilot-tun network ${verb} ops`))
    .action(action);
}

function declareCreate(network: Command, perform: Perform): void {
  network
    .command("create")
    .description("make a network at the registry and join it; for the registry's operator")
    .argument("<NAME>", "a to z, 0 to 9 and -, at most 63")
    .requiredOption("--admin-token-file <FILE>", "the registry's admin token")
    .option("--rule <RULE>", "who may join: open, token or invite", "invite")
    .option("--token-file <FILE>", "the token to join with, for the rule token")
    .addHelpText("after", examples("pilot-tun network create ops --rule invite --admin-token-file ./admin.token"))
    .action(perform(create));
}

function declareDelete(network: Command, perform: Perform): void {
  network
    .command("delete")
    .description("end a network for all its members; for the registry's operator")
    .argument("<NETWORK>", NETWORK_HELP)
    .requiredOption("--admin-token-file <FILE>", "the registry's admin token")
    .addHelpText("after", examples("pilot-tun network delete ops --admin-token-file ./admin.token"))
    .action(perform(remove));
}

function declareJoin(network: Command, perform: Perform): void {
  network
    .command("join")
    .description("join a network: this node gains an address in it, and approves requests of its members")
    .argument("<NETWORK>", NETWORK_HELP)
    .option("--token-file <FILE>", "the network's token; a file, because arguments are seen by everybody here")
    .addHelpText("after", examples("pilot-tun network join ops", "pilot-tun network join ops --token-file ./ops.token"))
    .action(perform(join));
}

async function list(context: Context): Promise<ExitCode> {
  const reply = await context.call("network/ls", {});
  const columns = ["ID", "NAME", "RULE", "MEMBERS", "PREFIX", "ADDRESS"];
  context.answer(reply, () => lines(columns, reply.networks, entryRow, context));
  return EXIT.ok;
}

function entryRow(entry: NetworkEntry): Cell[] {
  const { network, joinRule, members: count, prefix, address } = entry;
  const rule = joinRule === null ? UNKNOWN : printable(joinRule);
  return [String(network), nameOf(entry), rule, String(count ?? UNKNOWN), prefix, address ?? UNKNOWN];
}

async function create(context: Context, input: Input): Promise<ExitCode> {
  const joinRule = JOIN_RULES.find((rule): rule is JoinRule => rule === input.options.rule);
  if (joinRule === undefined) {
    throw new UsageError([usageProblem(`--rule ${input.options.rule} is no rule`, `Write ${JOIN_RULES.join(", ")}.`)]);
  }
  const token = secretIn("--token-file", input.options.tokenFile);
  if (joinRule === "token" && token === undefined) {
    throw new UsageError([usageProblem("The rule token needs a token", "Give --token-file FILE.")]);
  }
  const adminToken = secretIn("--admin-token-file", input.options.adminTokenFile)!;
  const request = { name: input.args[0]!, joinRule, adminToken, ...(token === undefined ? {} : { token }) };
  const reply = await context.call("network/create", request);
  context.answer(reply, () => [`created network ${nameOf(reply)} (${reply.network}); ${addressWords(reply)}`]);
  return EXIT.ok;
}

async function remove(context: Context, input: Input): Promise<ExitCode> {
  const adminToken = secretIn("--admin-token-file", input.options.adminTokenFile)!;
  const reply = await context.call("network/delete", { network: input.args[0]!, adminToken });
  context.answer(reply, () => [`deleted ${nameOf(reply)}; its members lose their addresses in it within minutes`]);
  return EXIT.ok;
}

async function join(context: Context, input: Input): Promise<ExitCode> {
  const network = input.args[0]!;
  const token = secretIn("--token-file", input.options.tokenFile);
  const reply = await context.call("network/join", token === undefined ? { network } : { network, token });
  context.answer(reply, () => [`joined ${nameOf(reply)}: ${addressWords(reply)}`]);
  return EXIT.ok;
}

async function leave(context: Context, input: Input): Promise<ExitCode> {
  const reply = await context.call("network/leave", { network: input.args[0]! });
  const later = reply.registryTold ? "" : "; the registry will be told when it can be reached";
  context.answer(reply, () => [`left ${nameOf(reply)}${later}`]);
  return EXIT.ok;
}

async function invite(context: Context, input: Input): Promise<ExitCode> {
  const reply = await context.call("network/invite", { network: input.args[0]!, peer: input.args[1]! });
  context.answer(reply, () => [`invited ${peerName(reply.peer)} to ${nameOf(reply)}`]);
  return EXIT.ok;
}

async function members(context: Context, input: Input): Promise<ExitCode> {
  const reply = await context.call("network/members", { network: input.args[0]! });
  const row = (member: (typeof reply.members)[number]): Cell[] => [
    hostName(member.hostname) ?? UNKNOWN,
    member.pilot,
    member.address,
    member.self ? "this node" : "",
  ];
  context.answer(reply, () => lines(["NODE", "PILOT", "ADDRESS", ""], reply.members, row, context));
  return EXIT.ok;
}

async function invites(context: Context): Promise<ExitCode> {
  const reply = await context.call("network/invites", {});
  const row = (waiting: (typeof reply.invites)[number]): Cell[] => [
    String(waiting.network),
    nameOf(waiting),
    peerName(waiting.inviter),
    ago(waiting.agoS),
    waiting.expiresInS === null ? UNKNOWN : `in ${duration(waiting.expiresInS)}`,
  ];
  context.answer(reply, () => lines(["ID", "NETWORK", "INVITED BY", "WHEN", "ENDS"], reply.invites, row, context));
  if (reply.invites.length > 0) context.advise("answer with: pilot-tun network accept NETWORK, or decline NETWORK");
  return EXIT.ok;
}

async function accept(context: Context, input: Input): Promise<ExitCode> {
  const reply = await context.call("network/accept", { network: input.args[0]! });
  context.answer(reply, () => [`joined ${nameOf(reply)}: ${addressWords(reply)}`]);
  return EXIT.ok;
}

async function decline(context: Context, input: Input): Promise<ExitCode> {
  const reply = await context.call("network/decline", { network: input.args[0]! });
  context.answer(reply, () => [`declined ${nameOf(reply)}`]);
  return EXIT.ok;
}

function lines<Row>(
  columns: readonly string[],
  rows: readonly Row[],
  cells: (row: Row) => Cell[],
  context: Context,
): string[] {
  return rows.length === 0 ? ["(none)"] : table([columns, ...rows.map(cells)], context.paint);
}

function nameOf(network: { readonly network: number; readonly name: string | null }): string {
  return network.name === null ? `network ${network.network}` : printable(network.name);
}

function addressWords(reply: NetworkReply): string {
  return reply.address === null ? "no address in it yet" : `this node is ${reply.address} in it`;
}
