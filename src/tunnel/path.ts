/**
 * Where frames of one peer go: the one place that decides it.
 *
 *            told an endpoint                 frame through the relay, direct silent
 *   none ───────────────────────► direct ──────────────────────────────────► relay (or tcp)
 *    │                            ▲ │ ▲                                         │
 *    │ frame through the relay    │ └─┘ frame from another endpoint             │
 *    └────────────────────────────┼───────────────────────────────────────────► │
 *                                 └─────────────────────────────────────────────┘
 *                                   probe answered straight, or data came straight
 *
 * `tcp` is `relay` whose beacon is reached through TCP. Invariants: what was only told (registry, cache, punch) is used
 * until a frame proves better, and displaces neither what is proved and lives nor where a signed exchange just came from; relay gives way to direct only when both
 * directions are known to work. Data of the peer that comes straight shows that it holds our direction for good; a mere
 * probe of it shows one direction only and is answered with a probe of ours. A change of path changes no key and no
 * counter, so a flow above never notices more than loss.
 */
import { type Endpoint, sameEndpoint } from "../base/endpoint.ts";
import { after, type Instant } from "../base/instant.ts";
import { type CandidateOrigin, Candidates, endpointRank } from "./candidates.ts";

export type RelayKind = "relay" | "tcp";
export type PathKind = "none" | "direct" | RelayKind;

/** What a frame did to the path. `probe`: it came straight from an endpoint that should be asked whether it answers. */
export type PathEffect = "none" | "moved" | "probe";

/** For `trace`: since when frames go which way. */
export interface PathChange {
  readonly at: Instant;
  readonly kind: PathKind;
  readonly endpoint: Endpoint | undefined;
}

export class Path {
  readonly candidates = new Candidates();
  /** How the beacon is reached. */
  relayKind: RelayKind = "relay";
  /** There is no other way than the relay: endpoints of the peer are not wanted. */
  readonly isRelayOnly: boolean;
  readonly #holdMs: number;
  #direct: Endpoint | undefined;
  #relayed = false;
  /** When a frame last came straight from `#direct`; undefined: it is not proved, or no longer. */
  #heardAt: Instant | undefined;
  /** When a signed exchange came from `#direct`: no proof, but better than hearsay. */
  #guessedAt: Instant | undefined;
  /** When one proved endpoint last gave way to another. */
  #movedAt: Instant | undefined;
  /** Bounded by MAX_HISTORY, oldest out. */
  #history: readonly PathChange[] = [];

  /** `yields`: of two sides that follow each other between equal endpoints, this one does so sooner. */
  constructor(yields: boolean, isRelayOnly = false) {
    this.isRelayOnly = isRelayOnly;
    this.#relayed = isRelayOnly;
    this.#holdMs = yields ? FOLLOW_HOLD_MS : 1.5 * FOLLOW_HOLD_MS;
  }

