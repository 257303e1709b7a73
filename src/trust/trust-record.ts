/**
 * What this side and a peer have said about trusting each other, and the one function per statement that changes it.
 * Source: pilot protocol §7, hardened: an approval counts only while an ask of ours is open, a revocation leaves a
 * tombstone (the peer's key and an epoch) that only a newer consent by this side lifts.
 *
 *            ask                     request
 *   none ──────────► asked    none ──────────► pending ── deny ──► none
 *                      │ accept, or request (both asked)  │ approve, ask
 *                      └───────────────► mutual ◄─────────┘
 *   any ── revoke ──► revoked ── ask, approve ──► asked / mutual
 *   asked, pending, mutual ── the peer revokes ──► revoked-by-peer ── request ──► pending;  ask ──► asked
 *   asked, mutual ── a lease is over, here or there ──► lease-ended ── ask, approve ──► asked / mutual
 *
 * Consent may have limits (lease.ts). A request that waits beside `mutual` asks for others.
 */
import type { WallClock } from "../base/instant.ts";
import { formatAskText, isLimited, NO_TERMS, type Terms } from "../wire/ask-text.ts";
import type { NetworkId, NodeId } from "../wire/ids.ts";
import {
  effective,
  grant,
  type Lease,
  type LeaseEnd,
  type LeaseTime,
  type Limits,
  leaseOfAsk,
  NO_STANDING,
  sameScope,
  saysTheSame,
} from "./lease.ts";

export type TrustState = "none" | "asked" | "pending" | "mutual" | "revoked" | "revoked-by-peer" | "lease-ended";

export interface TrustRequest {
  /** In the peer's words, without the terms. */
  readonly reason: string;
  readonly at: WallClock;
  /** Absent: it asks for everything, for good. */
  readonly terms?: Terms | undefined;
  /** The peer's number of this ask; absent without terms. */
  readonly serial?: number | undefined;
}

/** A request of the peer as the registry handed it over, told from others by its stamp. */
export interface RequestLetter {
  /** By the registry's clock, in whole seconds; never compared with another clock's. */
  readonly stamp: WallClock;
  readonly heardAt: LeaseTime;
}

/** An ask of ours with terms. */
export interface OwnAsk {
  readonly terms: Terms;
  /** Rises with each ask of this peer. */
  readonly serial: number;
  /** The peer has answered it: a later one takes its place, a copy of the answer means nothing. */
  readonly isAnswered: boolean;
}

export interface TrustRecord {
  readonly node: NodeId;
  readonly state: TrustState;
  /** Ed25519 key pinned when this peer was first asked or seen; another key is refused until an operator decides. */
  readonly publicKey: Uint8Array | undefined;
  readonly hostname: string | undefined;
  /** Rises with each revocation by this side: the tombstone's number. */
  readonly epoch: number;
  /** When the state last changed. */
  readonly since: WallClock;
  /** What we wrote when we asked. */
  readonly askReason: string;
  /** A request of the peer that waits for an answer; also kept beside `revoked`, where it changes nothing by itself. */
  readonly request: TrustRequest | undefined;
  /** The last one of the peer. Absent: none came, or only to an earlier version. */
  readonly letter?: RequestLetter | undefined;
  /** Stamp of the letter that our last revocation put an end to: when it comes again it says nothing. */
  readonly endedLetter?: WallClock | undefined;
  /** The peer has not acknowledged yet that we revoked, or that our consent ended otherwise. */
  readonly revocationUntold: boolean;
  /** Number of the peer's last revocation, as heard in the session, also when it had been lifted by then; absent: none. */
  readonly revocationHeard?: number | undefined;
  /**
   * The consent of this side came with joining this network, not from a word about the peer: it ends with the shared
   * membership. Absent when an operator consented to this very peer.
   */
  readonly consentNetwork?: NetworkId | undefined;
  /** The last ask with terms. Absent: none was made. */
  readonly ask?: OwnAsk | undefined;
  /** The limits of this side's consent; absent: none. */
  readonly lease?: Lease | undefined;
  /** Those of the peer's consent, as the peer last said; absent: none. */
  readonly peerLease?: Limits | undefined;
  /** Beside `lease-ended`: what was used up. */
  readonly leaseEnd?: LeaseEnd | undefined;
  /** The peer has agreed on keys inside a session: less is not taken from it until this side revokes. */
  readonly agreesOnKeys?: boolean | undefined;
  /** `since` of the trust that the peer itself has spoken for; of another, or absent: only letters of the registry have. */
  readonly confirmedSince?: WallClock | undefined;
}

