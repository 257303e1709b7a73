/** `pilot-tun policy …`: what may pass: look at it, try it, put it in force, take it back. */
import { resolve } from "node:path";
import { PilotError } from "../base/pilot-error.ts";
import { EXIT, type ExitCode, SCHEMA, type Sealed } from "../control/api.ts";
import { instancePaths } from "../control/instance.ts";
import {
  MAX_CONFIRM_MS,
  type PolicyChangeReply,
  type PolicyCheckReply,
  type PolicyCheckRequest,
  type PolicyShowReply,
} from "../control/policy-api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { cutLines, flowLines, more } from "./flows.ts";
import { counted, duration, peerName, printable, table } from "./format.ts";
import { parseSpan } from "./span.ts";

export const declarePolicy: Declare = (program, perform) => {
  const policy = program
    .command("policy")
    .description("what may pass between this host and trusted peers")
    .addHelpText("after", examples("pilot-tun policy show", "pilot-tun policy apply new.policy --confirm 60s"));
  policy
    .command("show")
    .description("the rules in force")
    .addHelpText("after", examples("pilot-tun policy show"))
    .action(perform(show));
  policy
    .command("check")
    .description("mistakes, failed tests, and live flows that it would cut; changes nothing")
    .argument("[FILE]", "in place of the policy's main file; default: the files in use")
    .addHelpText("after", examples("pilot-tun policy check", "pilot-tun policy check new.policy"))
    .action(perform(check));
  policy
    .command("apply")
    .description("put a file in force, and keep it as the policy")
    .argument("<FILE>", "in place of the policy's main file")
    .option("--confirm <TIME>", "take it back after this time unless `policy confirm` is run: 60s, 5m")
    .addHelpText("after", examples("pilot-tun policy apply new.policy --confirm 60s", "pilot-tun policy confirm"))
    .action(perform(apply));
  const simple = {
    confirm: "keep what was applied",
    rollback: "take back what was applied",
    reload: "read the files again",
  };
  for (const verb of ["confirm", "rollback", "reload"] as const) {
    policy
      .command(verb)
      .description(simple[verb])
      .addHelpText("after", examples(`pilot-tun policy ${verb}`))
      .action(perform(async (context) => changed(context, await context.call(`policy/${verb}`, {}))));
  }
};

async function show(context: Context): Promise<ExitCode> {
  const reply = await context.call("policy/show", {});
  context.answer(reply, () => showLines(reply, context));
  return EXIT.ok;
}

function showLines(reply: PolicyShowReply, context: Context): string[] {
  const rules = reply.rules.map(({ file, line, text, endsInS }) => [
    `${printable(file)}:${line}`,
    printable(text),
    endsInS === null ? "" : endsInS > 0 ? `ends in ${duration(endsInS)}` : "over",
  ]);
  const lines =
    reply.source === "none" ? [`no policy at ${reply.file}: trusted peers reach every port`] : ["default deny"];
  lines.push(...table(rules, context.paint));
  if (reply.confirmWithinS !== null) lines.push(`taken back in ${duration(reply.confirmWithinS)} unless confirmed`);
  if (reply.lockdown !== null)
    lines.push(`LOCKDOWN, except ${reply.lockdown.except.map(peerName).join(", ") || "nobody"}`);
  return lines;
}

async function check(context: Context, input: Input): Promise<ExitCode> {
  const file = input.args[0];
  const reply = await checked(context, file === undefined ? {} : { path: resolve(file) });
  context.answer(reply, () => checkLines(reply, context));
  return reply.mistakes.length + reply.failedTests.length === 0 ? EXIT.ok : EXIT.failed;
}

/** By the daemon, which knows peers and flows; while none runs, by this program. */
async function checked(context: Context, request: PolicyCheckRequest): Promise<Sealed<PolicyCheckReply>> {
  try {
    return await context.call("policy/check", request);
  } catch (error) {
    if (!(error instanceof PilotError) || error.code !== "not_running") throw error;
  }
  const { checkWithoutDaemon } = await import("../daemon/policy-check.ts");
  const { policy } = instancePaths(context.options.instance);
  return { schema: SCHEMA, ...(await checkWithoutDaemon(request.path, policy)) };
}

function checkLines(reply: PolicyCheckReply, context: Context): string[] {
  const lines = reply.mistakes.map(({ file, line, column, message, hint }) => {
    return printable(`${file}:${line}:${column}: ${message}. ${hint}`);
  });
  for (const { file, line, text, decidedBy } of reply.failedTests) {
    const why = decidedBy === null ? "no rule matches" : `${decidedBy.file}:${decidedBy.line} decides`;
    lines.push(printable(`${file}:${line}: the test fails: ${text} (${why})`));
  }
  if (lines.length === 0) lines.push(`${counted(reply.rules, "rule")}, ${counted(reply.tests, "test")}: all is well`);
  if (reply.wouldCut === null) lines.push("no daemon runs: nothing was compared with peers and live flows");
  else if (reply.wouldCut.length > 0) {
    const flows = [...flowLines(reply.wouldCut, context), ...more(reply.wouldCut, reply.wouldCutFlows)];
    lines.push(`would cut ${counted(reply.wouldCutFlows ?? 0, "live flow")}:`, ...flows);
  }
  return lines;
}

async function apply(context: Context, input: Input): Promise<ExitCode> {
  const path = resolve(input.args[0]!);
  const confirm = input.options.confirm;
  const wait = confirm === undefined ? {} : { confirmMs: parseSpan("--confirm", confirm, MAX_CONFIRM_MS) };
  return changed(context, await context.call("policy/apply", { path, ...wait }));
}

function changed(context: Context, reply: PolicyChangeReply): ExitCode {
  context.answer(reply, () => {
    const lines = [`in force: ${counted(reply.rules, "rule")}`];
    lines.push(...cutLines(reply, context));
    if (reply.confirmWithinS !== null) {
      lines.push(`taken back in ${duration(reply.confirmWithinS)} unless you run: pilot-tun policy confirm`);
    }
    return lines;
  });
  return EXIT.ok;
}
