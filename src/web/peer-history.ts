/** What a look at the daemon does not tell by itself: how fast bytes go, and how round trips were. */
import type { PeerStatus } from "../control/api.ts";
import { MAX_POINTS, type PeerView, type RttPoint } from "./view.ts";

interface Past {
  rxBytes: number;
  txBytes: number;
  /** Oldest first. Bound: MAX_POINTS. */
  readonly points: RttPoint[];
}

export class PeerHistory {
  /** Key: node number. Bound: peers of one view; who is not in the next one is forgotten. */
  #past = new Map<number, Past>();
  #atMs: number | undefined;

  /** `peers` as the daemon told them at `atMs`. */
  add(peers: readonly PeerStatus[], atMs: number): PeerView[] {
    const elapsedS = this.#atMs === undefined ? 0 : (atMs - this.#atMs) / 1000;
    const present = new Map<number, Past>();
    const views = peers.map((peer) => {
      const past = this.#past.get(peer.node);
      const points = past?.points ?? [];
      points.push([atMs, peer.rttMs]);
      if (points.length > MAX_POINTS) points.shift();
      present.set(peer.node, { rxBytes: peer.rxBytes, txBytes: peer.txBytes, points });
      return {
        ...peer,
        rxRate: rateOf(past?.rxBytes, peer.rxBytes, elapsedS),
        txRate: rateOf(past?.txBytes, peer.txBytes, elapsedS),
      };
    });
    this.#past = present;
    this.#atMs = atMs;
    return views;
  }

  /** After the daemon went away: what was counted begins again, the curves go on. */
  interrupt(): void {
    this.#atMs = undefined;
  }

  points(): (readonly [number, readonly RttPoint[]])[] {
    return [...this.#past].map(([node, { points }]) => [node, points]);
  }
}

/** Counters that fell were set back. */
function rateOf(before: number | undefined, now: number, elapsedS: number): number | null {
  return before === undefined || elapsedS <= 0 || now < before ? null : (now - before) / elapsedS;
}
