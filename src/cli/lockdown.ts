/** `pilot-tun lockdown`: nothing passes, whatever the policy says, until it is lifted or over. */
import { EXIT, type ExitCode } from "../control/api.ts";
import { MAX_LOCKDOWN_MS } from "../control/policy-api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { cutLines } from "./flows.ts";
import { duration, peerName } from "./format.ts";
import { parseSpan } from "./span.ts";

export const declareLockdown: Declare = (program, perform) => {
  program
    .command("lockdown")
    .description("cut everything and let nothing pass; lasts over restarts")
    .option("--except <PEER...>", "the policy goes on for these peers")
    .option("--for <TIME>", "end by itself: 10m, 2h; default: until lifted")
    .option("--lift", "end it")
    .addHelpText("after", examples("pilot-tun lockdown --except alice --for 10m", "pilot-tun lockdown --lift"))
    .action(perform(lockdown));
};

async function lockdown(context: Context, { options }: Input): Promise<ExitCode> {
  const end = options.for === undefined ? {} : { forMs: parseSpan("--for", options.for, MAX_LOCKDOWN_MS) };
  const except = (options.except as string[] | undefined) ?? [];
  const reply = await context.call("lockdown", options.lift === true ? { on: false } : { on: true, except, ...end });
  context.answer(reply, () => {
    if (reply.lockdown === null) return ["lockdown lifted: the policy is in force again"];
    const { except: peers, endsInS } = reply.lockdown;
    const who = peers.length === 0 ? "nothing passes" : `nothing passes except with ${peers.map(peerName).join(", ")}`;
    const lines = [`locked down: ${who}, ${endsInS === null ? "until lifted" : `for ${duration(endsInS)}`}`];
    lines.push(...cutLines(reply, context));
    return lines;
  });
  return EXIT.ok;
}
