/**
 * One peer's secure link: which session seals, which may still open, where frames go, what waits for a key.
 *
 *   idle ──(packet, connect)──► exchanging ──(PILA of the peer)──► up ──(silence, close)──► idle
 *
 * Sessions: `current` seals; `next` is a new key of the peer that has not proved itself while `current` works (a replayed
 * old PILA must not end a working session); `previous` still opens what is in flight. A `next` becomes `current` by the
 * first frame that opens under it; we provoke that frame with a ping. When `current` is silent, a new key takes over at
 * once. An endpoint moves only by a frame that opened (pilot protocol §11.2).
 *
 * A link in use keeps its NAT mappings open (`upkeep`). One that nobody used for long costs nothing: it dozes, and the
 * next packet waits for one round trip in which every way to the peer is tried at once.
 */
import type { DropReason } from "../base/drop-reason.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { after, type Deadline, type Instant, instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import { encodeRelayPrefix } from "../wire/beacon.ts";
import type { Pila } from "../wire/frame.ts";
import type { NodeId } from "../wire/ids.ts";
import type { CandidateOrigin } from "./candidates.ts";
import type { StagedPacket, VirtualRun } from "./data-plane.ts";
import { PILA_FLAG, type PilaFlag, pilaFlags } from "./key-exchange.ts";
import { type LinkContext, TIMER_EVENTS } from "./link-context.ts";
import { LinkSender } from "./link-sender.ts";
import * as timing from "./link-timing.ts";
import { Path, type PathEffect } from "./path.ts";
import { RelaySlot } from "./relay-slot.ts";
import type { Session } from "./session.ts";
import { Sessions } from "./sessions.ts";
import { Staging } from "./staging.ts";
import { type LinkTimer, LinkTimers } from "./timers.ts";
import { DirectSearch, Usage, upkeepMs } from "./usage.ts";

export class Link {
  readonly node: NodeId;
  /** Place of this link in the table's typed arrays. */
  readonly index: number;
  readonly path: Path;
  /** The peer's Ed25519 key; a link exists only for a peer whose key is known. */
  readonly #identityKey: Uint8Array;
  readonly #context: LinkContext;
  readonly #endpointSlot: number;
  readonly #relaySlot: RelaySlot;
  readonly #sender: LinkSender;
  readonly #timers: LinkTimers;
  readonly #staging = new Staging();
  readonly #inboundExchanges: TokenBucket;
  readonly #sessions: Sessions;
  #attempts = 0;
  #probes = 0;
  #exchangeSentAt: Instant | undefined;
  #lastReceivedAt: Instant | undefined;
  #establishedAt: Instant | undefined;
  /** Where the frame that is being handled came from: answers to it go back that way. */
  #cameFrom: Endpoint | undefined;
  #cameRelayed = false;
  readonly #usage = new Usage();
  readonly #directSearch = new DirectSearch();
  /** Nothing was heard for so long that the way must be tried before a packet is entrusted to it. */
  #dozes = false;
  /** Our answer is under way that gives the peer its key: what overtakes it, or comes with it, is lost. */
  #isHeld = false;
  #confirmedAt: Instant | undefined;

  constructor(
    context: LinkContext,
    node: NodeId,
    identityKey: Uint8Array,
    index: number,
    endpointSlot: number,
    now: Instant,
  ) {
    this.#context = context;
    this.node = node;
    this.#identityKey = identityKey;
    this.index = index;
    this.#endpointSlot = endpointSlot;
    this.#relaySlot = new RelaySlot(context, node, endpointSlot);
    this.#sender = new LinkSender(context, node);
    this.path = new Path(context.local.node < node, context.relayOnly);
    this.path.relayKind = context.relayKind();
    this.#timers = new LinkTimers(() => context.timerSet(this));
    this.#inboundExchanges = new TokenBucket(2, 8, now);
    this.#sessions = new Sessions(context, node, index, endpointSlot);
  }

  get stagedPackets(): number {
    return this.#staging.size;
  }

