/**
 * One agreed key with a peer. The key itself, its send counter and its replay windows live in the data plane's key slot;
 * a session knows which slot, and what it has proved.
 */

import { toHex } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { Instant } from "../base/instant.ts";
import type { DataPlane, KeySpec } from "./data-plane.ts";

export interface Session {
  /** The peer's X25519 key; ours is the process's. */
  readonly peerExchangeKey: Uint8Array;
  readonly keySlot: number;
  /** Slot of the older key generation, only while the option allows it. */
  readonly legacySlot: number | undefined;
  readonly installedAt: Instant;
  /** The slot we seal with: `keySlot` until a frame of the peer opened under the legacy one. */
  sendSlot: number;
  /** When a frame last opened under this key; undefined: the key is not proved. */
  lastOpenedAt: Instant | undefined;
}

/**
 * Nonces: one prefix and one rising counter per (own key, peer key) for as long as our own key lives (pilot protocol §3.9,
 * §11.1), also when the slot was given up in between. Key: hex of generation and peer key. Bound: MAX_PAIRS, after which
 * `claim` refuses: a peer does not have that many keys during one life of ours.
 */
export class NoncePrefixes {
  readonly #pairs = new Map<string, { prefix: Uint8Array; nextCounter: number }>();
  readonly #crypto: Crypto;

  constructor(crypto: Crypto) {
    this.#crypto = crypto;
  }

  /**
   * `upper`: this node's number is the higher of the two. It takes the upper half of the prefixes, so that two nodes
   * that both follow this rule never seal with the same nonce though they share one key.
   */
  claim(pair: string, upper: boolean): { prefix: Uint8Array; firstCounter: number } | undefined {
    const known = this.#pairs.get(pair);
    if (known !== undefined) return { prefix: known.prefix, firstCounter: known.nextCounter };
    if (this.#pairs.size >= MAX_PAIRS) return undefined;
    const prefix = this.#crypto.randomBytes(4);
    prefix[0] = upper ? prefix[0]! | 0x80 : prefix[0]! & 0x7f;
    this.#pairs.set(pair, { prefix, nextCounter: 1 }); // the reference's window never passes 0
    return { prefix, firstCounter: 1 };
  }

  release(pair: string, nextCounter: number): void {
    const known = this.#pairs.get(pair);
    if (known !== undefined) known.nextCounter = nextCounter;
  }
}

export function pairName(generation: "current" | "legacy", peerExchangeKey: Uint8Array): string {
  return `${generation === "current" ? "2" : "1"}${toHex(peerExchangeKey)}`;
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

const MAX_PAIRS = 1_024;
