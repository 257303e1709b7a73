/**
 * The keys agreed with one peer, and our half of the exchange they come from. `current` seals; `next` and `previous` only
 * open; see link.ts for when one becomes the other. Invariant: every session here has its key in a slot of the data plane
 * that names this link, and a peer key that a newer one replaced is never installed again under the same half of ours,
 * or frames recorded under it could be replayed.
 */
import { equalBytes, toHex } from "../base/bytes.ts";
import type { Instant } from "../base/instant.ts";
import type { NodeId } from "../wire/ids.ts";
import { KEY_STAT_COUNT } from "./data-plane.ts";
import { KeyExchange } from "./key-exchange.ts";
import type { LinkContext } from "./link-context.ts";
import { type Generation, installKey, NoncePrefixes, type Session } from "./session.ts";

export class Sessions {
  current: Session | undefined;
  next: Session | undefined;
  previous: Session | undefined;
  readonly #context: LinkContext;
  readonly #node: NodeId;
  readonly #linkIndex: number;
  readonly #endpointSlot: number;
  /** What was moved under keys that are gone. */
  readonly #retiredTraffic = new Float64Array(KEY_STAT_COUNT);
  /** Our half; replaced when a session ends for good, so that nothing recorded under it opens again. */
  #exchange: KeyExchange;
  #prefixes: NoncePrefixes;
  /** Replaced keys of the peer, in hex. Bound: MAX_RETIRED, oldest out; emptied with our half. */
  readonly #retiredPeerKeys: string[] = [];
  /** The newest of the peer's keys under which a frame opened, whatever became of our half since. */
  #provenPeerKey: Uint8Array | undefined;

  constructor(context: LinkContext, node: NodeId, linkIndex: number, endpointSlot: number) {
    this.#context = context;
    this.#node = node;
    this.#linkIndex = linkIndex;
    this.#endpointSlot = endpointSlot;
    this.#exchange = new KeyExchange(context.crypto, context.local);
    this.#prefixes = new NoncePrefixes(context.crypto);
  }

  get exchange(): KeyExchange {
    return this.#exchange;
  }

  /** Inner bytes and packets under all keys so far, by KEY_STAT. */
  traffic(): Float64Array {
    const sum = this.#retiredTraffic.slice();
    for (const session of this.#all()) this.#addTraffic(sum, session);
    return sum;
  }

  with(peerExchangeKey: Uint8Array): Session | undefined {
    return this.#all().find((session) => equalBytes(session.peerExchangeKey, peerExchangeKey));
  }

  ofSlot(slot: number): Session | undefined {
    for (const session of [this.current, this.next, this.previous]) {
      if (session !== undefined && (session.keySlot === slot || session.legacySlot === slot)) return session;
    }
    return undefined;
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

  remove(session: Session): void {
    this.#addTraffic(this.#retiredTraffic, session);
    for (const slot of slotsOf(session)) {
      const generation = slot === session.legacySlot ? "legacy" : "current";
      const nextCounter = this.#context.dataPlane.removeKey(slot);
      this.#prefixes.release(generation, session.peerExchangeKey, nextCounter);
      this.#context.linkOfKey[slot] = -1;
      this.#context.keySlots.give(slot);
    }
  }

  dropNext(): void {
    if (this.next !== undefined) this.remove(this.next);
    this.next = undefined;
  }

  retirePrevious(): void {
    if (this.previous === undefined) return;
    this.remove(this.previous);
    this.#retiredPeerKeys.push(toHex(this.previous.peerExchangeKey));
    if (this.#retiredPeerKeys.length > MAX_RETIRED) this.#retiredPeerKeys.shift();
    this.previous = undefined;
  }

  /** Wipes all keys and our half with them. */
  wipe(): void {
    for (const session of this.#all()) this.remove(session);
    this.current = undefined;
    this.next = undefined;
    this.previous = undefined;
    this.#exchange.wipe();
  }

  /** A new half of ours, after `wipe`. */
  renew(): void {
    this.#exchange = new KeyExchange(this.#context.crypto, this.#context.local);
    this.#prefixes = new NoncePrefixes(this.#context.crypto);
    this.#retiredPeerKeys.length = 0;
  }

  #all(): Session[] {
    return [this.current, this.next, this.previous].filter((session) => session !== undefined);
  }

  #installOne(generation: Generation, peerExchangeKey: Uint8Array, key: Uint8Array): number | undefined {
    const { dataPlane, local, keySlots } = this.#context;
    const nonce = this.#prefixes.claim(generation, peerExchangeKey, local.node > this.#node);
    if (nonce === undefined) return undefined;
    const slot = installKey(dataPlane, keySlots, {
      key,
      sendPrefix: nonce.prefix,
      firstCounter: nonce.counter,
      localNode: local.node,
      peerNode: this.#node,
      sendHeader: this.#context.bridgeHeader(local.node, this.#node),
      receiveHeader: this.#context.bridgeHeader(this.#node, local.node),
      bindSender: generation === "current",
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
