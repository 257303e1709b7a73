/** `pilot-tun manual`, `completion` and `context`: the command line described for a reader, a shell and a program. */
import { EXIT, type ExitCode, SCHEMA } from "../control/api.ts";
import { VERSION } from "../control/version.ts";
import { commandFacts } from "./command-tree.ts";
import { completionScript, SHELLS } from "./completion.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { manualPage } from "./manual.ts";
import { UsageError, usageProblem } from "./refusal.ts";

export const declareReference: Declare = (program, perform) => {
  program
    .command("context")
    .description("every command, option and exit code as JSON, for programs that operate this one")
    .addHelpText("after", examples("pilot-tun context"))
    .action(perform(async (context) => describe(context)));
  program
    .command("completion")
    .description("completion of this command line for a shell")
    .argument("<SHELL>", SHELLS.join(", "))
    .addHelpText("after", examples("pilot-tun completion bash > /etc/bash_completion.d/pilot-tun"))
    .action(perform(async (context, input) => completion(context, input)));
  program
    .command("manual")
    .description("the manual page, as source for man")
    .addHelpText("after", examples("pilot-tun manual | man -l -"))
    .action(
      perform(async (context) => {
        context.environment.stdout(manualPage(commandFacts(program), VERSION));
        return EXIT.ok;
      }),
    );

  function describe(context: Context): ExitCode {
    const commands = commandFacts(program).map(({ remarks: _, ...facts }) => facts);
    const exitCodes = Object.fromEntries(Object.entries(EXIT).map(([name, code]) => [code, name]));
    context.environment.stdout(
      `${JSON.stringify({ schema: SCHEMA, version: VERSION, exitCodes, commands }, null, 2)}\n`,
    );
    return EXIT.ok;
  }

  function completion(context: Context, { args }: Input): ExitCode {
    const shell = SHELLS.find((known) => known === args[0]);
    if (shell === undefined) {
      throw new UsageError([
        usageProblem(`There is no completion for ${args[0]}`, `Write one of ${SHELLS.join(", ")}.`),
      ]);
    }
    context.environment.stdout(completionScript(shell, commandFacts(program)));
    return EXIT.ok;
  }
};
