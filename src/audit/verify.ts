/**
 * Is the log as it was written? Goes through every file once, names each record that was changed, is missing, or stands
 * where it was not written, and goes on behind it: one bad line does not make the rest worthless.
 *
 * A record's hash is checked against the hash before it as that stands there, or as it should be: so a changed record is
 * named, and the one after it is not.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import { fromUtf8 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { WallClock } from "../base/instant.ts";
import { AUDIT_FORMAT } from "./journal.ts";
import { hashOf, NO_HASH, type ParsedRecord, parseRecord } from "./record.ts";
import { isGenuine, parseSeal, type Seal } from "./seal.ts";

export type FindingKind =
  /** The record is not what its hash says. */
  | "changed"
  /** A line that is no record. */
  | "unreadable"
  /** A record that others speak of is not there. */
  | "missing"
  | "out-of-order"
  | "repeated"
  /** The last line is not finished. */
  | "torn"
  /** A file does not begin with what ties it to the one before. */
  | "head"
  /** A seal that the key it names has not made, or another key than the one asked for. */
  | "seal"
  /** There is no anchor: what was cut off at the end would not show. */
  | "anchor";

export interface Finding {
  readonly kind: FindingKind;
  readonly file: string;
  /** Of the record, the first one when they are several; null for a line that has none. */
  readonly seq: number | null;
  /** The last of several. */
  readonly toSeq: number | null;
  /** In the file, from 1; null where nothing stands. */
  readonly line: number | null;
  readonly detail: string;
}

/** What the daemon itself says it could not keep. */
export interface Admission {
  readonly kind: "gap" | "repair" | "lost";
  readonly file: string;
  readonly seq: number;
  readonly detail: string;
}

export interface Report {
  readonly files: number;
  readonly records: number;
  readonly first: { readonly seq: number; readonly at: WallClock } | undefined;
  readonly last: { readonly seq: number; readonly at: WallClock; readonly hash: string } | undefined;
  /** At most MAX_FINDINGS. */
  readonly findings: readonly Finding[];
  /** How many more there are. */
  readonly unlisted: number;
  readonly admissions: readonly Admission[];
  /** The public keys, base64, under whose seals this is so. */
  readonly keys: readonly string[];
  /** The newest record that a seal vouches for. */
  readonly sealedSeq: number;
}

/** A record's hash that is known from elsewhere. */
export interface KnownHash {
  readonly seq: number;
  readonly hash: string;
}

export interface VerifierOptions {
  readonly crypto: Pick<Crypto, "sha256" | "ed25519Verify">;
  readonly anchor: Seal | "missing" | "damaged";
  /** Whether the newest seal may be made with this public key (base64); absent: with any. */
  readonly isOwnKey?: (key: string) => boolean;
  /** What was written down earlier, on paper or another machine. */
  readonly known?: readonly KnownHash[];
}

/** A record's hash as it stands there, and as it should be. */
interface Hashes {
  readonly stated: string;
  readonly computed: string | undefined;
}

export class Verifier {
  readonly #options: VerifierOptions;
  readonly #findings: Finding[] = [];
  #unlisted = 0;
  readonly #admissions: Admission[] = [];
  readonly #keys = new Set<string>();
  /** Key: number. Bound: REMEMBERED; for records that stand in another place. */
  readonly #hashes = new BoundedMap<number, Hashes>(REMEMBERED);
  /** Key: number. Bound: MAX_GAPS; records whose predecessor was not seen yet. */
  readonly #unlinked = new Map<number, ParsedRecord>();
  /** Key: number. Bound: MAX_GAPS; not seen yet though later ones were, with the place where they should stand. */
  readonly #absent = new Map<number, { readonly toSeq: number; readonly file: string; readonly line: number }>();
  /** Key: number. Bound: what was asked for. */
  readonly #known: Map<number, string>;
  #expected: number | undefined;
  /** The hash that the next record in order is linked to; undefined when that was not readable. */
  #previous: Hashes | undefined;
  #first: Report["first"];
  #last: Report["last"];
  #records = 0;
  #files = 0;
  #file = "";
  #fileNumber = 0;
  #line = 0;
  #sealed = 0;
  #removedUpTo = 0;
  #firstFile = 0;

  constructor(options: VerifierOptions) {
    this.#options = options;
    const anchor = typeof options.anchor === "string" ? [] : [options.anchor];
    this.#known = new Map([...anchor, ...(options.known ?? [])].map(({ seq, hash }) => [seq, hash]));
  }

