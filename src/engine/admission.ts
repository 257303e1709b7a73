/**
 * Where a packet meets the policy: once per flow, by the direction of its first packet; again when trust, policy or time
 * changed what was decided. Replies pass with their flow. Trust was asked before: nothing here lets an untrusted peer in.
 */
import type { DropReason } from "../base/drop-reason.ts";
import type { Deadline, Instant, WallClock } from "../base/instant.ts";
import { emptyFlowKey, type FlowKey, readFlowKey, SHAPE, type Side, transportOf } from "../policy/flow-key.ts";
import type { Flow, FlowTable } from "../policy/flow-table.ts";
import type { Lockdown, Policy } from "../policy/policy.ts";
import type { Direction, FlowFacts, Rule } from "../policy/rule.ts";
import type { SocketOwner } from "../policy/socket-owner.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { TrustRecord } from "../trust/trust-record.ts";
import type { Link } from "../tunnel/link.ts";
import { networkAt } from "../wire/address.ts";
import type { NetworkId, NodeId, PilotAddress } from "../wire/ids.ts";
import { IPV6_HEADER_BYTES, NEXT_HEADER } from "../wire/ipv6.ts";
import { TCP, TCP_FLAG } from "../wire/tcp.ts";
import type { AuditTrail } from "./audit-trail.ts";
import { type FlowFactsFinder, hasPorts } from "./flow-facts.ts";
import type { Governor } from "./governor.ts";
import type { Leases } from "./leases.ts";
import type { OwnerQuestions } from "./owner-questions.ts";
import type { PeerTags } from "./peer-tags.ts";
import type { Refusals } from "./refusals.ts";

export interface AdmissionParts {
  readonly policy: Policy;
  readonly governor: Governor;
  readonly leases: Leases;
  readonly owners: OwnerQuestions;
  readonly tags: Pick<PeerTags, "want">;
  readonly facts: FlowFactsFinder;
  readonly flows: FlowTable;
  readonly trust: TrustBook;
  readonly refusals: Pick<Refusals, "cut">;
  wall(now: Instant): WallClock;
  /** The time of flows. */
  steadyS(now: Instant): number;
  readonly trail: AuditTrail | undefined;
}

export class Admission {
  /** New flows, judged. */
  readonly counters = { allowed: 0, denied: 0 };
  readonly policy: Policy;
  readonly #parts: AdmissionParts;
  #wakeAt: Instant | undefined;

  constructor(parts: AdmissionParts) {
    this.#parts = parts;
    this.policy = parts.policy;
  }

  /** A TCP header right after the IPv6 header: its end is the flow's. */
  noteTcpEnd(bytes: Uint8Array, offset: number, flow: number, side: Side): void {
    const flags = bytes[offset + IPV6_HEADER_BYTES + TCP.FLAGS]!;
    if ((flags & (TCP_FLAG.FIN | TCP_FLAG.RST)) === 0) return;
    this.#parts.flows.noteClosing(flow, side === "source-is-remote", (flags & TCP_FLAG.RST) !== 0);
  }

  /**
   * The peer is trusted and the addresses are right: the entry of a flow that may pass, or why it may not. "waits": that
   * depends on whose socket it is, which has been asked; the packet is to be held (`OwnerQuestions.hold`).
   */
  open(key: FlowKey, link: Link, side: Side, now: Instant): number | DropReason | "waits" {
    const { flows, trust, governor } = this.#parts;
    const nowS = this.#parts.steadyS(now);
    const isRemote = side === "source-is-remote";
    const known = flows.find(key);
    const goesOn =
      known >= 0 &&
      flows.linkOf(known) === link.index &&
      !flows.isIdle(known, nowS) &&
      !(key.opens && !flows.continues(known, isRemote));
    const owner = goesOn ? flows.ownerOf(known) : undefined;
    const direction = goesOn ? flows.directionOf(known) : isRemote ? "in" : "out";
    let begun = this.#judge(key, link.node, direction, owner, now);
    // A server of ours goes on with a connection that began before this daemon did.
    const mayResume = !goesOn && !isRemote && !key.opens && key.protocol === NEXT_HEADER.TCP;
    if ((begun === "policy" || begun === "lease") && mayResume) {
      const resumed = this.#judge(key, link.node, "in", owner, now);
      begun = resumed === "policy" || resumed === "lease" ? begun : resumed;
    }
    if (typeof begun === "string") return begun;
    const isGoverned = governor.governs(begun.verdict);
    const beyond = goesOn || !isGoverned ? undefined : governor.mayBegin(begun.verdict, link.node, now);
    if (beyond !== undefined) {
      this.policy.refusedBy = begun.verdict;
      return beyond;
    }
    const openingSequence = key.opens && key.protocol === NEXT_HEADER.TCP ? key.openingSequence : undefined;
    const how = { ...begun, isGoverned, isNew: !goesOn, openingSequence };
    const flow = flows.allow(key, link.index, trust.epoch, nowS, how);
    if (flow >= 0 && !goesOn) governor.noteBegun(begun.verdict, link.node, now);
    return flow < 0 ? "flow-limit" : flow;
  }