export function emptyRecord(node: NodeId, now: WallClock): TrustRecord {
  return {
    node,
    state: "none",
    publicKey: undefined,
    hostname: undefined,
    epoch: 0,
    since: now,
    askReason: "",
    request: undefined,
    revocationUntold: false,
  };
}

/** True while this side wants to talk with the peer: what a hello may say about us. */
export function consents(record: TrustRecord): boolean {
  return record.state === "asked" || record.state === "mutual";
}

/** The peer itself, not a letter that somebody carried, has spoken for the trust that there is. */
export function isConfirmed({ since, confirmedSince }: TrustRecord): boolean {
  return confirmedSince === since;
}

/** Whether the same flows may begin under both records; their states are not looked at. */
export function allowsTheSame(before: TrustRecord, record: TrustRecord): boolean {
  return sameScope(effective(before.lease, before.peerLease), effective(record.lease, record.peerLease));
}

/** Whether they differ only in what the peer tells us again: its name, its ask, that it trusts us, and that it agrees on keys. */
export function differInHintsOnly(before: TrustRecord, record: TrustRecord): boolean {
  const keys = new Set([...Object.keys(before), ...Object.keys(record)]) as Set<keyof TrustRecord>;
  keys.delete("hostname");
  keys.delete("confirmedSince");
  keys.delete("letter");
  if (record.agreesOnKeys === true) keys.delete("agreesOnKeys");
  return [...keys].every((key) => before[key] === record[key]);
}

/** What a request of ours says: the words of the operator, behind the terms of an ask that is open. */
export function askTextOf({ ask, askReason }: TrustRecord): string {
  if (ask === undefined || ask.isAnswered) return askReason;
  return formatAskText({ terms: ask.terms, serial: ask.serial, purpose: askReason });
}

/** This side took its consent back, and the peer has not heard of it. */
export function mustBeTold({ state, revocationUntold }: TrustRecord): boolean {
  return (state === "revoked" || state === "lease-ended" || state === "none") && revocationUntold;
}

/**
 * The operator asks. A request that already waits is answered by that, and trust mutual at once; the request goes on
 * waiting when the ask has terms, for those let the peer begin nothing. Beside a tombstone it may be an old one: there the
 * peer answers. With trust mutual an ask is for other terms.
 */
export function ask(
  record: TrustRecord,
  reason: string,
  now: WallClock,
  terms: Terms = NO_TERMS,
  leaseNow: LeaseTime = LEASE_BEGIN,
): TrustRecord {
  const own = isLimited(terms) ? { terms, serial: (record.ask?.serial ?? 0) + 1, isAnswered: false } : undefined;
  if (record.state === "mutual") {
    const known = record.consentNetwork === undefined ? record : consentedInPerson(record);
    return own === undefined ? known : { ...known, askReason: reason, ask: own };
  }
  const asked: TrustRecord = {
    ...withoutLease(consentedInPerson(record)),
    ask: own ?? (record.ask && { ...record.ask, isAnswered: true }),
    askReason: reason,
    since: now,
    revocationUntold: false,
  };
  if (record.request === undefined || record.state !== "pending")
    return { ...asked, state: "asked", request: undefined };
  return bothAsked(asked, record.request, leaseNow);
}

