/**
 * When the two ends of a link agree on keys (agreement.ts), and what becomes of them.
 *
 * With a peer that never did so before, the base session carries everything until the agreement is done; it begins when the
 * peer's hello says that it can. With one that did, a base session is a carrier: it carries the agreement alone, and the link
 * is up when that is done. Whoever asked for the base exchange begins, for the other has its keys earlier and would speak
 * before it is understood; if nothing comes the other begins too.
 *
 * Keys that carried packets are replaced in time; those that carried none stay, so an idle link says nothing. New keys are
 * `next` (link.ts) while the old ones work: nobody seals under keys that the other end has not shown to have.
 */
import type { DropReason } from "../base/drop-reason.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { after, type Instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import { type AgreementMessage, bridgePacket } from "../wire/bridge.ts";
import { type AgreedKeys, Agreement } from "./agreement.ts";
import { KEY_STAT, KEY_STAT_COUNT } from "./data-plane.ts";
import type { Link } from "./link.ts";
import type { LinkContext, RekeyLimits } from "./link-context.ts";
import type { LinkSender } from "./link-sender.ts";
import * as timing from "./link-timing.ts";
import type { PathFollower } from "./path-follower.ts";
import type { Session } from "./session.ts";
import type { Sessions } from "./sessions.ts";
import type { LinkTimers } from "./timers.ts";

/** Of a frame that is being handled. */
export interface Arrival {
  from: Endpoint | undefined;
  relayed: boolean;
  under: Session | undefined;
}

/** What it has of the link. */
export interface RekeyingParts {
  readonly link: Link;
  readonly sessions: Sessions;
  readonly timers: LinkTimers;
  readonly follower: PathFollower;
  readonly sender: LinkSender;
  readonly arrival: Readonly<Arrival>;
  makeCurrent(session: Session, now: Instant): void;
  /** What waits for a session has waited in vain. */
  refuseStaged(now: Instant): void;
  /** The peer is asked for everything anew. */
  giveUp(now: Instant): void;
}

export class Rekeying {
  readonly #context: LinkContext;
  readonly #parts: RekeyingParts;
  readonly #agreement: Agreement;
  /** 0 to 1, by link, so that many links do not rekey in the same moment. */
  readonly #spread: number;
  /** What the peer may begin: not the limit of exchanges, which strangers can use up with copies. */
  #answers: TokenBucket | undefined;
  /** Where both sides begin, this one's handshake goes on. */
  readonly #isFirst: boolean;
  #attempts = 0;
  /** The session to agree inside when the timer says so. */
  #wanted: Session | undefined;
  /** The last outcome. */
  #agreed: { readonly session: Session; readonly over: Session } | undefined;
  /** Since when the present keys should have been replaced. */
  #overdueSince: Instant | undefined;

  constructor(context: LinkContext, peerIdentity: Uint8Array, parts: RekeyingParts) {
    const { node, index } = parts.link;
    this.#context = context;
    this.#parts = parts;
    this.#agreement = new Agreement(context.crypto, context.local.node, node, peerIdentity);
    this.#isFirst = context.local.node < node;
    this.#spread = ((index * 997) % 1000) / 1000;
  }

  /**
   * A base session with a peer that must agree on keys: it carries that and no more. What works goes on meanwhile, and while it
   * works it is left to the peer to begin, for an exchange may be a replay.
   */
  carry(session: Session, isAnswer: boolean, source: Endpoint, relayed: boolean, now: Instant): void {
    const { link, sessions, timers, follower } = this.#parts;
    sessions.addCarrier(session);
    if (link.isUp) timers.setIfStopped("carriers-expire", after(now, timing.CARRIER_LIFETIME_MS));
    if (sessions.isAlive(now)) return;
    timers.stop("exchange-retry");
    if (!link.isUp) {
      link.path.guess(source, relayed, now);
      follower.apply();
    }
    this.#want(session, isAnswer, now);
  }

  /**
   * A frame opened under a carrier. It proves that the peer is there, not that it is the one that agrees on keys: a session that
   * works is not touched, and then the answer is false.
   */
  heardCarrier(session: Session, now: Instant): boolean {
    session.lastOpenedAt = now;
    const { link, follower, arrival } = this.#parts;
    if (link.isUp) return false;
    follower.learn(arrival.from, arrival.relayed, false, now);
    return true;
  }

