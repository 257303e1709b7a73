/**
 * What happens in the engine, as events of the audit log: flows that begin and end, what is refused, what becomes of trust
 * (trust-trail.ts). Only what a packet's headers say, never a byte of what it carries.
 *
 * A flow gets records of its own within its peer's quota (audit/flow-quota.ts); the others, and everything refused, are
 * added up.
 */

import { flowIdOf } from "../audit/flow-id.ts";
import { FlowQuota } from "../audit/flow-quota.ts";
import { type AuditSink, clip, type Fields } from "../audit/record.ts";
import { type Scope, Tally } from "../audit/tally.ts";
import type { Crypto } from "../base/crypto.ts";
import type { DropReason } from "../base/drop-reason.ts";
import { formatEndpoint } from "../base/endpoint.ts";
import { type Deadline, type Instant, instant, type WallClock } from "../base/instant.ts";
import { isoUtc } from "../base/utc.ts";
import { type FlowKey, transportOf } from "../policy/flow-key.ts";
import type { Flow, FlowEnd, FlowTable, FlowWatch } from "../policy/flow-table.ts";
import { LOCKED_DOWN, NO_RULE, type Policy } from "../policy/policy.ts";
import type { Direction } from "../policy/rule.ts";
import { type SocketOwner, unitOf, workerOf } from "../policy/socket-owner.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { TrustRecord, TrustState } from "../trust/trust-record.ts";
import type { Link } from "../tunnel/link.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import type { OverlayPrefix } from "../wire/address.ts";
import { type NetworkId, type NodeId, networkId } from "../wire/ids.ts";
import { NEXT_HEADER } from "../wire/ipv6.ts";
import type { EngineEvent, OpenedFlow } from "./engine-ports.ts";
import type { Leases } from "./leases.ts";
import { PeerLabels } from "./peer-labels.ts";
import { TrustTrail } from "./trust-trail.ts";

export interface AuditTrailParts {
  readonly sink: AuditSink;
  readonly crypto: Pick<Crypto, "sha256">;
  readonly prefix: OverlayPrefix;
  readonly flows: FlowTable;
  readonly links: LinkTable;
  readonly trust: TrustBook;
  readonly policy: Pick<Policy, "ruleOf" | "refusedBy">;
  readonly networks: readonly NetworkId[];
  readonly leases: Pick<Leases, "permits" | "time">;
  /** The time of flows. */
  steadyS(now: Instant): number;
  emit(event: EngineEvent): void;
}

interface Denials {
  count: number;
  readonly since: WallClock;
  until: WallClock;
  /** The first few. */
  readonly ports: Set<number>;
  readonly fields: Fields;
}

interface Unrecorded {
  began: number;
  ended: number;
  txBytes: number;
  rxBytes: number;
  readonly since: WallClock;
  readonly fields: Fields;
}

export class AuditTrail implements FlowWatch {
  readonly #parts: AuditTrailParts;
  readonly #quota: FlowQuota;
  readonly #denials = new Tally<Denials>([1_000, 10_000, 60_000]);
  readonly #unrecorded = new Tally<Unrecorded>([10_000, 60_000]);
  readonly #labels: PeerLabels;
  readonly #trust: TrustTrail;
  #now: Instant;
  #wall: WallClock;
  #sweepAt: Instant | undefined;
  /** Bound: networks that an operator joined. */
  #networks: readonly NetworkId[];

  constructor(parts: AuditTrailParts, now: Instant, wall: WallClock) {
    this.#parts = parts;
    this.#now = now;
    this.#wall = wall;
    this.#quota = new FlowQuota(now);
    this.#networks = parts.networks;
    parts.flows.watch = this;
    this.#labels = new PeerLabels(parts.crypto, parts.prefix);
    this.#trust = new TrustTrail({
      ...{ sink: parts.sink, labels: this.#labels, now: () => this.#now, wall: () => this.#wall },
      leaseNow: () => parts.leases.time(this.#now),
    });
    parts.trust.watch = (before, after) => this.#trust.changed(before, after);
  }

