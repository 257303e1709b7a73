/**
 * Keeps the audit log: takes what happened from whoever has it, and brings it to the disk a few times a second, away
 * from the packets. When that fails it goes on trying, shows a problem, and packets go on.
 *
 * Written means: a crash of the daemon loses nothing. Sealed means: on the disk, and the anchor says so; at once for what
 * matters, else every SEAL_INTERVAL_MS.
 */
import type { Journal, Write } from "../audit/journal.ts";
import type { AuditEvent, AuditSink, Fields } from "../audit/record.ts";
import { type Resumption, resume } from "../audit/resume.ts";
import type { Problem } from "../control/api.ts";
import type { AuditReply } from "../control/audit-api.ts";
import { currentCaller } from "../control/caller.ts";
import type { AuditDirectory, Disturbance } from "../io/audit-directory.ts";
import { now, wallNow } from "../io/clock.ts";

export interface AuditLogParts {
  readonly journal: Journal;
  readonly directory: AuditDirectory;
  /** The first record of this run, once it is known how the last one ended. */
  started(found: Resumption): AuditEvent;
}

export class AuditLog implements AuditSink {
  /** Shown by `status`. Key: code. Bound: the codes there are. */
  readonly problems = new Map<string, Problem>();
  readonly #parts: AuditLogParts;
  #timer: NodeJS.Timeout | undefined;
  /** When the timer will fire. */
  #dueAt = Number.POSITIVE_INFINITY;
  #work: Promise<void> | undefined;
  #sealedSeq = 0;
  #sealedAt = 0;
  #mustSeal = false;
  #error: string | undefined;
  #isResumed = false;
  #isClosed = false;

  constructor(parts: AuditLogParts) {
    this.#parts = parts;
  }

  /** Looks for the log of earlier runs; if that cannot be read it is tried again later. */
  start(): void {
    this.#attempt(() => this.#resume());
    this.#schedule();
  }

  add(event: AuditEvent): void {
    this.#parts.journal.add(event);
    this.#schedule();
  }