/**
 * The operator approves a waiting request, with what he names beyond what was asked for; or, without one, names other
 * limits for a trust that is mutual. Undefined when there is nothing to approve.
 */
export function approve(
  record: TrustRecord,
  now: WallClock,
  named: Terms = NO_TERMS,
  leaseNow: LeaseTime = LEASE_BEGIN,
): TrustRecord | undefined {
  const { request } = record;
  const isMutual = record.state === "mutual";
  if (request === undefined && !(isMutual && isLimited(named))) return undefined;
  const before = isMutual ? record : withoutLease(record);
  const answers = request?.serial ?? before.lease?.answers ?? 0;
  return {
    ...consentedInPerson(before),
    state: "mutual",
    since: isMutual ? record.since : now,
    request: undefined,
    revocationUntold: false,
    lease: grant({ isMutual, lease: before.lease }, request?.terms ?? NO_TERMS, named, answers, leaseNow),
  };
}

/**
 * The request of a member of a network that this operator joined: joining was the consent (engine/networks.ts). Only a
 * waiting request is answered so; a tombstone is not touched.
 */
export function approveMember(record: TrustRecord, network: NetworkId, now: WallClock): TrustRecord {
  if (record.state !== "pending") return record;
  return { ...record, state: "mutual", since: now, request: undefined, consentNetwork: network };
}

/** The shared membership that stood for this side's consent is over. */
export function withdrawMember(record: TrustRecord, now: WallClock): TrustRecord {
  if (record.consentNetwork === undefined) return record;
  const next = consentedInPerson(record);
  return consents(record) ? { ...next, state: "none", since: now, revocationUntold: true } : next;
}

/** What was agreed on is over; what was asked keeps its number. */
function withoutLease(record: TrustRecord): TrustRecord {
  const { lease: _lease, peerLease: _peerLease, leaseEnd: _leaseEnd, ...rest } = record;
  return rest;
}

/** The peer consents to our open ask: its terms begin. */
function answered(record: TrustRecord, leaseNow: LeaseTime): TrustRecord {
  if (record.ask === undefined || record.ask.isAnswered) return record;
  const standing = { isMutual: record.state === "mutual" || record.lease !== undefined, lease: record.lease };
  const lease = leaseOfAsk(record.ask.terms, standing, leaseNow);
  return { ...record, ask: { ...record.ask, isAnswered: true }, lease };
}

function consentedInPerson(record: TrustRecord): TrustRecord {
  return record.consentNetwork === undefined ? record : { ...record, consentNetwork: undefined };
}

/** The operator refuses a waiting request; undefined when none waits. A tombstone stays, and so does trust. */
export function deny(record: TrustRecord, now: WallClock): TrustRecord | undefined {
  if (record.request === undefined) return undefined;
  if (record.state !== "pending") return { ...record, request: undefined };
  return { ...record, state: "none", since: now, request: undefined };
}

/** The peer agreed on keys inside a session, which only its own key can. */
export function heardAgreement(record: TrustRecord): TrustRecord {
  return record.agreesOnKeys === true ? record : { ...record, agreesOnKeys: true };
}

/** The operator revokes: the tombstone. What is agreed on after it begins anew, also which keys a session has. */
export function revoke(record: TrustRecord, now: WallClock, leaseNow: LeaseTime = LEASE_BEGIN): TrustRecord {
  return {
    ...withoutLease(consentedInPerson(record)),
    agreesOnKeys: undefined,
    endedLetter: endedBy(record.letter, leaseNow),
    state: "revoked",
    epoch: record.epoch + 1,
    since: now,
    request: undefined,
    revocationUntold: record.state === "lease-ended" || record.state === "none" ? record.revocationUntold : true,
  };
}