  /** Before every input: what follows happens now. */
  handleClock(now: Instant, wall: WallClock): void {
    this.#now = now;
    this.#wall = wall;
  }

  // ---- flows

  began(flow: Flow): boolean {
    this.#sweepAt ??= instant(this.#now + this.#parts.flows.sweepMs);
    const node = this.#nodeOf(flow);
    if (node === undefined || !this.#quota.take(node, this.#now)) {
      this.#sumOf(flow).began++;
      return false;
    }
    const isResumed = flow.protocol === NEXT_HEADER.TCP && flow.openingSequence === undefined;
    const more = { verdict: "allow", path: this.#pathOf(flow), ...(isResumed ? { resumed: true } : {}) };
    const opened: OpenedFlow = { owner: flow.owner };
    this.#addFlow("flow-open", flow, node, more, opened);
    if (flow.owner?.programs[0] === undefined) this.#parts.emit({ kind: "flow-recorded", flow, opened });
    return true;
  }

  ended(flow: Flow, why: FlowEnd): void {
    const node = this.#nodeOf(flow);
    if (!flow.isRecorded || node === undefined) {
      this.#sumOf(flow).ended++;
      return this.cameLate(flow);
    }
    const ageS = Math.max(0, this.#parts.steadyS(this.#now) - flow.startedS);
    this.#addFlow("flow-close", flow, node, {
      path: this.#pathOf(flow),
      cause: why === "cut" ? this.#causeOfCut(flow, node) : why,
      began: isoUtc((this.#wall - ageS * 1000) as WallClock),
      seconds: Math.max(0, flow.lastSeenS - flow.startedS),
      txBytes: flow.sentBytes,
      rxBytes: flow.receivedBytes,
    });
  }

  cameLate(flow: Flow): void {
    const sum = this.#sumOf(flow);
    sum.txBytes += flow.sentBytes;
    sum.rxBytes += flow.receivedBytes;
  }

  // ---- refusals

  /** `node`: the peer, as far as one is meant. */
  denied(reason: DropReason, direction: Direction, node: NodeId | undefined, key: FlowKey): void {
    if (!DENIALS.has(reason)) return;
    const protocol = transportOf(key.protocol);
    const decidedBy = BY_RULE.has(reason) ? this.#parts.policy.refusedBy : undefined;
    const name = `${node} ${direction} ${protocol} ${reason} ${decidedBy}`;
    const begin = (scope: Scope): Denials => {
      const what = { direction, protocol: protocolName(protocol), reason, ...this.#decision(decidedBy) };
      return {
        count: 0,
        since: this.#wall,
        until: this.#wall,
        ports: new Set(),
        fields: {
          peer: this.#scopedPeer(scope, node),
          ...(scope === "key" ? what : { direction: null }),
          verdict: "deny",
          scope,
        },
      };
    };
    const sum = this.#denials.sumFor(node ?? NOBODY, name, this.#now, begin);
    sum.count++;
    sum.until = this.#wall;
    if (hasPorts(protocol) && sum.ports.size < MAX_PORTS) {
      sum.ports.add(direction === "in" ? key.ports >>> 16 : key.ports & 0xffff);
    }
  }

  // ---- trust, networks, policy

  keyOffered(record: TrustRecord, offered: Uint8Array): void {
    this.#trust.keyOffered(record, offered);
  }

  /** Of which networks this node is a member now. */
  networksChanged(networks: readonly NetworkId[]): void {
    const joined = networks.filter((network) => !this.#networks.includes(network));
    const left = this.#networks.filter((network) => !networks.includes(network));
    this.#networks = networks;
    if (joined.length + left.length > 0) this.#add("network", () => ({ joined, left }), true);
  }

  /** Rules, or a lockdown, ended by the clock. */
  policyExpired(cut: number, lockdownEnded: boolean): void {
    this.#add("policy", () => ({ change: lockdownEnded ? "lockdown-ended" : "rules-ended", cut }), true);
  }

  /** For whoever looks on: how a peer is reached now. */
  pathChanged(link: Link): void {
    const { node } = link;
    const path = link.isUp ? link.path.kind : "none";
    const endpoint = link.isUp && path === "direct" && link.path.direct ? formatEndpoint(link.path.direct) : null;
    const peer = this.#labels.of(node, this.#parts.trust.get(node));
    this.#parts.sink.add({ event: "path", at: this.#wall, isFleeting: true, fields: () => ({ peer, path, endpoint }) });
  }

  handleTimeout(now: Instant): void {
    for (const denials of this.#denials.take(now)) this.#addDenials(denials);
    for (const sum of this.#unrecorded.take(now)) this.#addUnrecorded(sum);
    this.#trust.take(now);
    if (this.#sweepAt === undefined || this.#sweepAt > now) return;
    const { flows } = this.#parts;
    flows.sweep(this.#parts.steadyS(now));
    this.#sweepAt = flows.size === 0 ? undefined : instant(now + flows.sweepMs);
  }

  pollTimeout(): Deadline | undefined {
    let first = sooner(this.#sweepAt, this.#denials.pollTimeout());
    first = sooner(first, this.#unrecorded.pollTimeout());
    first = sooner(first, this.#trust.pollTimeout());
    return first === undefined ? undefined : { at: first, reason: "the audit log" };
  }

  /** The end of the engine: everything that is still open or not told. */
  close(): void {
    this.#parts.flows.tellAll(this.#parts.steadyS(this.#now));
    for (const denials of this.#denials.takeAll(this.#now)) this.#addDenials(denials);
    for (const sum of this.#unrecorded.takeAll(this.#now)) this.#addUnrecorded(sum);
    this.#trust.takeAll(this.#now);
  }

  // ---- inside

  #add(event: string, fields: () => Fields, matters = false, byOperator = false): void {
    this.#parts.sink.add({ event, at: this.#wall, matters, byOperator, fields });
  }

  #addDenials({ count, since, until, ports, fields }: Denials): void {
    const found = { count, since: isoUtc(since), until: isoUtc(until), ports: [...ports].sort((a, b) => a - b) };
    this.#add("denial", () => ({ ...fields, ...found }));
  }

  #addUnrecorded({ fields, since, began, ended, txBytes, rxBytes }: Unrecorded): void {
    this.#add("flow-sum", () => ({ ...fields, since: isoUtc(since), began, ended, txBytes, rxBytes }));
  }

  #sumOf(flow: Flow): Unrecorded {
    const node = this.#nodeOf(flow);
    const direction = flow.beganRemotely ? "in" : "out";
    const port = flow.beganRemotely ? flow.localPort : flow.remotePort;
    const service = hasPorts(flow.protocol) ? port : null;
    const name = `${node} ${direction} ${flow.protocol} ${service} ${flow.verdict}`;
    return this.#unrecorded.sumFor(node ?? NOBODY, name, this.#now, (scope) => {
      const what = {
        direction,
        protocol: protocolName(flow.protocol),
        [flow.beganRemotely ? "localPort" : "remotePort"]: service,
        ...this.#decision(flow.verdict),
      };
      const fields = { peer: this.#scopedPeer(scope, node), ...(scope === "key" ? what : { direction: null }), scope };
      return { began: 0, ended: 0, txBytes: 0, rxBytes: 0, since: this.#wall, fields };
    });
  }

  /** What may be otherwise later is looked up now, what takes time when the record is written. */
  #addFlow(event: string, flow: Flow, node: NodeId, more: Fields, found: OpenedFlow = flow): void {
    const record = this.#parts.trust.get(node);
    const decision = this.#decision(flow.verdict);
    this.#add(event, () => ({
      flow: this.#flowId(flow),
      peer: this.#labels.of(node, record, networkId((flow.remote[2]! << 8) | flow.remote[3]!)),
      direction: flow.beganRemotely ? "in" : "out",
      protocol: protocolName(flow.protocol),
      localPort: hasPorts(flow.protocol) ? flow.localPort : null,
      remotePort: hasPorts(flow.protocol) ? flow.remotePort : null,
      ...decision,
      program: programFields(found.owner),
      ...more,
    }));
  }

  #flowId(flow: Flow): string {
    // The number of an echo is in the place of the remote port, on both sides.
    const localPort = flow.protocol === NEXT_HEADER.ICMPV6 ? flow.remotePort : flow.localPort;
    return flowIdOf(this.#parts.crypto, { ...flow, localPort });
  }

  #scopedPeer(scope: Scope, node: NodeId | undefined): Fields | null {
    if (scope === "everybody" || node === undefined) return null;
    return this.#labels.of(node, this.#parts.trust.get(node));
  }

  /** The rule, as far as one decided. */
  #decision(verdict: number | undefined): Fields {
    if (verdict === undefined) return { rule: null };
    const rule = this.#parts.policy.ruleOf(verdict);
    const place = rule === undefined ? null : { file: clip(rule.source.file), line: rule.source.line };
    return { rule: place, ...(verdict === LOCKED_DOWN ? { lockdown: true } : {}) };
  }

  #causeOfCut(flow: Flow, node: NodeId): string {
    const state = this.#parts.trust.stateOf(node);
    if (state !== "mutual") return TAKEN_BACK.has(state) ? state : "trust-ended";
    if (flow.verdict === LOCKED_DOWN) return "lockdown";
    if (!this.#isLeased(flow, node)) return "lease";
    return this.#parts.policy.ruleOf(flow.verdict)?.action === "deny" || flow.verdict === NO_RULE ? "policy" : "cut";
  }

  #isLeased(flow: Flow, node: NodeId): boolean {
    const port = flow.beganRemotely ? flow.localPort : flow.remotePort;
    return this.#parts.leases.permits(node, flow.beganRemotely ? "in" : "out", flow.protocol, port);
  }

  #nodeOf(flow: Flow): NodeId | undefined {
    return this.#parts.links.at(flow.link)?.node;
  }

  #pathOf(flow: Flow): string {
    const link = this.#parts.links.at(flow.link);
    return link?.isUp === true ? link.path.kind : "none";
  }
}

