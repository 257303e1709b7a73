/**
 * What a far side can do, judged by its handshake. Every published reference numbers its first segment 0 (pilot protocol
 * §4.1); this implementation draws a random number that is never 0. So 0 means: assume the reference and all its habits.
 */
export interface PeerTraits {
  readonly isReference: boolean;
  /** One direction can end while the other goes on (pilot protocol §4.7: the reference ends both). */
  readonly halfClose: boolean;
}

export function judgePeer(initialSequence: number, halfClose: boolean | undefined): PeerTraits {
  const isReference = initialSequence === 0;
  return TRAITS[isReference ? 1 : 0]![(halfClose ?? !isReference) ? 1 : 0]!;
}

/** By both answers; one object for all streams that are alike. */
const TRAITS: readonly (readonly PeerTraits[])[] = [false, true].map((isReference) =>
  [false, true].map((halfClose) => ({ isReference, halfClose })),
);

/**
 * A reference daemon's socket holds some 90 datagrams of our size. On a short path all that is in flight can wait there at
 * once, on a long one it is spread over the path (pilot protocol §14, point 10).
 */
export function maxInFlightToReference(smoothedRttMs: number | undefined): number {
  return smoothedRttMs !== undefined && smoothedRttMs > LONG_PATH_RTT_MS ? LONG_PATH_SEGMENTS : SHORT_PATH_SEGMENTS;
}

const LONG_PATH_RTT_MS = 20;
const LONG_PATH_SEGMENTS = 128;
const SHORT_PATH_SEGMENTS = 64;