  get isUp(): boolean {
    return this.#sessions.current !== undefined;
  }

  /** When the current key was agreed. */
  get establishedAt(): Instant | undefined {
    return this.#establishedAt;
  }

  get lastReceivedAt(): Instant | undefined {
    return this.#lastReceivedAt;
  }

  /** Whether the frame that is being handled came through the relay. */
  get cameByRelay(): boolean {
    return this.#cameRelayed;
  }

  get sendSlot(): number | undefined {
    return this.#sessions.current?.sendSlot;
  }

  /** Inner bytes and packets under all keys of this link so far, by KEY_STAT. */
  traffic(): Float64Array {
    return this.#sessions.traffic();
  }

  /** The registry, the cache or a punch names an endpoint. */
  suggestEndpoint(endpoint: Endpoint, origin: CandidateOrigin, now: Instant): void {
    const effect = this.path.suggest(endpoint, origin, now);
    if (effect === "moved") this.#applyPath();
    const isSought = this.path.isRelayed || this.#dozes || this.#probes > 0 || this.#timers.isSet("exchange-retry");
    // A punch is for this very moment: both sides' NATs are open now.
    if (effect === "none" && !(origin === "punch" && isSought)) return;
    if (this.#timers.isSet("exchange-retry")) this.#tryExchange(PILA_FLAG.REQUEST, endpoint, now);
    else if (effect === "probe" || isSought) this.#probeDirect(endpoint, now);
  }

  /** The underlay changed: every proof is void. `spreadMs` keeps many links from asking in the same moment. */
  handleUnderlayChange(spreadMs: number, now: Instant): void {
    this.path.doubt();
    if (this.#timers.isSet("exchange-retry")) {
      this.#attempts = 0;
      this.#timers.set("exchange-retry", after(now, spreadMs));
      return;
    }
    if (this.#sessions.current === undefined) return;
    this.#probes = 0;
    if (this.#usage.isWanted(now)) this.#timers.set("reply-due", after(now, spreadMs));
    else this.#doze();
  }

  /** Tries every way now, for somebody who wants to see what becomes of it. */
  probeEveryWay(now: Instant): void {
    if (this.#sessions.current === undefined) return this.connect(now);
    this.#askThroughRelay();
    for (const endpoint of this.path.targets()) this.#probeDirect(endpoint, now);
  }

  /** The beacon is somewhere else, or is reached in another way: who looks for the peer looks there at once. */
  handleRelayChange(): void {
    this.path.relayKind = this.#context.relayKind();
    if (this.path.isRelayed) this.#applyPath();
    if (this.#probes > 0) this.#askThroughRelay();
  }

  /** The endpoint slot for packets that must go this way; undefined while the link has no such way. */
  slotFor(way: StagedPacket["way"], now: Instant): number | undefined {
    const slot = this.#relaySlot.slotFor(way, this.path.isRelayed);
    const { direct } = this.path;
    if (slot !== this.#endpointSlot && direct !== undefined && this.#relaySlot.mustShowDirect(now))
      this.#probeDirect(direct, now);
    return slot;
  }

  /** Starts agreeing on keys unless that is done or under way. */
  connect(now: Instant): void {
    if (this.#sessions.current !== undefined || this.#timers.isSet("exchange-retry")) return;
    this.#attempts = 0;
    this.#sendExchange(PILA_FLAG.REQUEST, now);
    this.#timers.set("exchange-retry", after(now, timing.RETRY_MS[0]!));
    this.#context.emit({ kind: "endpoint-wanted", link: this });
  }

  /** A packet for which there is no key yet. Its bytes must be a copy. Returns the packets pushed out by it. */
  stage(packet: StagedPacket, now: Instant): number {
    const evicted = this.#staging.add(packet, now);
    this.connect(now);
    this.#usage.note();
    if (this.#dozes) this.#timers.setIfStopped("reply-due", now);
    this.#timers.setIfStopped("exchange-refuse", after(now, timing.REFUSE_MS));
    return evicted;
  }

  /** A signed key exchange that names this peer, from `source`. Returns why it had no effect, if so. */
  handleExchange(pila: Pila, source: Endpoint, relayed: boolean, now: Instant): DropReason | undefined {
    const wrongKey = this.#sessions.exchange.checkIdentity(pila, this.#identityKey);
    if (wrongKey !== undefined) return wrongKey;
    const flags = pilaFlags(pila.trailer);
    if (this.#sessions.with(pila.exchangeKey) !== undefined) {
      this.#answerKnownKey(flags, source, relayed, now); // cheap, and limited by itself
      return undefined;
    }
    if (!this.#inboundExchanges.take(now)) return "key-exchange-limited";
    if (this.#sessions.isRetired(pila.exchangeKey)) return "stale-key-exchange";
    const badSignature = this.#sessions.exchange.checkSignature(pila);
    if (badSignature !== undefined) return badSignature;
    const session = this.#sessions.install(pila.exchangeKey, now);
    if (session === undefined) return "bad-key-exchange";
    if (flags !== PILA_FLAG.ANSWER) this.#transmitExchange(PILA_FLAG.ANSWER, source, relayed, now);
    this.#isHeld = flags !== PILA_FLAG.ANSWER && this.#sessions.current === undefined;
    this.#adopt(session, source, relayed, now);
    return undefined;
  }

  /** Asks for an exchange: the peer sent what no key here opens, or (`atOnce`) our own identity key is a new one. */
  requestExchange(to: Endpoint, relayed: boolean, now: Instant, atOnce = false): void {
    // In this order: a flood of such frames must not use up what a key exchange needs.
    const isRecent = this.#exchangeSentAt !== undefined && after(this.#exchangeSentAt, timing.SAME_KEY_ANSWER_MS) > now;
    if (!atOnce && (isRecent || !this.#inboundExchanges.take(now))) return;
    this.#transmitExchange(PILA_FLAG.REQUEST, to, relayed, now);
  }

  /**
   * A frame opened under `keySlot`: must be called for every inbound row but at most once per batch and slot.
   * `source` is given when it differs from where frames go now. `carriesData`: an inner packet, not control.
   */
  handleOpened(
    keySlot: number,
    source: Endpoint | undefined,
    relayed: boolean,
    carriesData: boolean,
    now: Instant,
  ): void {
    const session = this.#sessions.ofSlot(keySlot);
    if (session === undefined) return;
    if (this.#sessions.noteOpened(session, now)) this.#context.emit({ kind: "rekeyed", link: this });
    this.#lastReceivedAt = now;
    this.#cameFrom = source ?? this.path.direct;
    this.#cameRelayed = relayed;
    if (carriesData) this.#usage.note();
    if (keySlot !== session.sendSlot) {
      session.sendSlot = keySlot;
      if (session === this.#sessions.current) this.#publish();
    }
    if (session === this.#sessions.next) this.#promoteNext(now);
    if (session !== this.#sessions.previous) this.#learnPath(relayed, carriesData, now);
    // What came another way does not show that the one in use works.
    if (relayed === this.path.isRelayed) {
      this.#probes = 0;
      this.#timers.stop("reply-due");
    }
    if (this.#dozes || this.#isHeld) this.#wake(now);
    if (carriesData && this.#context.wantsKeepalive(this))
      this.#timers.setIfStopped("keepalive", after(now, timing.KEEPALIVE_MS));
  }

  /** Inner packets were sealed for this peer: must be called when it first happens in a batch. */
  noteSent(now: Instant): void {
    this.#usage.note();
    this.#timers.stop("keepalive");
    this.#timers.setIfStopped("upkeep", after(now, upkeepMs(this.index)));
    this.#timers.setIfStopped("mtu-check", after(now, timing.MTU_CHECK_MS));
    if (this.path.isRelayed) this.#timers.setIfStopped("direct-retry", after(now, timing.DIRECT_RETRY_MS));
    this.#timers.setIfStopped("reply-due", after(now, timing.REPLY_DUE_MS));
  }

  /** Seals a whole virtual packet, or a run; false without a key or the way. `anyLength`: it may be carried in pieces. */
  sendVirtual(packet: Uint8Array | VirtualRun, anyLength = false, way?: StagedPacket["way"]): boolean {
    const slot = this.#sessions.current?.sendSlot;
    const endpointSlot = this.#relaySlot.slotFor(way, this.path.isRelayed);
    if (slot === undefined || endpointSlot === undefined) return false;
    const isRelayed = this.path.isRelayed || way === "relay";
    if (packet instanceof Uint8Array) this.#sender.sendSealed(slot, packet, this.path.direct, isRelayed, anyLength);
    else this.#context.dataPlane.queueVirtual(slot, endpointSlot, packet);
    if (this.#dozes) this.#timers.setIfStopped("reply-due", this.#lastReceivedAt ?? instant(0));
    return true;
  }

  /** The same for an answer, of any length: it takes the way back that the frame being handled came on. */
  answerVirtual(packet: Uint8Array): boolean {
    const session = this.#sessions.current;
    if (session === undefined) return false;
    this.#sender.sendSealed(session.sendSlot, packet, this.#cameFrom, this.#cameRelayed, true);
    return true;
  }

  /** A probe to one endpoint was answered by the frame being handled. */
  handleProbeAnswer(sentAt: Instant, now: Instant): void {
    if (this.#cameRelayed || this.#cameFrom === undefined) return;
    this.#follow(this.path.answeredDirect(this.#cameFrom, sentAt, now), now);
  }

  /** The operator or a stream uses the link: it is kept open like one that carries packets. */
  noteUse(now: Instant): void {
    this.#usage.note();
    if (this.#sessions.current !== undefined) this.#timers.setIfStopped("upkeep", after(now, upkeepMs(this.index)));
  }

  /** Starts a timer that the bridge conversation owns; the engine is told when it fires. */
  schedule(timer: "hello-retry" | "notice-retry" | "mtu-probe", at: Instant): void {
    this.#timers.set(timer, at);
  }

  unschedule(timer: "hello-retry" | "notice-retry"): void {
    this.#timers.stop(timer);
  }

  nextDeadline(): Deadline | undefined {
    return this.#timers.next();
  }

  handleTimeout(now: Instant): void {
    // Bounded: a handler never sets a timer that is due at once.
    for (let timer = this.#timers.takeDue(now); timer !== undefined; timer = this.#timers.takeDue(now)) {
      this.#handleTimer(timer, now);
    }
  }

  /** Wipes the keys and forgets what waits. */
  close(): void {
    this.#timers.stopAll();
    this.#sessions.wipe();
    this.#publish();
    this.#context.endpointSlots.give(this.#endpointSlot);
    this.#relaySlot.give();
  }

  #handleTimer(timer: LinkTimer, now: Instant): void {
    switch (timer) {
      case "exchange-retry":
        return this.#retryExchange(now);
      case "exchange-refuse":
        return this.#refuseStaged(now);
      case "reply-due":
        return this.#probe(now);
      case "direct-retry":
        return this.#tryDirect(now);
      case "held":
        return this.#wake(now);
      case "keepalive":
        return this.#keepAlive(now);
      case "upkeep":
        return this.#keepUp(now);
      case "next-expires":
        return this.#sessions.dropNext();
      case "previous-expires":
        return this.#sessions.retirePrevious();
      default:
        return this.#context.emit({ kind: TIMER_EVENTS[timer], link: this });
    }
  }

  #retryExchange(now: Instant): void {
    if (this.#sessions.current !== undefined) return;
    this.#attempts++;
    const delayMs = timing.RETRY_MS[this.#attempts];
    if (delayMs === undefined) return this.#refuseStaged(now); // the next packet starts over
    this.#sendExchange(PILA_FLAG.REQUEST, now);
    if (this.#attempts === timing.ASK_AGAIN_ATTEMPT) this.#context.emit({ kind: "endpoint-wanted", link: this });
    this.#timers.set("exchange-retry", after(now, delayMs));
  }

  #refuseStaged(now: Instant): void {
    this.#timers.stop("exchange-refuse");
    const packets = this.#staging.take(now);
    if (packets.length > 0) this.#context.emit({ kind: "unreachable", link: this, packets });
  }

  /**
   * We send and nothing comes back, or the way is doubtful: ask for life on every way at once, ask for keys, ask where
   * the peer is. Whatever answers first becomes the path.
   */
  #probe(now: Instant): void {
    this.#probes++;
    if (this.#probes > timing.MAX_PROBES) return this.#giveUp(now);
    if (this.#probes === 1) this.path.doubt();
    if (this.#probes <= 2) this.#context.emit({ kind: "endpoint-wanted", link: this });
    // A mere doubt is settled by a ping; after that the peer may have lost its keys.
    if (!this.#dozes || this.#probes > 1) this.#sendExchange(PILA_FLAG.REQUEST, now);
    this.#context.emit({ kind: "proof-wanted", link: this, keySlot: this.#sessions.current?.sendSlot });
    this.#askThroughRelay();
    for (const endpoint of this.path.targets()) this.#probeDirect(endpoint, now);
    this.#timers.set("reply-due", after(now, timing.PROBE_MS));
    if (this.#probes >= timing.DOZE_PROBES) this.#doze(); // what waits arrives later, what is sent now never
  }

  /** While frames go through the relay: look for a direct way, often at first, as long as somebody uses the link. */
  #tryDirect(now: Instant): void {
    if (this.#sessions.current === undefined || !this.path.isRelayed || this.path.isRelayOnly) return;
    if (!this.#directSearch.isSettling && !this.#usage.isWanted(now)) return; // noteSent starts it again
    if (this.#directSearch.asksAgain) this.#context.emit({ kind: "endpoint-wanted", link: this });
    for (const endpoint of this.path.targets()) this.#probeDirect(endpoint, now);
    this.#timers.set("direct-retry", after(now, this.#directSearch.nextDelayMs()));
  }

  /**
   * Data came and we had nothing to send: the peer shall see that it arrives. It must answer, for when the data stops our
   * NAT mapping may have changed, which only we can mend.
   */
  #keepAlive(now: Instant): void {
    this.#context.emit({ kind: "proof-wanted", link: this, keySlot: undefined });
    this.#timers.setIfStopped("reply-due", after(now, timing.PROBE_MS));
  }

  /** A link in use keeps its mappings open; one that is not falls asleep without a word. */
  #keepUp(now: Instant): void {
    if (this.#sessions.current === undefined || this.#dozes) return;
    const heardAt = this.#lastReceivedAt ?? this.#establishedAt ?? now;
    if (!this.#usage.isWanted(now) && after(heardAt, timing.MAPPING_LIFE_MS) <= now) return this.#doze();
    if (this.#usage.isWanted(now) && after(heardAt, timing.QUIET_MS) <= now) {
      this.#context.emit({ kind: "proof-wanted", link: this, keySlot: undefined });
      this.#timers.setIfStopped("reply-due", after(now, timing.REPLY_DUE_MS));
    }
    this.#timers.set("upkeep", after(now, upkeepMs(this.index)));
  }

  #doze(): void {
    this.#dozes = true;
    this.#timers.stop("upkeep");
    this.#timers.stop("direct-retry");
    this.path.doubt();
    this.#publish();
  }

  /** The way is known again: what waited for that goes out. */
  #wake(now: Instant): void {
    this.#dozes = false;
    this.#isHeld = false;
    this.#timers.stop("held");
    this.#publish();
    this.#timers.stop("exchange-refuse");
    this.#timers.setIfStopped("upkeep", after(now, upkeepMs(this.index)));
    if (this.path.isRelayed) this.#lookForDirect(now);
    this.#flush(now);
  }

  #flush(now: Instant): void {
    const slot = this.#sessions.current?.sendSlot;
    if (slot === undefined) return;
    for (const packet of this.#staging.take(now)) {
      const endpointSlot = this.slotFor(packet.way, now);
      if (endpointSlot === undefined) this.#context.emit({ kind: "barred", link: this, packet });
      else this.#context.release(slot, endpointSlot, packet);
      this.noteSent(now);
    }
  }

  #lookForDirect(now: Instant): void {
    this.#directSearch.restart();
    this.#timers.set("direct-retry", now);
  }

  #probeDirect(endpoint: Endpoint, now: Instant): void {
    this.path.candidates.tried(endpoint, now);
    this.#context.emit({ kind: "direct-proof-wanted", link: this, endpoint });
  }

  #giveUp(now: Instant): void {
    this.#probes = 0;
    this.#dozes = false;
    this.#timers.stopAll();
    this.#sessions.wipe();
    this.#sessions.renew();
    this.#publish();
    this.#context.emit({ kind: "down", link: this });
    this.#refuseStaged(now);
  }

  #answerKnownKey(flags: number, source: Endpoint, relayed: boolean, now: Instant): void {
    if (flags === PILA_FLAG.ANSWER) return;
    // Without a request flag we cannot tell a lost state from a repeated frame: answer only while nothing proves life.
    const alive = this.#lastReceivedAt !== undefined && after(this.#lastReceivedAt, timing.ALIVE_MS) > now;
    if (flags !== PILA_FLAG.REQUEST && alive) return;
    if (this.#exchangeSentAt !== undefined && after(this.#exchangeSentAt, timing.SAME_KEY_ANSWER_MS) > now) return;
    this.#transmitExchange(PILA_FLAG.ANSWER, source, relayed, now);
    if (flags === PILA_FLAG.REQUEST) this.#context.emit({ kind: "forgotten", link: this });
  }

  #adopt(session: Session, source: Endpoint, relayed: boolean, now: Instant): void {
    const currentAlive =
      this.#sessions.current?.lastOpenedAt !== undefined &&
      after(this.#sessions.current.lastOpenedAt, timing.ALIVE_MS) > now;
    if (this.#sessions.current !== undefined && currentAlive) {
      if (this.#sessions.next !== undefined) this.#sessions.remove(this.#sessions.next);
      this.#sessions.next = session;
      this.#timers.set("next-expires", after(now, timing.NEXT_LIFETIME_MS));
      this.#context.emit({ kind: "proof-wanted", link: this, keySlot: session.sendSlot });
      return;
    }
    // Nothing works now: where the exchange came from is the best guess there is, until a frame proves it.
    this.path.guess(source, relayed, now);
    this.#applyPath();
    this.#makeCurrent(session, now);
  }

  #promoteNext(now: Instant): void {
    const session = this.#sessions.next!;
    this.#sessions.next = undefined;
    this.#timers.stop("next-expires");
    this.#makeCurrent(session, now);
  }

  #makeCurrent(session: Session, now: Instant): void {
    this.#sessions.retirePrevious();
    this.#sessions.previous = this.#sessions.current;
    if (this.#sessions.previous !== undefined)
      this.#timers.set("previous-expires", after(now, timing.PREVIOUS_LIFETIME_MS));
    this.#sessions.current = session;
    this.#establishedAt = now;
    this.#attempts = 0;
    this.#dozes = false;
    this.#timers.stop("exchange-retry");
    this.#timers.stop("exchange-refuse");
    this.#timers.setIfStopped("upkeep", after(now, upkeepMs(this.index)));
    this.#publish();
    this.#context.emit({ kind: "up", link: this });
    if (this.path.isRelayed) this.#lookForDirect(now);
    else for (const endpoint of this.path.betterTargets()) this.#probeDirect(endpoint, now);
    if (this.#isHeld) this.#timers.set("held", after(now, timing.HELD_MS));
    else this.#flush(now);
  }

  #learnPath(relayed: boolean, carriesData: boolean, now: Instant): void {
    if (relayed) this.#follow(this.path.heardRelay(now), now);
    else if (this.#cameFrom !== undefined) {
      this.#follow(this.path.heardDirect(this.#cameFrom, carriesData, now), now);
    }
  }

  #follow(effect: PathEffect, now: Instant): void {
    if (effect === "none") return;
    if (effect === "probe") {
      if (this.#confirmedAt !== undefined && after(this.#confirmedAt, timing.CONFIRM_GAP_MS) > now) return;
      this.#confirmedAt = now;
      if (this.#cameFrom !== undefined) this.#probeDirect(this.#cameFrom, now);
      return;
    }
    this.#applyPath();
    this.#context.emit({ kind: "moved", link: this });
    if (this.path.isRelayed) this.#lookForDirect(now);
    else this.#timers.stop("direct-retry");
  }

  #applyPath(): void {
    const relay = this.#context.relay();
    if (this.path.isRelayed && relay !== undefined) {
      const prefix = encodeRelayPrefix(this.#context.local.node, this.node);
      this.#context.dataPlane.setEndpoint(this.#endpointSlot, relay, prefix);
      return;
    }
    if (this.path.direct !== undefined) {
      this.#context.dataPlane.setEndpoint(this.#endpointSlot, this.path.direct, NO_PREFIX);
    }
  }

  #sendExchange(flag: PilaFlag, now: Instant): void {
    const targets = this.path.targets();
    for (const endpoint of targets) this.#tryExchange(flag, endpoint, now);
    const relay = this.#context.relay();
    // The reference hears of us through the beacon too when the direct way is closed (§14.3).
    const isDue = this.#attempts >= timing.RELAY_ATTEMPT || this.#probes > 0 || this.path.isRelayed;
    if (relay !== undefined && isDue && !this.#sparesRelay) this.#transmitExchange(flag, relay, true, now);
  }

  #tryExchange(flag: PilaFlag, endpoint: Endpoint, now: Instant): void {
    this.path.candidates.tried(endpoint, now);
    this.#transmitExchange(flag, endpoint, false, now);
  }

  #transmitExchange(flag: PilaFlag, to: Endpoint, relayed: boolean, now: Instant): void {
    this.#exchangeSentAt = now;
    this.#sender.send(this.#sessions.exchange.frame(flag), to, relayed);
  }

  /** Seals under one particular key, to see whether the peer holds it. */
  sendProof(keySlot: number, packet: Uint8Array): void {
    this.#sender.sendProof(this.#sessions.ofSlot(keySlot), packet, this.path.direct, this.path.isRelayed);
  }

  /** Seals and sends to one endpoint, whatever the path is. */
  sendDirectProof(packet: Uint8Array, endpoint: Endpoint): void {
    this.#sender.sendProof(this.#sessions.current, packet, endpoint, false);
  }

  /** Seals and sends through the relay, whatever the path is. */
  sendRelayProof(packet: Uint8Array): void {
    this.#sender.sendProof(this.#sessions.current, packet, undefined, true);
  }

  /** A daemon of the older generation that hears us through the relay once never sends straight again (§3.12). */
  get #sparesRelay(): boolean {
    const session = this.#sessions.current;
    const isOlder = session !== undefined && session.sendSlot === session.legacySlot;
    return isOlder && !this.path.isRelayed && this.#probes <= 1;
  }

  #askThroughRelay(): void {
    if (!this.#sparesRelay) this.#context.emit({ kind: "relay-proof-wanted", link: this });
  }

  /** Writes what the packet path reads: the slots to seal with, or none. */
  #publish(): void {
    this.#context.sendKey[this.index] = this.#dozes || this.#isHeld ? -1 : (this.#sessions.current?.sendSlot ?? -1);
    this.#context.sendEndpoint[this.index] = this.#endpointSlot;
  }
}

const NO_PREFIX = new Uint8Array(0);