  get kind(): PathKind {
    if (this.#relayed) return this.relayKind;
    return this.#direct === undefined ? "none" : "direct";
  }

  get isRelayed(): boolean {
    return this.#relayed;
  }

  /** The endpoint to use or to come back to, also while frames go through the relay. */
  get direct(): Endpoint | undefined {
    return this.#direct;
  }

  /** The last changes, oldest first. */
  get history(): readonly PathChange[] {
    return this.#history;
  }

  /** Where to look for the peer directly, all at once. */
  targets(): Endpoint[] {
    return this.candidates.all().map((candidate) => candidate.endpoint);
  }

  /** Those that would be better than the endpoint in use, if they work. */
  betterTargets(): Endpoint[] {
    const rank = this.#direct === undefined ? 0 : endpointRank(this.#direct);
    return this.targets().filter((endpoint) => endpointRank(endpoint) > rank);
  }

  /** Somebody who proves nothing names an endpoint. */
  suggest(endpoint: Endpoint, origin: CandidateOrigin, now: Instant): PathEffect {
    if (this.isRelayOnly) return "none";
    const isNew = this.candidates.add(endpoint, origin, now, this.#direct);
    if (this.#relayed || this.#isProved(now) || this.#isGuessed(now)) return isNew ? "probe" : "none";
    // A private endpoint is only one of several guesses; what the registry says is the likeliest.
    if (sameEndpoint(this.#direct, endpoint) || (this.#direct !== undefined && origin === "lan")) return "none";
    this.#direct = endpoint;
    return this.#moved(now);
  }

  /** A signed exchange came from there while nothing else works: the best guess there is. */
  guess(source: Endpoint, relayed: boolean, now: Instant): void {
    if (relayed) {
      this.heardRelay(now);
      return;
    }
    this.candidates.add(source, "heard", now, this.#direct);
    if (!this.#relayed && this.#lives(now)) return;
    this.#direct = source;
    this.#relayed = false;
    this.#guessedAt = now;
    this.#moved(now);
  }

  /** An authenticated frame came through the relay: the peer cannot reach us directly, unless direct lives. */
  heardRelay(now: Instant): PathEffect {
    if (this.#relayed || this.#lives(now)) return "none";
    this.#relayed = true;
    return this.#moved(now);
  }

  /** An authenticated frame came straight from `source`; `carriesData`: over the way the peer has chosen. */
  heardDirect(source: Endpoint, carriesData: boolean, now: Instant): PathEffect {
    this.candidates.heard(source, now, this.#direct);
    if (this.#relayed) return carriesData ? this.#moveTo(source, now) : "probe";
    if (this.#direct === undefined) return this.#moveTo(source, now);
    if (sameEndpoint(this.#direct, source)) {
      this.#heardAt = now;
      return "none";
    }
    if (!this.#lives(now)) return this.#moveTo(source, now);
    return carriesData && this.#mayFollow(source, now) ? this.#moveTo(source, now) : "probe";
  }

  /** A probe sent at `sentAt` was answered straight from `source`: both directions work. */
  answeredDirect(source: Endpoint, sentAt: Instant, now: Instant): PathEffect {
    this.candidates.answered(source, now - sentAt, now);
    if (this.#relayed || this.#direct === undefined) return this.#moveTo(source, now);
    if (sameEndpoint(this.#direct, source)) return "none";
    const difference = endpointRank(source) - endpointRank(this.#direct);
    const isSilentSince = this.#heardAt === undefined || this.#heardAt < sentAt;
    const isBetter = difference > 0 || (difference === 0 && isSilentSince) || !this.#lives(now);
    return isBetter ? this.#moveTo(source, now) : "none";
  }

  /** Nothing is heard, or the underlay changed: what was proved no longer counts. */
  doubt(): void {
    this.#heardAt = undefined;
    this.#guessedAt = undefined;
  }

  #mayFollow(source: Endpoint, now: Instant): boolean {
    const difference = endpointRank(source) - endpointRank(this.#direct!);
    if (difference !== 0) return difference > 0;
    return this.#movedAt === undefined || after(this.#movedAt, this.#holdMs) <= now;
  }

  #moveTo(source: Endpoint, now: Instant): PathEffect {
    if (!this.#relayed && this.#heardAt !== undefined) this.#movedAt = now;
    this.#direct = source;
    this.#relayed = false;
    this.#heardAt = now;
    return this.#moved(now);
  }

  #moved(now: Instant): "moved" {
    const endpoint = this.#relayed ? undefined : this.#direct;
    const last = this.#history.at(-1);
    if (last?.kind === this.kind && sameEndpoint(last.endpoint, endpoint)) return "moved";
    this.#history = [...this.#history, { at: now, kind: this.kind, endpoint }].slice(-MAX_HISTORY);
    return "moved";
  }

  #lives(now: Instant): boolean {
    return this.#heardAt !== undefined && after(this.#heardAt, DIRECT_LIVE_MS) > now;
  }

  #isGuessed(now: Instant): boolean {
    return this.#guessedAt !== undefined && after(this.#guessedAt, GUESS_LIFETIME_MS) > now;
  }

  #isProved(now: Instant): boolean {
    return this.#heardAt !== undefined && after(this.#heardAt, PROOF_LIFETIME_MS) > now;
  }
}

/** A direct way that was heard so lately works; shorter than the silence after which probes go through the relay. */
const DIRECT_LIVE_MS = 1_000;
const PROOF_LIFETIME_MS = 30_000;
/** Long enough for a first answer; an exchange can be replayed from anywhere, so not longer. */
const GUESS_LIFETIME_MS = 1_500;
const MAX_HISTORY = 16;
/** Two sides that each follow the other between equally good endpoints must not do so in step. */
const FOLLOW_HOLD_MS = 2_000;