function programFields(owner: SocketOwner | undefined): Fields | null {
  if (owner === undefined) return null;
  const program = workerOf(owner);
  return {
    uid: owner.uid,
    pid: program?.pid ?? null,
    name: program === undefined ? null : clip(program.name),
    unit: unitOf(program?.cgroup) ?? null,
  };
}

function sooner(a: Instant | undefined, b: Instant | undefined): Instant | undefined {
  if (a === undefined) return b;
  return b === undefined || a < b ? a : b;
}

function hasPorts(protocol: number): boolean {
  return protocol === NEXT_HEADER.TCP || protocol === NEXT_HEADER.UDP;
}

function protocolName(protocol: number): string {
  return PROTOCOL_NAMES[protocol] ?? String(protocol);
}

const BY_RULE: ReadonlySet<DropReason> = new Set<DropReason>([
  "policy",
  "over-limit",
  "over-budget",
  "over-flows",
  "wrong-path",
]);
/** Of all reasons to drop a packet those that say no to whoever sent it. */
const DENIALS: ReadonlySet<DropReason> = new Set<DropReason>([
  ...BY_RULE,
  "not-trusted",
  "lease",
  "lease-ended",
  "revoked",
  "not-member",
  "spoofed-source",
  "wrong-destination",
  "flow-limit",
]);
/** States of trust that tell by themselves why flows ended. */
const TAKEN_BACK: ReadonlySet<TrustState> = new Set<TrustState>(["revoked", "revoked-by-peer", "lease-ended"]);
const PROTOCOL_NAMES: Readonly<Record<number, string>> = { 6: "tcp", 17: "udp", 58: "icmp" };
const NOBODY = -2;
const MAX_PORTS = 8;
