/**
 * The conversation about trust: what the operator, the peer and the registry say becomes a new trust record, and each
 * change of state has its consequences here, in one place. The record decides (trust/trust-record.ts); the registry only
 * carries letters (pilot protocol §7).
 *
 * A link exists while this side consents, and for as long as a revocation has not been acknowledged: to everybody else
 * the node is silent.
 */
import { equalBytes } from "../base/bytes.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { after, type Deadline, earlier, type Instant, type WallClock } from "../base/instant.ts";
import type { Flow } from "../policy/flow-table.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { RegistryEvent } from "../registry/events.ts";
import type { LeaseEnd } from "../trust/lease.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { TrustRecord, TrustState } from "../trust/trust-record.ts";
import * as statement from "../trust/trust-record.ts";
import { NO_TERMS, parseAskText, type Terms } from "../wire/ask-text.ts";
import type { Revocation } from "../wire/bridge.ts";
import type { NetworkId, NodeId } from "../wire/ids.ts";
import type { LeaseField } from "../wire/lease-field.ts";
import type { Consent } from "./bridge-conversation.ts";
import type { Leases } from "./leases.ts";
import { type Call, RollCall } from "./roll-call.ts";
import { UnconfirmedTrust } from "./unconfirmed-trust.ts";

export interface IntroductionParts {
  readonly book: TrustBook;
  readonly registry: RegistryClient;
  wall(now: Instant): WallClock;
  /** Makes the peer's link, with what is known of its endpoint. */
  openLink(node: NodeId, publicKey: Uint8Array, now: Instant): void;
  closeLink(node: NodeId, now: Instant): void;
  connectLink(node: NodeId, now: Instant): void;
  /** The registry says where the peer may be. */
  located(node: NodeId, endpoint: Endpoint | undefined, lan: readonly Endpoint[], now: Instant): void;
  /** Ends all flows of the peer; those that were alive. */
  cutFlows(node: NodeId, why: "no-consent" | "lease-ended", now: Instant): readonly Flow[];
  readonly leases: Leases;
  /** Other flows may begin than before: those that may not go on any more end. */
  leasesChanged(now: Instant): void;
  /** Our consent, or its limits, changed: a peer whose link is up hears it at once. */
  consentChanged(node: NodeId, now: Instant): void;
  /** Says the same on port 444 as soon as there is a link: plain agents hear it nowhere else. */
  sayDirectly(node: NodeId, word: DirectWord, now: Instant): void;
  /** Tells a revoked peer so, until it acknowledges. */
  notifyRevoked(node: NodeId, now: Instant): void;
  /** The registry names another key than the pinned one. */
  keyChanged(record: TrustRecord, offered: Uint8Array): void;
  /** The operator decided about the peer's key. */
  keySettled(node: NodeId): void;
  /** The peer used to agree on keys inside the session, and does not. */
  agreementMissed(record: TrustRecord): void;
  /** It does, or need not. */
  agreementSettled(node: NodeId): void;
  /** The network whose joining by this operator consents to the request; undefined: he must be asked. */
  consentFor(node: NodeId, now: Instant): NetworkId | undefined;
}

export type DirectWord = "request" | "accept" | "reject" | "revoke";

export class Introductions {
  readonly #parts: IntroductionParts;
  /** Key: node. Bound: trust records; keys the registry named against the pin, until the operator decides. */
  readonly #offeredKeys = new Map<NodeId, Uint8Array>();

  readonly #unconfirmed: UnconfirmedTrust;
  readonly #rollCall: RollCall;
  #doubtUntil: Instant | undefined;

