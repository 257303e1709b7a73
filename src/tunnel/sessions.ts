/**
 * The keys agreed with one peer, and our half of the exchange they come from. `current` seals; `next` and `previous` only
 * open; see link.ts for when one becomes the other. A carrier is a base session with a peer that agrees on stronger ones: it
 * carries that agreement and nothing else. Invariant: every session here has its key in a slot of the data plane
 * that names this link, and a peer key that a newer one replaced is never installed again under the same half of ours,
 * or frames recorded under it could be replayed.
 */
import { equalBytes, toHex } from "../base/bytes.ts";
import { after, type Instant } from "../base/instant.ts";
import { bridgeHeader } from "../wire/bridge.ts";
import type { NodeId } from "../wire/ids.ts";
import type { AgreedKeys } from "./agreement.ts";
import { KEY_STAT_COUNT, type KeySpec } from "./data-plane.ts";
import { KeyExchange } from "./key-exchange.ts";
import type { LinkContext } from "./link-context.ts";
import { ALIVE_MS } from "./link-timing.ts";
import { type Generation, installKey, type Nonce, NoncePrefixes, type Session, type SessionLevel } from "./session.ts";

export class Sessions {
  current: Session | undefined;
  next: Session | undefined;
  previous: Session | undefined;
  /** Newest first. Bound: MAX_CARRIERS; those that opened nothing go first, for a replayed exchange makes one of them. */
  readonly carriers: Session[] = [];
  readonly #context: LinkContext;
  readonly #node: NodeId;
  readonly #linkIndex: number;
  readonly #endpointSlot: number;
  /** What was moved under keys that are gone; undefined: no key is. */
  #retiredTraffic: Float64Array | undefined;
  /** Our half; replaced when a session ends for good, so that nothing recorded under it opens again. */
  #exchange: KeyExchange;
  #prefixes: NoncePrefixes | undefined;
  /** Replaced keys of the peer, in hex. Bound: MAX_RETIRED, oldest out; emptied with our half. */
  readonly #retiredPeerKeys: string[] = [];
  /** The newest of the peer's keys under which a frame opened, whatever became of our half since. */
  #provenPeerKey: Uint8Array | undefined;

  constructor(context: LinkContext, node: NodeId, linkIndex: number, endpointSlot: number) {
    this.#context = context;
    this.#node = node;
    this.#linkIndex = linkIndex;
    this.#endpointSlot = endpointSlot;
    this.#exchange = new KeyExchange(context.crypto, context.local, node);
  }

  get exchange(): KeyExchange {
    return this.#exchange;
  }

