/**
 * Requests of a registry by type and outcome. Types that the registry does not know count together, so that no client
 * can make the table grow.
 */
export type RequestOutcome = "ok" | "refused" | "limited";

export interface RequestCount {
  readonly type: string;
  readonly outcome: RequestOutcome;
  count: number;
}

export class RequestCounts {
  /** By type and outcome; bounded by the known types. */
  readonly #counts = new Map<string, RequestCount>();
  readonly #isKnown: (type: string) => boolean;

  constructor(isKnown: (type: string) => boolean) {
    this.#isKnown = isKnown;
  }

  add(type: unknown, outcome: RequestOutcome): void {
    const known = typeof type === "string" && this.#isKnown(type) ? type : "unknown";
    const key = `${known} ${outcome}`;
    const entry = this.#counts.get(key);
    if (entry === undefined) this.#counts.set(key, { type: known, outcome, count: 1 });
    else entry.count++;
  }

  list(): readonly Readonly<RequestCount>[] {
    return [...this.#counts.values()].sort((a, b) => (a.type < b.type ? -1 : a.type > b.type ? 1 : 0));
  }
}
