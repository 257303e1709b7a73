/**
 * What a policy says, as values: rules in the order in which they were written, and the lines that test them.
 * The first rule that matches a flow decides; a flow that none matches is denied.
 */
import type { WallClock } from "../base/instant.ts";
import type { NetworkId, NodeId, PilotAddress } from "../wire/ids.ts";
import { NEXT_HEADER } from "../wire/ipv6.ts";
import type { Quota } from "./quantities.ts";
import type { OwnerSelector, SocketOwner } from "./socket-owner.ts";

/** Who began: a peer (`in`) or this host (`out`). */
export type Direction = "in" | "out";

export type RuleProtocol = "tcp" | "udp" | "icmp" | "any";

export interface PortRange {
  readonly first: number;
  /** Included. */
  readonly last: number;
}

/** Which peers a rule speaks of. All of them need trust first: no rule lets a stranger in. */
export type Selector =
  | { readonly kind: "trusted" }
  /** Without `.pilot`. */
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "address"; readonly address: PilotAddress }
  /** The peer's address in this network. */
  | { readonly kind: "network"; readonly network: NetworkId }
  /** `SHA256:` and base64, as `trust ls` prints it. */
  | { readonly kind: "key"; readonly fingerprint: string }
  /** The peer gives itself this tag at the registry. */
  | { readonly kind: "tag"; readonly tag: string };

/**
 * What an allowing rule grants only in amounts, or only on one way. Each peer has its own share, which all its flows under
 * the rule use together.
 */
export interface Terms {
  /** Bytes a second in each direction; what is beyond is lost. */
  readonly limitBytesPerS: number | undefined;
  /** Bytes in both directions together; what would be beyond is refused. */
  readonly budget: Quota | undefined;
  /** New flows. */
  readonly flows: Quota | undefined;
  /** The way that packets of its flows may take. */
  readonly via: Way | undefined;
}

export type Way = "direct" | "relay";

export interface SourcePosition {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** From 1. */
  readonly column: number;
}

export interface Rule {
  readonly action: "allow" | "deny";
  readonly direction: Direction;
  readonly protocol: RuleProtocol;
  /** The port that the side which did not begin listens on; undefined: every port. Never empty. */
  readonly ports: readonly PortRange[] | undefined;
  readonly peer: Selector;
  /** Whose local socket; undefined: anybody's, also when nobody knows whose. */
  readonly owner: OwnerSelector | undefined;
  /** From this moment on the rule is not there. */
  readonly until: WallClock | undefined;
  /** Undefined: none, the flow costs nothing to keep. */
  readonly terms: Terms | undefined;
  readonly source: SourcePosition;
  /** The line as written, without its comment. */
  readonly text: string;
}

/** `test allow in tcp 22 from bob`: what the rules must say of such a flow, whatever the amounts. */
export interface PolicyTest {
  readonly expected: "allow" | "deny";
  readonly direction: Direction;
  readonly protocol: RuleProtocol;
  readonly port: number;
  readonly peer: Selector;
  readonly owner: OwnerSelector | undefined;
  readonly source: SourcePosition;
  readonly text: string;
}

/** One flow, as its first packet shows it. */
export interface FlowFacts {
  readonly direction: Direction;
  /** Next-header number of the transport. */
  readonly protocol: number;
  /** Of the side that did not begin; 0 without ports. */
  readonly port: number;
  readonly node: NodeId;
  /** Of the peer's address. */
  readonly network: NetworkId;
  /** Undefined when it has none. */
  readonly name: string | undefined;
  /** Undefined when its key is not known. */
  readonly fingerprint: string | undefined;
  /** What the peer calls itself, as far as the registry told us. */
  readonly tags: readonly string[];
  /** Whose local socket it is; undefined when that is not known, or was not asked. */
  readonly owner: SocketOwner | undefined;
}

export function protocolNumber(protocol: Exclude<RuleProtocol, "any">): number {
  return { tcp: NEXT_HEADER.TCP, udp: NEXT_HEADER.UDP, icmp: NEXT_HEADER.ICMPV6 }[protocol];
}
