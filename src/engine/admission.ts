/**
 * Where a packet meets the policy: once per flow, by the direction of its first packet; again when trust, policy or time
 * changed what was decided. Replies pass with their flow, ICMPv6 errors with the flow they speak of, fragments with the
 * first of their packet. Trust was asked before: nothing here lets an untrusted peer in.
 */
import { toBase64 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { DropReason } from "../base/drop-reason.ts";
import type { Deadline, Instant, WallClock } from "../base/instant.ts";
import {
  asOwnFlow,
  type FlowKey,
  fragmentId,
  readFlowKey,
  SHAPE,
  type Shape,
  type Side,
  transportOf,
} from "../policy/flow-key.ts";
import type { Flow, FlowTable } from "../policy/flow-table.ts";
import { Fragments } from "../policy/fragments.ts";
import type { Lockdown, Policy } from "../policy/policy.ts";
import type { Direction, FlowFacts, Rule } from "../policy/rule.ts";
import type { Routes } from "../routing/routes.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { TrustRecord } from "../trust/trust-record.ts";
import type { Link } from "../tunnel/link.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import { networkAt } from "../wire/address.ts";
import { type NetworkId, type NodeId, networkId, type PilotAddress } from "../wire/ids.ts";
import { IPV6_HEADER_BYTES, NEXT_HEADER } from "../wire/ipv6.ts";
import { TCP, TCP_FLAG } from "../wire/tcp.ts";
import type { Governor } from "./governor.ts";
import type { Leases } from "./leases.ts";
import type { Refusals } from "./refusals.ts";

export interface AdmissionParts {
  readonly policy: Policy;
  readonly governor: Governor;
  readonly leases: Leases;
  readonly flows: FlowTable;
  readonly trust: TrustBook;
  readonly links: LinkTable;
  readonly routes: Routes;
  readonly crypto: Crypto;
  readonly refusals: Pick<Refusals, "cut">;
  wall(now: Instant): WallClock;
  /** The time of flows. */
  steadyS(now: Instant): number;
}

export class Admission {
  readonly policy: Policy;
  readonly #parts: AdmissionParts;
  readonly #fragments = new Fragments();
  #wakeAt: Instant | undefined;

  constructor(parts: AdmissionParts) {
    this.#parts = parts;
    this.policy = parts.policy;
  }

  /** For a packet whose shape is not simply FLOW: the flow that it goes with, or -1. May rewrite the key. */
  findRelated(
    shape: Shape,
    bytes: Uint8Array,
    offset: number,
    length: number,
    side: Side,
    key: FlowKey,
    nowS: number,
  ): number {
    const { flows } = this.#parts;
    switch (shape) {
      case SHAPE.ICMP_ERROR:
        return this.#findQuoted(bytes, offset, side, key);
      case SHAPE.LATER_FRAGMENT: {
        const id = fragmentId(bytes, offset, length);
        const link = this.#remoteLink(bytes, offset, side);
        const isOutbound = side === "source-is-local";
        const flow =
          id === undefined || link === undefined ? -1 : this.#fragments.find(link.index, key, isOutbound, id, nowS);
        return flow >= 0 && flows.linkOf(flow) === link?.index ? flow : flows.find(key);
      }
      default:
        return flows.find(key);
    }
  }

  /** The first fragment of a packet goes through with `flow`. */
  noteFirstFragment(
    bytes: Uint8Array,
    offset: number,
    length: number,
    side: Side,
    key: FlowKey,
    flow: number,
    nowS: number,
  ): void {
    const id = fragmentId(bytes, offset, length);
    const link = this.#parts.flows.linkOf(flow);
    if (id !== undefined) this.#fragments.note(link, key, side === "source-is-local", id, flow, nowS);
  }

  /** A TCP header right after the IPv6 header: its end is the flow's. */
  noteTcpEnd(bytes: Uint8Array, offset: number, flow: number): void {
    const flags = bytes[offset + IPV6_HEADER_BYTES + TCP.FLAGS]!;
    if ((flags & (TCP_FLAG.FIN | TCP_FLAG.RST)) !== 0) this.#parts.flows.noteClosing(flow);
  }

  /** The peer is trusted and the addresses are right: the entry of a flow that may pass, or why it may not. */
  open(key: FlowKey, link: Link, side: Side, now: Instant): number | DropReason {
    const { flows, trust, governor } = this.#parts;
    const nowS = this.#parts.steadyS(now);
    const isRemote = side === "source-is-remote";
    const known = flows.find(key);
    const goesOn =
      known >= 0 &&
      flows.linkOf(known) === link.index &&
      !flows.isIdle(known, nowS) &&
      !(key.opens && !flows.continues(known, isRemote));
    const remotely = goesOn ? flows.beganRemotely(known) : isRemote;
    const begun = this.#allowed(key, link.node, remotely) ?? this.#resumed(key, link.node, isRemote, goesOn);
    if (begun === undefined) return this.#isLeased(key, link.node, remotely) ? "policy" : "lease";
    const isGoverned = governor.governs(begun.verdict);
    const beyond = goesOn || !isGoverned ? undefined : governor.mayBegin(begun.verdict, link.node, now);
    if (beyond !== undefined) return beyond;
    const flow = flows.allow(key, link.index, trust.epoch, nowS, { ...begun, isGoverned, isNew: !goesOn });
    if (flow >= 0 && !goesOn) governor.noteBegun(begun.verdict, link.node, now);
    return flow < 0 ? "flow-limit" : flow;
  }

  /** What the policy says of a flow that is not there yet. */
  judge(node: NodeId, network: NetworkId, direction: Direction, protocol: number, port: number): number {
    return this.policy.judge(this.#facts(node, network, direction, protocol, port));
  }

  /** A trusted peer's TCP connection to a port of ours, from its own address in a network. */
  letsIn({ node, network }: PilotAddress, port: number): boolean {
    const isLeased = this.#parts.leases.permits(node, "in", NEXT_HEADER.TCP, port);
    return isLeased && this.policy.allows(this.judge(node, network, "in", NEXT_HEADER.TCP, port));
  }

  /** A packet that was made out of what a trusted plain agent sent: why it may not pass, or undefined. */
  admitTranslated(packet: Uint8Array, link: Link, now: Instant): DropReason | undefined {
    const { flows, trust, governor, leases } = this.#parts;
    const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
    const key: FlowKey = { view, remoteOffset: 0, localOffset: 0, ports: 0, protocol: 0, opens: false };
    if (readFlowKey(packet, 0, packet.length, "source-is-remote", key) !== SHAPE.FLOW) return "malformed-packet";
    const nowS = this.#parts.steadyS(now);
    const flow = flows.find(key);
    const isKnown = flow >= 0 && flows.linkOf(flow) === link.index;
    const isLive = isKnown && flows.isLive(flow, trust.epoch, nowS, key.opens, true);
    const opened = isLive ? flow : this.open(key, link, "source-is-remote", now);
    if (typeof opened === "string") return opened;
    const beyond = flows.isGoverned(opened) ? governor.passIn(opened, link, packet.length, now) : undefined;
    if (beyond !== undefined) return beyond;
    if (!leases.spend(link.index, packet.length)) return "lease-ended";
    flows.noteReceived(opened, packet.length, nowS);
    return undefined;
  }

  /** Undefined: no policy. Returns the flows that it cut. */
  replaceRules(rules: readonly Rule[] | undefined, now: Instant): Flow[] {
    this.policy.replace(rules, this.#parts.wall(now));
    this.#parts.governor.replaceRules(rules);
    return this.#changed(now);
  }

  setLockdown(lockdown: Lockdown | undefined, now: Instant): Flow[] {
    this.policy.setLockdown(lockdown);
    return this.#changed(now);
  }

  /** Live flows that `policy` would cut. */
  preview(policy: Policy, now: Instant): Flow[] {
    return this.list(now).filter((flow) => !policy.allows(policy.judge(this.#factsOf(flow)!)));
  }

  /** Live flows of peers that are trusted. */
  list(now: Instant): Flow[] {
    return this.#parts.flows.list(this.#parts.steadyS(now)).filter((flow) => this.#factsOf(flow) !== undefined);
  }

  /** Ends one flow; it may begin again if the policy allows. */
  kill(id: string): Flow | undefined {
    const flow = this.#parts.flows.cutOne(id);
    if (flow !== undefined) this.#parts.refusals.cut([flow]);
    return flow;
  }

  nodeOf(flow: Flow): NodeId | undefined {
    return this.#parts.links.at(flow.link)?.node;
  }

  fingerprintOf(record: TrustRecord | undefined): string | undefined {
    if (record?.publicKey === undefined) return undefined;
    return `SHA256:${toBase64(this.#parts.crypto.sha256(record.publicKey)).replace(/=+$/, "")}`;
  }

  /** Somebody set the clock, or the machine slept: rules may have ended, and ones that had may be in force again. */
  handleClockSet(now: Instant): void {
    if (this.policy.reconsider(this.#parts.wall(now))) this.#changed(now);
  }

  /** What leases let begin is not what it was. */
  leasesChanged(now: Instant): void {
    this.#changed(now);
  }

  handleTimeout(now: Instant): void {
    if (this.#wakeAt === undefined || this.#wakeAt > now) return;
    if (this.policy.expire(this.#parts.wall(now))) this.#changed(now);
    this.#arm(now);
  }

  pollTimeout(): Deadline | undefined {
    return this.#wakeAt === undefined ? undefined : { at: this.#wakeAt, reason: "a rule ends" };
  }

  #changed(now: Instant): Flow[] {
    this.#parts.trust.bumpEpoch();
    this.#arm(now);
    const verdictOf = (flow: Flow) => {
      const facts = this.#factsOf(flow);
      if (facts === undefined || !this.#parts.leases.permits(facts.node, facts.direction, facts.protocol, facts.port)) {
        return undefined;
      }
      const verdict = this.policy.judge(facts);
      return this.policy.allows(verdict) ? verdict : undefined;
    };
    const cut = this.#parts.flows.rejudge(verdictOf, this.#parts.steadyS(now));
    this.#parts.refusals.cut(cut);
    return cut;
  }

  /** The wall clock may be set meanwhile: it is looked at again and again, not only when a rule should end. */
  #arm(now: Instant): void {
    const { expiresAt } = this.policy;
    const leftMs = expiresAt === undefined ? undefined : Math.max(expiresAt - this.#parts.wall(now), 0);
    this.#wakeAt = leftMs === undefined ? undefined : ((now + Math.min(leftMs, LOOK_INTERVAL_MS)) as Instant);
  }

  #allowed(key: FlowKey, node: NodeId, remotely: boolean): Opening | undefined {
    if (!this.#isLeased(key, node, remotely)) return undefined;
    const protocol = transportOf(key.protocol);
    const port = portOf(key, remotely);
    const network = networkAt(new Uint8Array(key.view.buffer, key.view.byteOffset + key.remoteOffset, 16), 0);
    const verdict = this.judge(node, network, remotely ? "in" : "out", protocol, port);
    return this.policy.allows(verdict) ? { remotely, verdict } : undefined;
  }

  #isLeased(key: FlowKey, node: NodeId, remotely: boolean): boolean {
    const direction = remotely ? "in" : "out";
    return this.#parts.leases.permits(node, direction, transportOf(key.protocol), portOf(key, remotely));
  }

  /** A server of ours goes on with a connection that began before this daemon did. */
  #resumed(key: FlowKey, node: NodeId, isRemote: boolean, goesOn: boolean): Opening | undefined {
    const mayResume = !goesOn && !isRemote && !key.opens && key.protocol === NEXT_HEADER.TCP;
    return mayResume ? this.#allowed(key, node, true) : undefined;
  }

  #findQuoted(bytes: Uint8Array, offset: number, side: Side, key: FlowKey): number {
    const { flows } = this.#parts;
    const isOurs = this.#inPrefix(key);
    const flow = isOurs ? flows.find(key) : -1;
    const link = this.#remoteLink(bytes, offset, side);
    if (flow >= 0 && link !== undefined && flows.linkOf(flow) === link.index) return flow;
    asOwnFlow(offset, side, key);
    return flows.find(key);
  }

  #inPrefix(key: FlowKey): boolean {
    const word = this.#parts.routes.prefixWord;
    return key.view.getInt32(key.localOffset) === word && key.view.getInt32(key.remoteOffset) === word;
  }

  /** The link of the packet's far end, when the near end is ours. */
  #remoteLink(bytes: Uint8Array, offset: number, side: Side): Link | undefined {
    const isOutbound = side === "source-is-local";
    const { routes, links } = this.#parts;
    if (!routes.isLocal(bytes, offset + (isOutbound ? 8 : 24))) return undefined;
    const node = routes.ownerOf(bytes, offset + (isOutbound ? 24 : 8));
    return node === undefined ? undefined : links.get(node);
  }

  /** Undefined for a flow of a peer that is gone or not trusted. */
  #factsOf(flow: Flow): FlowFacts | undefined {
    const node = this.nodeOf(flow);
    if (node === undefined || this.#parts.trust.stateOf(node) !== "mutual") return undefined;
    const network = networkId((flow.remote[2]! << 8) | flow.remote[3]!);
    const hasPorts = flow.protocol === NEXT_HEADER.TCP || flow.protocol === NEXT_HEADER.UDP;
    const port = hasPorts ? (flow.beganRemotely ? flow.localPort : flow.remotePort) : 0;
    return this.#facts(node, network, flow.beganRemotely ? "in" : "out", flow.protocol, port);
  }

  #facts(node: NodeId, network: NetworkId, direction: Direction, protocol: number, port: number): FlowFacts {
    const record = this.#parts.trust.get(node);
    const fingerprint = this.fingerprintOf(record);
    return {
      direction,
      protocol,
      port,
      node,
      network,
      name: record?.hostname,
      fingerprint,
      tags: [],
      owner: undefined,
    };
  }
}

/** Of the side that did not begin; 0 without ports. */
function portOf(key: FlowKey, remotely: boolean): number {
  const protocol = transportOf(key.protocol);
  if (protocol !== NEXT_HEADER.TCP && protocol !== NEXT_HEADER.UDP) return 0;
  return remotely ? key.ports >>> 16 : key.ports & 0xffff;
}

interface Opening {
  readonly remotely: boolean;
  readonly verdict: number;
}

const LOOK_INTERVAL_MS = 60_000;
