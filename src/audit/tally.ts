/**
 * What happens too often for a record each time, added up: one sum per key and interval. The first interval of a key is
 * short, so that something new is told soon; while it goes on the intervals grow, so that it cannot fill the log.
 *
 * Bound: MAX_KEYS, and MAX_KEYS_PER_OWNER of them for one owner (a peer); what comes beyond is added to one sum for the
 * rest of that owner, or of everybody.
 */
import type { Instant } from "../base/instant.ts";

/** For which things a sum stands. */
export type Scope = "key" | "owner" | "everybody";

interface Entry<T> {
  readonly owner: number;
  /** Undefined while this interval has seen nothing. */
  sum: T | undefined;
  dueAt: Instant;
  step: number;
}

export class Tally<T> {
  readonly #intervalsMs: readonly number[];
  readonly #entries = new Map<string, Entry<T>>();
  /** Key: owner. Bound: owners of entries. */
  readonly #held = new Map<number, number>();
  #nextAt: Instant | undefined;

  /** The last interval repeats. */
  constructor(intervalsMs: readonly number[]) {
    this.#intervalsMs = intervalsMs;
  }

  /** The sum to add to; `begin` makes a new one for what it has to stand for. */
  sumFor(owner: number, key: string, now: Instant, begin: (scope: Scope) => T): T {
    const scope = this.#scopeOf(owner, key);
    const name = scope === "key" ? key : scope === "owner" ? `rest of ${owner}` : "rest";
    const entry = this.#entries.get(name) ?? this.#open(name, scope === "everybody" ? EVERYBODY : owner, now);
    entry.sum ??= begin(scope);
    return entry.sum;
  }

  pollTimeout(): Instant | undefined {
    return this.#nextAt;
  }

  /** Sums of the intervals that are over. A key that was quiet for one is forgotten. */
  take(now: Instant): T[] {
    if (this.#nextAt === undefined || this.#nextAt > now) return [];
    return this.#collect((entry) => entry.dueAt <= now, now);
  }

  /** At the end: every sum there is. */
  takeAll(now: Instant): T[] {
    return this.#collect(() => true, now);
  }

  #collect(isOver: (entry: Entry<T>) => boolean, now: Instant): T[] {
    const sums: T[] = [];
    for (const [name, entry] of this.#entries) {
      if (!isOver(entry)) continue;
      if (entry.sum === undefined) {
        this.#entries.delete(name);
        this.#hold(entry.owner, -1);
        continue;
      }
      sums.push(entry.sum);
      entry.sum = undefined;
      entry.step = Math.min(entry.step + 1, this.#intervalsMs.length - 1);
      entry.dueAt = (now + this.#intervalsMs[entry.step]!) as Instant;
    }
    this.#nextAt = this.#earliest();
    return sums;
  }

  #scopeOf(owner: number, key: string): Scope {
    if (this.#entries.has(key)) return "key";
    if (this.#entries.size >= MAX_KEYS) return "everybody";
    return (this.#held.get(owner) ?? 0) >= MAX_KEYS_PER_OWNER ? "owner" : "key";
  }

  #open(name: string, owner: number, now: Instant): Entry<T> {
    const dueAt = (now + this.#intervalsMs[0]!) as Instant;
    const entry: Entry<T> = { owner, sum: undefined, dueAt, step: 0 };
    this.#entries.set(name, entry);
    this.#hold(owner, 1);
    if (this.#nextAt === undefined || dueAt < this.#nextAt) this.#nextAt = dueAt;
    return entry;
  }

  #hold(owner: number, change: number): void {
    const held = (this.#held.get(owner) ?? 0) + change;
    if (held === 0) this.#held.delete(owner);
    else this.#held.set(owner, held);
  }

  #earliest(): Instant | undefined {
    let first: Instant | undefined;
    for (const { dueAt } of this.#entries.values()) if (first === undefined || dueAt < first) first = dueAt;
    return first;
  }
}

const MAX_KEYS = 1_024;
const MAX_KEYS_PER_OWNER = 64;
const EVERYBODY = -1;
