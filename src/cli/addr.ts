/** `pilot-tun addr`: the overlay address alone, so that it can stand in another command. */
import { type AddrReply, EXIT, type ExitCode } from "../control/api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { hostName, table, UNKNOWN } from "./format.ts";

export const declareAddr: Declare = (program, perform) => {
  program
    .command("addr")
    .description("the overlay IPv6 address of a peer, or of this node")
    .argument("[PEER]", "hostname, Pilot address, overlay IPv6 address or node number")
    .option("-a, --all", "every name of the node, not its address alone")
    .addHelpText(
      "after",
      examples("pilot-tun addr", "ping6 $(pilot-tun addr alice)", "pilot-tun addr --all 0:0000.0000.0005"),
    )
    .action(perform(addr));
};

async function addr(context: Context, input: Input): Promise<ExitCode> {
  const peer = input.args[0];
  const reply = await context.call("addr", peer === undefined ? {} : { peer });
  context.answer(reply, () => (input.options.all === true ? nameLines(reply, context) : [reply.address]));
  return EXIT.ok;
}

function nameLines(reply: AddrReply, context: Context): string[] {
  return table(
    [
      ["address", reply.address],
      ["pilot", reply.pilot],
      ["node", String(reply.node)],
      ["hostname", hostName(reply.hostname) ?? UNKNOWN],
    ],
    context.paint,
  );
}
