/** Which of a fixed number of places are taken, one bit each: to walk over those of a large table that is mostly empty. */
export class PlaceSet {
  readonly #bits: Uint32Array;

  /** A multiple of 32. */
  constructor(capacity: number) {
    this.#bits = new Uint32Array(capacity / 32);
  }

  add(place: number): void {
    this.#bits[place >>> 5] = this.#bits[place >>> 5]! | (1 << (place & 31));
  }

  delete(place: number): void {
    this.#bits[place >>> 5] = this.#bits[place >>> 5]! & ~(1 << (place & 31));
  }

  /** The first place that is taken, from this one on; -1 when there is none. Places may come and go meanwhile. */
  next(from: number): number {
    let index = from >>> 5;
    let bits = index < this.#bits.length ? this.#bits[index]! & (-1 << (from & 31)) : 0;
    while (bits === 0) {
      index++;
      if (index >= this.#bits.length) return -1;
      bits = this.#bits[index]!;
    }
    return index * 32 + 31 - Math.clz32(bits & -bits);
  }
}
