/**
 * The audit log on its way to the disk: what happened waits here in order, gets its number and hash when it is written,
 * and stays until the disk has it. Nobody who adds ever waits.
 *
 * Bound: MAX_WAITING events and one write. What comes when that is full is counted and lost, ordinary events before
 * those that matter; a `gap` record says so when writing works again.
 */
import { concatBytes, toBase64, utf8 } from "../base/bytes.ts";
import type { WallClock } from "../base/instant.ts";
import { isoUtc } from "../base/utc.ts";
import { type AuditEvent, type AuditSink, encodeRecord, type Hasher, NO_HASH } from "./record.ts";
import { makeSeal, type Seal, type Signer } from "./seal.ts";

export const AUDIT_FORMAT = "pilot-tun-audit/1";

export interface JournalParts {
  readonly crypto: Hasher;
  readonly signer: Signer;
  /** A file that would grow past this is followed by the next. */
  readonly maxFileBytes: number;
  /** The newest files that are kept. */
  readonly keepFiles: number;
}

/** Where the chain ends: the number of the last record and what the next one is linked to. */
export interface ChainEnd {
  /** Number of the file that is written to; 0 before the first. */
  readonly file: number;
  /** False makes the next record begin the file after it. */
  readonly isOpen: boolean;
  readonly fileBytes: number;
  readonly seq: number;
  readonly hash: string;
  /** One more than `seq`, or than the number of a record that was lost: no number is used twice. */
  readonly nextSeq: number;
}

export const EMPTY_CHAIN: ChainEnd = { file: 0, isOpen: false, fileBytes: 0, seq: 0, hash: NO_HASH, nextSeq: 1 };

/** One append. The same until `written` is called. */
export interface Write {
  readonly file: number;
  /** The file does not exist yet. */
  readonly opensFile: boolean;
  readonly bytes: Uint8Array;
  /** Files with a number up to this are over their time. */
  readonly removeUpTo: number;
  /** Holds something that should be safe on the disk at once. */
  readonly matters: boolean;
}

interface Loss {
  count: number;
  /** Key: event. Bound: the kinds of events there are. */
  readonly kinds: Map<string, number>;
  readonly since: WallClock;
  until: WallClock;
}

export class Journal implements AuditSink {
  readonly #parts: JournalParts;
  /** In the order they happened. Bound: MAX_WAITING, and one gap. */
  #waiting: AuditEvent[] = [];
  #mattering = 0;
  #loss: Loss | undefined;
  #lostEver = 0;
  /** As on the disk when no write is under way. */
  #end: ChainEnd | undefined;
  #write: { readonly write: Write; readonly end: ChainEnd } | undefined;

  constructor(parts: JournalParts) {
    this.#parts = parts;
  }

  /** Events that wait, those of an unfinished write not counted. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Events that no record will tell of, since the start. */
  get lost(): number {
    return this.#lostEver;
  }

  /** As the disk has it; undefined before `resume`. */
  get end(): ChainEnd | undefined {
    return this.#end;
  }

  /** Something waits that should not wait for company. */
  get isPressing(): boolean {
    return this.#mattering > 0 || this.#waiting.length > HURRY_AT;
  }

