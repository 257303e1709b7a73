/**
 * Sources that somebody really is at: what we sent there was answered. A proof of a node's number shows it, for the cookie
 * in it went there, and so does a request over TCP. All other sources may be made up, as many as one likes and a new one in
 * each datagram: whatever is limited by source is limited for them together.
 *
 * A source is an IPv4 address or an IPv6 /64, as for all limits.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import { readU32 } from "../base/bytes.ts";
import type { Instant } from "../base/instant.ts";
import { parseIp } from "../wire/underlay-address.ts";
import { sourceKey } from "./source-limits.ts";
import { emptyTable, enter, TABLE_BITS } from "./source-sorting.ts";

export class KnownSources {
  /** By `sourceKey`; bounded, the source that showed itself longest ago is evicted. Only registered nodes get in here. */
  readonly #proven = new BoundedMap<string, KnownSource>(MAX_KNOWN);
  /** The same, of connections: anybody can open one, but only from where he is. */
  readonly #connected = new BoundedMap<string, KnownSource>(MAX_KNOWN);
  /** Words of this machine's own addresses: the system takes nothing from outside that says it comes from them. */
  readonly #own: number[] = [];
  #revision = 0;

  /** Rises whenever a source came that was not known: what was made of them is to be made anew. */
  get revision(): number {
    return this.#revision;
  }

  get provenCount(): number {
    return this.#proven.size;
  }

  get connectedCount(): number {
    return this.#connected.size;
  }

  /** Addresses are canonical text, of which `key` is what `sourceKey` makes. */
  noteProof(address: string, now: Instant, key = sourceKey(address)): void {
    if (note(this.#proven, address, key, now)) this.#revision++;
  }

  noteConnection(address: string, now: Instant, key = sourceKey(address)): void {
    if (note(this.#connected, address, key, now)) this.#revision++;
  }

  noteOwn(address: string): void {
    this.#own.push(sourceWord(address));
    this.#revision++;
  }

  /** `key` as `sourceKey` makes it. */
  has(key: string, now: Instant): boolean {
    return isFresh(this.#proven.get(key), now) || isFresh(this.#connected.get(key), now);
  }

  /**
   * All of them as a table for `sortingProgram`. One that is mostly full sorts little: then those that are known by a
   * connection only are left out, the oldest first.
   */
  table(secret: number, now: Instant): Uint32Array {
    const table = emptyTable();
    let used = 0;
    for (const word of this.#own) used += enter(table, word, secret);
    for (const known of this.#proven.values()) {
      if (isFresh(known, now)) used += enter(table, known.word, secret);
    }
    for (const known of [...this.#connected.values()].reverse()) {
      if (used >= TABLE_BITS / 2) break;
      if (isFresh(known, now)) used += enter(table, known.word, secret);
    }
    return table;
  }
}

/** What the kernel's program makes of a source: an IPv4 address, or both halves of an IPv6 /64 over each other. */
export function sourceWord(address: string): number {
  const bytes = parseIp(address);
  if (bytes === undefined) return 0;
  return bytes.length === 4 ? readU32(bytes, 0) : (readU32(bytes, 0) ^ readU32(bytes, 4)) >>> 0;
}

/** True for a source that was not known. */
function note(sources: BoundedMap<string, KnownSource>, address: string, key: string, now: Instant): boolean {
  const known = sources.get(key);
  if (known === undefined || !isFresh(known, now)) {
    sources.set(key, { word: sourceWord(address), shownAt: now });
    return true;
  }
  if (now - known.shownAt < RENEWAL_MS) return false; // with every request of a busy source it would cost more than the request
  known.shownAt = now;
  sources.touch(key);
  return false;
}

function isFresh(known: KnownSource | undefined, now: Instant): boolean {
  return known !== undefined && now - known.shownAt < LIFE_MS;
}

interface KnownSource {
  readonly word: number;
  shownAt: Instant;
}

const MAX_KNOWN = 65_536;
/** Proofs are renewed every five minutes, and the reference's daemons speak to the registry every minute. */
const LIFE_MS = 15 * 60_000;
/** What is known is not made younger more often than this. */
const RENEWAL_MS = 10_000;