  constructor(parts: IntroductionParts, now: Instant) {
    this.#parts = parts;
    const { book, registry } = parts;
    this.#unconfirmed = new UnconfirmedTrust({
      ...{ book, registry },
      denied: (node, now) => this.#denied(node, now),
      askAgain: (node, now) => this.#askAgain(node, now),
      seek: (node, now) => parts.connectLink(node, now),
    });
    this.#rollCall = new RollCall((node, call, at) => this.#callUp(node, call, at), now);
  }

  /** At start: the links that the records of earlier runs call for. */
  resume(now: Instant): void {
    for (const record of this.#parts.book.records()) {
      this.#unconfirmed.note(record.node, now);
      if (!needsLink(record) || record.publicKey === undefined) continue;
      this.#parts.openLink(record.node, record.publicKey, now);
      if (record.state === "mutual") this.#rollCall.add(record.node, { connects: true, locates: false });
      if (statement.mustBeTold(record)) this.#parts.notifyRevoked(record.node, now);
    }
    this.#rollCall.handleTimeout(now);
  }

  /** The registry took us (again): repeat what it may not have heard, ask what we do not know. */
  registered(now: Instant): void {
    this.#unconfirmed.registered(now);
    for (const record of this.#parts.book.records()) {
      if (record.state === "asked" || hasOpenAsk(record)) this.#askThroughRegistry(record, now);
      if (record.state !== "none" && record.publicKey === undefined) this.#parts.registry.lookup(record.node);
      if (record.state === "mutual") this.#rollCall.add(record.node, { connects: false, locates: true });
    }
    this.#rollCall.handleTimeout(now);
  }

  handleTimeout(now: Instant): void {
    this.#unconfirmed.handleTimeout(now);
    this.#rollCall.handleTimeout(now);
  }

  pollTimeout(): Deadline | undefined {
    return earlier(this.#unconfirmed.pollTimeout(), this.#rollCall.pollTimeout());
  }

  /** It is the peer's turn; trust in it may have ended meanwhile. */
  #callUp(node: NodeId, { connects, locates }: Call, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record?.state !== "mutual") return;
    if (locates) this.#parts.registry.resolve(node);
    if (locates && record.hostname === undefined) this.#parts.registry.lookup(node);
    if (connects) this.#parts.connectLink(node, now);
  }

  /** Each returns the record as it is afterwards; undefined when the operator's word has nothing to act on. */
  ask(node: NodeId, reason: string, now: Instant, terms: Terms = NO_TERMS): TrustRecord | undefined {
    const { leases, wall } = this.#parts;
    leases.release(node);
    const known = this.#record(node, now);
    const record = known && this.#withOfferedKey(known, now);
    return record && this.#apply(record, statement.ask(record, reason, wall(now), terms, leases.time(now)), now);
  }

  /**
   * Asking a peer again after having revoked it is the operator's decision for the key that the registry named against
   * the pinned one; nothing less changes a pin.
   */
  #withOfferedKey(record: TrustRecord, now: Instant): TrustRecord {
    const offered = this.#offeredKeys.get(record.node);
    if (offered === undefined || record.state !== "revoked") return record;
    this.#offeredKeys.delete(record.node);
    this.#parts.keySettled(record.node);
    this.#parts.closeLink(record.node, now);
    return { ...record, publicKey: offered, revocationUntold: false };
  }

  /** `named`: limits beyond those that the peer asked for. */
  approve(node: NodeId, now: Instant, named: Terms = NO_TERMS): TrustRecord | undefined {
    const { book, leases, wall } = this.#parts;
    leases.release(node);
    const record = book.get(node);
    const approved = record && statement.approve(record, wall(now), named, leases.time(now));
    return record && approved && this.#apply(record, approved, now);
  }

  deny(node: NodeId, now: Instant): TrustRecord | undefined {
    const record = this.#parts.book.get(node);
    const denied = record && statement.deny(record, this.#parts.wall(now));
    if (record === undefined || denied === undefined) return undefined;
    this.#parts.registry.respondHandshake(node, false);
    return this.#apply(record, denied, now);
  }

  /** Also for a peer without a record: a tombstone before the fact. Returns the flows that were cut. */
  revoke(node: NodeId, now: Instant): { record: TrustRecord; cut: readonly Flow[] } | undefined {
    const record = this.#record(node, now);
    if (record === undefined) return undefined;
    const revoked = statement.revoke(record, this.#parts.wall(now), this.#parts.leases.time(now));
    this.#parts.agreementSettled(node);
    this.#parts.book.put(revoked); // first of all: from here on no packet passes
    const cut = this.#parts.cutFlows(node, "no-consent", now);
    this.#consequences(record, revoked, now);
    return { record: revoked, cut };
  }

  /** The time or the bytes of a lease are used up. */
  endLease(node: NodeId, how: LeaseEnd, now: Instant): void {
    this.#parts.leases.release(node);
    const record = this.#parts.book.get(node);
    if (record !== undefined) this.#apply(record, statement.endLease(record, how, this.#parts.wall(now)), now);
  }

  /** Somebody who says he is the peer has another key: perhaps it changed. Anybody can say so, so rarely looked up. */
  heardWrongKey(node: NodeId, now: Instant): void {
    if (this.#doubtUntil !== undefined && this.#doubtUntil > now) return;
    this.#doubtUntil = after(now, DOUBT_GAP_MS);
    this.#parts.registry.lookup(node);
  }

  /** What the peer itself said, on port 444 or in the session: authenticated. */
  heardRequest(node: NodeId, text: string, now: Instant): void {
    this.#heardRequest(node, text, this.#parts.wall(now), now);
  }

  heardAccept(node: NodeId, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record) this.#confirm(this.#apply(record, this.#accepted(record, undefined, now), now));
  }

  /** The peer itself has spoken for the trust that there is; `epoch`: of its last revocation, which is over. */
  #confirm(record: TrustRecord, epoch?: number): void {
    this.#parts.book.put(statement.confirm(record, epoch));
  }

  /** What letters of the registry made us believe is not so: our ask is open again, and made again. */
  #denied(node: NodeId, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record !== undefined) this.#apply(record, statement.heardNoConsent(record, this.#parts.wall(now)), now);
    this.#askAgain(node, now);
  }

  #askAgain(node: NodeId, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record?.state === "asked") this.#askThroughRegistry(record, now);
  }

  /** The peer agreed on keys inside a session: from now on it must. */
  heardAgreement(node: NodeId): void {
    const record = this.#parts.book.get(node);
    if (record === undefined) return;
    this.#parts.book.put(statement.heardAgreement(record));
    this.#parts.agreementSettled(node);
  }

  /** The peer is there and agrees on keys no more. */
  heardNoAgreement(node: NodeId): void {
    const record = this.#parts.book.get(node);
    if (record?.agreesOnKeys === true) this.#parts.agreementMissed(record);
  }

  heardReject(node: NodeId, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record) this.#apply(record, statement.heardReject(record, this.#parts.wall(now)), now);
  }

  heardRevoke(node: NodeId, now: Instant, epoch?: number): void {
    const record = this.#parts.book.get(node);
    if (record) this.#apply(record, statement.heardRevoke(record, this.#parts.wall(now), epoch), now);
  }

  /** The registry knows of no trust between us, and the peer behaves accordingly. It may not know yet of one just made. */
  heardNoPair(node: NodeId, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record?.state !== "mutual") return;
    const wall = this.#parts.wall(now);
    const isNew = record.since <= wall && wall - record.since < NEW_PAIR_MS; // else the clock was set back, and nobody can tell
    if (!isNew) this.#apply(record, statement.heardRevoke(record, wall), now);
  }

  /** In the session the peer says that it consents no longer, and why. */
  heardTakenBack(node: NodeId, { reason, epoch }: Pick<Revocation, "reason" | "epoch">, now: Instant): void {
    if (reason === "revoked") return this.heardRevoke(node, now, epoch);
    this.#parts.leases.release(node);
    const record = this.#parts.book.get(node);
    if (record === undefined) return;
    const end = reason === "lease-bytes" ? "bytes" : "time";
    const next = this.#apply(record, statement.heardLeaseEnd(record, end, this.#parts.wall(now)), now);
    if (next.state === "asked") this.#unconfirmed.reopened(node, now);
  }

  /** A hello: with our open ask, the peer's consent is its approval; without its consent nothing is mutual. */
  heardConsent(node: NodeId, { kind, consents, epoch, lease }: Consent, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record === undefined) return;
    if (record.state === "none" && kind === "hello-ack") return this.heardRevocationAck(node, now);
    if (!consents) return this.#heardNoConsent(record, now);
    this.#confirm(this.#apply(record, this.#accepted(record, undefined, now), now), epoch);
    if (lease !== undefined) this.#heardLimits(node, lease, now);
  }

  /** Also of an ask that was open here: what answered it there, a membership, may have come and gone unheard. */
  #heardNoConsent(record: TrustRecord, now: Instant): void {
    const next = this.#apply(record, statement.heardNoConsent(record, this.#parts.wall(now)), now);
    if (next.state === "asked") this.#unconfirmed.reopened(record.node, now);
  }

  #heardLimits(node: NodeId, lease: LeaseField, now: Instant): void {
    const { book, leases } = this.#parts;
    leases.release(node);
    const record = book.get(node);
    if (record === undefined) return;
    const limits = leases.limitsIn(lease, now);
    this.#apply(record, statement.heardLimits(record, limits, lease.answers, leases.time(now)), now);
  }

  #accepted(record: TrustRecord, madeAt: WallClock | undefined, now: Instant): TrustRecord {
    return statement.heardAccept(record, madeAt, this.#parts.wall(now), this.#parts.leases.time(now));
  }

  /** What a hello to the peer says about trust. */
  consentTo(node: NodeId, now: Instant): Consent {
    const record = this.#parts.book.get(node);
    const consents = record !== undefined && statement.consents(record);
    return { consents, epoch: record?.epoch ?? 0, lease: this.#parts.leases.fieldFor(node, now) };
  }

  heardRevocationAck(node: NodeId, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record?.state !== "revoked" && record?.state !== "lease-ended" && record?.state !== "none") return;
    this.#parts.book.put(statement.revocationTold(record));
    this.#parts.closeLink(node, now);
  }

  handleRegistry(event: RegistryEvent, now: Instant): void {
    switch (event.kind) {
      case "handshake-request":
        return this.#heardLetter(event, now);
      case "handshake-response":
        return this.#heardResponse(event.from, event.accepted, this.#inOwnTime(event.at), now);
      case "looked-up":
        return this.#lookedUp(event, now);
      case "trust-checked":
        return this.#unconfirmed.handleChecked(event, now);
      case "resolved":
        this.#parts.located(event.node, event.endpoint, event.lanEndpoints, now);
        return;
      default:
        return;
    }
  }

  /** The registry's time as this machine's clock would have shown it: what letters answer was said by that one. */
  #inOwnTime(at: WallClock): WallClock {
    const heard = this.#parts.registry.serverTime;
    if (heard?.unixS === undefined) return at;
    return (at - heard.unixS * 1_000 + this.#parts.wall(heard.at)) as WallClock;
  }

  #heardLetter({ from, reason, at }: Extract<RegistryEvent, { kind: "handshake-request" }>, now: Instant): void {
    if (at === 0) return this.#heardRequest(from, reason, this.#parts.wall(now), now); // it has no stamp
    this.#heardRequest(from, reason, this.#inOwnTime(at), now, at);
  }

  /** `stamp`: the registry's, of the letter. */
  #heardRequest(node: NodeId, text: string, at: WallClock, now: Instant, stamp?: WallClock): void {
    const record = this.#record(node, now);
    if (record === undefined) return;
    if (record.publicKey === undefined || record.hostname === undefined) this.#parts.registry.lookup(node);
    const { terms, serial, purpose: reason } = parseAskText(text);
    const request = terms === undefined ? { reason, at } : { reason, at, terms, serial };
    const { wall, leases } = this.#parts;
    const heard = statement.heardRequest(record, request, wall(now), leases.time(now), stamp);
    const next = this.#apply(record, heard, now);
    // It asks for what it has: it lost our answer, or its memory. Or both asked, and it may not know that we did.
    const bothAsked = record.state === "asked" && next.state === "mutual" && next.request === undefined;
    if (bothAsked || (record.state === "mutual" && next.request === record.request)) this.#answer(node, now);
    this.#approveMember(next, now);
  }

  /** Memberships changed, or more is known of them: consents that they stood for begin and end. */
  membershipsChanged(sharesJoined: (node: NodeId) => boolean, now: Instant): void {
    for (const record of [...this.#parts.book.records()]) {
      if (record.state === "pending") this.#approveMember(record, now);
      if (record.consentNetwork !== undefined && !sharesJoined(record.node)) this.#withdraw(record, now);
    }
  }

  #approveMember(record: TrustRecord, now: Instant): void {
    const network = record.state === "pending" ? this.#parts.consentFor(record.node, now) : undefined;
    if (network === undefined) return;
    this.#apply(record, statement.approveMember(record, network, this.#parts.wall(now)), now);
  }

  /** The peer hears that we do not consent any more, and then the link goes; its own ask may stay open. */
  #withdraw(record: TrustRecord, now: Instant): void {
    const withdrawn = statement.withdrawMember(record, this.#parts.wall(now));
    this.#parts.book.put(withdrawn);
    if (withdrawn.state === record.state) return;
    this.#parts.cutFlows(record.node, "no-consent", now);
    this.#parts.registry.revokeTrust(record.node);
    this.#parts.notifyRevoked(record.node, now);
  }

  #heardResponse(node: NodeId, accepted: boolean, at: WallClock, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record === undefined) return;
    const rejected = () => statement.heardReject(record, this.#parts.wall(now));
    this.#apply(record, accepted ? this.#accepted(record, at, now) : rejected(), now);
  }

  #lookedUp(event: Extract<RegistryEvent, { kind: "looked-up" }>, now: Instant): void {
    const record = this.#parts.book.get(event.node);
    if (record === undefined || event.result === undefined) return;
    const { publicKey, hostname } = event.result;
    if (record.publicKey !== undefined && !equalBytes(record.publicKey, publicKey)) {
      this.#offeredKeys.set(record.node, publicKey);
      this.#parts.keyChanged(record, publicKey); // the pin stays until an operator decides
      return;
    }
    const isNews = record.publicKey === undefined || (hostname ?? record.hostname) !== record.hostname;
    if (isNews) this.#parts.book.put({ ...record, publicKey, hostname: hostname ?? record.hostname });
    if (record.publicKey !== undefined || !needsLink(record)) return;
    this.#parts.openLink(record.node, publicKey, now);
    if (record.state === "mutual") this.#reach(record.node, now);
    if (statement.mustBeTold(record)) this.#parts.notifyRevoked(record.node, now); // there was no way to say it before
  }

  #record(node: NodeId, now: Instant): TrustRecord | undefined {
    return this.#parts.book.recordFor(node, this.#parts.wall(now));
  }

  #apply(before: TrustRecord, next: TrustRecord, now: Instant): TrustRecord {
    if (next === before && this.#parts.book.get(next.node) !== undefined) return next;
    this.#parts.book.put(next);
    if (next.state === before.state) {
      if (next.state === "mutual") this.#termsChanged(before, next, now);
      // Both sides took their consent back, or saw its end, by themselves: nothing is left to say.
      if (statement.mustBeTold(before) && !statement.mustBeTold(next)) this.#parts.closeLink(next.node, now);
      return next;
    }
    const why = next.state === "lease-ended" ? "lease-ended" : "no-consent";
    if (before.state === "mutual") this.#parts.cutFlows(next.node, why, now);
    this.#consequences(before, next, now);
    return next;
  }

  /** Trust stays, within other limits; or other limits were asked for. */
  #termsChanged(before: TrustRecord, record: TrustRecord, now: Instant): void {
    const { node } = record;
    if (!statement.allowsTheSame(before, record)) this.#parts.leasesChanged(now);
    if (record.lease !== before.lease) this.#parts.consentChanged(node, now);
    if (before.request !== undefined && record.request === undefined && record.lease !== before.lease) {
      this.#answer(node, now);
    }
    if (record.ask === before.ask || !hasOpenAsk(record)) return;
    this.#askThroughRegistry(record, now);
    this.#parts.sayDirectly(node, "request", now);
  }

  #consequences(before: TrustRecord, record: TrustRecord, now: Instant): void {
    const { node } = record;
    switch (record.state) {
      case "asked":
        if (before.state === "mutual") return this.#parts.consentChanged(node, now);
        this.#openLink(record, now);
        this.#askThroughRegistry(record, now);
        this.#parts.sayDirectly(node, "request", now);
        return;
      case "mutual":
        this.#openLink(record, now);
        if (before.state !== "asked" || before.request !== undefined) this.#answer(node, now);
        else this.#parts.registry.reportTrust(node);
        this.#parts.consentChanged(node, now);
        this.#parts.registry.lookup(node); // its host name is told only to those it trusts
        this.#unconfirmed.note(node, now);
        this.#reach(node, now);
        return;
      case "revoked":
        this.#parts.registry.revokeTrust(node);
        if (hadContact(before.state)) this.#parts.notifyRevoked(node, now);
        return;
      case "lease-ended":
        this.#parts.registry.revokeTrust(node);
        if (!record.revocationUntold) return this.#parts.closeLink(node, now);
        this.#parts.notifyRevoked(node, now);
        return;
      case "revoked-by-peer":
        // What the registry knows of our consent, and what we had it tell the peer, belongs to a trust that is no more.
        if (statement.consents(before)) this.#parts.registry.revokeTrust(node);
        this.#parts.closeLink(node, now);
        return;
      case "none":
        this.#parts.closeLink(node, now);
        return;
      case "pending":
        if (statement.mustBeTold(before)) this.#parts.closeLink(node, now);
        return;
    }
  }

  #answer(node: NodeId, now: Instant): void {
    this.#parts.registry.respondHandshake(node, true);
    this.#parts.registry.reportTrust(node);
    this.#parts.sayDirectly(node, "accept", now);
  }

  #askThroughRegistry(record: TrustRecord, now: Instant): void {
    const { registry } = this.#parts;
    registry.requestHandshake(record.node, statement.askTextOf(record));
    registry.expectHandshakes(after(now, EXPECT_ANSWER_MS));
    if (registry.serverTime === undefined) registry.heartbeatNow(); // or nobody knows how old the answer is
    if (record.publicKey === undefined) registry.lookup(record.node);
  }

  #openLink(record: TrustRecord, now: Instant): void {
    if (record.publicKey !== undefined) this.#parts.openLink(record.node, record.publicKey, now);
    else this.#parts.registry.lookup(record.node); // the link opens when the key is known
  }

  #reach(node: NodeId, now: Instant): void {
    this.#parts.registry.resolve(node);
    this.#parts.connectLink(node, now);
  }
}

function needsLink(record: TrustRecord): boolean {
  return statement.consents(record) || statement.mustBeTold(record);
}

/** Trust is mutual, and the peer has not answered an ask for other limits. */
function hasOpenAsk({ state, ask }: TrustRecord): boolean {
  return state === "mutual" && ask?.isAnswered === false;
}

function hadContact(state: TrustState): boolean {
  return state === "mutual" || state === "asked" || state === "pending";
}

/** Shared by all peers: what strangers can make us ask is bounded. */
const DOUBT_GAP_MS = 2_000;
const NEW_PAIR_MS = 5_000;
/** How long the registry is asked often whether an answer came. */
const EXPECT_ANSWER_MS = 120_000;
