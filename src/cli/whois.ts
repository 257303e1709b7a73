/** `pilot-tun whois`: whose an overlay address is, as seen in a log or a `ss` listing. */
import { EXIT, type ExitCode, type WhoisReply } from "../control/api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { type Cell, hostName, table, UNKNOWN } from "./format.ts";
import { leaseWords } from "./lease-words.ts";
import { trustCell } from "./peer-table.ts";

export const declareWhois: Declare = (program, perform) => {
  program
    .command("whois")
    .description("the node behind an overlay IPv6 address: names, key, trust")
    .argument("<IP>", "overlay IPv6 address")
    .addHelpText("after", examples("pilot-tun whois fd50:494c:4f54::5"))
    .action(perform(whois));
};

async function whois(context: Context, input: Input): Promise<ExitCode> {
  const reply = await context.call("whois", { address: input.args[0]! });
  context.answer(reply, () => table(whoisRows(reply), context.paint));
  return EXIT.ok;
}

function whoisRows(reply: WhoisReply): Cell[][] {
  return [
    ["hostname", hostName(reply.hostname) ?? UNKNOWN],
    ["address", reply.address],
    ["pilot", reply.pilot],
    ["node", String(reply.node)],
    ["key", reply.fingerprint ?? UNKNOWN],
    ["trust", reply.self ? "this node" : trustCell(reply.trust)],
    ...(reply.lease === null ? [] : [["lease", leaseWords(reply.lease)]]),
  ];
}
