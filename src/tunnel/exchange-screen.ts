/**
 * Which key exchanges are worth the check of a signature. Whoever knows the number and the public key of a peer can send
 * exchanges in its name, from any address, at any rate; each signature costs as much as a hundred packets. So checks are
 * rationed, and what cannot be had by making up addresses comes first:
 *
 *   proved     it bears the tag that only the peer can make (exchange-proof.ts), and was not seen before: a copy costs
 *              its recorder one check, once
 *   known      it seems to come from where the peer may be
 *   relayed    it came through the beacon
 *   elsewhere  all others
 *
 * Each has a budget for each link, and all but the first one for the whole node, so that no flood of one kind uses up what
 * another needs. A peer with tags (every pilot-tun) gets through whatever else arrives; a plain agent as long as nobody
 * floods from its own address.
 */
import { toHex } from "../base/bytes.ts";
import { type Endpoint, formatEndpoint } from "../base/endpoint.ts";
import { type Instant, instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import type { Pila } from "../wire/frame.ts";
import type { ExchangeProof } from "./exchange-proof.ts";
import { pilaProof } from "./key-exchange.ts";
import type { Path } from "./path.ts";

export type ExchangePlace = "known" | "relayed" | "elsewhere";

/** What all links share. */
export class ExchangeBudget {
  readonly #checks: Readonly<Record<ExchangePlace, TokenBucket>> = {
    known: new TokenBucket(KNOWN_PER_SECOND, KNOWN_BURST, instant(0)),
    relayed: new TokenBucket(RELAYED_PER_SECOND, RELAYED_BURST, instant(0)),
    elsewhere: new TokenBucket(ELSEWHERE_PER_SECOND, ELSEWHERE_BURST, instant(0)),
  };
  /** Exchanges that anybody can make us send to an address of his choice. */
  readonly #requests = new TokenBucket(REQUESTS_PER_SECOND, REQUESTS_BURST, instant(0));

  takeCheck(place: ExchangePlace, now: Instant): boolean {
    return this.#checks[place].take(now);
  }

  takeRequest(now: Instant): boolean {
    return this.#requests.take(now);
  }
}

export class ExchangeScreen {
  readonly #budget: ExchangeBudget;
  readonly #proof: ExchangeProof;
  readonly #path: Path;
  /** Each is made when it is first asked: most links never meet but one kind. */
  #checks: Partial<Record<ExchangePlace | "proved", TokenBucket>> | undefined;
  /** Keys of exchanges with a right tag, in hex, that were let through. Bound: MAX_SEEN, oldest out. */
  #seen: readonly string[] = NONE_SEEN;

  constructor(budget: ExchangeBudget, proof: ExchangeProof, path: Path) {
    this.#budget = budget;
    this.#proof = proof;
    this.#path = path;
  }

  /** May the signature of this exchange, which names the peer and its key, be looked at? Takes what that costs. */
  admits(pila: Pila, source: Endpoint, relayed: boolean, now: Instant): boolean {
    if (this.#isProved(pila, now)) return true;
    const place = placeOf(this.#path, source, relayed);
    // In this order: a link that is flooded must not use up what all links share.
    return this.#takeCheck(place, now) && this.#budget.takeCheck(place, now);
  }

  /** Our half of the exchange is another: copies of what was seen would have an effect again, and so would the peer's own. */
  reset(): void {
    this.#seen = NONE_SEEN;
  }

  wipe(): void {
    this.#proof.wipe();
  }

  #isProved({ exchangeKey, trailer }: Pila, now: Instant): boolean {
    const tag = pilaProof(trailer);
    if (tag === undefined) return false;
    const key = toHex(exchangeKey);
    if (this.#seen.includes(key) || !this.#proof.isPeers(exchangeKey, tag)) return false;
    if (!this.#takeCheck("proved", now)) return false;
    this.#seen = [...this.#seen, key].slice(-MAX_SEEN);
    return true;
  }

  #takeCheck(of: ExchangePlace | "proved", now: Instant): boolean {
    this.#checks ??= {};
    this.#checks[of] ??= new TokenBucket(LINK_PER_SECOND, LINK_BURST, now);
    return this.#checks[of].take(now);
  }
}

/** By what the datagram says of itself: its source can be made up. */
export function placeOf(path: Path, source: Endpoint, relayed: boolean): ExchangePlace {
  if (relayed) return "relayed";
  return path.candidates.has(source) ? "known" : "elsewhere";
}

/** When our half last went to each place: what is answered there must not keep others from being answered. */
export function placeName(path: Path, to: Endpoint, relayed: boolean): string {
  const place = placeOf(path, to, relayed);
  return place === "known" ? formatEndpoint(to) : place;
}

/** A check costs a tenth of a millisecond: all of these together are some hundredths of a processor. */
const LINK_PER_SECOND = 2;
const LINK_BURST = 8;
const KNOWN_PER_SECOND = 200;
const KNOWN_BURST = 1_000;
const RELAYED_PER_SECOND = 100;
const RELAYED_BURST = 200;
const ELSEWHERE_PER_SECOND = 100;
const ELSEWHERE_BURST = 200;
const REQUESTS_PER_SECOND = 20;
const REQUESTS_BURST = 40;
/** As many lives of a peer as anybody will have recorded. */
const MAX_SEEN = 64;
const NONE_SEEN: readonly string[] = [];