  /** Inner bytes and packets under all keys so far, by KEY_STAT. */
  traffic(): Float64Array {
    const sum = this.#retiredTraffic?.slice() ?? new Float64Array(KEY_STAT_COUNT);
    for (const session of this.#all()) this.#addTraffic(sum, session);
    return sum;
  }

  with(peerExchangeKey: Uint8Array): Session | undefined {
    return this.#all().find((session) => equalBytes(session.peerExchangeKey, peerExchangeKey));
  }

  ofSlot(slot: number): Session | undefined {
    const isOf = (session: Session | undefined) => session?.keySlot === slot || session?.legacySlot === slot;
    if (isOf(this.current)) return this.current;
    if (isOf(this.next)) return this.next;
    return isOf(this.previous) ? this.previous : this.carriers.find(isOf);
  }

  /** What sealed until now goes on opening for a while. A base session that waits would be a step back from a stronger one. */
  makeCurrent(session: Session): Session | undefined {
    this.retirePrevious();
    this.previous = this.current;
    this.current = session;
    if (session.level === "noise" && this.next?.level === "base") this.dropNext();
    return this.previous;
  }

  /** A frame opened under the session. True when it is the first under a key other than the one that the peer had before. */
  noteOpened(session: Session, now: Instant): boolean {
    const isFirst = session.lastOpenedAt === undefined;
    session.lastOpenedAt = now;
    if (!isFirst || session === this.previous) return false;
    const before = this.#provenPeerKey;
    this.#provenPeerKey = session.peerExchangeKey;
    return before !== undefined && !equalBytes(before, session.peerExchangeKey);
  }

  isRetired(peerExchangeKey: Uint8Array): boolean {
    return this.#retiredPeerKeys.includes(toHex(peerExchangeKey));
  }

  /** Undefined for a bad key, or when there is no room. */
  install(peerExchangeKey: Uint8Array, now: Instant): Session | undefined {
    const keys = this.#exchange.deriveKeys(peerExchangeKey);
    if (keys === undefined) return undefined;
    const keySlot = this.#installBase("current", peerExchangeKey, keys.current);
    const legacySlot = this.#context.allowLegacyKeys
      ? this.#installBase("legacy", peerExchangeKey, keys.legacy)
      : undefined;
    keys.current.fill(0);
    keys.legacy.fill(0);
    if (keySlot === undefined) return undefined;
    return {
      level: "base",
      peerExchangeKey: peerExchangeKey.slice(),
      binding: keys.binding,
      own: this.#exchange.ownHalf(),
      isOurs: false,
      keySlot,
      legacySlot,
      installedAt: now,
      sendSlot: keySlot,
      lastOpenedAt: undefined,
    };
  }

  /** What was agreed on inside `over`; wipes the keys given. Undefined when there is no room. */
  installAgreed(keys: AgreedKeys, over: Session, now: Instant): Session | undefined {
    const { send, receive, sendPrefix, receivePrefix, binding, isOurs } = keys;
    const nonce = { prefix: sendPrefix, counter: 1 };
    const keySlot = this.#installKey(send, nonce, true, { key: receive, prefix: receivePrefix });
    send.fill(0);
    receive.fill(0);
    if (keySlot === undefined) return undefined;
    const { identityKey, keys: own } = over.own;
    return {
      level: "noise",
      peerExchangeKey: over.peerExchangeKey,
      binding,
      own: { identityKey, keys: { ...own, privateKey: own.privateKey.slice() } },
      isOurs,
      keySlot,
      legacySlot: undefined,
      installedAt: now,
      sendSlot: keySlot,
      lastOpenedAt: undefined,
    };
  }

  addCarrier(session: Session): void {
    if (this.isCarrier(session)) return;
    this.carriers.unshift(session);
    for (const slot of slotsOf(session)) this.#context.onlyAgrees[slot] = 1;
    if (this.carriers.length <= MAX_CARRIERS) return;
    const unproved = this.carriers.findLast((carrier) => carrier !== session && carrier.lastOpenedAt === undefined);
    this.remove(this.releaseCarrier(unproved ?? this.carriers.at(-1)!));
  }

  /** What seals has opened something lately. */
  isAlive(now: Instant): boolean {
    const openedAt = this.current?.lastOpenedAt;
    return openedAt !== undefined && after(openedAt, ALIVE_MS) > now;
  }

  isCarrier(session: Session): boolean {
    return this.carriers.includes(session);
  }

  /** It may carry anything from now on, or is about to be removed. */
  releaseCarrier(session: Session): Session {
    this.carriers.splice(this.carriers.indexOf(session), 1);
    for (const slot of slotsOf(session)) this.#context.onlyAgrees[slot] = 0;
    return session;
  }

  dropCarriers(): void {
    for (const carrier of [...this.carriers]) this.remove(this.releaseCarrier(carrier));
  }

  remove(session: Session): void {
    this.#retiredTraffic ??= new Float64Array(KEY_STAT_COUNT);
    this.#addTraffic(this.#retiredTraffic, session);
    session.own.keys.privateKey.fill(0);
    session.binding.fill(0);
    for (const slot of slotsOf(session)) {
      const generation = slot === session.legacySlot ? "legacy" : "current";
      const nextCounter = this.#context.dataPlane.removeKey(slot);
      if (session.level === "base") this.#prefixes?.release(generation, session.peerExchangeKey, nextCounter);
      this.#context.linkOfKey[slot] = -1;
      this.#context.keySlots.give(slot);
    }
  }

  replaceNext(session: Session): void {
    this.dropNext();
    this.next = session;
  }

  dropNext(): void {
    if (this.next !== undefined) this.remove(this.next);
    this.next = undefined;
  }

  retirePrevious(): void {
    if (this.previous === undefined) return;
    const { peerExchangeKey } = this.previous;
    this.remove(this.previous);
    this.previous = undefined;
    if (this.with(peerExchangeKey) !== undefined) return; // what was agreed on under it goes on
    this.#retiredPeerKeys.push(toHex(peerExchangeKey));
    if (this.#retiredPeerKeys.length > MAX_RETIRED) this.#retiredPeerKeys.shift();
  }

  /** Wipes all keys and our half with them. */
  wipe(): void {
    this.dropCarriers();
    for (const session of this.#all()) this.remove(session);
    this.current = undefined;
    this.next = undefined;
    this.previous = undefined;
    this.#exchange.wipe();
  }

  get security(): { readonly level: SessionLevel; readonly since: Instant } | undefined {
    return this.current && { level: this.current.level, since: this.current.installedAt };
  }

  get isEmpty(): boolean {
    return this.#all().length === 0;
  }

  /** A new half of ours, while there is no session. */
  renew(): void {
    this.#exchange.wipe();
    this.#exchange = new KeyExchange(this.#context.crypto, this.#context.local, this.#node);
    this.#prefixes = undefined;
    this.#retiredPeerKeys.length = 0;
  }

  #all(): Session[] {
    return [this.current, this.next, this.previous, ...this.carriers].filter((session) => session !== undefined);
  }

  #installBase(generation: Generation, peerExchangeKey: Uint8Array, key: Uint8Array): number | undefined {
    this.#prefixes ??= new NoncePrefixes(this.#context.crypto);
    const nonce = this.#prefixes.claim(generation, peerExchangeKey, this.#context.local.node > this.#node);
    return nonce && this.#installKey(key, nonce, generation === "current");
  }

  #installKey(key: Uint8Array, nonce: Nonce, bindSender: boolean, receive?: KeySpec["receive"]): number | undefined {
    const { dataPlane, local, keySlots } = this.#context;
    const slot = installKey(dataPlane, keySlots, {
      key,
      receive,
      sendPrefix: nonce.prefix,
      firstCounter: nonce.counter,
      localNode: local.node,
      peerNode: this.#node,
      sendHeader: bridgeHeader(local.node, this.#node),
      receiveHeader: bridgeHeader(this.#node, local.node),
      bindSender,
    });
    if (slot === undefined) return undefined;
    dataPlane.bindKey(slot, this.#endpointSlot);
    this.#context.linkOfKey[slot] = this.#linkIndex;
    return slot;
  }

  #addTraffic(sum: Float64Array, session: Session): void {
    const { keyStats } = this.#context.dataPlane;
    for (const slot of slotsOf(session)) {
      for (let i = 0; i < KEY_STAT_COUNT; i++) sum[i] = sum[i]! + keyStats[slot * KEY_STAT_COUNT + i]!;
    }
  }
}

function slotsOf(session: Session): number[] {
  return session.legacySlot === undefined ? [session.keySlot] : [session.keySlot, session.legacySlot];
}

const MAX_RETIRED = 64;
/** The one that the peer has, and one more in case the newest is a replay. */
const MAX_CARRIERS = 2;
