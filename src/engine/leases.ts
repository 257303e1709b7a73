/**
 * Leases in force: which flows they let begin, how many bytes may still pass, when they end. The words of both sides stand
 * in the trust records (trust/lease.ts); this keeps the clock, and the bytes that are taken from a record in portions, so
 * that the packet path looks at one number and a crash can cost a portion of the peer's bytes but never add one.
 */
import { after, type Deadline, earlier, type Instant } from "../base/instant.ts";
import { effective, type LeaseEnd, type LeaseTime, type Limits, permits, spent } from "../trust/lease.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { TrustRecord } from "../trust/trust-record.ts";
import { MAX_LINKS } from "../tunnel/data-plane.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import type { NodeId } from "../wire/ids.ts";
import { type LeaseField, NO_LIMITS } from "../wire/lease-field.ts";

export interface LeasesParts {
  readonly trust: TrustBook;
  readonly links: Pick<LinkTable, "get" | "at">;
  /** Nothing may pass any more under this lease. */
  end(node: NodeId, how: LeaseEnd, now: Instant): void;
}

export class Leases {
  readonly #parts: LeasesParts;
  /** Per link index: bytes taken from the record that have not passed yet; Infinity: no limit; 0 asks the record. */
  readonly #portions = new Float64Array(MAX_LINKS);
  /** Used up during this input. Bound: the links. */
  readonly #usedUp = new Set<NodeId>();
  #offsetMs: number;
  /** The book's revision for which `#endsAt` was looked up. */
  #revision = -1;
  #endsAt: Instant | undefined;
  #markAt: Instant | undefined;

  /** `leaseNow`: what the lease clock shows at `now`. */
  constructor(parts: LeasesParts, leaseNow: LeaseTime, now: Instant) {
    this.#parts = parts;
    this.#offsetMs = leaseNow - now;
  }

