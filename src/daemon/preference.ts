/**
 * When the thread that moves packets goes before ordinary programs: while somebody waits for short answers beside a transfer, or while
 * they make it wait (`tunnel/sparse-traffic.ts`). Programs that keep every core busy, those at both ends of the transfer among
 * them, otherwise hold it up for some milliseconds at each turn. All the time it would be wrong: woken for every few packets, it
 * spends more on each byte.
 *
 * Not done where it could do harm or was decided by somebody else: while strangers flood the socket, who would then have a
 * processor to themselves; with one processor; under a quota of processor time, which the kernel does not hold against preferred
 * threads; with a policy from outside; and where the kernel refuses (RLIMIT_RTPRIO, see docs/service.md).
 */
import { availableParallelism } from "node:os";
import type { Instant } from "../base/instant.ts";
import { hasCpuQuota } from "../io/cpu-quota.ts";
import { nativeShim } from "../io/native.ts";
import { ownTurns } from "../io/run-queue.ts";
import type { Batch } from "../tunnel/data-plane.ts";
import { type Load, SparseTraffic } from "../tunnel/sparse-traffic.ts";

/** What is done to this thread; 0 or -errno. */
export type Prefer = (preferred: boolean) => number;

export class Preference {
  readonly #traffic: SparseTraffic;
  readonly #load: Load;
  readonly #prefer: Prefer;
  #isPossible: boolean;
  #isOn = false;

  /** `isPossible`: see `mayPrefer`. */
  constructor(load: Load, now: Instant, isPossible: boolean, prefer: Prefer = preferThis) {
    this.#traffic = new SparseTraffic(now);
    this.#load = load;
    this.#isPossible = isPossible;
    this.#prefer = prefer;
  }

  get isOn(): boolean {
    return this.#isOn;
  }

  /** The first rows of what programs send. */
  note(batch: Batch, count: number): void {
    if (this.#isPossible) this.#traffic.note(batch, count);
  }

  /** After every wake-up; the load is looked at once in a while. */
  update(now: Instant): void {
    if (!this.#isPossible) return;
    const wanted = this.#traffic.isHeldUp(this.#load, now);
    if (wanted === this.#isOn) return;
    if (this.#prefer(wanted) === 0) this.#isOn = wanted;
    else this.#isPossible = false;
  }
}

const preferThis: Prefer = (preferred) => nativeShim().prefer(preferred);

/** Of this thread and what it moves. */
export function loadOf(plane: { readonly movedPackets: number }): Load {
  return {
    get movedPackets() {
      return plane.movedPackets;
    },
    turns: ownTurns,
  };
}

/** Whether nothing stands against it; the kernel may still refuse. */
export function mayPrefer(): boolean {
  return availableParallelism() > 1 && nativeShim().isOrdinary() === 1 && !hasCpuQuota();
}