/** In the second of its stamp another one may be written, which would have the same. */
function endedBy(letter: RequestLetter | undefined, leaseNow: LeaseTime): WallClock | undefined {
  if (letter === undefined || leaseNow - letter.heardAt < STAMP_MS) return undefined;
  return letter.stamp;
}

/** The lease that holds between the two is over. The peer hears of it like of a revocation, with this reason. */
export function endLease(record: TrustRecord, end: LeaseEnd, now: WallClock): TrustRecord {
  if (record.state !== "mutual") return record;
  return { ...ended(record, end, now), epoch: record.epoch + 1, revocationUntold: true };
}

/**
 * The peer asks us, directly or, with the registry's `stamp`, by a letter. A letter of before our revocation may come again, for
 * who gets it tells the registry only afterwards that he has. Which one it is shows in its stamp; when it was written, compared
 * with when we revoked, would not, for clocks are set. One that comes for the first time is for the operator to judge.
 */
export function heardRequest(
  record: TrustRecord,
  request: TrustRequest,
  now: WallClock,
  leaseNow: LeaseTime = LEASE_BEGIN,
  stamp?: WallClock,
): TrustRecord {
  if (stamp === undefined) return requested(record, request, now, leaseNow);
  if (stamp === record.endedLetter) return record;
  const next = requested(record, request, now, leaseNow);
  return stamp === record.letter?.stamp ? next : { ...next, letter: { stamp, heardAt: leaseNow } };
}

function requested(record: TrustRecord, request: TrustRequest, now: WallClock, leaseNow: LeaseTime): TrustRecord {
  switch (record.state) {
    case "asked":
      return { ...bothAsked(record, request, leaseNow), since: now };
    case "mutual":
      return isNewAsk(record, request) ? { ...record, request } : record;
    case "lease-ended":
      return request.serial === undefined || isNewAsk(record, request) ? { ...record, request } : record;
    case "revoked":
    case "pending":
      return { ...record, request };
    case "none":
    case "revoked-by-peer":
      return { ...record, state: "pending", since: now, request, revocationUntold: false };
  }
}

/**
 * Both consent: an ask without terms grants what the other asks for, and no more. One with terms grants nothing, so the
 * other's request goes on waiting.
 */
function bothAsked(record: TrustRecord, request: TrustRequest, leaseNow: LeaseTime): TrustRecord {
  const isOpen = record.ask !== undefined && !record.ask.isAnswered;
  if (isOpen) return { ...answered(record, leaseNow), state: "mutual", request };
  const lease = grant(NO_STANDING, request.terms ?? NO_TERMS, NO_TERMS, request.serial ?? 0, leaseNow);
  return { ...record, state: "mutual", request: undefined, lease };
}

/** Requests come twice, and late; one with terms that was not answered yet wants others than those that hold. */
function isNewAsk(record: TrustRecord, request: TrustRequest): boolean {
  return request.serial !== undefined && request.serial !== record.lease?.answers;
}

/**
 * The peer accepts. Only an open ask of ours gives this a meaning; `madeAt` (when known) must not lie before it, so that
 * an approval of an earlier ask, still queued somewhere, restores nothing. An ask of the future was made before the clock was set
 * back: what lies before it nobody can tell then, and the registry is asked about trust that letters brought anyway.
 */
export function heardAccept(
  record: TrustRecord,
  madeAt: WallClock | undefined,
  now: WallClock,
  leaseNow: LeaseTime = LEASE_BEGIN,
): TrustRecord {
  if (record.state !== "asked") return record;
  if (madeAt !== undefined && madeAt < record.since - CLOCK_SKEW_MS && record.since <= now) return record;
  return { ...answered(record, leaseNow), state: "mutual", since: now };
}

/**
 * The peer, in the session, says what the limits of its consent are, and which ask of ours they answer (0: none). Undefined:
 * it sets none. Its answer to our last ask puts that ask's terms in the place of those that held.
 */