  /** The next file, in the order of their numbers; `bytes` is all of it. */
  addFile(name: string, number: number, bytes: Uint8Array, isNewest: boolean): void {
    this.#noteFile(name, number);
    let start = 0;
    while (start < bytes.length) {
      const feed = bytes.indexOf(LINE_FEED, start);
      this.#line++;
      if (feed < 0) {
        if (isNewest) this.#find("torn", null, "the last line is not finished: a crash, or the daemon is writing it");
        else this.#find("unreadable", null, "the last line was cut off");
        break;
      }
      this.#addLine(bytes.subarray(start, feed));
      start = feed + 1;
    }
    if (this.#line === 0) this.#find(isNewest ? "torn" : "head", null, "the file is empty");
  }

  finish(): Report {
    for (const [seq, { toSeq, file, line }] of this.#absent) {
      this.#push({ kind: "missing", seq, toSeq, file, line, detail: `${rangeText(seq, toSeq)} should stand here` });
    }
    if (this.#firstFile > this.#removedUpTo + 1) {
      const gone = this.#removedUpTo + 1 === this.#firstFile - 1 ? "" : ` to ${this.#firstFile - 1}`;
      this.#find("missing", null, `file ${this.#removedUpTo + 1}${gone} is gone, and was not removed by the daemon`);
    }
    this.#checkAnchor();
    this.#checkReach(Math.max(0, ...this.#known.keys()));
    return {
      files: this.#files,
      records: this.#records,
      first: this.#first,
      last: this.#last,
      findings: this.#findings,
      unlisted: this.#unlisted,
      admissions: this.#admissions,
      keys: [...this.#keys],
      sealedSeq: this.#sealed,
    };
  }

  #noteFile(name: string, number: number): void {
    if (this.#files > 0 && number !== this.#fileNumber + 1) {
      const gone = this.#fileNumber + 1 === number - 1 ? "" : ` to ${number - 1}`;
      this.#find("missing", null, `file ${this.#fileNumber + 1}${gone} is not there`);
    }
    this.#file = name;
    this.#fileNumber = number;
    this.#line = 0;
    if (this.#files++ === 0) this.#firstFile = number;
  }

  #addLine(bytes: Uint8Array): void {
    const text = fromUtf8(bytes);
    const record = text === undefined ? undefined : parseRecord(text);
    if (record === undefined) {
      const where = this.#expected === undefined ? "" : `; record ${this.#expected} should stand here`;
      this.#find("unreadable", null, `this line is no record${where}`);
      return;
    }
    if (this.#line === 1 && record.event !== "file") this.#find("head", record.seq, "the file has no head");
    if (record.event === "file") this.#checkHead(record);
    const numbered = this.#numbered(record);
    this.#place(numbered);
    this.#count(numbered);
  }

  /** The record itself, or with its right number if nothing but that was changed. */
  #numbered(record: ParsedRecord): ParsedRecord {
    const seq = this.#expected;
    if (seq === undefined || record.seq === seq) return record;
    const renumbered = { ...record, seq, body: record.body.replace(/^\{"seq":\d+/, `{"seq":${seq}`) };
    if (!this.#links(renumbered, this.#previous)) return record;
    this.#find("changed", seq, `record ${seq} calls itself ${record.seq}`);
    return renumbered;
  }

  #place(record: ParsedRecord): void {
    const { seq } = record;
    if (this.#expected === undefined || seq === this.#expected) return this.#advance(record, this.#previous);
    if (seq > this.#expected) return this.#jump(record, this.#expected);
    if (this.#takeAbsent(seq)) this.#find("out-of-order", seq, `record ${seq} stands behind later ones`);
    else this.#find("repeated", seq, `record ${seq} was there before`);
    this.#checkLink(record, this.#hashes.get(seq - 1));
  }

  /** Numbers are left out: by the daemon, which then linked over them, or by somebody who took the records away. */
  #jump(record: ParsedRecord, expected: number): void {
    const isLinked = this.#links(record, this.#previous);
    if (isLinked) {
      this.#admit("lost", expected, `${rangeText(expected, record.seq - 1)} had been lost when the daemon started`);
    } else if (this.#absent.size < MAX_GAPS) {
      this.#absent.set(expected, { toSeq: record.seq - 1, file: this.#file, line: this.#line });
    }
    this.#advance(record, isLinked ? this.#previous : undefined);
  }

  #advance(record: ParsedRecord, previous: Hashes | undefined): void {
    this.#previous = this.#checkLink(record, previous);
    this.#expected = record.seq + 1;
  }

  /** Names the record if it is not what its hash says; without the hash before it nobody can tell. */
  #checkLink(record: ParsedRecord, previous: Hashes | undefined): Hashes {
    const known = this.#known.get(record.seq);
    if (known !== undefined && known !== record.hash) {
      const detail = `record ${record.seq} had another hash when that was written down: it or one before was changed`;
      this.#find("changed", record.seq, detail);
    }
    if (previous !== undefined && !this.#links(record, previous)) {
      this.#find("changed", record.seq, `record ${record.seq} (${record.event}) is not what its hash says`);
    } else if (previous === undefined && this.#unlinked.size < MAX_GAPS) {
      this.#unlinked.set(record.seq, record);
    }
    const hashes = {
      stated: record.hash,
      computed: previous && hashOf(this.#options.crypto, previous.stated, record.body),
    };
    this.#hashes.set(record.seq, hashes);
    const next = this.#unlinked.get(record.seq + 1);
    if (next !== undefined && this.#unlinked.delete(next.seq)) this.#checkLink(next, hashes);
    return hashes;
  }

  #links(record: ParsedRecord, previous: Hashes | undefined): boolean {
    const { crypto } = this.#options;
    if (previous === undefined) return false;
    if (hashOf(crypto, previous.stated, record.body) === record.hash) return true;
    return previous.computed !== undefined && hashOf(crypto, previous.computed, record.body) === record.hash;
  }

  #checkHead(record: ParsedRecord): void {
    const { format, file, previous, removedUpTo } = record.fields;
    if (this.#line !== 1) return this.#find("head", record.seq, "the head of a file stands inside another");
    if (format !== AUDIT_FORMAT || file !== this.#fileNumber) {
      return this.#find("head", record.seq, `this is not the head of file ${this.#fileNumber}`);
    }
    if (Number.isSafeInteger(removedUpTo)) this.#removedUpTo = Math.max(this.#removedUpTo, removedUpTo as number);
    if (previous === null) {
      if (this.#files === 1 && this.#expected === undefined) this.#begin(1, NO_HASH);
      return;
    }
    const seal = parseSeal(previous);
    if (seal === undefined) return this.#find("head", record.seq, "the head does not say what came before");
    this.#checkSeal(seal);
    if (this.#expected === undefined) return this.#begin(seal.seq + 1, seal.hash);
    const there = this.#hashes.get(seal.seq);
    if (there === undefined || there.stated === seal.hash || there.computed === seal.hash) return;
    const detail = `record ${seal.seq} had another hash when it was sealed: it or one before was changed`;
    this.#find("changed", seal.seq, detail);
  }

  #begin(seq: number, previous: string): void {
    this.#expected = seq;
    this.#previous = { stated: previous, computed: undefined };
  }

  #checkSeal(seal: Seal): void {
    this.#keys.add(seal.key);
    if (isGenuine(this.#options.crypto, seal)) this.#sealed = Math.max(this.#sealed, seal.seq);
    else this.#find("seal", seal.seq, `the seal under record ${seal.seq} was not made with the key it names`);
  }

  #checkAnchor(): void {
    const { anchor, isOwnKey } = this.#options;
    if (anchor === "missing" || anchor === "damaged") {
      if (this.#files === 0) return;
      this.#find("anchor", null, `the anchor is ${anchor}: records cut off at the end would not be missed`);
      return;
    }
    this.#checkSeal(anchor);
    if (isOwnKey?.(anchor.key) === false) {
      this.#find("seal", anchor.seq, "the newest seal was made with another key than the one expected");
    }
  }

  /** A record that is spoken of elsewhere must be there, unless it is so old that its file was removed. */
  #checkReach(seq: number): void {
    const last = this.#last?.seq ?? 0;
    if (seq <= last) return;
    const range = { file: this.#file, seq: last + 1, toSeq: seq, line: null };
    this.#push({ kind: "missing", ...range, detail: `${rangeText(last + 1, seq)} should stand at the end` });
  }

  #takeAbsent(seq: number): boolean {
    for (const [from, { toSeq, file, line }] of this.#absent) {
      if (seq < from || seq > toSeq) continue;
      this.#absent.delete(from);
      if (from < seq) this.#absent.set(from, { toSeq: seq - 1, file, line });
      if (seq < toSeq) this.#absent.set(seq + 1, { toSeq, file, line });
      return true;
    }
    return false;
  }

  #count(record: ParsedRecord): void {
    this.#records++;
    this.#first ??= { seq: record.seq, at: record.at };
    if (this.#last === undefined || record.seq > this.#last.seq) {
      this.#last = { seq: record.seq, at: record.at, hash: record.hash };
    }
    if (record.event === "gap") this.#admit("gap", record.seq, `${record.fields.lost} events were not written down`);
    if (record.event === "repair") this.#admit("repair", record.seq, repairText(record));
  }

  #admit(kind: Admission["kind"], seq: number, detail: string): void {
    this.#admissions.push({ kind, file: this.#file, seq, detail });
  }

  #find(kind: FindingKind, seq: number | null, detail: string): void {
    const line = this.#line === 0 ? null : this.#line;
    this.#push({ kind, file: this.#file, seq, toSeq: seq, line, detail });
  }

  #push(finding: Finding): void {
    if (this.#findings.length < MAX_FINDINGS) this.#findings.push(finding);
    else this.#unlisted++;
  }
}

function repairText({ fields }: ParsedRecord): string {
  const parts = [];
  if (typeof fields.tornBytes === "number" && fields.tornBytes > 0) {
    parts.push(`${fields.tornBytes} bytes of an unfinished record were cut off`);
  }
  if (typeof fields.unreadableFile === "number")
    parts.push(`file ${fields.unreadableFile} could not be read to its end`);
  if (typeof fields.what === "string") parts.push(`file ${fields.file} was ${fields.what} while it was written`);
  if (fields.anchor !== "ok") parts.push(`the anchor was ${fields.anchor}`);
  return parts.join("; ") || "put right at the start";
}

function rangeText(from: number, to: number): string {
  return from === to ? `record ${from}` : `records ${from} to ${to}`;
}

const LINE_FEED = 0x0a;
const REMEMBERED = 65_536;
const MAX_GAPS = 1_024;
const MAX_FINDINGS = 1_000;
