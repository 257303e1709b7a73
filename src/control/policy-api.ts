/**
 * The part of the local API that is about policy: what may pass, what passes now, and why something does not. Files are
 * named by absolute path and read by the daemon.
 */
import type { PeerIdentity } from "./api.ts";

type Empty = Readonly<Record<never, never>>;

export interface PolicyMethods {
  "policy/check": { request: PolicyCheckRequest; reply: PolicyCheckReply };
  "policy/show": { request: Empty; reply: PolicyShowReply };
  "policy/apply": { request: PolicyApplyRequest; reply: PolicyChangeReply };
  "policy/confirm": { request: Empty; reply: PolicyChangeReply };
  "policy/rollback": { request: Empty; reply: PolicyChangeReply };
  "policy/reload": { request: Empty; reply: PolicyChangeReply };
  flows: { request: Empty; reply: FlowsReply };
  "flows/kill": { request: FlowKillRequest; reply: FlowKillReply };
  lockdown: { request: LockdownRequest; reply: LockdownReply };
}

/** What the daemon implements. */
export interface PolicyBackend {
  check(request: PolicyCheckRequest, signal: AbortSignal): Promise<PolicyCheckReply>;
  show(request: Empty, signal: AbortSignal): Promise<PolicyShowReply>;
  apply(request: PolicyApplyRequest, signal: AbortSignal): Promise<PolicyChangeReply>;
  confirm(request: Empty, signal: AbortSignal): Promise<PolicyChangeReply>;
  rollback(request: Empty, signal: AbortSignal): Promise<PolicyChangeReply>;
  reload(request: Empty, signal: AbortSignal): Promise<PolicyChangeReply>;
  flows(request: Empty, signal: AbortSignal): Promise<FlowsReply>;
  kill(request: FlowKillRequest, signal: AbortSignal): Promise<FlowKillReply>;
  lockdown(request: LockdownRequest, signal: AbortSignal): Promise<LockdownReply>;
}

export interface PolicyCheckRequest {
  /** The files in use when absent. */
  readonly path?: string;
}

export interface PolicyPlace {
  readonly file: string;
  readonly line: number;
}

export interface PolicyMistake extends PolicyPlace {
  readonly column: number;
  readonly message: string;
  readonly hint: string;
}

export interface FailedTest extends PolicyPlace {
  readonly text: string;
  /** The rule that decided otherwise; null when none matched. */
  readonly decidedBy: (PolicyPlace & { readonly text: string }) | null;
}

export interface PolicyCheckReply {
  readonly rules: number;
  readonly tests: number;
  readonly mistakes: readonly PolicyMistake[];
  readonly failedTests: readonly FailedTest[];
  /** Live flows that would end, the first MAX_LISTED_CUTS; none while there are mistakes, null when no daemon runs. */
  readonly wouldCut: readonly FlowStatus[] | null;
  /** How many they are; null when no daemon runs. */
  readonly wouldCutFlows: number | null;
}

export interface RuleStatus extends PolicyPlace {
  readonly text: string;
  /** Seconds until it ends, negative when it is over; null for no end. */
  readonly endsInS: number | null;
}

export interface PolicyShowReply {
  /** `none`: every trusted peer reaches every port. */
  readonly source: "none" | "files";
  /** Where the policy is looked for. */
  readonly file: string;
  readonly rules: readonly RuleStatus[];
  /** Seconds until an applied policy is taken back; null when nothing waits for a confirmation. */
  readonly confirmWithinS: number | null;
  readonly lockdown: LockdownStatus | null;
}

export interface PolicyApplyRequest {
  readonly path: string;
  /** Taken back after this time unless confirmed; applied for good when absent. */
  readonly confirmMs?: number;
}

export const MAX_CONFIRM_MS = 3_600_000;

export interface PolicyChangeReply {
  readonly rules: number;
  /** The first MAX_LISTED_CUTS. */
  readonly cut: readonly FlowStatus[];
  readonly cutFlows: number;
  readonly confirmWithinS: number | null;
}

export interface FlowStatus {
  readonly id: string;
  readonly peer: PeerIdentity;
  /** `tcp`, `udp`, `icmp` or the next-header number. */
  readonly protocol: string;
  /** Who began: the peer (`in`) or this host (`out`). */
  readonly direction: "in" | "out";
  /** Null without ports. */
  readonly localPort: number | null;
  readonly remotePort: number | null;
  /** Null without a policy. */
  readonly rule: PolicyPlace | null;
  readonly ageS: number;
  readonly idleS: number;
  /** Of IP packets to the peer, headers included. */
  readonly txBytes: number;
  /** The same from the peer. */
  readonly rxBytes: number;
  /** Who owns the local socket; null when nobody knows: it is closed, in another network namespace, or the kernel's. */
  readonly program: ProgramStatus | null;
}

export interface ProgramStatus {
  /** Of the socket's user. */
  readonly uid: number;
  /** Of the youngest process that holds the socket; null when none can be seen. */
  readonly pid: number | null;
  /** As the kernel calls it. */
  readonly name: string | null;
  /** Of the system's service manager; null when it runs in none. */
  readonly unit: string | null;
}

export interface FlowsReply {
  /** Those that had a packet last, at most MAX_LISTED_FLOWS. */
  readonly flows: readonly FlowStatus[];
  readonly total: number;
}

/** What a reply and a person can take. */
export const MAX_LISTED_FLOWS = 10_000;
export const MAX_LISTED_CUTS = 1_000;

export interface FlowKillRequest {
  readonly id: string;
}

export interface FlowKillReply {
  readonly flow: FlowStatus;
}

export interface LockdownRequest {
  readonly on: boolean;
  /** Peers for whom the policy goes on. */
  readonly except?: readonly string[];
  readonly forMs?: number;
}

export const MAX_LOCKDOWN_MS = 30 * 86_400_000;
export const MAX_LOCKDOWN_PEERS = 64;

export interface LockdownStatus {
  readonly except: readonly PeerIdentity[];
  readonly sinceS: number;
  /** Null: until lifted. */
  readonly endsInS: number | null;
}

export interface LockdownReply {
  readonly lockdown: LockdownStatus | null;
  /** The first MAX_LISTED_CUTS. */
  readonly cut: readonly FlowStatus[];
  readonly cutFlows: number;
}
