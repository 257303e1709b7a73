/**
 * Where the log goes on after an earlier run, however that ended. What a crash left unfinished is cut off, what cannot be
 * read is left where it is and a new file begun; either is said in a `repair` record. Nothing is made up.
 */
import { fromUtf8 } from "../base/bytes.ts";
import { type ChainEnd, EMPTY_CHAIN } from "./journal.ts";
import { type Fields, type ParsedRecord, parseRecord } from "./record.ts";
import type { Seal } from "./seal.ts";

export interface FoundFile {
  readonly number: number;
  readonly bytes: number;
}

export interface Found {
  /** Oldest first. */
  readonly files: readonly FoundFile[];
  /** `missing`: there is no anchor; `damaged`: it is none of ours. */
  readonly anchor: Seal | "missing" | "damaged";
  /** The end of a file, at least its last whole record if that is well formed; all of it when it is not longer. */
  tailOf(file: FoundFile): Uint8Array;
}

export interface Resumption {
  readonly end: ChainEnd;
  /** Cut this file to so many bytes; to none: it goes. */
  readonly cut: { readonly file: number; readonly toBytes: number } | undefined;
  /** Of the `repair` record; undefined when all was as it should be. */
  readonly repair: Fields | undefined;
  /** What the last record is about; undefined for a new log. */
  readonly lastEvent: string | undefined;
  /** Records behind the last seal: none after an orderly end. */
  readonly unsealed: number;
}

export function resume(found: Found): Resumption {
  const tail = findEnd(found);
  const anchor = typeof found.anchor === "string" ? undefined : found.anchor;
  const isBehind = anchor !== undefined && anchor.seq > tail.end.seq;
  const end = isBehind ? behind(tail.end, anchor) : tail.end;
  const anchorState = typeof found.anchor === "string" ? found.anchor : isBehind ? "ahead" : "ok";
  const isNew = found.files.length === 0 && found.anchor === "missing";
  const isWhole = anchorState === "ok" && tail.tornBytes === 0 && tail.unreadable === undefined;
  const repair: Fields = {
    tornBytes: tail.tornBytes,
    unreadableFile: tail.unreadable ?? null,
    anchor: anchorState,
    lost: isBehind ? { from: tail.end.seq + 1, to: anchor.seq } : null,
  };
  return {
    end,
    cut: tail.cut,
    repair: isNew || isWhole ? undefined : repair,
    lastEvent: tail.last?.event,
    unsealed: Math.max(0, tail.end.seq - (anchor?.seq ?? 0)),
  };
}

/** The anchor knows of later records than the files do: their numbers are not used again. */
function behind(end: ChainEnd, anchor: Seal): ChainEnd {
  const isOpen = end.isOpen && anchor.file === end.file;
  return { ...end, nextSeq: anchor.seq + 1, file: Math.max(end.file, anchor.file), isOpen };
}

interface Tail {
  readonly end: ChainEnd;
  readonly cut: Resumption["cut"];
  readonly tornBytes: number;
  /** The newest file that ends in something else than a record. */
  readonly unreadable: number | undefined;
  readonly last: ParsedRecord | undefined;
}

function findEnd({ files, tailOf }: Found): Tail {
  let cut: Resumption["cut"];
  let tornBytes = 0;
  let unreadable: number | undefined;
  for (const file of [...files].reverse()) {
    const tail = tailOf(file);
    const wholeBytes = tail.lastIndexOf(LINE_FEED) + 1;
    const isNewest = file === files.at(-1);
    const torn = tail.length - wholeBytes;
    if (isNewest && file.bytes === torn) {
      // A crash while the file was made: nothing in it was ever whole.
      cut = { file: file.number, toBytes: 0 };
      tornBytes = torn;
      continue;
    }
    const { record, isLast } = lastRecord(tail.subarray(0, wholeBytes));
    if (!isLast) unreadable ??= file.number;
    if (record === undefined) continue;
    const mayGoOn = isNewest && isLast;
    if (mayGoOn && torn > 0) cut = { file: file.number, toBytes: file.bytes - torn };
    if (mayGoOn) tornBytes = torn;
    const { seq, hash } = record;
    const place = { file: unreadable ?? file.number, isOpen: mayGoOn, fileBytes: file.bytes - torn };
    return { end: { ...place, seq, hash, nextSeq: seq + 1 }, cut, tornBytes, unreadable, last: record };
  }
  const newest = unreadable ?? (cut === undefined ? 0 : cut.file - 1);
  return { end: { ...EMPTY_CHAIN, file: newest }, cut, tornBytes, unreadable, last: undefined };
}

/** The last line that is a record, and whether it is the last line. */
function lastRecord(lines: Uint8Array): { record: ParsedRecord | undefined; isLast: boolean } {
  let end = lines.length - 1; // at the line feed
  for (let isLast = true; end > 0; isLast = false) {
    const start = lines.lastIndexOf(LINE_FEED, end - 1) + 1;
    const text = fromUtf8(lines.subarray(start, end));
    const record = text === undefined ? undefined : parseRecord(text);
    if (record !== undefined) return { record, isLast };
    end = start - 1;
  }
  return { record: undefined, isLast: false };
}

const LINE_FEED = 0x0a;
