/**
 * One peer's secure link: which session seals, which may still open, where frames go, what waits for a key.
 *
 *   idle ──(packet, connect)──► exchanging ──(PILA of the peer)──► up ──(silence, close)──► idle
 *
 * Sessions: `current` seals; `next` is a new key of the peer that has not proved itself while `current` works (a replayed
 * old PILA must not end a working session); `previous` still opens what is in flight. A `next` becomes `current` by the
 * first frame that opens under it; we provoke that frame with a ping. When `current` is silent, a new key takes over at
 * once. An endpoint moves only by a frame that opened (pilot protocol §11.2).
 */
import { equalBytes, toHex } from "../base/bytes.ts";
import type { DropReason } from "../base/drop-reason.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { after, type Deadline, type Instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import { encodeRelayPrefix } from "../wire/beacon.ts";
import type { Pila } from "../wire/frame.ts";
import type { NodeId } from "../wire/ids.ts";
import { KEY_STAT_COUNT, type StagedPacket } from "./data-plane.ts";
import { KeyExchange, PILA_FLAG, type PilaFlag, pilaFlags } from "./key-exchange.ts";
import type { LinkContext } from "./link-context.ts";
import { Path } from "./path.ts";
import { installKey, NoncePrefixes, pairName, type Session } from "./session.ts";
import { Staging } from "./staging.ts";
import { type LinkTimer, LinkTimers } from "./timers.ts";