  /** The operator has ended trust, and with it what the peer must: what carried nothing but agreements may carry the rest. */
  usesCarrier(now: Instant): boolean {
    const { link, sessions, makeCurrent } = this.#parts;
    const { carriers } = sessions;
    const carrier = carriers.find(({ lastOpenedAt }) => lastOpenedAt !== undefined) ?? carriers[0];
    if (link.isUp || carrier === undefined || this.#context.mustAgree(link.node)) return false;
    this.reset();
    makeCurrent(sessions.releaseCarrier(carrier), now);
    return true;
  }

  /** The peer says that it agrees on keys; in a carrier it also says that it knows nothing of those before. */
  heardOffer(now: Instant): void {
    const { link, sessions, arrival } = this.#parts;
    const session = link.cameByCarrier ? arrival.under : sessions.current;
    if (session?.level === "base") this.#want(session, link.cameByCarrier || this.#isFirst, now);
  }

  /** To agree inside this session: now, or when the peer had its turn. */
  #want(session: Session, isOurTurn: boolean, now: Instant): void {
    const { openIn } = this.#agreement;
    const isUnderWay = openIn?.lastOpenedAt !== undefined && this.#parts.sessions.isCarrier(openIn);
    if (openIn === session || isUnderWay) return;
    this.#wanted = session;
    if (isOurTurn) this.#begin(session, now);
    else this.#parts.timers.setIfStopped("agree", after(now, timing.AGREE_TURN_MS));
  }

