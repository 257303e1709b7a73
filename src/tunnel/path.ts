/**
 * Where frames of one peer go. Invariant: an endpoint that was only told to us (registry, cache) may be used until a
 * frame proves better, but is replaced only by the source of an authenticated frame or by a newer word of the registry
 * while nothing is proved.
 */
import { type Endpoint, sameEndpoint } from "../base/endpoint.ts";
import { after, type Instant } from "../base/instant.ts";

export type PathKind = "none" | "direct" | "relay";

export class Path {
  #direct: Endpoint | undefined;
  #directProvedAt: Instant | undefined;
  #relayed = false;

  get kind(): PathKind {
    if (this.#relayed) return "relay";
    return this.#direct === undefined ? "none" : "direct";
  }

  /** The last known direct endpoint, also while frames go through the relay. */
  get direct(): Endpoint | undefined {
    return this.#direct;
  }

  /** The registry or the cache names an endpoint; true when the path changed. */
  suggest(endpoint: Endpoint, now: Instant): boolean {
    const proved = this.#directProvedAt !== undefined && after(this.#directProvedAt, PROOF_LIFETIME_MS) > now;
    if (proved || sameEndpoint(this.#direct, endpoint)) return false;
    this.#direct = endpoint;
    return !this.#relayed;
  }

  /** An authenticated frame came straight from `source`; true when the path changed. */
  provedDirect(source: Endpoint, now: Instant): boolean {
    this.#directProvedAt = now;
    if (!this.#relayed && sameEndpoint(this.#direct, source)) return false;
    this.#direct = source;
    this.#relayed = false;
    return true;
  }

  /** An authenticated frame came through the relay: answers go that way unless direct was proved just now. */
  provedRelay(now: Instant): boolean {
    if (this.#relayed) return false;
    if (this.#directProvedAt !== undefined && after(this.#directProvedAt, DIRECT_PREFERRED_MS) > now) return false;
    this.#relayed = true;
    return true;
  }

  /** Nothing was heard for a while: what was proved no longer counts, the next suggestion does. */
  doubt(): void {
    this.#directProvedAt = undefined;
  }
}

const PROOF_LIFETIME_MS = 30_000;
const DIRECT_PREFERRED_MS = 5_000;
