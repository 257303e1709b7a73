/**
 * How many segments all streams to one reference node have on their way together. Its socket holds some 90 datagrams of our
 * size and drops the rest (pilot protocol §14, point 10), whichever stream they are of. A stream may always have one.
 * A stream that finds no room is woken when there is some. Key of `waiting`: the wake-up; bound: the node's streams.
 */
export class FlightShare {
  #segments = 0;
  readonly #waiting = new Set<() => void>();

  /** True, or `wake` will be called once. */
  hasRoom(limit: number, wake: () => void): boolean {
    if (this.#segments < limit) return true;
    this.#waiting.add(wake);
    return false;
  }

  /** How many more may be on their way. */
  room(limit: number): number {
    return limit - this.#segments;
  }

  /** A stream's part changed by so many segments. */
  change(segments: number): void {
    this.#segments += segments;
    if (segments >= 0 || this.#waiting.size === 0) return;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  /** For a stream that is over. */
  stopWaiting(wake: () => void): void {
    this.#waiting.delete(wake);
  }
}
