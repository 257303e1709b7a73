/**
 * Underlay endpoints at which a peer may be: told by the registry, kept from an earlier run, named in a punch, or heard
 * from. Each remembers what became of it, which is what `trace` shows. Nothing here is proof: only a frame that opened is.
 * Key: endpoint. Bound: MAX_CANDIDATES; the one with the least promise goes first (see `#evict`).
 */
import { type Endpoint, sameEndpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import { ipScope, parseIp } from "../wire/underlay-address.ts";

export type CandidateOrigin = "registry" | "lan" | "cached" | "punch" | "heard";

export interface Candidate {
  readonly endpoint: Endpoint;
  readonly origin: CandidateOrigin;
  readonly addedAt: Instant;
  readonly tries: number;
  /** When a key exchange or a probe was last sent there. */
  readonly triedAt: Instant | undefined;
  /** When an authenticated frame last came straight from there. */
  readonly heardAt: Instant | undefined;
  /** When it last answered a probe, and how long the answer took. */
  readonly answeredAt: Instant | undefined;
  readonly rttMs: number | undefined;
}

type MutableCandidate = { -readonly [K in keyof Candidate]: Candidate[K] };

export class Candidates {
  /** Replaced when it changes: an array that grows in place keeps room for many more. */
  #list: readonly MutableCandidate[] = [];

  /** In the order in which they became known. */
  all(): readonly Candidate[] {
    return this.#list;
  }

  has(endpoint: Endpoint): boolean {
    return this.#find(endpoint) !== undefined;
  }

  /** True when it is new. `keep` is never evicted: frames go there now. */
  add(endpoint: Endpoint, origin: CandidateOrigin, now: Instant, keep: Endpoint | undefined): boolean {
    if (this.#find(endpoint) !== undefined) return false;
    if (this.#list.length >= MAX_CANDIDATES) this.#evict(keep);
    const untried = { tries: 0, triedAt: undefined, heardAt: undefined, answeredAt: undefined, rttMs: undefined };
    this.#list = [...this.#list, { endpoint, origin, addedAt: now, ...untried }];
    return true;
  }

  tried(endpoint: Endpoint, now: Instant): void {
    const candidate = this.#find(endpoint);
    if (candidate === undefined) return;
    candidate.tries++;
    candidate.triedAt = now;
  }

  heard(endpoint: Endpoint, now: Instant, keep: Endpoint | undefined): void {
    this.add(endpoint, "heard", now, keep);
    this.#find(endpoint)!.heardAt = now;
  }

  answered(endpoint: Endpoint, rttMs: number, now: Instant): void {
    const candidate = this.#find(endpoint);
    if (candidate === undefined) return;
    candidate.answeredAt = now;
    candidate.rttMs = rttMs;
  }

  #find(endpoint: Endpoint): MutableCandidate | undefined {
    return this.#list.find((candidate) => sameEndpoint(candidate.endpoint, endpoint));
  }

  /** Never heard goes before heard, heard long ago before heard lately; among equals the oldest. */
  #evict(keep: Endpoint | undefined): void {
    let worst = -1;
    for (const [i, candidate] of this.#list.entries()) {
      if (sameEndpoint(candidate.endpoint, keep)) continue;
      if (worst < 0 || (candidate.heardAt ?? -1) < (this.#list[worst]!.heardAt ?? -1)) worst = i;
    }
    this.#list = this.#list.toSpliced(worst, 1);
  }
}

/**
 * Which of two ways that both work is better: one that never leaves the site beats one through the world; where that is
 * equal, IPv4 needs 20 bytes less for each frame.
 */
export function endpointRank(endpoint: Endpoint): number {
  const bytes = parseIp(endpoint.address);
  if (bytes === undefined) return 0;
  return (ipScope(bytes) === "global" ? 1 : 3) + (bytes.length === 4 ? 1 : 0);
}

/** All are tried at once, so this is also how many datagrams one attempt costs. */
export const MAX_CANDIDATES = 6;
