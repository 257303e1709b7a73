/**
 * The part of the local API that tells what happens, as it happens: the events of the audit log, and some that are not worth
 * keeping (paths, problems). A program asks for what came after the last it knows, and is answered when there is something.
 */

export interface EventsMethods {
  events: { request: EventsRequest; reply: EventsReply };
}

/** What the daemon implements. */
export interface EventsBackend {
  next(request: EventsRequest, signal: AbortSignal): Promise<EventsReply>;
}

export interface EventsRequest {
  /** `run` and `next` of the last reply; without them the newest that the daemon remembers are told. */
  readonly run?: string;
  readonly after?: number;
  /** How long to wait for the first; 0 or absent: not at all. At most MAX_EVENTS_WAIT_MS. */
  readonly waitMs?: number;
}

export const MAX_EVENTS_WAIT_MS = 60_000;

export interface EventsReply {
  /** Another one after the daemon was started anew: its numbers begin again. */
  readonly run: string;
  /** For `after` of the next request. */
  readonly next: number;
  /** Events after `after` that the daemon no longer remembers. */
  readonly missed: number;
  readonly events: readonly LiveEvent[];
}

export interface LiveEvent {
  /** UTC, as `2030-12-31T18:00:00.000Z`. */
  readonly at: string;
  /** As in the audit log (docs/audit.md), or `path`, `problem`. */
  readonly event: string;
  readonly facts: Readonly<Record<string, unknown>>;
}
