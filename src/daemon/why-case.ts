/** What an explanation is about, and what one of its stages found. */
import type { PeerIdentity } from "../control/api.ts";
import type { WhyReply, WhySide, WhyStage } from "../control/why-api.ts";
import type { FlowFacts } from "../policy/rule.ts";
import type { OverlayPrefix } from "../wire/address.ts";
import type { NetworkId, NodeId } from "../wire/ids.ts";

export interface Case {
  readonly node: NodeId;
  /** Of both addresses. */
  readonly network: NetworkId;
  readonly peer: PeerIdentity;
  /** For people, and for commands. */
  readonly name: string;
  /** Who begins: the peer (`in`) or this host. */
  readonly direction: "in" | "out";
  /** Undefined: no flow was named. */
  readonly flow: NamedFlow | undefined;
  /** What rules ask about it; with `flow` undefined about no protocol in particular. */
  readonly facts: FlowFacts;
  readonly self: NodeId;
  readonly prefix: OverlayPrefix;
}

export interface NamedFlow {
  readonly name: "tcp" | "udp" | "icmp";
  /** Next-header number. */
  readonly protocol: number;
  /** Of the side that does not begin; 0 without ports. */
  readonly port: number;
}

export interface Failure {
  readonly side: WhySide;
  readonly code: string;
  readonly detail: string;
  readonly fix: string;
  readonly rule?: NonNullable<WhyReply["rule"]>;
}

export interface Passed {
  readonly state: Exclude<WhyStage["state"], "failed">;
  readonly detail: string;
  readonly rule?: NonNullable<WhyReply["rule"]>;
}

export type Outcome = Failure | Passed;

export function ok(detail: string): Passed {
  return { state: "ok", detail };
}

/** `tcp 443`, `icmp`: as a rule says it. */
export function ruleWords({ name, port }: NamedFlow): string {
  return name === "icmp" ? name : `${name} ${port}`;
}

/** `tcp/443`, `icmp`: as commands take it. */
export function flowWord({ name, port }: NamedFlow): string {
  return name === "icmp" ? name : `${name}/${port}`;
}

export const NO_FLOW: Passed = {
  state: "unknown",
  detail: "no flow was named: give tcp/PORT, udp/PORT or icmp",
};
