/** `pilot-tun version`: this program's, without asking the daemon. */
import { EXIT, type ExitCode, SCHEMA } from "../control/api.ts";
import { VERSION } from "../control/version.ts";
import { type Context, type Declare, examples } from "./context.ts";

export const declareVersion: Declare = (program, perform) => {
  program
    .command("version")
    .description("the version of this program")
    .addHelpText("after", examples("pilot-tun version --json"))
    .action(perform(version));
};

async function version(context: Context): Promise<ExitCode> {
  const facts = { version: VERSION, node: process.version, platform: `${process.platform}-${process.arch}` };
  context.answer({ schema: SCHEMA, ...facts }, () => [`pilot-tun ${VERSION} (node ${facts.node}, ${facts.platform})`]);
  return EXIT.ok;
}
