/**
 * Leases: consent that has limits. Each side has its own words about them in its trust record: what it lets the peer begin
 * here, what it wants to begin over there, until when, how many bytes. The peer tells its own in every hello. What holds is
 * what both allow, and both enforce it.
 *
 * An ask for services is for the asker alone: under it the peer may begin nothing here. Time and bytes count for everything
 * that passes between the two, whoever began.
 */

import { isLimited, type Terms } from "../wire/ask-text.ts";
import { covers, intersectServices, type Services, sameServices } from "../wire/services.ts";

/**
 * Milliseconds on the clock that leases end by. It never goes back and does not follow the wall clock while the daemon
 * runs; see lease-clock.ts.
 */
export type LeaseTime = number & { readonly unit: "lease-ms" };

/** What one side allows, seen from here; what is undefined is not limited. */
export interface Limits {
  /** What the peer may begin to reach here. */
  readonly inward: Services | undefined;
  /** What this side may begin to reach over there. */
  readonly outward: Services | undefined;
  readonly endsAt: LeaseTime | undefined;
  /** Of IP packets in both directions, still allowed when this was written. */
  readonly leftBytes: number | undefined;
}

/** This side's own words. */
export interface Lease extends Limits {
  /** `leftBytes` as it was granted. */
  readonly maxBytes: number | undefined;
  /** The number of the peer's ask that this answers; 0: none. */
  readonly answers: number;
}

export type LeaseEnd = "time" | "bytes";

/** What was agreed on before; `lease` undefined: nothing, or no limits. */
export interface Standing {
  readonly isMutual: boolean;
  readonly lease: Lease | undefined;
}

/** What an ask of ours means once the peer consents. Under trust that there is, what it does not name stays. */
export function leaseOfAsk(terms: Terms, { isMutual, lease }: Standing, now: LeaseTime): Lease {
  const { services, maxBytes } = terms;
  return {
    inward: isMutual || services === undefined ? lease?.inward : [],
    outward: services ?? lease?.outward,
    endsAt: endOf(terms, now) ?? lease?.endsAt,
    leftBytes: maxBytes ?? lease?.leftBytes,
    maxBytes: maxBytes ?? lease?.maxBytes,
    answers: lease?.answers ?? 0,
  };
}

/**
 * What this side grants: no more than what was asked for and than what the operator names now. Who asks for services lets this
 * side begin nothing; under trust that there is, what neither of them names stays. Undefined: no limits.
 */
export function grant(
  { isMutual, lease }: Standing,
  asked: Terms,
  named: Terms,
  answers: number,
  now: LeaseTime,
): Lease | undefined {
  const terms: Terms = {
    services: intersectServices(asked.services, named.services),
    durationMs: smaller(asked.durationMs, named.durationMs),
    maxBytes: smaller(asked.maxBytes, named.maxBytes),
  };
  if (lease === undefined && !isLimited(terms)) return undefined;
  return {
    inward: terms.services ?? lease?.inward,
    outward: isMutual || asked.services === undefined ? lease?.outward : [],
    endsAt: endOf(terms, now) ?? lease?.endsAt,
    leftBytes: terms.maxBytes ?? lease?.leftBytes,
    maxBytes: terms.maxBytes ?? lease?.maxBytes,
    answers,
  };
}

/** Nobody trusted anybody. */
export const NO_STANDING: Standing = { isMutual: false, lease: undefined };

/** What holds; undefined: no limits. */
export function effective(own: Lease | undefined, peer: Limits | undefined): Limits | undefined {
  if (own === undefined || peer === undefined) return own ?? peer;
  return {
    inward: intersectServices(own.inward, peer.inward),
    outward: intersectServices(own.outward, peer.outward),
    endsAt: smaller(own.endsAt, peer.endsAt),
    leftBytes: smaller(own.leftBytes, peer.leftBytes),
  };
}

/** Whether a flow may begin. `port` is that of the side that does not begin. */
export function permits(limits: Limits | undefined, direction: "in" | "out", protocol: number, port: number): boolean {
  const services = direction === "in" ? limits?.inward : limits?.outward;
  return services === undefined || covers(services, protocol, port);
}

/** Whether the same flows may begin under both. */
export function sameScope(a: Limits | undefined, b: Limits | undefined): boolean {
  return sameServices(a?.inward, b?.inward) && sameServices(a?.outward, b?.outward);
}

/**
 * Whether the peer has said nothing new: what is left differs no more than by the time that its words were under way and by
 * the bytes that the two sides count apart.
 */
export function saysTheSame(known: Limits | undefined, heard: Limits | undefined): boolean {
  if (known === undefined || heard === undefined) return known === heard;
  const isNear = (a: number | undefined, b: number | undefined, tolerance: number) =>
    a === undefined || b === undefined ? a === b : Math.abs(a - b) <= tolerance;
  const isSameEnd = isNear(known.endsAt, heard.endsAt, SAME_END_MS);
  return sameScope(known, heard) && isSameEnd && known.leftBytes === heard.leftBytes;
}

export function spent<L extends Limits>(limits: L | undefined, bytes: number): L | undefined {
  if (limits?.leftBytes === undefined) return limits;
  return { ...limits, leftBytes: limits.leftBytes - bytes };
}

function endOf({ durationMs }: Terms, now: LeaseTime): LeaseTime | undefined {
  return durationMs === undefined ? undefined : ((now + durationMs) as LeaseTime);
}

function smaller<N extends number>(a: N | undefined, b: N | undefined): N | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return a < b ? a : b;
}

/** Words under way, and clocks that run a little apart over hours. */
const SAME_END_MS = 1_000;
