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
import { after, type Instant, type WallClock } from "../base/instant.ts";
import type { Flow } from "../policy/flow-table.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { RegistryEvent } from "../registry/events.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { TrustRecord, TrustState } from "../trust/trust-record.ts";
import * as statement from "../trust/trust-record.ts";
import type { NetworkId, NodeId } from "../wire/ids.ts";

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
  cutFlows(node: NodeId, now: Instant): readonly Flow[];
  /** Our consent changed: a peer whose link is up hears it at once. */
  consentChanged(node: NodeId): void;
  /** Says the same on port 444 as soon as there is a link: plain agents hear it nowhere else. */
  sayDirectly(node: NodeId, word: DirectWord, now: Instant): void;
  /** Tells a revoked peer so, until it acknowledges. */
  notifyRevoked(node: NodeId, now: Instant): void;
  /** The registry names another key than the pinned one. */
  keyChanged(record: TrustRecord, offered: Uint8Array): void;
  /** The operator decided about the peer's key. */
  keySettled(node: NodeId): void;
  /** The network whose joining by this operator consents to the request; undefined: he must be asked. */
  consentFor(node: NodeId, now: Instant): NetworkId | undefined;
}

export type DirectWord = "request" | "accept" | "reject" | "revoke";

export class Introductions {
  readonly #parts: IntroductionParts;
  /** Key: node. Bound: trust records; keys the registry named against the pin, until the operator decides. */
  readonly #offeredKeys = new Map<NodeId, Uint8Array>();

  #doubtUntil: Instant | undefined;

  constructor(parts: IntroductionParts) {
    this.#parts = parts;
  }

  /** At start: the links that the records of earlier runs call for. */
  resume(now: Instant): void {
    for (const record of this.#parts.book.records()) {
      if (!needsLink(record) || record.publicKey === undefined) continue;
      this.#parts.openLink(record.node, record.publicKey, now);
      if (record.state === "mutual") this.#parts.connectLink(record.node, now);
    }
  }

  /** The registry took us (again): repeat what it may not have heard, ask what we do not know. */
  registered(now: Instant): void {
    for (const record of this.#parts.book.records()) {
      if (record.state === "asked") this.#askThroughRegistry(record, now);
      if (record.state === "mutual") this.#parts.registry.resolve(record.node);
      const isNameless = record.state === "mutual" && record.hostname === undefined;
      if (isNameless || (record.state !== "none" && record.publicKey === undefined))
        this.#parts.registry.lookup(record.node);
    }
  }

  /** Each returns the record as it is afterwards; undefined when the operator's word has nothing to act on. */
  ask(node: NodeId, reason: string, now: Instant): TrustRecord | undefined {
    const known = this.#record(node, now);
    const record = known && this.#withOfferedKey(known, now);
    return record && this.#apply(record, statement.ask(record, reason, this.#parts.wall(now)), now);
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

  approve(node: NodeId, now: Instant): TrustRecord | undefined {
    const record = this.#parts.book.get(node);
    const approved = record && statement.approve(record, this.#parts.wall(now));
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
    const revoked = statement.revoke(record, this.#parts.wall(now));
    this.#parts.book.put(revoked); // first of all: from here on no packet passes
    const cut = this.#parts.cutFlows(node, now);
    this.#consequences(record, revoked, now);
    return { record: revoked, cut };
  }

  /** Somebody who says he is the peer has another key: perhaps it changed. Anybody can say so, so rarely looked up. */
  heardWrongKey(node: NodeId, now: Instant): void {
    if (this.#doubtUntil !== undefined && this.#doubtUntil > now) return;
    this.#doubtUntil = after(now, DOUBT_GAP_MS);
    this.#parts.registry.lookup(node);
  }

  /** What the peer itself said, on port 444 or in the session: authenticated. */
  heardRequest(node: NodeId, reason: string, now: Instant): void {
    this.#heardRequest(node, { reason, at: this.#parts.wall(now) }, now);
  }

  heardAccept(node: NodeId, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record) this.#apply(record, statement.heardAccept(record, undefined, this.#parts.wall(now)), now);
  }

  heardReject(node: NodeId, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record) this.#apply(record, statement.heardReject(record, this.#parts.wall(now)), now);
  }

  heardRevoke(node: NodeId, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record) this.#apply(record, statement.heardRevoke(record, this.#parts.wall(now)), now);
  }

  /** A hello: with our open ask, the peer's consent is its approval; without its consent nothing is mutual. */
  heardConsent(node: NodeId, consents: boolean, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record === undefined) return;
    const wall = this.#parts.wall(now);
    const next = consents ? statement.heardAccept(record, undefined, wall) : statement.heardNoConsent(record, wall);
    this.#apply(record, next, now);
  }

