/** The part of the local API that is about trust: asking, answering, taking back. */
import type { PeerIdentity, PeerRequest, PeerTrust } from "./api.ts";
import type { FlowStatus } from "./policy-api.ts";

type Empty = Readonly<Record<never, never>>;

export interface TrustMethods {
  "trust/ask": { request: TrustAskRequest; reply: TrustAskReply };
  "trust/pending": { request: Empty; reply: TrustPendingReply };
  "trust/approve": { request: PeerRequest; reply: TrustChangeReply };
  "trust/deny": { request: PeerRequest; reply: TrustChangeReply };
  "trust/ls": { request: Empty; reply: TrustListReply };
  "trust/revoke": { request: PeerRequest; reply: RevokeReply };
}

/** What the daemon implements. */
export interface TrustBackend {
  ask(request: TrustAskRequest, signal: AbortSignal): Promise<TrustAskReply>;
  pending(request: Empty, signal: AbortSignal): Promise<TrustPendingReply>;
  approve(request: PeerRequest, signal: AbortSignal): Promise<TrustChangeReply>;
  deny(request: PeerRequest, signal: AbortSignal): Promise<TrustChangeReply>;
  ls(request: Empty, signal: AbortSignal): Promise<TrustListReply>;
  revoke(request: PeerRequest, signal: AbortSignal): Promise<RevokeReply>;
}

export interface TrustAskRequest {
  readonly peer: string;
  /** Shown to the peer's operator; at most MAX_REASON_LENGTH characters. */
  readonly reason?: string;
}

export const MAX_REASON_LENGTH = 512;

export interface TrustAskReply {
  readonly peer: PeerIdentity;
  /** `mutual` when the peer had asked before, or consented at once. */
  readonly trust: PeerTrust;
  /** How the question went out; `queued` when neither way worked yet and it will be sent again. */
  readonly delivered: "direct" | "registry" | "queued";
}

export interface TrustRequest extends PeerIdentity {
  readonly reason: string;
  readonly askedAgoS: number;
  readonly fingerprint: string | null;
}

export interface TrustPendingReply {
  readonly requests: readonly TrustRequest[];
}

/** Answer of approve and deny. */
export interface TrustChangeReply {
  readonly peer: PeerIdentity;
  readonly trust: PeerTrust;
}

export interface TrustEntry extends PeerIdentity {
  readonly trust: PeerTrust;
  /** Seconds since the state was entered. */
  readonly sinceS: number;
  /** How many times this side has revoked this peer. */
  readonly epoch: number;
  readonly fingerprint: string | null;
}

export interface TrustListReply {
  /** Every peer with a record, tombstones included. */
  readonly entries: readonly TrustEntry[];
}

export interface RevokeReply {
  readonly peer: PeerIdentity;
  readonly epoch: number;
  /** How many live flows were cut. */
  readonly cutFlows: number;
  /** Which. */
  readonly cut: readonly FlowStatus[];
  /** From the request until the last flow was cut. */
  readonly elapsedMs: number;
  readonly peerTold: "acknowledged" | "sent" | "unreachable";
  /** When the acknowledgement came; null without one. */
  readonly toldAfterMs: number | null;
}