export function heardLimits(
  record: TrustRecord,
  limits: Limits | undefined,
  answers: number,
  leaseNow: LeaseTime,
): TrustRecord {
  if (record.state !== "mutual") return record;
  const next = answers !== 0 && answers === record.ask?.serial ? answered(record, leaseNow) : record;
  return saysTheSame(next.peerLease, limits) ? next : { ...next, peerLease: limits };
}

export function heardReject(record: TrustRecord, now: WallClock): TrustRecord {
  return record.state === "asked" ? { ...record, state: "none", since: now } : record;
}

/**
 * The peer revokes; needs no more proof than that the peer said it, for it only narrows. `epoch`: of its tombstone, where it
 * said so. It is repeated until we are heard to have heard it, so it may come again after somebody
 * asked anew: then it is news of the past, and would end what it knew nothing of. Trust that only letters brought it ends.
 */
export function heardRevoke(record: TrustRecord, now: WallClock, epoch?: number): TrustRecord {
  const beganAnew =
    record.state === "asked" || record.state === "pending" || (record.state === "mutual" && isConfirmed(record));
  if (beganAnew && epoch !== undefined && epoch === record.revocationHeard) return record;
  const revoked = revokedByPeer(record, now);
  return epoch === undefined || epoch === record.revocationHeard ? revoked : { ...revoked, revocationHeard: epoch };
}

function revokedByPeer(record: TrustRecord, now: WallClock): TrustRecord {
  switch (record.state) {
    case "asked":
    case "pending":
    case "mutual":
    case "lease-ended":
      return { ...record, state: "revoked-by-peer", since: now, request: undefined, revocationUntold: false };
    case "revoked":
      return { ...record, revocationUntold: false };
    case "none":
      return revocationTold(record);
    case "revoked-by-peer":
      return record;
  }
}

/**
 * The lease is over over there: then it is here, and the peer need not be told. An ask that is open may have been answered by that
 * lease before we heard of either: only with another number it is a new one for the peer.
 */
export function heardLeaseEnd(record: TrustRecord, end: LeaseEnd, now: WallClock): TrustRecord {
  switch (record.state) {
    case "asked": // it had said just before that it consents no longer; a new ask has no lease
      if (record.lease !== undefined || record.peerLease !== undefined) return ended(record, end, now);
      return record.ask === undefined ? record : { ...record, ask: { ...record.ask, serial: record.ask.serial + 1 } };
    case "mutual":
      return ended(record, end, now);
    default:
      return revocationTold(record);
  }
}

function ended(record: TrustRecord, end: LeaseEnd, now: WallClock): TrustRecord {
  return { ...record, state: "lease-ended", leaseEnd: end, since: now, revocationUntold: false };
}

/**
 * The peer, authenticated, says that it does not consent though we hold it for mutual (a registry that lied, a peer that
 * lost its file): our ask stays open, nothing passes.
 */
export function heardNoConsent(record: TrustRecord, now: WallClock): TrustRecord {
  return record.state === "mutual" ? { ...record, state: "asked", since: now } : record;
}

/** The peer itself says that it consents; `epoch`: of its last tombstone, where it said so, 0 for none. That one is lifted. */
export function confirm(record: TrustRecord, epoch?: number): TrustRecord {
  const revocationHeard = epoch === undefined ? record.revocationHeard : epoch || undefined;
  const saysNothingNew = isConfirmed(record) && record.revocationHeard === revocationHeard;
  if (record.state !== "mutual" || saysNothingNew) return record;
  return { ...record, revocationHeard, confirmedSince: record.since };
}

export function revocationTold(record: TrustRecord): TrustRecord {
  return record.revocationUntold ? { ...record, revocationUntold: false } : record;
}

const LEASE_BEGIN = 0 as LeaseTime;
/** Registries stamp in whole seconds. */
const STAMP_MS = 1_000;
/** And by their own clock, which may be unknown here. */
const CLOCK_SKEW_MS = 60_000;