  heardRevocationAck(node: NodeId, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record?.state !== "revoked") return;
    this.#parts.book.put(statement.revocationTold(record));
    this.#parts.closeLink(node, now);
  }

  handleRegistry(event: RegistryEvent, now: Instant): void {
    switch (event.kind) {
      case "handshake-request":
        return this.#heardRequest(event.from, { reason: event.reason, at: event.at }, now);
      case "handshake-response":
        return this.#heardResponse(event.from, event.accepted, event.at, now);
      case "looked-up":
        return this.#lookedUp(event, now);
      case "resolved":
        this.#parts.located(event.node, event.endpoint, event.lanEndpoints, now);
        return;
      default:
        return;
    }
  }

  #heardRequest(node: NodeId, request: statement.TrustRequest, now: Instant): void {
    const record = this.#record(node, now);
    if (record === undefined) return;
    if (record.publicKey === undefined || record.hostname === undefined) this.#parts.registry.lookup(node);
    // It asks though we hold it for a friend: it lost our answer, or its memory.
    if (record.state === "mutual") this.#answer(node, now);
    this.#approveMember(this.#apply(record, statement.heardRequest(record, request, this.#parts.wall(now)), now), now);
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

  /** The peer hears that we do not consent any more before the link goes; its own ask may stay open. */
  #withdraw(record: TrustRecord, now: Instant): void {
    const withdrawn = statement.withdrawMember(record, this.#parts.wall(now));
    this.#parts.book.put(withdrawn);
    if (withdrawn.state === record.state) return;
    this.#parts.cutFlows(record.node, now);
    this.#parts.consentChanged(record.node);
    this.#parts.registry.revokeTrust(record.node);
    this.#parts.closeLink(record.node, now);
  }

  #heardResponse(node: NodeId, accepted: boolean, at: WallClock, now: Instant): void {
    const record = this.#parts.book.get(node);
    if (record === undefined) return;
    const wall = this.#parts.wall(now);
    const next = accepted ? statement.heardAccept(record, at, wall) : statement.heardReject(record, wall);
    this.#apply(record, next, now);
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
    this.#parts.book.put({ ...record, publicKey, hostname: hostname ?? record.hostname });
    if (record.publicKey !== undefined || !needsLink(record)) return;
    this.#parts.openLink(record.node, publicKey, now);
    if (record.state === "mutual") this.#reach(record.node, now);
  }

  #record(node: NodeId, now: Instant): TrustRecord | undefined {
    return this.#parts.book.recordFor(node, this.#parts.wall(now));
  }

  #apply(before: TrustRecord, next: TrustRecord, now: Instant): TrustRecord {
    if (next === before && this.#parts.book.get(next.node) !== undefined) return next;
    this.#parts.book.put(next);
    if (next.state !== before.state) {
      if (before.state === "mutual") this.#parts.cutFlows(next.node, now);
      this.#consequences(before, next, now);
    }
    return next;
  }

  #consequences(before: TrustRecord, record: TrustRecord, now: Instant): void {
    const { node } = record;
    switch (record.state) {
      case "asked":
        if (before.state === "mutual") return this.#parts.consentChanged(node);
        this.#openLink(record, now);
        this.#askThroughRegistry(record, now);
        this.#parts.sayDirectly(node, "request", now);
        return;
      case "mutual":
        this.#openLink(record, now);
        if (before.state !== "asked" || before.request !== undefined) this.#answer(node, now);
        else this.#parts.registry.reportTrust(node);
        this.#parts.consentChanged(node);
        this.#parts.registry.lookup(node); // its host name is told only to those it trusts
        this.#reach(node, now);
        return;
      case "revoked":
        this.#parts.registry.revokeTrust(node);
        if (hadContact(before.state)) this.#parts.notifyRevoked(node, now);
        return;
      case "revoked-by-peer":
      case "none":
        this.#parts.closeLink(node, now);
        return;
      case "pending":
        return;
    }
  }

  #answer(node: NodeId, now: Instant): void {
    this.#parts.registry.respondHandshake(node, true);
    this.#parts.registry.reportTrust(node);
    this.#parts.sayDirectly(node, "accept", now);
  }

  #askThroughRegistry(record: TrustRecord, now: Instant): void {
    this.#parts.registry.requestHandshake(record.node, record.askReason);
    this.#parts.registry.expectHandshakes(after(now, EXPECT_ANSWER_MS));
    if (record.publicKey === undefined) this.#parts.registry.lookup(record.node);
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
  return statement.consents(record) || (record.state === "revoked" && record.revocationUntold);
}

function hadContact(state: TrustState): boolean {
  return state === "mutual" || state === "asked" || state === "pending";
}

/** Shared by all peers: what strangers can make us ask is bounded. */
const DOUBT_GAP_MS = 2_000;
/** How long the registry is asked often whether an answer came. */
const EXPECT_ANSWER_MS = 120_000;