  /** Packets passed under the present keys. */
  noteUse(now: Instant): void {
    const { sessions, timers } = this.#parts;
    const session = sessions.current;
    if (session?.level !== "noise" || sessions.next?.level === "noise" || timers.isSet("agree")) return;
    if (this.#isUsedUp(session)) timers.set("rekey", now);
    else if (!timers.isSet("rekey")) timers.set("rekey", later(now, this.#dueAt(session)));
  }

  /** The timer "rekey". */
  handleDue(now: Instant): void {
    const { current, next } = this.#parts.sessions;
    if (current?.level !== "noise" || next?.level === "noise") return;
    this.#overdueSince ??= now;
    this.#want(current, true, now);
  }

  /** The timer "agree". */
  handleTimeout(now: Instant): void {
    if (this.usesCarrier(now)) return;
    const { sessions, timers } = this.#parts;
    const { next } = sessions;
    if (next?.isOurs && next.lastOpenedAt === undefined) {
      if (this.#isLost(now)) return this.#parts.giveUp(now);
      this.#prove(next);
      timers.set("agree", after(now, timing.RETRY_MS[Math.min(++this.#attempts, timing.RETRY_MS.length - 1)]!));
      return;
    }
    const session = this.#agreement.openIn ?? this.#wanted;
    if (session === undefined || !this.#isThere(session)) return this.#agreement.giveUp();
    if (this.#agreement.openIn === undefined) return this.#begin(session, now);
    const delayMs = timing.RETRY_MS[++this.#attempts];
    if (delayMs === undefined) return this.#failed(session, now);
    // An agent that does not know of all this answers a ping: that is how we learn that it is there.
    if (sessions.isCarrier(session)) this.#prove(session);
    this.#sayFirst(session);
    timers.set("agree", after(now, delayMs));
  }

  /** What the peer said in the frame that is being handled. */
  handle(message: AgreementMessage, now: Instant): DropReason | undefined {
    const session = this.#parts.arrival.under;
    if (session === undefined || session === this.#parts.sessions.previous) return "stale-key-exchange";
    if (message.kind === "agreed") {
      const keys = this.#agreement.handleSecond(session, message.noise);
      return keys === undefined ? "bad-key-exchange" : this.#install(keys, session, now);
    }
    const isKnown = this.#agreement.knows(session, message.noise);
    if (!isKnown && this.#isBegunByUs(session)) return undefined; // the peer said it before it heard ours
    this.#answers ??= new TokenBucket(2, 8, now);
    if (!isKnown && !this.#answers.take(now)) return "key-exchange-limited";
    const outcome = this.#agreement.handleFirst(session, message.noise);
    if (outcome === "bad") return "bad-key-exchange";
    if (outcome === "ours") return undefined;
    const refused = outcome.keys && this.#install(outcome.keys, session, now);
    if (refused === undefined) this.#sayBack(session, outcome.answer);
    return refused;
  }

  /** These keys are in use from now on. */
  inUse(): void {
    this.#wanted = undefined;
    this.#overdueSince = undefined;
    this.#agreement.giveUp();
    this.#parts.timers.stop("agree");
    this.#parts.timers.stop("rekey");
  }

  /** All sessions are gone. */
  reset(): void {
    this.#agreed = undefined;
    this.inUse();
    this.#agreement.reset();
  }

  #begin(session: Session, now: Instant): void {
    if (this.#agreement.begin(session) === undefined) return;
    this.#attempts = 0;
    this.#sayFirst(session);
    this.#parts.timers.set("agree", after(now, timing.RETRY_MS[0]!));
  }

  #sayFirst(session: Session): void {
    const { link, sender } = this.#parts;
    const noise = this.#agreement.first;
    if (noise === undefined) return;
    const packet = this.#packet({ kind: "agree", noise });
    const { direct, isRelayed } = link.path;
    sender.sendSealed(session.sendSlot, packet, direct, isRelayed);
    const isDue = !isRelayed && this.#attempts >= timing.RELAY_ATTEMPT;
    if (isDue) sender.sendSealed(session.sendSlot, packet, undefined, true);
  }

  #sayBack(session: Session, noise: Uint8Array): void {
    const { arrival, sender } = this.#parts;
    sender.sendSealed(session.sendSlot, this.#packet({ kind: "agreed", noise }), arrival.from, arrival.relayed);
  }

  #packet(message: AgreementMessage): Uint8Array {
    return bridgePacket(this.#context.local.node, this.#parts.link.node, message);
  }

  /** Provokes a frame of the peer under the session. */
  #prove(session: Session): void {
    this.#context.emit({ kind: "proof-wanted", link: this.#parts.link, keySlot: session.sendSlot });
  }

  #install(keys: AgreedKeys, over: Session, now: Instant): DropReason | undefined {
    const { sessions, timers } = this.#parts;
    const session = sessions.installAgreed(keys, over, now);
    if (session === undefined) return "bad-key-exchange";
    this.#attempts = 0;
    this.#agreed = { session, over };
    timers.stop("agree");
    if (session.isOurs && !sessions.isAlive(now)) {
      this.#parts.makeCurrent(session, now);
    } else {
      sessions.replaceNext(session);
      timers.set("next-expires", after(now, timing.AGREED_LIFETIME_MS));
      if (session.isOurs) timers.set("agree", after(now, timing.RETRY_MS[0]!));
    }
    if (session.isOurs) this.#prove(session);
    return undefined;
  }

  #failed(session: Session, now: Instant): void {
    const { link, sessions, timers } = this.#parts;
    this.#agreement.giveUp();
    this.#wanted = session;
    if (session !== sessions.current) {
      if (link.isUp) return;
      if (session.lastOpenedAt !== undefined) this.#context.emit({ kind: "unsecured", link });
      return this.#parts.refuseStaged(now);
    }
    if (this.#isLost(now)) return this.#parts.giveUp(now);
    const againMs = session.level === "base" ? timing.AGREE_AGAIN_MS : timing.REKEY_AGAIN_MS;
    timers.set("agree", after(now, againMs * (1 + this.#spread)));
  }

  /** The present keys should have been replaced long ago. */
  #isLost(now: Instant): boolean {
    return this.#overdueSince !== undefined && after(this.#overdueSince, timing.REKEY_GRACE_MS) <= now;
  }

  #isThere(session: Session): boolean {
    return this.#parts.sessions.current === session || this.#parts.sessions.isCarrier(session);
  }

  /** Of two that began at once this side goes on, and what it began is done but for the proof. */
  #isBegunByUs(over: Session): boolean {
    if (this.#agreed?.over !== over || !this.#isFirst) return false;
    return this.#agreed.session.isOurs && this.#agreed.session.lastOpenedAt === undefined;
  }

  /** The side that began does it again, up to a tenth early; the other one follows only if that side does not. */
  #dueAt({ installedAt, isOurs }: Session): Instant {
    const { everyMs } = this.#context.rekey;
    return after(installedAt, everyMs * (isOurs ? 1 - this.#spread / 10 : 1.1 + this.#spread / 10));
  }

  #isUsedUp({ keySlot }: Session): boolean {
    const { dataPlane, rekey } = this.#context;
    const of = (stat: number) => dataPlane.keyStats[keySlot * KEY_STAT_COUNT + stat]!;
    return (
      of(KEY_STAT.RX_PACKETS) + of(KEY_STAT.TX_PACKETS) >= rekey.packets ||
      of(KEY_STAT.RX_BYTES) + of(KEY_STAT.TX_BYTES) >= rekey.bytes
    );
  }
}

function later(a: Instant, b: Instant): Instant {
  return a > b ? a : b;
}

/**
 * 2^48 bytes are 2^44 blocks of AES: an observer of all of them tells GCM from chance with a probability below 2^-40. The
 * packets end long before their counter, of which 2^53 values are exact.
 */
export const REKEY_LIMITS: RekeyLimits = { everyMs: 120_000, bytes: 2 ** 48, packets: 2 ** 40 };