  add(event: AuditEvent): void {
    const most = matters(event) ? MAX_WAITING : MAX_ORDINARY_WAITING;
    if (this.#waiting.length < most) this.#push(event);
    else this.#lose(event);
  }

  /** The log is there, and this is its end; `first` goes before all that waits. */
  resume(end: ChainEnd, first: readonly AuditEvent[] = []): void {
    this.#end = end;
    this.#addFirst(first);
  }

  /** The file that was written to cannot be gone on with: the next record begins a new one. */
  abandonFile(because: AuditEvent): void {
    if (this.#end === undefined || this.#write !== undefined) return;
    this.#end = { ...this.#end, isOpen: false };
    this.#addFirst([because]);
  }

  /** What to append next; undefined when there is nothing, or the log is not there yet. */
  takeWrite(wall: WallClock): Write | undefined {
    if (this.#write !== undefined) return this.#write.write;
    if (this.#end === undefined) return undefined;
    if (this.#loss !== undefined) this.#push(gapEvent(this.#loss, wall));
    this.#loss = undefined;
    if (this.#waiting.length === 0) return undefined;
    this.#write = this.#build(this.#end, wall);
    return this.#write.write;
  }

  /** The write is in its file, all of it. */
  written(): void {
    if (this.#write === undefined) return;
    this.#end = this.#write.end;
    this.#write = undefined;
  }

  /** Vouches for all that is on the disk; undefined before the first record. */
  seal(): Seal | undefined {
    if (this.#end === undefined || this.#end.seq === 0) return undefined;
    return makeSeal(this.#parts.signer, this.#end.file, this.#end.seq, this.#end.hash);
  }

  #build(end: ChainEnd, wall: WallClock): { write: Write; end: ChainEnd } {
    const { crypto, maxFileBytes, keepFiles } = this.#parts;
    const room = Math.min(MAX_WRITE_BYTES, maxFileBytes / 4);
    const opensFile = !end.isOpen || end.fileBytes + room > maxFileBytes;
    const file = opensFile ? end.file + 1 : end.file;
    const lines: Uint8Array[] = [];
    let { nextSeq, hash } = end;
    let bytes = 0;
    const append = (event: AuditEvent) => {
      const record = encodeRecord(crypto, nextSeq++, hash, event);
      hash = record.hash;
      const line = utf8(record.line);
      lines.push(line);
      bytes += line.length;
    };
    if (opensFile) append(this.#head(end, file, wall));
    let taken = 0;
    while (taken < this.#waiting.length && taken < MAX_WRITE_RECORDS && bytes < room) append(this.#waiting[taken++]!);
    const mattering = this.#waiting.splice(0, taken).filter(matters).length;
    this.#mattering -= mattering;
    const fileBytes = (opensFile ? 0 : end.fileBytes) + bytes;
    return {
      write: {
        file,
        opensFile,
        bytes: concatBytes(...lines),
        removeUpTo: file - keepFiles,
        matters: opensFile || mattering > 0,
      },
      end: { file, isOpen: true, fileBytes, seq: nextSeq - 1, hash, nextSeq },
    };
  }

  /** The first record of a file: ties it to the one before, which may be removed one day. */
  #head(end: ChainEnd, file: number, wall: WallClock): AuditEvent {
    const { signer, keepFiles } = this.#parts;
    const previous = end.seq === 0 ? null : makeSeal(signer, end.file, end.seq, end.hash);
    const removedUpTo = Math.max(0, file - keepFiles);
    const fields = { format: AUDIT_FORMAT, file, key: toBase64(signer.publicKey), previous, removedUpTo };
    return { event: "file", at: wall, matters: true, fields: () => fields };
  }

  #push(event: AuditEvent): void {
    this.#waiting.push(event);
    if (matters(event)) this.#mattering++;
  }

  #addFirst(events: readonly AuditEvent[]): void {
    this.#waiting.unshift(...events);
    this.#mattering += events.filter(matters).length;
  }

  #lose(event: AuditEvent): void {
    this.#lostEver++;
    this.#loss ??= { count: 0, kinds: new Map(), since: event.at, until: event.at };
    this.#loss.count++;
    this.#loss.until = event.at;
    this.#loss.kinds.set(event.event, (this.#loss.kinds.get(event.event) ?? 0) + 1);
  }
}

function matters(event: AuditEvent): boolean {
  return event.matters === true;
}

function gapEvent(loss: Loss, at: WallClock): AuditEvent {
  const fields = {
    lost: loss.count,
    kinds: Object.fromEntries(loss.kinds),
    since: isoUtc(loss.since),
    until: isoUtc(loss.until),
  };
  return { event: "gap", at, matters: true, fields: () => fields };
}

/** About 4 MB of events. */
const MAX_WAITING = 8_192;
const MAX_ORDINARY_WAITING = 6_144;
const HURRY_AT = 1_024;
/** What one write makes the packets wait for: less than a millisecond. */
const MAX_WRITE_RECORDS = 64;
const MAX_WRITE_BYTES = 128 * 1024;