  /**
   * Whether a flow with a trusted peer may begin, by its lease and by the policy. "by-program": that depends on whose local
   * socket it is, and `owner` is not known.
   */
  mayBegin(facts: FlowFacts): boolean | "by-program" {
    if (!this.#isLeased(facts)) return false;
    if (facts.owner === undefined && this.policy.ownerMatters(facts)) return "by-program";
    return this.policy.allows(this.policy.judge(facts));
  }

  /** What rules ask about a flow that is not there yet. */
  factsOf(
    node: NodeId,
    network: NetworkId,
    direction: Direction,
    protocol: number,
    port: number,
    owner?: SocketOwner,
  ): FlowFacts {
    return this.#parts.facts.of(node, network, direction, protocol, port, owner);
  }

  /** Why no further flow of the peer may begin under the rule of this verdict, for now; undefined: one may. */
  exhaustion(verdict: number, node: NodeId, now: Instant): DropReason | undefined {
    return this.#parts.governor.governs(verdict) ? this.#parts.governor.mayBegin(verdict, node, now) : undefined;
  }

  /** Whether a service of this daemon, which no program owns, answers a trusted peer at a TCP port. */
  letsIn({ node, network }: PilotAddress, port: number): boolean {
    const facts = this.#parts.facts.of(node, network, "in", NEXT_HEADER.TCP, port);
    return this.#isLeased(facts) && this.policy.allows(this.policy.judge(facts));
  }

  /**
   * False when a trusted peer's TCP connection to a port of ours, from its own address in a network, has no chance; its
   * first packet is judged all the same.
   */
  mayLetIn({ node, network }: PilotAddress, port: number): boolean {
    return this.mayBegin(this.#parts.facts.of(node, network, "in", NEXT_HEADER.TCP, port)) !== false;
  }

  /** A packet that was made out of what a trusted plain agent sent: why it may not pass, or undefined. */
  admitTranslated(packet: Uint8Array, link: Link, byRelay: boolean, now: Instant): DropReason | "waits" | undefined {
    const key = emptyFlowKey(new DataView(packet.buffer, packet.byteOffset, packet.byteLength));
    if (readFlowKey(packet, 0, packet.length, "source-is-remote", key) !== SHAPE.FLOW) return "malformed-packet";
    const refused = this.#admitKey(key, packet, link, byRelay, now);
    if (refused !== undefined && refused !== "waits") this.#parts.trail?.denied(refused, "in", link.node, key);
    return refused;
  }

  #admitKey(
    key: FlowKey,
    packet: Uint8Array,
    link: Link,
    byRelay: boolean,
    now: Instant,
  ): DropReason | "waits" | undefined {
    const { flows, trust, governor, leases } = this.#parts;
    const nowS = this.#parts.steadyS(now);
    const flow = flows.find(key);
    const isKnown = flow >= 0 && flows.linkOf(flow) === link.index;
    const isLive = isKnown && flows.isLive(flow, trust.epoch, nowS, key.opens, true);
    const opened = isLive ? flow : this.open(key, link, "source-is-remote", now);
    if (opened === "waits") {
      const waiting = { node: link.node, packet, byRelay, isTranslated: true };
      return this.#parts.owners.hold(waiting) ? "waits" : "owner-queue-full";
    }
    if (typeof opened === "string") return opened;
    const beyond = flows.isGoverned(opened) ? governor.passIn(opened, link, byRelay, packet.length, now) : undefined;
    if (beyond !== undefined) return beyond;
    if (!leases.spend(link.index, packet.length)) return "lease-ended";
    flows.noteReceived(opened, packet.length, nowS);
    return undefined;
  }

  /** What rules ask about peers is otherwise than it was. Returns the flows that this cut. */
  handleChangedFacts(now: Instant): Flow[] {
    return this.#changed(now);
  }

  /** Whose socket a live flow has was found out later; counts when the policy changes. */
  noteOwner(flow: Flow, owner: SocketOwner): void {
    this.#parts.flows.noteOwner(flow.id, owner);
  }

  /** Undefined: no policy. Returns the flows that it cut. */
  replaceRules(rules: readonly Rule[] | undefined, now: Instant): Flow[] {
    this.policy.replace(rules, this.#parts.wall(now));
    this.#parts.governor.replaceRules(rules);
    this.#parts.tags.want(this.policy.asksForTags, now);
    return this.#changed(now);
  }

  setLockdown(lockdown: Lockdown | undefined, now: Instant): Flow[] {
    this.policy.setLockdown(lockdown);
    return this.#changed(now);
  }

  /** Live flows that `policy` would cut. */
  preview(policy: Policy, now: Instant): Flow[] {
    const { flows, facts } = this.#parts;
    const cut = this.#live(now).filter((entry) => !policy.allows(policy.judge(facts.ofEntry(entry)!)));
    return cut.map((entry) => flows.read(entry));
  }

  /** Live flows of peers that are trusted. */
  list(now: Instant): Flow[] {
    return this.#live(now).map((entry) => this.#parts.flows.read(entry));
  }

  /** Of these the `most` that had a packet last, and how many there are. */
  recent(most: number, now: Instant): { readonly flows: Flow[]; readonly total: number } {
    const { flows } = this.#parts;
    const entries = this.#live(now);
    const total = entries.length;
    if (total > most) entries.sort((a, b) => flows.lastSeenS(b) - flows.lastSeenS(a));
    return { flows: entries.slice(0, most).map((entry) => flows.read(entry)), total };
  }

  #live(now: Instant): number[] {
    const { flows, facts } = this.#parts;
    return flows.live(this.#parts.steadyS(now)).filter((entry) => facts.isTrusted(entry));
  }

  /** Ends one flow; it may begin again if the policy allows. */
  kill(id: string): Flow | undefined {
    const flow = this.#parts.flows.cutOne(id);
    if (flow !== undefined) this.#parts.refusals.cut([flow]);
    return flow;
  }

  nodeOf(flow: Flow): NodeId | undefined {
    return this.#parts.facts.nodeOf(flow);
  }

  fingerprintOf(record: TrustRecord | undefined): string | undefined {
    return this.#parts.facts.fingerprintOf(record);
  }

  /** Somebody set the clock, or the machine slept: rules may have ended, and ones that had may be in force again. */
  handleClockSet(now: Instant): void {
    this.#passTime(now, (wall) => this.policy.reconsider(wall));
  }

  /** What leases let begin is not what it was. */
  leasesChanged(now: Instant): void {
    this.#changed(now);
  }

  handleTimeout(now: Instant): void {
    if (this.#wakeAt === undefined || this.#wakeAt > now) return;
    this.#passTime(now, (wall) => this.policy.expire(wall));
    this.#arm(now);
  }

  pollTimeout(): Deadline | undefined {
    return this.#wakeAt === undefined ? undefined : { at: this.#wakeAt, reason: "a rule ends" };
  }

  #passTime(now: Instant, reconsider: (wall: WallClock) => boolean): void {
    const wasLocked = this.policy.lockdown !== undefined;
    if (!reconsider(this.#parts.wall(now))) return;
    const cut = this.#changed(now);
    this.#parts.trail?.policyExpired(cut.length, wasLocked && this.policy.lockdown === undefined);
  }

  #changed(now: Instant): Flow[] {
    this.#parts.trust.bumpEpoch();
    this.#arm(now);
    const verdictOf = (entry: number) => {
      const facts = this.#parts.facts.ofEntry(entry);
      if (facts === undefined || !this.#isLeased(facts)) return undefined;
      return this.policy.judge(facts);
    };
    const allows = (verdict: number) => this.policy.allows(verdict);
    const cut = this.#parts.flows.rejudge(verdictOf, allows, this.#parts.steadyS(now));
    this.#parts.refusals.cut(cut);
    return cut;
  }

  /** The wall clock may be set meanwhile: it is looked at again and again, not only when a rule should end. */
  #arm(now: Instant): void {
    const { expiresAt } = this.policy;
    const leftMs = expiresAt === undefined ? undefined : Math.max(expiresAt - this.#parts.wall(now), 0);
    this.#wakeAt = leftMs === undefined ? undefined : ((now + Math.min(leftMs, LOOK_INTERVAL_MS)) as Instant);
  }

  /** `owner` as far as it is known; where the answer depends on it, it is asked for. */
  #judge(
    key: FlowKey,
    node: NodeId,
    direction: Direction,
    owner: SocketOwner | undefined,
    now: Instant,
  ): Verdict | "lease" | "policy" | "owner-queue-full" | "waits" {
    let facts = this.#factsOf(key, node, direction, owner);
    if (!this.#isLeased(facts)) return "lease";
    if (owner === undefined && this.policy.ownerMatters(facts)) {
      const { owners } = this.#parts;
      const answer = owners.answerFor(key, direction);
      if (answer === undefined) {
        return owners.ask(key, direction, node, this.policy.asksForPrograms, now) ? "waits" : "owner-queue-full";
      }
      facts = this.#factsOf(key, node, direction, answer.owner);
    }
    const verdict = this.policy.judge(facts);
    if (this.policy.allows(verdict)) {
      this.counters.allowed++;
      return { direction, verdict, owner: facts.owner };
    }
    this.counters.denied++;
    this.policy.refusedBy = verdict;
    return "policy";
  }

  #isLeased({ node, direction, protocol, port }: FlowFacts): boolean {
    return this.#parts.leases.permits(node, direction, protocol, port);
  }

  #factsOf(key: FlowKey, node: NodeId, direction: Direction, owner: SocketOwner | undefined): FlowFacts {
    const protocol = transportOf(key.protocol);
    const port = hasPorts(protocol) ? (direction === "in" ? key.ports >>> 16 : key.ports & 0xffff) : 0;
    const network = networkAt(new Uint8Array(key.view.buffer, key.view.byteOffset + key.remoteOffset, 16), 0);
    return this.#parts.facts.of(node, network, direction, protocol, port, owner);
  }
}

interface Verdict {
  readonly direction: Direction;
  readonly verdict: number;
  readonly owner: SocketOwner | undefined;
}

const LOOK_INTERVAL_MS = 60_000;
