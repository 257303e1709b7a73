/**
 * What the page is told: one `view` a look at the daemon, and `history` once, for its curves. Made from the daemon's replies,
 * with everything bounded; text of others is as they wrote it, and the page makes it harmless.
 */
import type { PeerStatus, Problem, StatusReply } from "../control/api.ts";
import type { LiveEvent } from "../control/events-api.ts";
import type { FlowStatus } from "../control/policy-api.ts";
import type { TrustRequest } from "../control/trust-api.ts";

export interface View {
  /** Of the web server's clock; for rates and curves. */
  readonly atMs: number;
  /** Why there is nothing to show: the daemon does not run, or refuses. Null when `state` is there. */
  readonly failure: Problem | null;
  readonly state: State | null;
}

export interface State {
  readonly node: Omit<StatusReply, "peers" | "drops" | "problems">;
  readonly drops: Readonly<Record<string, number>>;
  readonly problems: readonly Problem[];
  /** At most MAX_PEERS, those that matter most first; `peersInAll` are there. */
  readonly peers: readonly PeerView[];
  readonly peersInAll: number;
  /** Bytes a second, of all peers; null at the first look. */
  readonly rxRate: number | null;
  readonly txRate: number | null;
  /** At most MAX_REQUESTS, the oldest first. */
  readonly requests: readonly TrustRequest[];
  readonly requestsInAll: number;
  /** At most MAX_FLOWS, those that had a packet last. */
  readonly flows: readonly FlowStatus[];
  readonly flowsInAll: number;
  /** Newest first, at most MAX_EVENTS of each. */
  readonly denials: readonly LiveEvent[];
  readonly events: readonly LiveEvent[];
}

export interface PeerView extends PeerStatus {
  /** Bytes a second; null at the first look. */
  readonly rxRate: number | null;
  readonly txRate: number | null;
}

/** Round trips that were measured: when, by the web server's clock, and how long; null: there was none to tell. */
export type RttPoint = readonly [atMs: number, rttMs: number | null];

/** First message of a stream. */
export interface Hello {
  /** What the token that was shown may do. */
  readonly role: Role;
  readonly version: string;
  /** By node number. */
  readonly history: readonly (readonly [node: number, points: readonly RttPoint[]])[];
}

/** `look`: everything but to answer; `change`: also to approve and deny. */
export type Role = "look" | "change";

/** What is answered, word for word as it was shown: another ask that came meanwhile is not what was meant. */
export type ShownRequest = Pick<TrustRequest, "node" | "fingerprint" | "reason" | "ports" | "forS" | "maxBytes">;

export const MAX_PEERS = 500;
export const MAX_REQUESTS = 100;
export const MAX_FLOWS = 100;
export const MAX_EVENTS = 50;
/** Of one peer's curve; at one a look they are five minutes. */
export const MAX_POINTS = 150;
export const LOOK_INTERVAL_MS = 2_000;
