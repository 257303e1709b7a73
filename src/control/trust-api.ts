/** The part of the local API that is about trust: asking, answering, taking back. */
import type { LeaseStatus, PeerIdentity, PeerRequest, PeerTrust } from "./api.ts";
import type { FlowStatus } from "./policy-api.ts";

type Empty = Readonly<Record<never, never>>;

export interface TrustMethods {
  "trust/ask": { request: TrustAskRequest; reply: TrustAskReply };
  "trust/pending": { request: Empty; reply: TrustPendingReply };
  "trust/approve": { request: TrustApproveRequest; reply: TrustChangeReply };
  "trust/deny": { request: PeerRequest; reply: TrustChangeReply };
  "trust/ls": { request: Empty; reply: TrustListReply };
  "trust/revoke": { request: PeerRequest; reply: RevokeReply };
}

/** What the daemon implements. */
export interface TrustBackend {
  ask(request: TrustAskRequest, signal: AbortSignal): Promise<TrustAskReply>;
  pending(request: Empty, signal: AbortSignal): Promise<TrustPendingReply>;
  approve(request: TrustApproveRequest, signal: AbortSignal): Promise<TrustChangeReply>;
  deny(request: PeerRequest, signal: AbortSignal): Promise<TrustChangeReply>;
  ls(request: Empty, signal: AbortSignal): Promise<TrustListReply>;
  revoke(request: PeerRequest, signal: AbortSignal): Promise<RevokeReply>;
}

/** Limits of an ask or an approval; what is absent is not limited. */
export interface LeaseTerms {
  /** `tcp/443,udp/53,tcp/8000-8099,icmp`: what the asker may reach at the one who approves, and nothing the other way. */
  readonly ports?: string;
  readonly forMs?: number;
  /** Of IP packets in both directions. */
  readonly maxBytes?: number;
}

export interface TrustAskRequest extends LeaseTerms {
  readonly peer: string;
  /** Shown to the peer's operator; at most MAX_REASON_LENGTH characters. */
  readonly reason?: string;
}

export const MAX_REASON_LENGTH = 512;

export interface TrustAskReply {
  readonly peer: PeerIdentity;
  /** `mutual` when the peer had asked before, or consented at once. */
  readonly trust: PeerTrust;
  /** What holds now; null: without limits. */
  readonly lease: LeaseStatus | null;
  /** The peer has something to answer; false when it had consented to what was asked already. */
  readonly waits: boolean;
  /** How the question went out; `queued` when neither way worked yet and it will be sent again. */
  readonly delivered: "direct" | "registry" | "queued";
}

/** Narrows what was asked for; without a request that waits it sets other limits for a trust that is mutual. */
export interface TrustApproveRequest extends LeaseTerms {
  readonly peer: string;
}

export interface TrustRequest extends PeerIdentity {
  readonly reason: string;
  /** What it asks for; null where it asks without limit. */
  readonly ports: readonly string[] | null;
  readonly forS: number | null;
  readonly maxBytes: number | null;
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
  /** What this side grants; null: without limits. */
  readonly lease: LeaseStatus | null;
}

export interface TrustEntry extends PeerIdentity {
  readonly trust: PeerTrust;
  /** Null: without limits. */
  readonly lease: LeaseStatus | null;
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
