/**
 * What becomes of trust, as events of the audit log: every step of the two sides, the limits of their consent, and the keys
 * of peers. A peer that changes its mind all the time is told of once in a while, from where it began to where it ended.
 */
import { type AuditSink, clip, type Fields } from "../audit/record.ts";
import { Tally } from "../audit/tally.ts";
import { BoundedMap } from "../base/bounded-map.ts";
import { equalBytes } from "../base/bytes.ts";
import type { Instant, WallClock } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import { isoUtc } from "../base/utc.ts";
import { type Lease, type LeaseTime, type Limits, sameScope } from "../trust/lease.ts";
import type { TrustRecord } from "../trust/trust-record.ts";
import type { NodeId } from "../wire/ids.ts";
import { serviceWords } from "../wire/services.ts";
import type { PeerLabels } from "./peer-labels.ts";

export interface TrustTrailParts {
  readonly sink: AuditSink;
  readonly labels: PeerLabels;
  wall(): WallClock;
  now(): Instant;
  /** What the clock of leases shows. */
  leaseNow(): LeaseTime;
}

interface Changes {
  count: number;
  readonly before: TrustRecord | undefined;
  after: TrustRecord;
}

export class TrustTrail {
  readonly #parts: TrustTrailParts;
  readonly #changes = new Tally<Changes>([60_000]);
  /** Key: node. Bound: MAX_QUOTAS; the oldest is forgotten, and starts with a full one. */
  readonly #quotas = new BoundedMap<NodeId, TokenBucket>(MAX_QUOTAS);

  constructor(parts: TrustTrailParts) {
    this.#parts = parts;
  }

  /** The record of a peer was replaced. */
  changed(before: TrustRecord | undefined, after: TrustRecord): void {
    if (saysTheSame(before, after)) {
      if (before !== undefined && !sameKey(before, after)) this.#keyPinned(before, after);
      return;
    }
    const { node } = after;
    const now = this.#parts.now();
    const quota = this.#quotas.get(node) ?? new TokenBucket(PER_SECOND, AT_ONCE, now);
    this.#quotas.set(node, quota);
    if (isOperators(before, after) || quota.take(now)) return this.#tell({ count: 1, before, after });
    const changes = this.#changes.sumFor(node, String(node), now, () => ({ count: 0, before, after }));
    changes.count++;
    changes.after = after;
  }

  /** The registry names another key for a peer than the pinned one, which stays in force. */
  keyOffered(record: TrustRecord, offered: Uint8Array): void {
    const { labels } = this.#parts;
    const peer = labels.of(record.node, record);
    this.#add("key", { peer, change: "offered", key: labels.fingerprintOf(offered) });
  }

  take(now: Instant): void {
    for (const changes of this.#changes.take(now)) this.#tell(changes);
  }

  takeAll(now: Instant): void {
    for (const changes of this.#changes.takeAll(now)) this.#tell(changes);
  }

  pollTimeout(): Instant | undefined {
    return this.#changes.pollTimeout();
  }

  #keyPinned(before: TrustRecord, after: TrustRecord): void {
    const peer = this.#parts.labels.of(after.node, after);
    this.#add("key", {
      peer,
      change: "pinned",
      key: peer.key,
      was: this.#parts.labels.fingerprintOf(before.publicKey),
    });
  }

  #tell({ before, after, count }: Changes): void {
    const { labels } = this.#parts;
    const isAsk = before?.ask !== after.ask || after.state === "asked";
    const reason = after.request !== before?.request ? after.request?.reason : isAsk ? after.askReason : undefined;
    const fields = {
      peer: labels.of(after.node, after),
      from: before?.state ?? "none",
      to: after.state,
      epoch: after.epoch,
      ...(count > 1 ? { changes: count } : {}),
      ...(sameKey(before, after) ? {} : { keyWas: labels.fingerprintOf(before?.publicKey) }),
      ...(reason === undefined || reason === "" ? {} : { reason: clip(reason) }),
      ...(after.consentNetwork === undefined ? {} : { network: after.consentNetwork }),
      ...(after.lease === undefined ? {} : { lease: this.#limits(after.lease, after.lease.maxBytes) }),
      ...(after.peerLease === undefined ? {} : { peerLease: this.#limits(after.peerLease, after.peerLease.leftBytes) }),
      ...(after.state === "lease-ended" ? { usedUp: after.leaseEnd ?? null } : {}),
    };
    this.#add("trust", fields, isOperators(before, after));
  }

  #limits({ inward, outward, endsAt }: Limits, bytes: number | undefined): Fields {
    const leftMs = endsAt === undefined ? undefined : endsAt - this.#parts.leaseNow();
    return {
      in: inward === undefined ? null : serviceWords(inward),
      out: outward === undefined ? null : serviceWords(outward),
      until: leftMs === undefined ? null : isoUtc((this.#parts.wall() + leftMs) as WallClock),
      bytes: bytes ?? null,
    };
  }

  #add(event: string, fields: Fields, byOperator = false): void {
    this.#parts.sink.add({ event, at: this.#parts.wall(), matters: true, byOperator, fields: () => fields });
  }
}

/** What only the operator of this node can have done. */
function isOperators(before: TrustRecord | undefined, after: TrustRecord): boolean {
  const was = before?.state ?? "none";
  switch (after.state) {
    case "revoked":
      return true;
    case "asked":
      return was !== "mutual";
    case "mutual":
      if (was === "mutual") return isOperatorsWord(before!, after);
      return was !== "asked" && after.consentNetwork === undefined;
    case "none":
      return was === "pending";
    default:
      return false;
  }
}

/** Trust stays: an ask for other terms, an answer to the peer's, or other limits by this side's own word. */
function isOperatorsWord(before: TrustRecord, after: TrustRecord): boolean {
  if (before.ask?.serial !== after.ask?.serial) return true;
  if (before.request !== undefined && after.request === undefined) return true;
  return before.ask === after.ask && !sameTerms(before.lease, after.lease);
}

/** Nothing that anybody would want to know; bytes of a lease that were used are not. */
function saysTheSame(before: TrustRecord | undefined, after: TrustRecord): boolean {
  if (before?.state !== after.state || before.epoch !== after.epoch) return false;
  if (before.ask?.serial !== after.ask?.serial || !sameTerms(before.lease, after.lease)) return false;
  const isAsking = after.request !== undefined;
  if ((before.request !== undefined) !== isAsking || before.request?.serial !== after.request?.serial) return false;
  const [was, is] = [before.peerLease, after.peerLease];
  const grantsMore = (is?.leftBytes ?? Number.POSITIVE_INFINITY) > (was?.leftBytes ?? Number.POSITIVE_INFINITY);
  return !grantsMore && sameScope(was, is) && isNear(was?.endsAt, is?.endsAt);
}

function sameTerms(a: Lease | undefined, b: Lease | undefined): boolean {
  return sameScope(a, b) && a?.endsAt === b?.endsAt && a?.maxBytes === b?.maxBytes;
}

function sameKey(before: TrustRecord | undefined, after: TrustRecord): boolean {
  const [was, is] = [before?.publicKey, after.publicKey];
  return was === is || (was !== undefined && is !== undefined && equalBytes(was, is));
}

/** The peer tells what is left, and clocks run a little apart. */
function isNear(a: number | undefined, b: number | undefined): boolean {
  return a === undefined || b === undefined ? a === b : Math.abs(a - b) < 60_000;
}

const MAX_QUOTAS = 1_024;
const AT_ONCE = 20;
const PER_SECOND = 0.1;
