/**
 * Which counters of one nonce prefix were seen (RFC 6479's idea: a ring of bits that the highest counter drags along).
 * Counters are 64 bits wide and come as two 32-bit halves, so that no value a peer may write needs a bigint.
 * Invariant: the caller has authenticated the frame; a counter never passes twice and counter 0 never passes.
 */
export const REPLAY_WINDOW_WIDTH = 2048;

export class ReplayWindow {
  readonly #width: number;
  readonly #bits: Uint32Array;
  #highestHigh = 0;
  #highestLow = 0;

  /** `width` counters below the highest are told apart: a power of two, at least 32. */
  constructor(width = REPLAY_WINDOW_WIDTH) {
    if (width < 32 || (width & (width - 1)) !== 0) throw new RangeError(`no power of two from 32 on: ${width}`);
    this.#width = width;
    this.#bits = new Uint32Array(width / 32);
  }

  /** Records the counter of an authenticated frame; false when it was seen before or is too old to tell. */
  accept(high: number, low: number): boolean {
    if (high === 0 && low === 0) return false;
    // Not exact beyond 2^53, but then its size is far beyond any width, and its sign is right.
    const ahead = (high - this.#highestHigh) * 0x1_0000_0000 + (low - this.#highestLow);
    if (ahead <= -this.#width) return false;
    if (ahead > 0) this.#advance(ahead, high, low);
    return this.#mark(low);
  }

  #advance(ahead: number, high: number, low: number): void {
    if (ahead >= this.#width) this.#bits.fill(0);
    else for (let step = 1; step <= ahead; step++) this.#clear(this.#highestLow + step);
    this.#highestHigh = high;
    this.#highestLow = low;
  }

  #clear(counter: number): void {
    const bit = counter % this.#width;
    this.#bits[bit >>> 5]! &= ~(1 << (bit & 31));
  }

  #mark(counter: number): boolean {
    const bit = counter % this.#width;
    const mask = 1 << (bit & 31);
    if ((this.#bits[bit >>> 5]! & mask) !== 0) return false;
    this.#bits[bit >>> 5]! |= mask;
    return true;
  }
}
