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
 */
import type { WallClock } from "../base/instant.ts";
import type { NetworkId, NodeId } from "../wire/ids.ts";

export type TrustState = "none" | "asked" | "pending" | "mutual" | "revoked" | "revoked-by-peer";

export interface TrustRequest {
  readonly reason: string;
  readonly at: WallClock;
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
  /** The peer has not acknowledged our revocation yet. */
  readonly revocationUntold: boolean;
  /**
   * The consent of this side came with joining this network, not from a word about the peer: it ends with the shared
   * membership. Absent when an operator consented to this very peer.
   */
  readonly consentNetwork?: NetworkId | undefined;
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

/** The operator asks. A request that already waits makes it mutual at once. */
export function ask(record: TrustRecord, reason: string, now: WallClock): TrustRecord {
  if (record.state === "mutual") return record.consentNetwork === undefined ? record : consentedInPerson(record);
  const answersRequest = record.state === "pending";
  return {
    ...consentedInPerson(record),
    state: answersRequest ? "mutual" : "asked",
    since: now,
    askReason: reason,
    request: undefined,
    revocationUntold: false,
  };
}

/** The operator approves a waiting request; undefined when none waits. */
export function approve(record: TrustRecord, now: WallClock): TrustRecord | undefined {
  if (record.request === undefined) return undefined;
  return { ...consentedInPerson(record), state: "mutual", since: now, request: undefined, revocationUntold: false };
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
  return consents(record) ? { ...next, state: "none", since: now } : next;
}

function consentedInPerson(record: TrustRecord): TrustRecord {
  return record.consentNetwork === undefined ? record : { ...record, consentNetwork: undefined };
}

/** The operator refuses a waiting request; undefined when none waits. A tombstone stays. */
export function deny(record: TrustRecord, now: WallClock): TrustRecord | undefined {
  if (record.request === undefined) return undefined;
  if (record.state === "revoked") return { ...record, request: undefined };
  return { ...record, state: "none", since: now, request: undefined };
}

/** The operator revokes: the tombstone. */
export function revoke(record: TrustRecord, now: WallClock): TrustRecord {
  return {
    ...consentedInPerson(record),
    state: "revoked",
    epoch: record.epoch + 1,
    since: now,
    request: undefined,
    revocationUntold: record.state !== "none",
  };
}

/** The peer asks us, directly or through the registry. */
export function heardRequest(record: TrustRecord, request: TrustRequest, now: WallClock): TrustRecord {
  switch (record.state) {
    case "asked": // both asked: both consent
      return { ...record, state: "mutual", since: now, request: undefined };
    case "mutual":
      return record;
    case "revoked":
      // A request made before the revocation is an old one that comes late or again.
      return request.at <= record.since ? record : { ...record, request };
    case "pending":
      return { ...record, request };
    case "none":
    case "revoked-by-peer":
      return { ...record, state: "pending", since: now, request };
  }
}

/**
 * The peer accepts. Only an open ask of ours gives this a meaning; `madeAt` (when known) must not lie before it, so that
 * an approval of an earlier ask, still queued somewhere, restores nothing.
 */
export function heardAccept(record: TrustRecord, madeAt: WallClock | undefined, now: WallClock): TrustRecord {
  if (record.state !== "asked") return record;
  if (madeAt !== undefined && madeAt < record.since - CLOCK_SKEW_MS) return record;
  return { ...record, state: "mutual", since: now };
}

export function heardReject(record: TrustRecord, now: WallClock): TrustRecord {
  return record.state === "asked" ? { ...record, state: "none", since: now } : record;
}

/** The peer revokes; needs no more proof than that the peer said it, for it only narrows. */
export function heardRevoke(record: TrustRecord, now: WallClock): TrustRecord {
  switch (record.state) {
    case "asked":
    case "pending":
    case "mutual":
      return { ...record, state: "revoked-by-peer", since: now, request: undefined };
    case "revoked":
      return { ...record, revocationUntold: false };
    case "none":
    case "revoked-by-peer":
      return record;
  }
}

/**
 * The peer, authenticated, says that it does not consent though we hold it for mutual (a registry that lied, a peer that
 * lost its file): our ask stays open, nothing passes.
 */
export function heardNoConsent(record: TrustRecord, now: WallClock): TrustRecord {
  return record.state === "mutual" ? { ...record, state: "asked", since: now } : record;
}

export function revocationTold(record: TrustRecord): TrustRecord {
  return record.revocationUntold ? { ...record, revocationUntold: false } : record;
}

/** Registries stamp in whole seconds of their own clock. */
const CLOCK_SKEW_MS = 60_000;
