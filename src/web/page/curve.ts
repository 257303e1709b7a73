/** Round trips over time as a small curve: its shape as numbers, and drawn. */
import { roundTrip } from "../../base/readable.ts";
import { LOOK_INTERVAL_MS, MAX_POINTS, type RttPoint } from "../view.ts";

export const CURVE_WIDTH = 160;
export const CURVE_HEIGHT = 32;
const SPAN_MS = MAX_POINTS * LOOK_INTERVAL_MS;
/** Room for the mark at the end. */
const MARGIN = 3;

export interface Curve {
  /** Points of unbroken lines, as SVG writes them; a round trip that was not known breaks the line. */
  readonly lines: readonly string[];
  /** Where the last one is, if it is known. */
  readonly end: readonly [x: number, y: number] | null;
  /** In words, for who does not see it. */
  readonly words: string;
}

/** From 0 at the bottom, so that noise looks like noise. `points`: the oldest first. */
export function curveOf(points: readonly RttPoint[], nowMs: number): Curve {
  const known = points.flatMap(([atMs, rttMs]) => (rttMs === null || nowMs - atMs > SPAN_MS ? [] : [rttMs]));
  const most = Math.max(...known, Number.MIN_VALUE);
  const runs: string[][] = [[]];
  let end: readonly [number, number] | null = null;
  for (const [atMs, rttMs] of points) {
    if (nowMs - atMs > SPAN_MS) continue;
    end = null;
    if (rttMs === null) {
      runs.push([]);
      continue;
    }
    const x = round(CURVE_WIDTH - MARGIN - ((nowMs - atMs) / SPAN_MS) * (CURVE_WIDTH - 2 * MARGIN));
    const y = round(CURVE_HEIGHT - MARGIN - (rttMs / most) * (CURVE_HEIGHT - 2 * MARGIN));
    runs.at(-1)!.push(`${x},${y}`);
    end = [x, y];
  }
  return { lines: runs.filter((run) => run.length > 1).map((run) => run.join(" ")), end, words: wordsOf(known) };
}

function wordsOf(known: readonly number[]): string {
  if (known.length === 0) return "no round trip measured";
  const [least, most] = [Math.min(...known), Math.max(...known)].map(roundTrip);
  return `last ${roundTrip(known.at(-1)!)}, between ${least} and ${most}`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
