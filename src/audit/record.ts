/**
 * One line of the audit log: a JSON object that begins with its number and ends with its hash.
 *
 *   {"seq":7,"at":"2030-12-31T18:00:00.000Z","event":"flow-open",…,"hash":"<64 hex digits>"}
 *
 * The hash is SHA-256 over the hash of the record before it (64 hex digits), a line feed, and the line up to the comma
 * in front of "hash". So every byte of a line counts, and nobody has to agree on how JSON is spelled: a shell with
 * sha256sum can check it.
 */
import { toHex, utf8 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { WallClock } from "../base/instant.ts";
import { isoUtc } from "../base/utc.ts";

export type Fields = Readonly<Record<string, unknown>>;

/** What happened, before it has a number. `fields` is asked when the line is made, away from the packets. */
export interface AuditEvent {
  readonly event: string;
  readonly at: WallClock;
  /** Kept before others when there is too much: what a person did, and what the daemon itself has to say. */
  readonly matters?: boolean;
  /** For whoever looks on at this moment; not kept. */
  readonly isFleeting?: boolean;
  /** A person's doing: who called is added by whoever knows it. */
  readonly byOperator?: boolean;
  fields(): Fields;
}

/** Where what happened goes. */
export interface AuditSink {
  add(event: AuditEvent): void;
}

export interface ParsedRecord {
  readonly seq: number;
  readonly at: WallClock;
  readonly event: string;
  /** What the hash is over, beside the hash before. */
  readonly body: string;
  readonly hash: string;
  readonly fields: Fields;
}

/** Of the first record there is. */
export const NO_HASH = "0".repeat(64);
/** No record is longer; what comes from outside is clipped before it gets here. */
export const MAX_RECORD_BYTES = 64 * 1024;

export type Hasher = Pick<Crypto, "sha256">;

export function encodeRecord(crypto: Hasher, seq: number, previous: string, event: AuditEvent) {
  const body = JSON.stringify({ seq, at: isoUtc(event.at), event: event.event, ...event.fields() }).slice(0, -1);
  const hash = hashOf(crypto, previous, body);
  return { line: `${body},"hash":"${hash}"}\n`, hash };
}

export function hashOf(crypto: Hasher, previous: string, body: string): string {
  return toHex(crypto.sha256(utf8(`${previous}\n${body}`)));
}

/** A line without its line feed; undefined for what is no record. Never throws. */
export function parseRecord(line: string): ParsedRecord | undefined {
  const at = line.length - HASH_SUFFIX_LENGTH;
  const suffix = at < 0 ? null : /^,"hash":"([0-9a-f]{64})"\}$/.exec(line.slice(at));
  const start = /^\{"seq":([1-9]\d{0,15}),"at":"([^"]{24})","event":"([a-z-]{1,32})"/.exec(line);
  const fields = suffix === null || start === null ? undefined : parseObject(line);
  if (fields === undefined) return undefined;
  const seq = Number(start![1]);
  const moment = Date.parse(start![2]!);
  if (!Number.isSafeInteger(seq) || Number.isNaN(moment)) return undefined;
  return { seq, at: moment as WallClock, event: start![3]!, body: line.slice(0, at), hash: suffix![1]!, fields };
}

function parseObject(text: string): Fields | undefined {
  try {
    return JSON.parse(text) as Fields; // it begins with a brace, so an object is all that it can be
  } catch {
    return undefined;
  }
}

/** Text of others, as much of it as a record holds. */
export function clip(text: string): string {
  return text.length <= MAX_TEXT_LENGTH ? text : `${text.slice(0, MAX_TEXT_LENGTH)}…`;
}

const MAX_TEXT_LENGTH = 512;
const HASH_SUFFIX_LENGTH = `,"hash":"${NO_HASH}"}`.length;
