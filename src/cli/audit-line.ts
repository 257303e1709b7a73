/** A record of the audit log as people read it: one line; what it holds beyond that is in the JSON. */
import { describeEvent } from "../control/event-words.ts";
import { type Paint, printable } from "./format.ts";

export interface AuditRecord {
  /** Absent: it is not kept. */
  readonly seq?: number;
  readonly at: number;
  readonly event: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export function recordLine(record: AuditRecord, paint: Paint): string {
  const when = new Date(record.at).toISOString().replace("T", " ").slice(0, 19);
  const text = printable(describeEvent(record.event, record.fields));
  const number = record.seq === undefined ? "" : `${String(record.seq).padStart(6)}  `;
  return `${paint("dim", when)}  ${number}${record.event.padEnd(10)}  ${text}`;
}
