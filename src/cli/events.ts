/** `pilot-tun events`: what happened lately, and with --watch what happens. */
import { EXIT, type ExitCode, SCHEMA } from "../control/api.ts";
import { type EventsReply, MAX_EVENTS_WAIT_MS } from "../control/events-api.ts";
import { recordLine } from "./audit-line.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { jsonLine } from "./format.ts";

export const declareEvents: Declare = (program, perform) => {
  program
    .command("events")
    .description("what happened lately: trust, paths, policy, flows, refusals, problems")
    .option("--watch", "go on and print what happens, until interrupted")
    .addHelpText("after", examples("pilot-tun events", "pilot-tun events --watch --json"))
    .action(perform(events));
};

async function events(context: Context, input: Input): Promise<ExitCode> {
  let reply = await context.call("events", {});
  if (input.options.watch !== true) {
    context.answer(reply, () =>
      reply.events.length === 0 ? ["(none)"] : reply.events.map((one) => line(context, one)),
    );
    return EXIT.ok;
  }
  const stop = new AbortController();
  const forget = context.environment.onSignal("SIGINT", () => stop.abort());
  try {
    for (;;) {
      show(context, reply);
      if (stop.signal.aborted) return EXIT.ok;
      const { run, next: after } = reply;
      const wait = { extraMs: MAX_EVENTS_WAIT_MS, signal: stop.signal };
      reply = await context.call("events", { run, after, waitMs: MAX_EVENTS_WAIT_MS }, wait);
    }
  } catch (error) {
    if (stop.signal.aborted) return EXIT.ok; // the call that waited was given up
    throw error;
  } finally {
    forget();
  }
}

function show(context: Context, { events, missed }: EventsReply): void {
  const { environment } = context;
  if (missed > 0) environment.stderr(`${missed} events came faster than they were read\n`);
  for (const event of events) {
    environment.stdout(`${context.options.json ? jsonLine({ schema: SCHEMA, ...event }) : line(context, event)}\n`);
  }
}

function line(context: Context, { at, event, facts }: EventsReply["events"][number]): string {
  return recordLine({ at: Date.parse(at), event, fields: facts }, context.paint);
}