export class Link {
  readonly node: NodeId;
  /** Place of this link in the table's typed arrays. */
  readonly index: number;
  readonly path = new Path();
  /** The peer's Ed25519 key; a link exists only for a peer whose key is known. */
  readonly #identityKey: Uint8Array;
  readonly #context: LinkContext;
  readonly #endpointSlot: number;
  readonly #timers: LinkTimers;
  readonly #staging = new Staging();
  readonly #inboundExchanges: TokenBucket;
  /** What was moved under keys that are gone. */
  readonly #retiredTraffic = new Float64Array(KEY_STAT_COUNT);
  /** Our half; replaced when a session ends for good, so that nothing recorded under it opens again. */
  #exchange: KeyExchange;
  #prefixes: NoncePrefixes;
  /**
   * Keys of the peer that a newer one has replaced, in hex: a replayed exchange with one of them is refused, or frames
   * recorded under it could be replayed too. Bound: MAX_RETIRED, oldest out; emptied with our half.
   */
  readonly #retiredPeerKeys: string[] = [];
  #current: Session | undefined;
  #next: Session | undefined;
  #previous: Session | undefined;
  #attempts = 0;
  #probes = 0;
  #exchangeSentAt: Instant | undefined;
  #lastReceivedAt: Instant | undefined;
  #establishedAt: Instant | undefined;

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
    this.#timers = new LinkTimers(() => context.timerSet(this));
    this.#inboundExchanges = new TokenBucket(2, 8, now);
    this.#exchange = new KeyExchange(context.crypto, context.local);
    this.#prefixes = new NoncePrefixes(context.crypto);
  }

  get isUp(): boolean {
    return this.#current !== undefined;
  }

  /** When the current key was agreed. */
  get establishedAt(): Instant | undefined {
    return this.#establishedAt;
  }

  get lastReceivedAt(): Instant | undefined {
    return this.#lastReceivedAt;
  }

  get sendSlot(): number | undefined {
    return this.#current?.sendSlot;
  }

  /** Inner bytes and packets under all keys of this link so far, by KEY_STAT. */
  traffic(): Float64Array {
    const sum = this.#retiredTraffic.slice();
    for (const session of [this.#current, this.#next, this.#previous]) if (session) this.#addTraffic(sum, session);
    return sum;
  }

  /** The registry or the cache names an endpoint. */
  suggestEndpoint(endpoint: Endpoint, now: Instant): void {
    const changed = this.path.suggest(endpoint, now);
    if (this.path.kind === "relay" && this.#current !== undefined) this.#tryDirect(now);
    if (!changed) return;
    this.#applyPath();
    if (this.#timers.isSet("exchange-retry")) this.#sendExchange(PILA_FLAG.REQUEST, now);
  }

  /** Starts agreeing on keys unless that is done or under way. */
  connect(now: Instant): void {
    if (this.#current !== undefined || this.#timers.isSet("exchange-retry")) return;
    this.#attempts = 0;
    this.#sendExchange(PILA_FLAG.REQUEST, now);
    this.#timers.set("exchange-retry", after(now, RETRY_MS[0]!));
    this.#context.emit({ kind: "endpoint-wanted", link: this });
  }

  /** A packet for which there is no key yet. Its bytes must be a copy. Returns the packets pushed out by it. */
  stage(packet: StagedPacket, now: Instant): number {
    const evicted = this.#staging.add(packet, now);
    this.connect(now);
    this.#timers.setIfStopped("exchange-refuse", after(now, REFUSE_MS));
    return evicted;
  }

  /** A signed key exchange that names this peer, from `source`. Returns why it had no effect, if so. */
  handleExchange(pila: Pila, source: Endpoint, relayed: boolean, now: Instant): DropReason | undefined {
    const wrongKey = this.#exchange.checkIdentity(pila, this.#identityKey);
    if (wrongKey !== undefined) return wrongKey;
    if (!this.#inboundExchanges.take(now)) return "key-exchange-limited";
    const flags = pilaFlags(pila.trailer);
    if (this.#sessionWith(pila.exchangeKey) !== undefined) {
      this.#answerKnownKey(flags, source, relayed, now);
      return undefined;
    }
    if (this.#retiredPeerKeys.includes(toHex(pila.exchangeKey))) return "stale-key-exchange";
    const badSignature = this.#exchange.checkSignature(pila);
    if (badSignature !== undefined) return badSignature;
    const session = this.#install(pila.exchangeKey, now);
    if (session === undefined) return "bad-key-exchange";
    if (flags !== PILA_FLAG.ANSWER) this.#transmitExchange(PILA_FLAG.ANSWER, source, relayed, now);
    this.#adopt(session, source, relayed, now);
    return undefined;
  }

  /** A PILS of this peer for which no key is here: it holds keys that we lost. Asks it for an exchange. */
  handleUnknownKey(source: Endpoint, relayed: boolean, now: Instant): void {
    if (!this.#inboundExchanges.take(now)) return;
    if (this.#exchangeSentAt !== undefined && after(this.#exchangeSentAt, SAME_KEY_ANSWER_MS) > now) return;
    this.#transmitExchange(PILA_FLAG.REQUEST, source, relayed, now);
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
    const session = this.#sessionOfSlot(keySlot);
    if (session === undefined) return;
    session.lastOpenedAt = now;
    this.#lastReceivedAt = now;
    this.#probes = 0;
    if (keySlot !== session.sendSlot) this.#sealWith(session, keySlot);
    if (session === this.#next) this.#promoteNext(now);
    this.#timers.stop("reply-due");
    if (session !== this.#previous) this.#learnPath(source, relayed, now);
    if (carriesData && this.#context.wantsKeepalive(this))
      this.#timers.setIfStopped("keepalive", after(now, KEEPALIVE_MS));
  }

  /** Inner packets were sealed for this peer: must be called when it first happens in a batch. */
  noteSent(now: Instant): void {
    this.#timers.stop("keepalive");
    if (!this.#timers.isSet("reply-due")) this.#timers.set("reply-due", after(now, REPLY_DUE_MS));
  }

  /** Seals a whole virtual packet and sends it; false when there is no key. */
  sendVirtual(packet: Uint8Array): boolean {
    const session = this.#current;
    if (session === undefined) return false;
    this.#transmitSealed(session.sendSlot, packet);
    return true;
  }

  /** Starts a timer that the bridge conversation owns; the engine is told when it fires. */
  schedule(timer: "hello-retry" | "notice-retry", at: Instant): void {
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
    this.#removeAll();
    this.#exchange.wipe();
    this.#context.endpointSlots.give(this.#endpointSlot);
  }

  #handleTimer(timer: LinkTimer, now: Instant): void {
    switch (timer) {
      case "exchange-retry":
        return this.#retryExchange(now);
      case "exchange-refuse":
        return this.#refuseStaged(now);
      case "keepalive":
        this.#context.emit({ kind: "keepalive-due", link: this });
        return;
      case "reply-due":
        return this.#probe(now);
      case "direct-retry":
        return this.#tryDirect(now);
      case "hello-retry":
        this.#context.emit({ kind: "hello-due", link: this });
        return;
      case "notice-retry":
        this.#context.emit({ kind: "notice-due", link: this });
        return;
      case "next-expires":
        if (this.#next !== undefined) this.#remove(this.#next);
        this.#next = undefined;
        return;
      case "previous-expires":
        this.#retirePrevious();
        return;
    }
  }

  #retryExchange(now: Instant): void {
    if (this.#current !== undefined) return;
    this.#attempts++;
    const delayMs = RETRY_MS[this.#attempts];
    if (delayMs === undefined) {
      this.#attempts = 0;
      this.#refuseStaged(now);
      return; // the next packet starts over
    }
    this.#sendExchange(PILA_FLAG.REQUEST, now);
    if (this.#attempts === ASK_AGAIN_ATTEMPT) this.#context.emit({ kind: "endpoint-wanted", link: this });
    this.#timers.set("exchange-retry", after(now, delayMs));
  }

  #refuseStaged(now: Instant): void {
    this.#timers.stop("exchange-refuse");
    const packets = this.#staging.take(now);
    if (packets.length > 0) this.#context.emit({ kind: "unreachable", link: this, packets });
  }

  /** We send and nothing comes back: ask for keys, ask for life, ask where the peer is. */
  #probe(now: Instant): void {
    this.#probes++;
    if (this.#probes > MAX_PROBES) return this.#giveUp(now);
    if (this.#probes === 1) this.path.doubt();
    if (this.#probes <= 2) this.#context.emit({ kind: "endpoint-wanted", link: this });
    this.#sendExchange(PILA_FLAG.REQUEST, now);
    this.#context.emit({ kind: "proof-wanted", link: this, keySlot: this.#current?.sendSlot });
    this.#timers.set("reply-due", after(now, PROBE_MS));
  }

  /** A frame that arrives the direct way proves it: the peer then answers directly, and so do we. */
  #tryDirect(now: Instant): void {
    if (this.path.kind !== "relay" || this.#current === undefined) return;
    if (this.path.direct !== undefined) this.#context.emit({ kind: "direct-proof-wanted", link: this });
    this.#timers.set("direct-retry", after(now, DIRECT_RETRY_MS));
  }

  #giveUp(now: Instant): void {
    this.#probes = 0;
    this.#timers.stopAll();
    this.#removeAll();
    this.#exchange.wipe();
    this.#exchange = new KeyExchange(this.#context.crypto, this.#context.local);
    this.#prefixes = new NoncePrefixes(this.#context.crypto);
    this.#retiredPeerKeys.length = 0;
    this.#context.emit({ kind: "down", link: this });
    this.#refuseStaged(now);
  }

  #answerKnownKey(flags: number, source: Endpoint, relayed: boolean, now: Instant): void {
    if (flags === PILA_FLAG.ANSWER) return;
    // Without a request flag we cannot tell a lost state from a repeated frame: answer only while nothing proves life.
    const alive = this.#lastReceivedAt !== undefined && after(this.#lastReceivedAt, ALIVE_MS) > now;
    if (flags !== PILA_FLAG.REQUEST && alive) return;
    if (this.#exchangeSentAt !== undefined && after(this.#exchangeSentAt, SAME_KEY_ANSWER_MS) > now) return;
    this.#transmitExchange(PILA_FLAG.ANSWER, source, relayed, now);
  }

  #adopt(session: Session, source: Endpoint, relayed: boolean, now: Instant): void {
    const currentAlive = this.#current?.lastOpenedAt !== undefined && after(this.#current.lastOpenedAt, ALIVE_MS) > now;
    if (this.#current !== undefined && currentAlive) {
      if (this.#next !== undefined) this.#remove(this.#next);
      this.#next = session;
      this.#timers.set("next-expires", after(now, NEXT_LIFETIME_MS));
      this.#context.emit({ kind: "proof-wanted", link: this, keySlot: session.sendSlot });
      return;
    }
    // Nothing works now: where the exchange came from is the best guess there is, until a frame proves it.
    if (relayed) this.path.provedRelay(now);
    else if (this.path.suggest(source, now) || this.path.kind === "none") this.#applyPath();
    this.#applyPath();
    this.#makeCurrent(session, now);
  }

  #promoteNext(now: Instant): void {
    const session = this.#next!;
    this.#next = undefined;
    this.#timers.stop("next-expires");
    this.#makeCurrent(session, now);
  }

  #makeCurrent(session: Session, now: Instant): void {
    this.#retirePrevious();
    this.#previous = this.#current;
    if (this.#previous !== undefined) this.#timers.set("previous-expires", after(now, PREVIOUS_LIFETIME_MS));
    this.#current = session;
    this.#establishedAt = now;
    this.#attempts = 0;
    this.#timers.stop("exchange-retry");
    this.#timers.stop("exchange-refuse");
    this.#publish();
    this.#context.emit({ kind: "up", link: this });
    for (const packet of this.#staging.take(now)) {
      this.#context.dataPlane.sendStaged(session.sendSlot, this.#endpointSlot, packet);
      this.noteSent(now);
    }
  }

  #sealWith(session: Session, slot: number): void {
    session.sendSlot = slot;
    if (session === this.#current) this.#publish();
  }

  #learnPath(source: Endpoint | undefined, relayed: boolean, now: Instant): void {
    if (relayed) {
      if (this.path.provedRelay(now)) this.#applyPath();
      this.#timers.setIfStopped("direct-retry", after(now, DIRECT_RETRY_MS));
      return;
    }
    const from = source ?? this.path.direct;
    if (from !== undefined && this.path.provedDirect(from, now)) {
      this.#applyPath();
      this.#context.emit({ kind: "moved", link: this });
    }
  }

  #applyPath(): void {
    const relay = this.#context.relay();
    if (this.path.kind === "relay" && relay !== undefined) {
      const prefix = encodeRelayPrefix(this.#context.local.node, this.node);
      this.#context.dataPlane.setEndpoint(this.#endpointSlot, relay, prefix);
      return;
    }
    if (this.path.direct !== undefined) {
      this.#context.dataPlane.setEndpoint(this.#endpointSlot, this.path.direct, NO_PREFIX);
    }
  }

  #sendExchange(flag: PilaFlag, now: Instant): void {
    if (this.path.direct !== undefined) this.#transmitExchange(flag, this.path.direct, false, now);
    const relay = this.#context.relay();
    // The reference hears of us through the beacon too when the direct way is closed (§14.3).
    const patience = this.path.direct === undefined ? 1 : RELAY_ATTEMPT;
    const directSilent = this.#attempts >= patience || this.#probes > 1;
    if (relay !== undefined && (directSilent || this.path.kind === "relay")) {
      this.#transmitExchange(flag, relay, true, now);
    }
  }

  #transmitExchange(flag: PilaFlag, to: Endpoint, relayed: boolean, now: Instant): void {
    this.#exchangeSentAt = now;
    this.#transmit(this.#exchange.frame(flag), to, relayed);
  }

  #transmitSealed(keySlot: number, packet: Uint8Array): void {
    const relay = this.#context.relay();
    const relayed = this.path.kind === "relay" && relay !== undefined;
    const to = relayed ? relay : this.path.direct;
    if (to !== undefined) this.#transmit(this.#context.dataPlane.seal(keySlot, packet), to, relayed);
  }

  /** Seals under one particular key: to prove a new one, or to try the older generation. */
  sendProof(keySlot: number, packet: Uint8Array): void {
    if (this.#sessionOfSlot(keySlot) !== undefined) this.#transmitSealed(keySlot, packet);
  }

  /** Seals and sends to the direct endpoint, whatever the path is. */
  sendDirectProof(packet: Uint8Array): void {
    const { direct } = this.path;
    if (this.#current === undefined || direct === undefined) return;
    this.#transmit(this.#context.dataPlane.seal(this.#current.sendSlot, packet), direct, false);
  }

  /** The older generation's slot of the same session, if the option allows it and nothing has opened yet. */
  legacySlotBeside(keySlot: number): number | undefined {
    const session = this.#sessionOfSlot(keySlot);
    return session?.lastOpenedAt === undefined ? session?.legacySlot : undefined;
  }

  #transmit(frame: Uint8Array, to: Endpoint, relayed: boolean): void {
    if (!relayed) {
      this.#context.transmit(to, frame);
      return;
    }
    const prefix = encodeRelayPrefix(this.#context.local.node, this.node);
    const datagram = new Uint8Array(prefix.length + frame.length);
    datagram.set(prefix);
    datagram.set(frame, prefix.length);
    this.#context.transmit(to, datagram);
  }

  #install(peerExchangeKey: Uint8Array, now: Instant): Session | undefined {
    const keys = this.#exchange.deriveKeys(peerExchangeKey);
    if (keys === undefined) return undefined;
    const keySlot = this.#installOne("current", peerExchangeKey, keys.current);
    const legacySlot = this.#context.allowLegacyKeys
      ? this.#installOne("legacy", peerExchangeKey, keys.legacy)
      : undefined;
    keys.current.fill(0);
    keys.legacy.fill(0);
    if (keySlot === undefined) return undefined;
    return {
      peerExchangeKey: peerExchangeKey.slice(),
      keySlot,
      legacySlot,
      installedAt: now,
      sendSlot: keySlot,
      lastOpenedAt: undefined,
    };
  }

  #installOne(generation: "current" | "legacy", peerExchangeKey: Uint8Array, key: Uint8Array): number | undefined {
    const { dataPlane, local, keySlots } = this.#context;
    const nonce = this.#prefixes.claim(pairName(generation, peerExchangeKey), local.node > this.node);
    if (nonce === undefined) return undefined;
    const slot = installKey(dataPlane, keySlots, {
      key,
      sendPrefix: nonce.prefix,
      firstCounter: nonce.firstCounter,
      localNode: local.node,
      peerNode: this.node,
      sendHeader: this.#context.bridgeHeader(local.node, this.node),
      receiveHeader: this.#context.bridgeHeader(this.node, local.node),
      bindSender: generation === "current",
    });
    if (slot === undefined) return undefined;
    dataPlane.bindKey(slot, this.#endpointSlot);
    this.#context.linkOfKey[slot] = this.index;
    return slot;
  }

  #addTraffic(sum: Float64Array, session: Session): void {
    const { keyStats } = this.#context.dataPlane;
    for (const slot of slotsOf(session)) {
      for (let i = 0; i < KEY_STAT_COUNT; i++) sum[i] = sum[i]! + keyStats[slot * KEY_STAT_COUNT + i]!;
    }
  }

  #remove(session: Session): void {
    this.#addTraffic(this.#retiredTraffic, session);
    for (const slot of slotsOf(session)) {
      const generation = slot === session.legacySlot ? "legacy" : "current";
      const nextCounter = this.#context.dataPlane.removeKey(slot);
      this.#prefixes.release(pairName(generation, session.peerExchangeKey), nextCounter);
      this.#context.linkOfKey[slot] = -1;
      this.#context.keySlots.give(slot);
    }
  }

  #removeAll(): void {
    for (const session of [this.#current, this.#next, this.#previous]) if (session !== undefined) this.#remove(session);
    this.#current = undefined;
    this.#next = undefined;
    this.#previous = undefined;
    this.#publish();
  }

  #retirePrevious(): void {
    if (this.#previous === undefined) return;
    this.#remove(this.#previous);
    this.#retiredPeerKeys.push(toHex(this.#previous.peerExchangeKey));
    if (this.#retiredPeerKeys.length > MAX_RETIRED) this.#retiredPeerKeys.shift();
    this.#previous = undefined;
  }

  /** Writes what the packet path reads: the slots to seal with, or none. */
  #publish(): void {
    this.#context.sendKey[this.index] = this.#current?.sendSlot ?? -1;
    this.#context.sendEndpoint[this.index] = this.#endpointSlot;
  }

  #sessionWith(peerExchangeKey: Uint8Array): Session | undefined {
    return [this.#current, this.#next, this.#previous].find(
      (session) => session !== undefined && equalBytes(session.peerExchangeKey, peerExchangeKey),
    );
  }

  #sessionOfSlot(slot: number): Session | undefined {
    return [this.#current, this.#next, this.#previous].find(
      (session) => session !== undefined && slotsOf(session).includes(slot),
    );
  }
}

function slotsOf(session: Session): number[] {
  return session.legacySlot === undefined ? [session.keySlot] : [session.keySlot, session.legacySlot];
}

const NO_PREFIX = new Uint8Array(0);
/** Delays before the repeats of our first exchange: a lost datagram costs little, a dead peer costs little too. */
const RETRY_MS = [250, 500, 1000, 2000, 4000];
/** From this repeat on the exchange also goes through the beacon. */
const RELAY_ATTEMPT = 2;
const ASK_AGAIN_ATTEMPT = 3;
/** How long a local program waits for a peer that does not answer, before it is told. */
const REFUSE_MS = 3_000;
/** Silence after sending that means one-way traffic; with PROBE_MS it must mend a restarted peer within 3 s. */
const REPLY_DUE_MS = 1_500;
const PROBE_MS = 700;
const MAX_PROBES = 20;
const KEEPALIVE_MS = 1_000;
/** A session that opened a frame within this time works. */
const ALIVE_MS = 1_500;
const SAME_KEY_ANSWER_MS = 500;
const DIRECT_RETRY_MS = 5_000;
const MAX_RETIRED = 64;
const NEXT_LIFETIME_MS = 5_000;
const PREVIOUS_LIFETIME_MS = 10_000;
