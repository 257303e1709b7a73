/**
 * Who relays for whom, in bytes and frames, without a look at the content. Sender numbers may be claims, so the table is
 * bounded: what falls out of it is added to `others`, and the totals stay true.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import type { NodeId } from "../wire/ids.ts";

export interface RelayPair {
  readonly sender: NodeId;
  readonly destination: NodeId;
  frames: number;
  bytes: number;
}

export interface RelaySum {
  frames: number;
  bytes: number;
}

export class RelayLedger {
  readonly others: RelaySum = { frames: 0, bytes: 0 };
  /** By both numbers; bounded, the pair that was silent longest is evicted and added to `others`. */
  readonly #pairs = new BoundedMap<string, RelayPair>(MAX_PAIRS, (_, pair) => this.#forget(pair));
  #latest: RelayPair | undefined;

  get size(): number {
    return this.#pairs.size;
  }

  add(sender: NodeId, destination: NodeId, frames: number, bytes: number): void {
    const pair = this.#find(sender, destination);
    pair.frames += frames;
    pair.bytes += bytes;
  }

  /** Of a pair that is not worth a place: its sender may be made up. */
  addToOthers(frames: number, bytes: number): void {
    this.others.frames += frames;
    this.others.bytes += bytes;
  }

  /** The pairs with the most bytes, greatest first, and the sum of all that are not among them. */
  top(count: number): { readonly pairs: readonly Readonly<RelayPair>[]; readonly others: Readonly<RelaySum> } {
    const sorted = [...this.#pairs.values()].sort((a, b) => b.bytes - a.bytes);
    const others = { ...this.others };
    for (const pair of sorted.slice(count)) {
      others.frames += pair.frames;
      others.bytes += pair.bytes;
    }
    return { pairs: sorted.slice(0, count), others };
  }

  /** Frames come in runs, so the latest pair is most often the one. */
  #find(sender: NodeId, destination: NodeId): RelayPair {
    const latest = this.#latest;
    if (latest?.sender === sender && latest.destination === destination) return latest;
    const key = `${sender} ${destination}`;
    const known = this.#pairs.get(key);
    if (known === undefined) this.#pairs.set(key, { sender, destination, frames: 0, bytes: 0 });
    else this.#pairs.touch(key);
    this.#latest = this.#pairs.get(key)!;
    return this.#latest;
  }

  #forget(pair: RelayPair): void {
    this.addToOthers(pair.frames, pair.bytes);
    if (this.#latest === pair) this.#latest = undefined;
  }
}

const MAX_PAIRS = 4096;
