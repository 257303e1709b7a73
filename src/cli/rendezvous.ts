/** `pilot-tun rendezvous`: registry and beacon of an overlay of one's own, in the foreground. */
import type { Endpoint } from "../base/endpoint.ts";
import { formatEndpoint } from "../base/endpoint.ts";
import type { PilotError } from "../base/pilot-error.ts";
import { type ExitCode, SCHEMA } from "../control/api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { type ForegroundTask, runForeground } from "./foreground.ts";
import { plain } from "./format.ts";
import { Checked, parseBindAddress, parsePath } from "./parse-options.ts";
import { problemLines } from "./refusal.ts";

export const declareRendezvous: Declare = (program, perform) => {
  program
    .command("rendezvous")
    .description("run a registry and a beacon, in the foreground")
    .option("--registry <ADDR:PORT>", "address of this machine for the registry (TCP)")
    .option("--beacon <ADDR:PORT>", "address of this machine for the beacon (UDP)")
    .option("--state <DIR>", "registrations and trust pairs", "/var/lib/pilot-tun/rendezvous")
    .addHelpText("after", examples("pilot-tun rendezvous --registry 0.0.0.0:9000 --beacon 0.0.0.0:9001 --state ./rv"))
    .action(perform((context, input) => rendezvous(context, input)));
};

export interface RendezvousOptions {
  readonly registry: Endpoint;
  readonly beacon: Endpoint;
  readonly stateDir: string;
  /** A problem while it runs, such as a full disk. */
  readonly onProblem: (problem: PilotError) => void;
}

type StartRendezvous = (options: RendezvousOptions) => Promise<ForegroundTask>;

export async function rendezvous(
  context: Context,
  input: Input,
  startRendezvous: StartRendezvous = loadAndStart,
): Promise<ExitCode> {
  const options = parseRendezvousOptions(input);
  const facts = {
    registry: formatEndpoint(options.registry),
    beacon: formatEndpoint(options.beacon),
    stateDir: options.stateDir,
  };
  return await runForeground(
    context.environment,
    () => startRendezvous({ ...options, onProblem: (problem) => reportProblem(context, problem) }),
    () =>
      context.answer({ schema: SCHEMA, ...facts }, () => [
        `rendezvous ready: registry ${facts.registry}, beacon ${facts.beacon}, state ${facts.stateDir}`,
      ]),
  );
}

function reportProblem(context: Context, problem: PilotError): void {
  context.environment.stderr(`${problemLines(problem, plain).join("\n")}\n`);
}

async function loadAndStart(options: RendezvousOptions): Promise<ForegroundTask> {
  const daemon = await import("../daemon/rendezvous.ts");
  return await daemon.runRendezvous(options);
}

/** Throws a UsageError with all that is wrong. */
export function parseRendezvousOptions(input: Input): Omit<RendezvousOptions, "onProblem"> {
  const raw = input.options;
  const checked = new Checked();
  const options = {
    registry: checked.take(parseBindAddress("--registry", raw.registry), UNBOUND),
    beacon: checked.take(parseBindAddress("--beacon", raw.beacon), UNBOUND),
    stateDir: checked.take(parsePath("--state", raw.state), ""),
  };
  checked.end();
  return options;
}

/** Stands in for a value that was refused; nothing is started with it. */
const UNBOUND: Endpoint = { address: "", port: 0 };
