/** `pilot-tun peers`: one line per peer, with everything that is measured about it. */
import { EXIT, type ExitCode } from "../control/api.ts";
import { type Context, type Declare, examples } from "./context.ts";
import { table } from "./format.ts";
import { FULL_COLUMNS, peerRows } from "./peer-table.ts";

export const declarePeers: Declare = (program, perform) => {
  program
    .command("peers")
    .description("every peer: trust, path, round trip, traffic")
    .addHelpText("after", examples("pilot-tun peers", "pilot-tun peers --json | jq '.peers[].hostname'"))
    .action(perform(peers));
};

async function peers(context: Context): Promise<ExitCode> {
  const reply = await context.call("peers", {});
  context.answer(reply, () =>
    reply.peers.length === 0 ? ["(none)"] : table(peerRows(reply.peers, FULL_COLUMNS), context.paint),
  );
  return EXIT.ok;
}
