/** `pilot-tun audit …`: what was written down, and whether it is as it was written. Reads files; needs no daemon. */
import { PilotError } from "../base/pilot-error.ts";
import { EXIT, type ExitCode, SCHEMA } from "../control/api.ts";
import { auditDirectoryOf, instancePaths } from "../control/instance.ts";
import type { AuditReport } from "../daemon/audit-files.ts";
import { type AuditRecord, recordLine } from "./audit-line.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { counted, printable, table } from "./format.ts";
import { Checked, parsePath, parseWhole } from "./parse-options.ts";
import { UsageError, usageProblem } from "./refusal.ts";

export const declareAudit: Declare = (program, perform) => {
  const audit = program
    .command("audit")
    .description("what passed, what was refused, and who changed what")
    .addHelpText("after", examples("pilot-tun audit tail --follow", "pilot-tun audit verify"));
  audit
    .command("tail")
    .description("the newest records")
    .option("--lines <N>", "how many", "20")
    .option("--follow", "go on with those to come")
    .option("--dir <DIR>", DIR_HELP)
    .addHelpText("after", examples("pilot-tun audit tail", "pilot-tun audit tail --follow --json"))
    .action(perform(tail));
  audit
    .command("verify")
    .description("whether every record is there as it was written; names each that is not")
    .option("--known <SEQ:HASH>", "a record's hash that you have from elsewhere; may be repeated", collect, [])
    .option("--key <FINGERPRINT>", "the key that must have sealed it; default: the node's, if that is beside the log")
    .option("--dir <DIR>", DIR_HELP)
    .addHelpText("after", VERIFY_HELP)
    .action(perform(verify));
  audit
    .command("export")
    .description("records as they stand in the files, one JSON object a line")
    .option("--since <TIME>", "from this time on: 2030-12-31, 2030-12-31T18:00Z, or 2h ago")
    .option("--until <TIME>", "up to this time")
    .option("--peer <PEER>", "only those about this peer: name, Pilot address, IPv6 address or number")
    .option("--dir <DIR>", DIR_HELP)
    .addHelpText("after", examples("pilot-tun audit export --since 7d --peer bob > bob.jsonl"))
    .action(perform(exportRecords));
};

const DIR_HELP = "the log's folder; default: that of the daemon that runs, else /var/lib/pilot-tun[-INSTANCE]/audit";
const VERIFY_HELP = `
Prints the newest record's number and hash: kept elsewhere, they prove later that nothing up to there was
changed (--known). On this machine root can rewrite everything, the seals included.
${examples("pilot-tun audit verify", "pilot-tun audit verify --known 4711:5f6c…")}`;

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}

async function tail(context: Context, input: Input): Promise<ExitCode> {
  const checked = new Checked();
  const lines = checked.take(parseWhole("--lines", input.options.lines, 0, 1_000_000), 0);
  checked.end();
  const { lastOfAuditLog, followAuditLog } = await import("../daemon/audit-files.ts");
  const directory = await directoryOf(context, input);
  const records = lastOfAuditLog(directory, Math.max(lines, 1));
  const show = (record: AuditRecord, line: string) =>
    context.environment.stdout(`${context.options.json ? line : recordLine(record, context.paint)}\n`);
  for (const { record, line } of lines === 0 ? [] : records) show(record, line);
  if (input.options.follow !== true) return EXIT.ok;
  const stop = new AbortController();
  const forget = context.environment.onSignal("SIGINT", () => stop.abort());
  try {
    await followAuditLog(directory, records.at(-1)?.record.seq ?? 0, show, stop.signal);
  } finally {
    forget();
  }
  return EXIT.ok;
}

async function verify(context: Context, input: Input): Promise<ExitCode> {
  const known = (input.options.known as string[]).map(parseKnown);
  const fingerprint = input.options.key as string | undefined;
  const { verifyAuditLog } = await import("../daemon/audit-files.ts");
  const directory = await directoryOf(context, input);
  let report = verifyAuditLog(directory, { known, fingerprint });
  // The daemon may have been writing its last line at that very moment.
  if (report.findings.some(({ kind }) => kind === "torn")) {
    await new Promise((resolve) => setTimeout(resolve, SECOND_LOOK_MS));
    report = verifyAuditLog(directory, { known, fingerprint });
  }
  const isWhole = report.findings.length === 0;
  context.answer({ schema: SCHEMA, whole: isWhole, ...reportJson(report) }, () => reportLines(report, context));
  return isWhole ? EXIT.ok : EXIT.failed;
}

