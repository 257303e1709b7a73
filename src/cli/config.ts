/** `pilot-tun config …` and `pilot-tun reload`: the daemon's settings, and reading them again. */

import { EXIT, type ExitCode } from "../control/api.ts";
import type { ReloadReply } from "../control/config-api.ts";
import { type Context, type Declare, examples } from "./context.ts";
import { counted, printable, table } from "./format.ts";

export const declareConfig: Declare = (program, perform) => {
  const config = program
    .command("config")
    .description("the running daemon's settings")
    .addHelpText("after", examples("pilot-tun config show", "pilot-tun up --check"));
  config
    .command("show")
    .description("what is in force, and when a changed value would be")
    .addHelpText("after", examples("pilot-tun config show"))
    .action(perform(show));
  program
    .command("reload")
    .description("read the configuration file and the policy again, as SIGHUP does")
    .addHelpText("after", examples("sudo pilot-tun reload"))
    .action(perform(reload));
};

async function show(context: Context): Promise<ExitCode> {
  const reply = await context.call("config/show", {});
  const rows = reply.settings.map(({ key, value, takesEffect }) => [
    key,
    value === "" ? "-" : printable(value),
    takesEffect === "restart" ? "with the next start" : "with reload",
  ]);
  context.answer(reply, () => [
    `file: ${printable(reply.file)}`,
    "",
    ...table([["KEY", "VALUE", "A CHANGE TAKES EFFECT"], ...rows], context.paint),
  ]);
  return EXIT.ok;
}

async function reload(context: Context): Promise<ExitCode> {
  const reply = await context.call("reload", {});
  context.answer(reply, () => reloadLines(reply));
  return EXIT.ok;
}

function reloadLines({ applied, needRestart, policy }: ReloadReply): string[] {
  const lines = [`policy: ${counted(policy.rules, "rule")}, ${counted(policy.cutFlows, "flow")} cut`];
  lines.push(applied.length === 0 ? "settings: nothing to change" : `settings: ${applied.join(", ")} changed`);
  if (needRestart.length > 0) lines.push(`wait for the next start: ${needRestart.join(", ")}`);
  return lines;
}
