/**
 * Token buckets per source, so that one source cannot take what belongs to all. A source is an IPv4 address or an
 * IPv6 /64, because a single host commonly owns a whole /64.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import type { Instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import { parseIp } from "../wire/underlay-address.ts";

export interface RateLimit {
  readonly perSecond: number;
  readonly burst: number;
}

export class SourceLimits {
  readonly #limit: RateLimit;
  /** By `sourceKey`; bounded, the source heard of longest ago is evicted (and starts with a full bucket again). */
  readonly #buckets: BoundedMap<string, TokenBucket>;

  /** `maxSources`: of those that may be made up a few are enough, for who is not uses his again and again. */
  constructor(limit: RateLimit, maxSources = MAX_SOURCES) {
    this.#limit = limit;
    this.#buckets = new BoundedMap(maxSources);
  }

  take(key: string, now: Instant, cost = 1): boolean {
    let bucket = this.#buckets.get(key);
    if (bucket === undefined) {
      bucket = new TokenBucket(this.#limit.perSecond, this.#limit.burst, now);
      this.#buckets.set(key, bucket);
    } else {
      this.#buckets.touch(key);
    }
    return bucket.take(now, cost);
  }
}

/** What identifies a source for limits; `ip` is canonical text. */
export function sourceKey(ip: string): string {
  if (!ip.includes(":")) return ip;
  return parseIp(ip)?.subarray(0, 8).join(".") ?? ip;
}

const MAX_SOURCES = 65_536;
