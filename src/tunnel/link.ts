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
 * A link in use keeps its NAT mappings open (`upkeep`). One that nobody used for long, or that no way answers, dozes: it
 * costs nothing, and packets wait for the round trip in which every way to the peer is tried at once.
 */
import { equalBytes } from "../base/bytes.ts";
import type { DropReason } from "../base/drop-reason.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { after, type Deadline, type Instant, instant } from "../base/instant.ts";
import type { AgreementMessage } from "../wire/bridge.ts";
import type { Pila } from "../wire/frame.ts";
import type { NodeId } from "../wire/ids.ts";
import type { CandidateOrigin } from "./candidates.ts";
import type { StagedPacket, VirtualRun } from "./data-plane.ts";
import { ExchangeProof } from "./exchange-proof.ts";
import { ExchangeScreen } from "./exchange-screen.ts";
import { ExchangeSender } from "./exchange-sender.ts";
import { PILA_FLAG, pilaFlags } from "./key-exchange.ts";
import { type LinkContext, TIMER_EVENTS } from "./link-context.ts";
import { LinkSender } from "./link-sender.ts";
import * as timing from "./link-timing.ts";
import { Path } from "./path.ts";
import { PathFollower } from "./path-follower.ts";
import { type Arrival, Rekeying } from "./rekeying.ts";
import { RelaySlot } from "./relay-slot.ts";
import type { Session } from "./session.ts";
import { Sessions } from "./sessions.ts";
import { Staging } from "./staging.ts";
import { type LinkTimer, LinkTimers } from "./timers.ts";
import { Usage, upkeepMs } from "./usage.ts";

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
  readonly #screen: ExchangeScreen;
  readonly #sessions: Sessions;
  /** Made when there is something to agree on. */
  #rekeying: Rekeying | undefined;
  readonly #exchanges: ExchangeSender;
  readonly #follower: PathFollower;
  #attempts = 0;
  #probes = 0;
  #lastReceivedAt: Instant | undefined;
  #establishedAt: Instant | undefined;
  /** Of the frame that is being handled: answers to it go back the way it came. */
  readonly #arrival: Arrival = { from: undefined, relayed: false, under: undefined };
  readonly #usage = new Usage();
  /** Nothing was heard for so long that the way must be tried before a packet is entrusted to it. */
  #dozes = false;
  /** Our answer is under way that gives the peer its key: what overtakes it, or comes with it, is lost. */
  #isHeld = false;

  constructor(context: LinkContext, node: NodeId, identityKey: Uint8Array, index: number, endpointSlot: number) {
    this.#context = context;
    this.node = node;
    this.#identityKey = identityKey;
    this.index = index;
    this.#endpointSlot = endpointSlot;
    this.#relaySlot = new RelaySlot(context, node, endpointSlot);
    this.#sender = new LinkSender(context, node);
    this.path = new Path(context.local.node < node, context.relayOnly);
    this.path.relayKind = context.relayKind();
    this.#timers = new LinkTimers(context, this);
    const proof = new ExchangeProof(context.crypto, context.local, node, identityKey);
    this.#screen = new ExchangeScreen(context.exchangeBudget, proof, this.path);
    this.#sessions = new Sessions(context, node, index, endpointSlot);
    this.#exchanges = new ExchangeSender(context, this.#sessions, this.path, this.#sender, proof);
    this.#follower = new PathFollower(context, this, this.path, endpointSlot, this.#timers);
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

  /** Of the session that seals, and since when its keys are what they are. */
  get security(): Sessions["security"] {
    return this.#sessions.security;
  }

  get lastReceivedAt(): Instant | undefined {
    return this.#lastReceivedAt;
  }

  /** Whether the frame that is being handled came through the relay. */
  get cameByRelay(): boolean {
    return this.#arrival.relayed;
  }

  /** Whether it came in a session that may only agree on keys. */
  get cameByCarrier(): boolean {
    return this.#arrival.under !== undefined && this.#sessions.isCarrier(this.#arrival.under);
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
    if (effect === "moved") this.#follower.apply();
    const isSought = this.path.isRelayed || this.#dozes || this.#probes > 0 || this.#timers.isSet("exchange-retry");
    // A punch is for this very moment: both sides' NATs are open now.
    if (effect === "none" && !(origin === "punch" && isSought)) return;
    if (this.#timers.isSet("exchange-retry")) this.#exchanges.try(PILA_FLAG.REQUEST, endpoint, now);
    else if (effect === "probe" || isSought) this.#follower.probe(endpoint, now);
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
    this.#askEverybody(now);
  }

  /** The beacon is somewhere else, or is reached in another way: who looks for the peer looks there at once. */
  handleRelayChange(): void {
    this.path.relayKind = this.#context.relayKind();
    if (this.path.isRelayed) this.#follower.apply();
    if (this.#probes > 0) this.#askThroughRelay();
  }

  /** The endpoint slot for packets that must go this way; undefined while the link has no such way. */
  slotFor(way: StagedPacket["way"], now: Instant): number | undefined {
    const slot = this.#relaySlot.slotFor(way, this.path.isRelayed);
    const { direct } = this.path;
    if (slot !== this.#endpointSlot && direct !== undefined && this.#relaySlot.mustShowDirect(now))
      this.#follower.probe(direct, now);
    return slot;
  }

  /** Starts agreeing on keys unless that is done or under way. */
  connect(now: Instant): void {
    const isUnderWay = this.#timers.isSet("exchange-retry") || this.#timers.isSet("agree");
    if (this.isUp || this.#rekeying?.usesCarrier(now) || isUnderWay) return;
    this.#attempts = 0;
    this.#sendExchange(now);
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
    const known = this.#sessions.with(pila.exchangeKey);
    if (known !== undefined) {
      this.#answerKnownKey(flags, source, relayed, now); // cheap, and limited by itself
      if (this.#sessions.isCarrier(known)) this.#install(known, flags, source, relayed, now);
      return undefined;
    }
    if (this.#sessions.isRetired(pila.exchangeKey)) return "stale-key-exchange";
    if (!this.#screen.admits(pila, source, relayed, now)) return "key-exchange-limited";
    const badSignature = this.#sessions.exchange.checkSignature(pila);
    if (badSignature !== undefined) return badSignature;
    if (flags === PILA_FLAG.ANSWER && !this.#sessions.exchange.isBegun) {
      this.connect(now); // it answers a half of ours that is gone: the peer would have other keys, but it is there
      return "stale-key-exchange";
    }
    const session = this.#sessions.install(pila.exchangeKey, now);
    if (session === undefined) return "bad-key-exchange";
    if (flags !== PILA_FLAG.ANSWER) this.#exchanges.send(PILA_FLAG.ANSWER, source, relayed, now);
    this.#install(session, flags, source, relayed, now);
    return undefined;
  }

  /** Asks for an exchange: the peer sent what no key here opens, or (`atOnce`) our own identity key is a new one. */
  requestExchange(to: Endpoint, relayed: boolean, now: Instant, atOnce = false): void {
    if (atOnce) this.#exchanges.send(PILA_FLAG.REQUEST, to, relayed, now);
    else this.#exchanges.request(to, relayed, now);
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
    this.#arrival.under = session;
    this.#arrival.from = source ?? this.path.direct;
    this.#arrival.relayed = relayed;
    if (this.#context.onlyAgrees[keySlot] === 1) {
      if (this.#rekeying?.heardCarrier(session, now)) this.#lastReceivedAt = now;
      return;
    }
    if (this.#sessions.noteOpened(session, now)) this.#context.emit({ kind: "rekeyed", link: this });
    this.#lastReceivedAt = now;
    if (carriesData) this.#usage.note();
    if (carriesData) this.#rekeying?.noteUse(now);
    if (keySlot !== session.sendSlot) {
      session.sendSlot = keySlot;
      if (session === this.#sessions.current) this.#publish();
    }
    if (session === this.#sessions.next) this.#promoteNext(now);
    if (session !== this.#sessions.previous) this.#follower.learn(this.#arrival.from, relayed, carriesData, now);
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
    this.#rekeying?.noteUse(now);
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
    const session = this.cameByCarrier ? this.#arrival.under : this.#sessions.current;
    if (session === undefined) return false;
    this.#sender.sendSealed(session.sendSlot, packet, this.#arrival.from, this.#arrival.relayed, true);
    return true;
  }

  /** A probe to one endpoint was answered by the frame being handled. */
  handleProbeAnswer(sentAt: Instant, now: Instant): void {
    if (this.#arrival.relayed || this.#arrival.from === undefined || (this.cameByCarrier && this.isUp)) return;
    this.#follower.follow(this.path.answeredDirect(this.#arrival.from, sentAt, now), this.#arrival.from, now);
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

  /** The peer's hello says that it agrees on keys. */
  wantAgreement(now: Instant): void {
    this.#agreeing.heardOffer(now);
  }

  /** A message of the agreement was in the frame that is being handled. */
  handleAgreement(message: AgreementMessage, now: Instant): DropReason | undefined {
    return this.#agreeing.handle(message, now);
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
    this.#rekeying?.reset();
    this.#sessions.wipe();
    this.#screen.wipe();
    this.#publish();
    this.#context.endpointSlots.give(this.#endpointSlot);
    this.#relaySlot.give();
  }

  #handleTimer(timer: LinkTimer, now: Instant): void {
    switch (timer) {
      case "exchange-retry":
        return this.#retryExchange(now);
      case "exchange-expires":
        return this.#forgetExchange();
      case "exchange-refuse":
        return this.#refuseStaged(now);
      case "reply-due":
        return this.#probe(now);
      case "direct-retry":
        return this.isUp ? this.#follower.tryDirect(this.#usage.isWanted(now), now) : undefined;
      case "held":
        return this.#wake(now);
      case "keepalive":
        return this.#keepAlive(now);
      case "upkeep":
        return this.#keepUp(now);
      case "agree":
        return this.#rekeying?.handleTimeout(now);
      case "rekey":
        return this.#rekeying?.handleDue(now);
      case "carriers-expire":
        return this.isUp ? this.#sessions.dropCarriers() : undefined;
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
    const delayMs = timing.RETRY_MS[++this.#attempts];
    if (delayMs === undefined) this.#timers.set("exchange-expires", after(now, timing.LATE_ANSWER_MS));
    if (delayMs === undefined) return this.#refuseStaged(now); // the next packet starts over
    this.#sendExchange(now);
    if (this.#attempts === timing.ASK_AGAIN_ATTEMPT) this.#context.emit({ kind: "endpoint-wanted", link: this });
    this.#timers.set("exchange-retry", after(now, delayMs));
  }

  /** Most of thousands of peers may be away. */
  #forgetExchange(): void {
    if (this.#timers.isSet("exchange-retry") || !this.#sessions.isEmpty) return;
    this.#exchanges.rest();
    this.#sessions.renew();
    this.#screen.reset();
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
    if (!this.#dozes || this.#probes > 1) this.#sendExchange(now);
    this.#context.emit({ kind: "proof-wanted", link: this, keySlot: this.#sessions.current?.sendSlot });
    this.#askEverybody(now);
    this.#timers.set("reply-due", after(now, timing.PROBE_MS));
    if (this.#probes >= timing.DOZE_PROBES) this.#doze(); // what waits arrives later, what is sent now never
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
    [this.#dozes, this.#isHeld] = [false, false];
    this.#timers.stop("held");
    this.#publish();
    this.#timers.stop("exchange-refuse");
    this.#timers.setIfStopped("upkeep", after(now, upkeepMs(this.index)));
    if (this.path.isRelayed) this.#follower.lookForDirect(now);
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

  #giveUp(now: Instant): void {
    this.#probes = 0;
    this.#dozes = false;
    this.#rekeying?.reset();
    this.#timers.stopAll();
    this.#sessions.wipe();
    this.#sessions.renew();
    this.#screen.reset();
    this.#publish();
    this.#context.emit({ kind: "down", link: this });
    this.#refuseStaged(now);
  }

  #answerKnownKey(flags: number, source: Endpoint, relayed: boolean, now: Instant): void {
    if (flags === PILA_FLAG.ANSWER) return;
    // Without a request flag we cannot tell a lost state from a repeated frame: answer only while nothing proves life.
    const alive = this.#lastReceivedAt !== undefined && after(this.#lastReceivedAt, timing.ALIVE_MS) > now;
    if (flags !== PILA_FLAG.REQUEST && alive) return;
    if (this.#exchanges.wasJustSent(source, relayed, now)) return;
    this.#exchanges.send(PILA_FLAG.ANSWER, source, relayed, now);
    if (flags === PILA_FLAG.REQUEST) this.#context.emit({ kind: "forgotten", link: this });
  }

  #install(session: Session, flags: number, source: Endpoint, relayed: boolean, now: Instant): void {
    const isAnswer = flags === PILA_FLAG.ANSWER;
    if (this.#context.mustAgree(this.node)) return this.#agreeing.carry(session, isAnswer, source, relayed, now);
    if (this.#sessions.isCarrier(session)) this.#sessions.releaseCarrier(session);
    this.#isHeld = !isAnswer && !this.isUp;
    this.#adopt(session, source, relayed, now);
  }

  #adopt(session: Session, source: Endpoint, relayed: boolean, now: Instant): void {
    if (this.#sessions.isAlive(now)) {
      this.#sessions.replaceNext(session);
      this.#timers.set("next-expires", after(now, timing.NEXT_LIFETIME_MS));
      this.#context.emit({ kind: "proof-wanted", link: this, keySlot: session.sendSlot });
      return;
    }
    // Nothing works now: where the exchange came from is the best guess there is, until a frame proves it.
    this.path.guess(source, relayed, now);
    this.#follower.apply();
    this.#makeCurrent(session, now);
  }

  #promoteNext(now: Instant): void {
    const session = this.#sessions.next!;
    this.#sessions.next = undefined;
    this.#timers.stop("next-expires");
    this.#makeCurrent(session, now);
  }

  #makeCurrent(session: Session, now: Instant): void {
    const before = this.#sessions.makeCurrent(session);
    if (before !== undefined) this.#timers.set("previous-expires", after(now, timing.PREVIOUS_LIFETIME_MS));
    this.#rekeying?.inUse();
    const goesOn = before !== undefined && equalBytes(before.peerExchangeKey, session.peerExchangeKey);
    if (session.level === "noise") {
      this.#timers.set("carriers-expire", after(now, timing.PREVIOUS_LIFETIME_MS));
      this.#context.emit({ kind: "agreed", link: this });
    }
    if (goesOn) return this.#publish(); // other keys for the same conversation
    this.#establishedAt = now;
    this.#attempts = 0;
    this.#dozes = false;
    this.#timers.stop("exchange-retry");
    this.#timers.stop("exchange-refuse");
    this.#timers.setIfStopped("upkeep", after(now, upkeepMs(this.index)));
    this.#publish();
    this.#context.emit({ kind: "up", link: this });
    if (this.path.isRelayed) this.#follower.lookForDirect(now);
    else for (const endpoint of this.path.betterTargets()) this.#follower.probe(endpoint, now);
    if (this.#isHeld) this.#timers.set("held", after(now, timing.HELD_MS));
    else this.#flush(now);
  }

  /** Seals under one particular key, to see whether the peer holds it. */
  sendProof(keySlot: number, packet: Uint8Array): void {
    this.#sender.sendProof(this.#sessions.ofSlot(keySlot), packet, this.path.direct, this.path.isRelayed);
  }

  /** Seals and sends to one endpoint, or (undefined) through the relay, whatever the path is. */
  sendProofBy(endpoint: Endpoint | undefined, packet: Uint8Array): void {
    this.#sender.sendProof(this.#sessions.current, packet, endpoint, endpoint === undefined);
  }

  #sendExchange(now: Instant): void {
    const isDue = this.#attempts >= timing.RELAY_ATTEMPT || this.#probes > 0 || this.path.isRelayed;
    this.#exchanges.sendEverywhere(PILA_FLAG.REQUEST, isDue && !this.#sparesRelay, now);
  }

  #askEverybody(now: Instant): void {
    this.#askThroughRelay();
    this.#follower.probeAll(now);
  }

  #askThroughRelay(): void {
    if (!this.#sparesRelay) this.#context.emit({ kind: "relay-proof-wanted", link: this });
  }

  /** A daemon of the older generation that hears us through the relay once never sends straight again (§3.12). */
  get #sparesRelay(): boolean {
    const session = this.#sessions.current;
    const isOlder = session !== undefined && session.sendSlot === session.legacySlot;
    return isOlder && !this.path.isRelayed && this.#probes <= 1;
  }

  get #agreeing(): Rekeying {
    this.#rekeying ??= new Rekeying(this.#context, this.#identityKey, {
      ...{ link: this, sessions: this.#sessions, timers: this.#timers, arrival: this.#arrival },
      ...{ follower: this.#follower, sender: this.#sender },
      makeCurrent: (session, at) => this.#makeCurrent(session, at),
      refuseStaged: (at) => this.#refuseStaged(at),
      giveUp: (at) => this.#giveUp(at),
    });
    return this.#rekeying;
  }

  /** Writes what the packet path reads: the slots to seal with, or none. */
  #publish(): void {
    this.#context.sendKey[this.index] = this.#dozes || this.#isHeld ? -1 : (this.#sessions.current?.sendSlot ?? -1);
    this.#context.sendEndpoint[this.index] = this.#endpointSlot;
  }
}
