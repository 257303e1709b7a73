/**
 * Who was heard of lately. A node that stays silent for five minutes has no endpoint any more until it registers again;
 * its number, key, pairs and inbox are in the store and stay there (pilot protocol §6.3).
 *
 * The list is not stored: after a restart every stored endpoint counts as live for one such period, so that peers find
 * each other before the last of them has sent its next heartbeat.
 */
import type { Instant } from "../base/instant.ts";
import type { NodeId } from "../wire/ids.ts";
import type { NodeRecord } from "./store.ts";

export class LiveDirectory {
  readonly #graceEnds: number;
  /** By node; bounded by the number of stored nodes, the sweep and a deregistration remove. */
  readonly #heardAt = new Map<NodeId, Instant>();
  #sweptAt: Instant;

  constructor(startedAt: Instant) {
    this.#graceEnds = startedAt + SILENCE_MS;
    this.#sweptAt = startedAt;
  }

  heard(node: NodeId, now: Instant): void {
    this.#heardAt.set(node, now);
    if (now - this.#sweptAt >= SWEEP_INTERVAL_MS) this.#sweep(now);
  }

  forget(node: NodeId): void {
    this.#heardAt.delete(node);
  }

  isLive(node: NodeId, now: Instant): boolean {
    const heardAt = this.#heardAt.get(node);
    return heardAt === undefined ? now < this.#graceEnds : now - heardAt < SILENCE_MS;
  }

  /**
   * In the directory at all. A node may register without an endpoint and be found by key and trust alone; in the store it
   * looks like one that deregistered, so it must have been heard of since our start.
   */
  isPresent({ node, endpoint, relayOnly }: NodeRecord, now: Instant): boolean {
    const isHidden = endpoint === undefined && !relayOnly;
    return isHidden && !this.#heardAt.has(node) ? false : this.isLive(node, now);
  }

  #sweep(now: Instant): void {
    this.#sweptAt = now;
    if (now < this.#graceEnds) return; // a missing entry still means "not heard of since the restart"
    for (const [node, heardAt] of this.#heardAt) if (now - heardAt >= SILENCE_MS) this.#heardAt.delete(node);
  }
}

export const SILENCE_MS = 5 * 60_000;
const SWEEP_INTERVAL_MS = 60_000;
