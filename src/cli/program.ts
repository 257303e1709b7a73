/**
 * The command line as a whole: the table of commands, the global options, and one way from arguments to an exit code.
 * A command line without a command is `status`.
 */
import { Command } from "commander";
import { EXIT, type ExitCode } from "../control/api.ts";
import { VERSION } from "../control/version.ts";
import { declareAddr } from "./addr.ts";
import { declareAudit } from "./audit.ts";
import { declareBugreport } from "./bugreport.ts";
import { declareConfig } from "./config.ts";
import { Context, type Declare, type Environment, examples, type Input, type Perform } from "./context.ts";
import { declareDoctor } from "./doctor.ts";
import { declareEvents } from "./events.ts";
import { declareFlows } from "./flows.ts";
import { declareDeregister, declareId } from "./id.ts";
import { declareLockdown } from "./lockdown.ts";
import { declareMetrics } from "./metrics.ts";
import { declareNetcheck } from "./netcheck.ts";
import { declareNetwork } from "./network.ts";
import { parseGlobalOptions } from "./parse-options.ts";
import { declarePeers } from "./peers.ts";
import { declarePing } from "./ping.ts";
import { declarePolicy } from "./policy.ts";
import { declareReference } from "./reference.ts";
import { refuse } from "./refusal.ts";
import { declareRendezvous } from "./rendezvous.ts";
import { declareRun } from "./run.ts";
import { declaredOptions } from "./settings.ts";
import { declareShow } from "./show.ts";
import { declareStatus } from "./status.ts";
import { declareTrace } from "./trace.ts";
import { declareTrust } from "./trust.ts";
import { declareUp } from "./up.ts";
import { declareVersion } from "./version.ts";
import { declareWait } from "./wait.ts";
import { declareWeb } from "./web.ts";
import { declareWhois } from "./whois.ts";
import { declareWhy } from "./why.ts";

/** In the order of the help. */
const COMMANDS: readonly Declare[] = [
  declareStatus,
  declareUp,
  declareConfig,
  declarePeers,
  declareAddr,
  declarePing,
  declareNetcheck,
  declareTrace,
  declareRun,
  declareWhois,
  declareTrust,
  declareNetwork,
  declarePolicy,
  declareFlows,
  declareLockdown,
  declareWhy,
  declareAudit,
  declareEvents,
  declareId,
  declareDeregister,
  declareRendezvous,
  declareShow,
  declareWeb,
  declareWait,
  declareDoctor,
  declareBugreport,
  declareMetrics,
  declareReference,
  declareVersion,
];

/** Runs one command line and returns its exit code. Never throws. */
export async function run(argv: readonly string[], environment: Environment): Promise<number> {
  let exitCode: ExitCode = EXIT.ok;
  const perform: Perform =
    (action) =>
    async (...given) => {
      const command = given.at(-1) as Command;
      const context = new Context(environment, parseGlobalOptions(command.optsWithGlobals(), environment.variables));
      exitCode = await action(context, inputOf(command));
    };
  try {
    const words = namesCommand(argv, environment) ? argv : ["status", ...argv];
    await buildProgram(environment, perform).parseAsync(words, { from: "user" });
    return exitCode;
  } catch (error) {
    return refuse(environment, error, { json: hasOption(argv, "--json"), colour: !hasOption(argv, "--no-color") });
  }
}

function inputOf(command: Command): Input {
  const declared = declaredOptions(command);
  const written = declared.filter(({ attribute }) => command.getOptionValueSource(attribute) === "cli");
  const options = command.opts();
  return { args: command.args, options, declared, written: new Set(written.map(({ attribute }) => attribute)) };
}

/** False when only options were given, and none that asks about the program itself. */
function namesCommand(argv: readonly string[], environment: Environment): boolean {
  const { operands, unknown } = buildProgram(environment, () => async () => {}).parseOptions([...argv]);
  return operands.length > 0 || unknown.some((word) => ABOUT_OPTIONS.has(word));
}

const ABOUT_OPTIONS: ReadonlySet<string> = new Set(["-h", "--help"]);

function hasOption(argv: readonly string[], option: string): boolean {
  const end = argv.indexOf("--");
  return argv.slice(0, end === -1 ? argv.length : end).includes(option);
}

function buildProgram(environment: Environment, perform: Perform): Command {
  const program = new Command("pilot-tun")
    .description("The Pilot overlay as a network interface.")
    .usage("[options] [command]")
    .version(VERSION, "-V, --version", "print the version")
    .option("--instance <NAME>", "which of several daemons on this machine (PILOT_TUN_INSTANCE)")
    .option("--control <SOCKET>", "the daemon's control socket; default: /run/pilot-tun[-INSTANCE]/control.sock")
    .option("--json", "print one JSON object, also for errors")
    .option("--no-color", "plain text even on a terminal")
    .option("--timeout <TIME>", "how long to wait: 500ms, 5s, 2m")
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => environment.stdout(text),
      writeErr: (text) => environment.stderr(text),
      outputError: () => undefined, // `refuse` prints it
    })
    .exitOverride()
    .addHelpText("after", FOOTER);
  for (const declare of COMMANDS) declare(program, perform);
  return program;
}

const FOOTER = `
PEER is a hostname (alice or alice.pilot), a Pilot address (0:0000.0000.0005), an overlay IPv6 address
or a node number.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 daemon not running, 4 denied by policy, 5 not trusted or
revoked, 6 unreachable, 7 no answer in time, 8 needs confirmation, 9 needs privilege.
${examples(
  "sudo pilot-tun up --registry registry.example:9000 --beacon registry.example:9001 --hostname alice",
  "pilot-tun trust ask bob --reason 'nightly backup'",
  "ping6 $(pilot-tun addr bob)",
)}`;