function reportJson({ keys: _, first, last, ...rest }: AuditReport): object {
  const dated = (end: typeof first) => (end === undefined ? null : { ...end, at: new Date(end.at).toISOString() });
  return { ...rest, first: dated(first), last: dated(last) };
}

function reportLines(report: AuditReport, context: Context): string[] {
  const { findings, unlisted, admissions, records, files, first, last, sealedSeq, fingerprints } = report;
  const amount = `${counted(records, "record")} in ${counted(files, "file")}`;
  const lines =
    findings.length === 0
      ? [`${context.paint("green", "whole")}: ${amount}`]
      : [`${context.paint("red", "DAMAGED")}: ${counted(findings.length + unlisted, "finding")} in ${amount}`];
  const rows = findings.map(({ file, line, seq, toSeq, kind, detail }) => [
    line === null ? file : `${file}:${line}`,
    seq === null ? "" : seq === toSeq ? `record ${seq}` : `records ${seq}-${toSeq}`,
    { text: kind, colour: "red" as const },
    printable(detail),
  ]);
  lines.push(...table(rows, context.paint));
  for (const { file, seq, detail } of admissions)
    lines.push(`the daemon says (${file}, record ${seq}): ${printable(detail)}`);
  if (first !== undefined && last !== undefined) {
    const moment = (at: number) => new Date(at).toISOString();
    lines.push(`from     ${first.seq}, ${moment(first.at)}`, `to       ${last.seq}, ${moment(last.at)}`);
    lines.push(`hash     ${last.seq}:${last.hash}`, `sealed   up to ${sealedSeq} by ${fingerprints.join(", ")}`);
  }
  return lines;
}

async function exportRecords(context: Context, input: Input): Promise<ExitCode> {
  const since = parseTime("--since", input.options.since) ?? Number.NEGATIVE_INFINITY;
  const until = parseTime("--until", input.options.until) ?? Number.POSITIVE_INFINITY;
  const peer = input.options.peer === undefined ? undefined : String(input.options.peer).replace(/\.pilot\.?$/, "");
  const { readAuditLog } = await import("../daemon/audit-files.ts");
  for (const { record, line } of readAuditLog(await directoryOf(context, input))) {
    if (record.at < since || record.at > until) continue;
    if (peer === undefined || isAbout(record, peer)) context.environment.stdout(`${line}\n`);
  }
  return EXIT.ok;
}

function isAbout({ fields }: AuditRecord, peer: string): boolean {
  const { node, pilot, address, name } = (fields.peer ?? {}) as Record<string, unknown>;
  return [node, pilot, address, name].some((word) => word !== null && word !== undefined && String(word) === peer);
}

/** Where the log is; what waits in a running daemon is written first. */
async function directoryOf(context: Context, input: Input): Promise<string> {
  const { dir } = input.options;
  if (dir !== undefined) {
    const checked = new Checked();
    const named = checked.take(parsePath("--dir", dir), "");
    checked.end();
    return named;
  }
  try {
    return (await context.call("audit/flush", {})).directory;
  } catch (error) {
    if (!(error instanceof PilotError) || !MAY_BE_AWAY.has(error.code)) throw error;
    return auditDirectoryOf(instancePaths(context.options.instance).stateDir);
  }
}

const MAY_BE_AWAY: ReadonlySet<string> = new Set(["not_running", "audit_off"]);
const SECOND_LOOK_MS = 500;

/** Unix milliseconds; undefined when it is not given. */
function parseTime(option: string, text: unknown): number | undefined {
  if (text === undefined) return undefined;
  const span = /^(\d{1,7})([smhd])$/.exec(String(text));
  if (span !== null) return Date.now() - Number(span[1]) * UNIT_MS[span[2] as keyof typeof UNIT_MS];
  const isDate = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?Z)?$/.test(String(text));
  const at = isDate ? Date.parse(String(text)) : Number.NaN;
  if (!Number.isNaN(at)) return at;
  const message = `${option} ${JSON.stringify(String(text).slice(0, 80))} is not a time`;
  throw new UsageError([usageProblem(message, "Write 2030-12-31, 2030-12-31T18:00Z, or how long ago: 2h, 7d.")]);
}

const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

function parseKnown(text: string): { seq: number; hash: string } {
  const match = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text);
  if (match !== null) return { seq: Number(match[1]), hash: match[2]! };
  const message = `--known ${JSON.stringify(text.slice(0, 80))} is not a record's number and hash`;
  throw new UsageError([usageProblem(message, "Write them as audit verify prints them: 4711:5f6c… (64 hex digits).")]);
}
