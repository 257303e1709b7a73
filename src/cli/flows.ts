/** `pilot-tun flows`: what passes at this moment, and by which rule; `--kill` ends one. */
import { EXIT, type ExitCode, SCHEMA } from "../control/api.ts";
import type { FlowStatus, ProgramStatus } from "../control/policy-api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { bytes, type Cell, counted, duration, jsonLine, peerName, printable, table, UNKNOWN } from "./format.ts";

export const declareFlows: Declare = (program, perform) => {
  program
    .command("flows")
    .description("what passes now: peer, ports, program, the rule that lets it, age, bytes")
    .option("--watch", "go on and print what begins and ends")
    .option("--kill <ID>", "end one flow; it may begin again if the policy allows")
    .addHelpText(
      "after",
      examples("pilot-tun flows", "pilot-tun flows --watch --json", "pilot-tun flows --kill 1a2b-tq3x9z"),
    )
    .action(perform(flows));
};

async function flows(context: Context, input: Input): Promise<ExitCode> {
  const { kill } = input.options;
  if (typeof kill === "string") {
    const reply = await context.call("flows/kill", { id: kill });
    context.answer(reply, () => ["ended:", ...flowLines([reply.flow], context)]);
    return EXIT.ok;
  }
  if (input.options.watch === true) return await watch(context);
  const reply = await context.call("flows", {});
  context.answer(reply, () => {
    return reply.flows.length === 0
      ? ["(none)"]
      : [...flowLines(reply.flows, context), ...more(reply.flows, reply.total)];
  });
  return EXIT.ok;
}

export function flowLines(list: readonly FlowStatus[], context: Context): string[] {
  return table([COLUMNS, ...list.map(row)], context.paint);
}

/** What a change has cut; nothing when it cut nothing. */
export function cutLines(
  { cut, cutFlows }: { readonly cut: readonly FlowStatus[]; readonly cutFlows: number },
  context: Context,
): string[] {
  if (cutFlows === 0) return [];
  return [`cut ${counted(cutFlows, "flow")}:`, ...flowLines(cut, context), ...more(cut, cutFlows)];
}

/** That the list is not all there is. */
export function more(list: readonly FlowStatus[], total: number | null): string[] {
  const left = (total ?? 0) - list.length;
  return left > 0 ? [`… and ${left} more`] : [];
}

const COLUMNS = ["ID", "PROTO", "DIR", "LOCAL", "PEER", "PROGRAM", "RULE", "AGE", "IDLE", "TX", "RX"];

function row(flow: FlowStatus): Cell[] {
  const peer = flow.remotePort === null ? peerName(flow.peer) : `${peerName(flow.peer)}:${flow.remotePort}`;
  return [
    flow.id,
    flow.protocol,
    flow.direction,
    flow.localPort === null ? UNKNOWN : `:${flow.localPort}`,
    peer,
    printable(programText(flow.program)),
    flow.rule === null ? UNKNOWN : printable(`${flow.rule.file}:${flow.rule.line}`),
    duration(flow.ageS),
    duration(flow.idleS),
    bytes(flow.txBytes),
    bytes(flow.rxBytes),
  ];
}

/** `curl[4711] backup.service`, or what little is known. */
function programText(program: ProgramStatus | null): string {
  if (program === null) return UNKNOWN;
  const who = program.pid === null ? `uid ${program.uid}` : `${program.name}[${program.pid}]`;
  return program.unit === null ? who : `${who} ${program.unit}`;
}

/** One line for each that begins or ends, until interrupted. */
async function watch(context: Context): Promise<ExitCode> {
  const stop = new AbortController();
  const forget = context.environment.onSignal("SIGINT", () => stop.abort());
  try {
    let known = new Map<string, FlowStatus>();
    while (!stop.signal.aborted) {
      const reply = await context.call("flows", {});
      const current = new Map(reply.flows.map((flow) => [flow.id, flow]));
      for (const [id, flow] of current) if (!known.has(id)) tell(context, "begins", flow);
      for (const [id, flow] of known) if (!current.has(id)) tell(context, "ends", flow);
      known = current;
      await pause(WATCH_INTERVAL_MS, stop.signal);
    }
  } finally {
    forget();
  }
  return EXIT.ok;
}

function tell(context: Context, event: "begins" | "ends", flow: FlowStatus): void {
  const line = context.options.json
    ? jsonLine({ schema: SCHEMA, event, flow })
    : `${event.padEnd(7)}${row(flow).join("  ")}`;
  context.environment.stdout(`${line}\n`);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

const WATCH_INTERVAL_MS = 500;
