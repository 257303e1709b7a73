/**
 * The part of the local API that explains: why a flow passes or not, one stage after the other, until the first that fails.
 * Stages and codes are stable; docs/why.md has the table.
 */
import type { PeerIdentity } from "./api.ts";
import type { PolicyPlace } from "./policy-api.ts";

export interface WhyMethods {
  why: { request: WhyRequest; reply: WhyReply };
}

/** What the daemon implements. */
export interface WhyBackend {
  explain(request: WhyRequest, signal: AbortSignal): Promise<WhyReply>;
}

export interface WhyRequest {
  /** Where the flow goes. With `from` it is this node, or left out. */
  readonly peer?: string;
  /** Absent: trust and path alone. */
  readonly protocol?: "tcp" | "udp" | "icmp";
  readonly port?: number;
  /** The peer that begins it; absent: this node does. */
  readonly from?: string;
}

/** In the order in which they are looked at. */
export const WHY_STAGES = [
  "name",
  "address",
  "local-rule",
  "consent",
  "lease",
  "budget",
  "path",
  "mtu",
  "remote-rule",
  "listener",
] as const;
export type WhyStageName = (typeof WHY_STAGES)[number];

/** Every code of a failed stage. The name of a peer may also fail with the codes of errors. */
export const WHY_CODES = {
  unknown_peer: "name",
  registry_down: "name",
  own_address: "name",
  key_changed: "address",
  not_member: "address",
  no_route: "address",
  no_address: "address",
  policy_no_match: "local-rule",
  policy_denied: "local-rule",
  locked_down: "local-rule",
  not_trusted: "consent",
  not_approved: "consent",
  not_answered: "consent",
  revoked: "consent",
  revoked_by_peer: "consent",
  lease_port: "lease",
  lease_ended: "lease",
  lease_spent: "lease",
  budget_spent: "budget",
  flows_spent: "budget",
  udp_blocked: "path",
  offline: "path",
  session_downgraded: "path",
  peer_silent: "path",
  wrong_path: "path",
  mtu_too_small: "mtu",
  remote_refused: "remote-rule",
  no_listener: "listener",
} as const satisfies Record<string, WhyStageName>;
export type WhyCode = keyof typeof WHY_CODES;

/** Whose decision or fault it is. */
export type WhySide = "local" | "remote" | "between";

export interface WhyStage {
  readonly stage: WhyStageName;
  /** `unknown`: not looked at, because an earlier one failed or no flow was named. `unknowable`: this node cannot find out. */
  readonly state: "ok" | "failed" | "unknown" | "unknowable";
  readonly detail: string;
}

export interface WhyReply {
  readonly peer: PeerIdentity | null;
  /** Who begins. */
  readonly direction: "in" | "out";
  readonly verdict: "allow" | "deny";
  /** The first that failed; null when none did. */
  readonly stage: WhyStageName | null;
  /** Null when nothing failed. */
  readonly side: WhySide | null;
  /** Stable, for programs; `allowed` when nothing failed. */
  readonly code: string;
  /** The rule of this host that decides. */
  readonly rule: (PolicyPlace & { readonly text: string }) | null;
  /** What to do; null when there is nothing. */
  readonly fix: string | null;
  readonly stages: readonly WhyStage[];
}