  /** Brings all that waits now to the disk, and seals it; at most as long as `signal` allows. */
  async flush(signal: AbortSignal): Promise<AuditReply> {
    const given = aborted(signal);
    await Promise.race([this.#work, given]); // what is under way may have taken its last look already
    this.#mustSeal = true;
    await Promise.race([this.#run(), given]);
    return this.facts();
  }

  facts(): AuditReply {
    const { journal, directory } = this.#parts;
    const { file = 0, seq = 0, hash = null } = journal.end ?? {};
    const { waiting, lost } = journal;
    const counts = { sealedSeq: this.#sealedSeq, waiting, lost };
    return {
      directory: directory.path,
      file,
      seq,
      hash: seq === 0 ? null : hash,
      ...counts,
      failure: this.#error ?? null,
    };
  }

  /** The last record, and the end: what cannot be written within the time is lost and said on stderr. */
  async close(last: AuditEvent): Promise<void> {
    const patience = AbortSignal.timeout(CLOSE_PATIENCE_MS);
    this.#parts.journal.add(last);
    await this.flush(patience);
    this.#isClosed = true;
    clearTimeout(this.#timer);
    if (this.#isBehind) process.stderr.write(`the audit log lacks its end: ${this.#error ?? "the disk is too slow"}\n`);
    const closed = this.#parts.directory.close().catch(() => undefined); // a disk that is gone has been reported
    await Promise.race([closed, aborted(patience)]);
  }

  get #isBehind(): boolean {
    const { waiting, end } = this.#parts.journal;
    return waiting > 0 || end === undefined || this.#sealedSeq < end.seq;
  }

  #schedule(): void {
    if (this.#isClosed || this.#work !== undefined) return;
    const { journal } = this.#parts;
    let waitMs = Number.POSITIVE_INFINITY;
    if (this.#error !== undefined || !this.#isResumed) waitMs = RETRY_MS;
    else if (journal.waiting > 0) waitMs = journal.isPressing ? PRESSING_MS : LINGER_MS;
    else if (this.#isBehind) waitMs = Math.max(0, this.#sealedAt + SEAL_INTERVAL_MS - now());
    const dueAt = now() + waitMs;
    if (dueAt >= this.#dueAt || waitMs === Number.POSITIVE_INFINITY) return;
    clearTimeout(this.#timer);
    this.#dueAt = dueAt;
    this.#timer = setTimeout(() => void this.#run(), waitMs);
    this.#timer.unref();
  }

  /** One at a time; whoever comes while one runs waits for that. */
  #run(): Promise<void> {
    this.#dueAt = Number.POSITIVE_INFINITY;
    clearTimeout(this.#timer);
    this.#work ??= this.#writeAll().then(
      () => this.#ended(undefined),
      (error: unknown) => this.#ended(error),
    );
    return this.#work;
  }

  #ended(error: unknown): void {
    this.#work = undefined;
    if (error !== undefined) this.#failed(error);
    else this.#recovered();
    this.#schedule();
  }

  async #writeAll(): Promise<void> {
    if (!this.#isResumed) this.#resume();
    const { journal, directory } = this.#parts;
    for (let write = this.#nextWrite(); write !== undefined; write = this.#nextWrite()) {
      await directory.append(write);
      journal.written();
      this.#mustSeal ||= write.matters;
    }
    if (this.#mustSeal || now() - this.#sealedAt >= SEAL_INTERVAL_MS) await this.#seal();
  }

  #nextWrite(): Write | undefined {
    return this.#isClosed ? undefined : this.#parts.journal.takeWrite(wallNow());
  }

  async #seal(): Promise<void> {
    const { journal, directory } = this.#parts;
    const disturbance = await directory.disturbance(journal.end?.fileBytes ?? 0);
    await directory.sync();
    const seal = journal.seal();
    if (seal !== undefined) await directory.saveAnchor(seal);
    this.#sealedSeq = seal?.seq ?? 0;
    this.#sealedAt = now();
    this.#mustSeal = false;
    if (disturbance !== undefined) this.#disturbed(disturbance);
  }

  #resume(): void {
    const { journal, directory } = this.#parts;
    const found = resume(directory.find());
    if (found.cut !== undefined) directory.cut(found.cut.file, found.cut.toBytes);
    const repair = found.repair === undefined ? [] : [ownEvent("repair", found.repair)];
    journal.resume(found.end, [...repair, this.#parts.started(found)]);
    this.#isResumed = true;
  }

  /** Somebody else has had his hands on the file: what is in it is left, and a new one begun. */
  #disturbed(what: Disturbance): void {
    const { journal, directory } = this.#parts;
    const file = journal.end?.file ?? 0;
    journal.abandonFile(
      ownEvent("repair", { tornBytes: 0, unreadableFile: null, anchor: "ok", lost: null, file, what }),
    );
    this.problems.set(DISTURBED, {
      code: DISTURBED,
      message: `File ${file} of the audit log was ${what} by something else than this daemon`,
      hint: `See what is missing: pilot-tun audit verify --dir ${directory.path}`,
    });
  }

  #attempt(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error: unknown): void {
    const { journal, directory } = this.#parts;
    const isNew = this.#error === undefined;
    this.#error = error instanceof Error ? error.message : String(error);
    const behind = `${journal.waiting} events wait, ${journal.lost} are lost`;
    const message = `The audit log cannot be written (${this.#error}); packets go on. ${behind}`;
    this.problems.set(FAILING, { code: FAILING, message, hint: hintFor(error, directory.path) });
    if (isNew) process.stderr.write(`${message}\n`);
  }

  #recovered(): void {
    if (this.#error !== undefined) process.stderr.write("the audit log is written again\n");
    this.#error = undefined;
    this.problems.delete(FAILING);
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

/** Says who did it: the request is being worked on now, and will be answered when the record is written. */
export function withCaller(event: AuditEvent): AuditEvent {
  const by = currentCaller() ?? null;
  return { ...event, fields: () => ({ ...event.fields(), by }) };
}

function ownEvent(event: string, fields: Fields): AuditEvent {
  return { event, at: wallNow(), matters: true, fields: () => fields };
}

function hintFor(error: unknown, path: string): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case "ENOSPC":
    case "EDQUOT":
      return `Make room where ${path} is, or give the log less: --audit-keep.`;
    case "EROFS":
      return `Make the file system writable again, or put the log elsewhere: --audit DIR.`;
    case "EACCES":
    case "EPERM":
      return `Let the daemon's user write to ${path}, or put the log elsewhere: --audit DIR.`;
    default:
      return `Look at ${path} and its disk; --audit DIR puts the log elsewhere.`;
  }
}

const FAILING = "audit_failing";
const DISTURBED = "audit_disturbed";
const LINGER_MS = 250;
const PRESSING_MS = 10;
const RETRY_MS = 2_000;
const SEAL_INTERVAL_MS = 5_000;
/** Less than service managers wait for a daemon to end. */
const CLOSE_PATIENCE_MS = 4_000;
