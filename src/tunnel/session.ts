/**
 * What was agreed on with a peer. The keys themselves, the send counter and the replay windows live in the data plane's key
 * slot; a session knows which slot, and what it has proved.
 */

import { toHex } from "../base/bytes.ts";
import type { Crypto, KeyPair } from "../base/crypto.ts";
import type { Instant } from "../base/instant.ts";
import type { DataPlane, KeySpec } from "./data-plane.ts";

/** `base`: of PILA alone, as any agent has it. `noise`: agreed on inside such a session, or one of its own kind. */
export type SessionLevel = "base" | "noise";

export interface Session {
  readonly level: SessionLevel;
  /** The peer's X25519 key in the exchange that this goes back to; ours is the link's. */
  readonly peerExchangeKey: Uint8Array;
  /** What an agreement inside this session is bound to, 32 bytes: both ends know them, and no other session has them. */
  readonly binding: Uint8Array;
  /** What we are to the peer in this session: our identity as it was when the exchange was made. */
  readonly own: OwnHalf;
  /** This side began the agreement. */
  readonly isOurs: boolean;
  readonly keySlot: number;
  /** Slot of the older key generation, only while the option allows it. */
  readonly legacySlot: number | undefined;
  readonly installedAt: Instant;
  /** The slot we seal with: `keySlot` until a frame of the peer opened under the legacy one. */
  sendSlot: number;
  /** When a frame last opened under this key; undefined: the key is not proved. */
  lastOpenedAt: Instant | undefined;
}

export interface OwnHalf {
  /** The X25519 half of the identity key. */
  readonly keys: KeyPair;
  /** Ed25519. */
  readonly identityKey: Uint8Array;
}

/**
 * Nonces: one prefix and one rising counter per (own key, peer key, generation) for as long as our own key lives (pilot
 * protocol §3.9, §11.1), also when the slot was given up in between.
 *
 * Counters of a later key of the peer begin far above all that earlier ones can have reached. Daemons of the reference take
 * note of a frame's counter before they test its tag (§11.5): one late frame under the key they had before a restart, and
 * they would take everything under the new one for replays until its counter has caught up.
 */
export class NoncePrefixes {
  /** Key: hex of the peer's key. Bound: MAX_PEER_KEYS, after which `claim` refuses: no peer has as many in one life of ours. */
  #byPeerKey:
    | Map<string, { readonly base: number; readonly nonces: Record<Generation, Nonce | undefined> }>
    | undefined;
  readonly #crypto: Crypto;

  constructor(crypto: Crypto) {
    this.#crypto = crypto;
  }

  /**
   * `upper`: this node's number is the higher of the two. It takes the upper half of the prefixes, so that two nodes
   * that both follow this rule never seal with the same nonce though they share one key.
   */
  claim(generation: Generation, peerExchangeKey: Uint8Array, upper: boolean): Nonce | undefined {
    const name = toHex(peerExchangeKey);
    this.#byPeerKey ??= new Map();
    let known = this.#byPeerKey.get(name);
    if (known === undefined) {
      if (this.#byPeerKey.size >= MAX_PEER_KEYS) return undefined;
      const base = 1 + this.#byPeerKey.size * COUNTER_STRIDE; // the reference's window never passes 0
      known = { base, nonces: { current: undefined, legacy: undefined } };
      this.#byPeerKey.set(name, known);
    }
    known.nonces[generation] ??= { prefix: this.#prefix(upper), counter: known.base };
    return known.nonces[generation];
  }

  release(generation: Generation, peerExchangeKey: Uint8Array, nextCounter: number): void {
    const nonces = this.#byPeerKey?.get(toHex(peerExchangeKey))?.nonces;
    const nonce = nonces?.[generation];
    if (nonces !== undefined && nonce !== undefined) nonces[generation] = { ...nonce, counter: nextCounter };
  }

  #prefix(upper: boolean): Uint8Array {
    const prefix = this.#crypto.randomBytes(4);
    prefix[0] = upper ? prefix[0]! | 0x80 : prefix[0]! & 0x7f;
    return prefix;
  }
}

/** `legacy`: G1, of the same exchange (§3.4). */
export type Generation = "current" | "legacy";

export interface Nonce {
  readonly prefix: Uint8Array;
  /** Of the next frame. */
  readonly counter: number;
}

/** Hands out small integers below `capacity`, lowest first where it can; undefined when all are taken. */
export class SlotPool {
  readonly #free: number[] = [];
  readonly #capacity: number;
  #next = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  take(): number | undefined {
    const reused = this.#free.pop();
    if (reused !== undefined) return reused;
    return this.#next < this.#capacity ? this.#next++ : undefined;
  }

  give(slot: number): void {
    this.#free.push(slot);
  }
}

/** Installs `spec` in a free slot; undefined when there is none. */
export function installKey(dataPlane: DataPlane, slots: SlotPool, spec: KeySpec): number | undefined {
  const slot = slots.take();
  if (slot === undefined) return undefined;
  dataPlane.installKey(slot, spec);
  return slot;
}

const MAX_PEER_KEYS = 1_024;
/** More frames than a key seals in a month of a million each second; MAX_PEER_KEYS of them are still exact numbers. */
const COUNTER_STRIDE = 2 ** 42;
