/** The part of the local API that is about the audit log. Its records are read from its files, not through the daemon. */

type Empty = Readonly<Record<never, never>>;

export interface AuditMethods {
  /** Writes and seals what waits, and says how far the log is. Fails with `audit_off` when none is kept. */
  "audit/flush": { request: Empty; reply: AuditReply };
}

/** What the daemon implements. */
export interface AuditBackend {
  flush(request: Empty, signal: AbortSignal): Promise<AuditReply>;
}

export interface AuditReply {
  readonly directory: string;
  /** Number of the file that is written to; 0 before the first. */
  readonly file: number;
  /** Of the newest record on the disk; 0 and null before the first. */
  readonly seq: number;
  readonly hash: string | null;
  /** The newest record that the anchor vouches for. */
  readonly sealedSeq: number;
  /** Events that are not written yet. */
  readonly waiting: number;
  /** Events since the start that will never be, because too many waited. */
  readonly lost: number;
  /** Why writing fails; null when it does not. */
  readonly failure: string | null;
}