  time(now: Instant): LeaseTime {
    return (now + this.#offsetMs) as LeaseTime;
  }

  /** The machine slept: leases did not. */
  handleSleep(ms: number): void {
    this.#offsetMs += ms;
    this.#revision = -1;
  }

  limitsOf(node: NodeId): Limits | undefined {
    const record = this.#parts.trust.get(node);
    return record && effective(record.lease, record.peerLease);
  }

  /** Of the bytes that the lease grants, those that have not passed; undefined: no limit. */
  leftBytes(node: NodeId): number | undefined {
    const left = this.limitsOf(node)?.leftBytes;
    return left === undefined ? undefined : left + this.#portionOf(node);
  }

  /** Whether a flow may begin; `port` is that of the side that does not begin. */
  permits(node: NodeId, direction: "in" | "out", protocol: number, port: number): boolean {
    return permits(this.limitsOf(node), direction, protocol, port);
  }

  /** Bytes of a packet to or from a link's peer want to pass; false when the lease grants no more. */
  spend(link: number, bytes: number): boolean {
    const rest = this.#portions[link]! - bytes;
    if (rest < 0) return this.#takePortion(link, bytes);
    this.#portions[link] = rest;
    return true;
  }

  /** Back into the record goes what has not passed: before the lease changes, and at the end. */
  release(node: NodeId): void {
    const { trust, links } = this.#parts;
    const link = links.get(node);
    if (link === undefined) return;
    const portion = this.#portionOf(node);
    this.#portions[link.index] = 0;
    const record = trust.get(node);
    if (record !== undefined && portion > 0) trust.put(withSpent(record, -portion));
  }

  /** What a hello to the peer says. */
  fieldFor(node: NodeId, now: Instant): LeaseField {
    const lease = this.#parts.trust.get(node)?.lease;
    if (lease === undefined) return NO_LIMITS;
    const { inward, outward, endsAt, leftBytes, answers } = lease;
    return {
      forReceiver: inward,
      forSender: outward,
      leftMs: endsAt === undefined ? undefined : Math.max(0, endsAt - this.time(now)),
      leftBytes: leftBytes === undefined ? undefined : leftBytes + this.#portionOf(node),
      answers,
    };
  }

  /** What the peer's hello says, seen from here; undefined: it sets no limits. */
  limitsIn({ forReceiver, forSender, leftMs, leftBytes }: LeaseField, now: Instant): Limits | undefined {
    const isFree = [forReceiver, forSender, leftMs, leftBytes].every((limit) => limit === undefined);
    if (isFree) return undefined;
    const endsAt = leftMs === undefined ? undefined : ((this.time(now) + leftMs) as LeaseTime);
    return { inward: forSender, outward: forReceiver, endsAt, leftBytes };
  }

  /** Ends what is used up, and looks when the next lease will be over. */
  settle(now: Instant): void {
    for (const node of this.#usedUp) this.#parts.end(node, "bytes", now);
    this.#usedUp.clear();
    if (this.#revision === this.#parts.trust.revision) return;
    this.#revision = this.#parts.trust.revision;
    // Who had no limit may have one now.
    for (let link = 0; link < MAX_LINKS; link++) if (!Number.isFinite(this.#portions[link])) this.#portions[link] = 0;
    this.#endsAt = undefined;
    for (const node of this.#parts.trust.nodesIn("mutual")) {
      const at = this.#endOf(node);
      if (at !== undefined && (this.#endsAt === undefined || at < this.#endsAt)) this.#endsAt = at;
    }
    this.#markAt = this.#endsAt === undefined ? undefined : after(now, MARK_INTERVAL_MS);
  }

  /** True when the lease clock should be written down: time has passed that must not be given back. */
  handleTimeout(now: Instant): boolean {
    if (this.#endsAt !== undefined && this.#endsAt <= now) this.#endOverdue(now);
    if (this.#markAt === undefined || this.#markAt > now) return false;
    this.#markAt = after(now, MARK_INTERVAL_MS);
    return true;
  }

  pollTimeout(): Deadline | undefined {
    const end: Deadline | undefined = this.#endsAt && { at: this.#endsAt, reason: "a lease ends" };
    return earlier(end, this.#markAt && { at: this.#markAt, reason: "mark the lease clock" });
  }

  /** All bytes that have not passed go back: the daemon ends. */
  close(): void {
    for (const record of this.#parts.trust.records()) this.release(record.node);
  }

  #endOverdue(now: Instant): void {
    this.#revision = -1;
    for (const node of [...this.#parts.trust.nodesIn("mutual")]) {
      const at = this.#endOf(node);
      if (at !== undefined && at <= now) this.#parts.end(node, "time", now);
    }
  }

  #endOf(node: NodeId): Instant | undefined {
    const endsAt = this.limitsOf(node)?.endsAt;
    return endsAt === undefined ? undefined : ((endsAt - this.#offsetMs) as Instant);
  }

  #takePortion(link: number, bytes: number): boolean {
    const { trust, links } = this.#parts;
    const node = links.at(link)?.node;
    const record = node && trust.get(node);
    const left = record && effective(record.lease, record.peerLease)?.leftBytes;
    if (record === undefined || left === undefined) {
      this.#portions[link] = Number.POSITIVE_INFINITY;
      return true;
    }
    const missing = bytes - this.#portions[link]!;
    if (left < missing) {
      this.#usedUp.add(record.node);
      return false;
    }
    const portion = Math.min(left, Math.max(missing, LEAST_PORTION_BYTES, Math.floor(left / PORTIONS)));
    trust.put(withSpent(record, portion));
    this.#portions[link] = this.#portions[link]! + portion - bytes;
    return true;
  }

  #portionOf(node: NodeId): number {
    const link = this.#parts.links.get(node);
    const portion = link === undefined ? 0 : this.#portions[link.index]!;
    return Number.isFinite(portion) ? portion : 0;
  }
}

function withSpent(record: TrustRecord, bytes: number): TrustRecord {
  return { ...record, lease: spent(record.lease, bytes), peerLease: spent(record.peerLease, bytes) };
}

/** Each portion is a write to disk. */
const PORTIONS = 64;
const LEAST_PORTION_BYTES = 65_536;
/** So much time at most can come back by a crash with a reboot and a clock set back. */
const MARK_INTERVAL_MS = 60_000;
