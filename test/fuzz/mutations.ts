/** Makes new inputs out of those there are: the usual small damage, several at a time, and words of the source code. */
import type { Random } from "../helpers/random.ts";

export class Mutations {
  readonly #random: Random;
  readonly #words: readonly Uint8Array[];
  readonly #maxBytes: number;

  /** `words`: what parsers look for, so that nobody has to guess a magic number byte by byte. */
  constructor(random: Random, words: readonly Uint8Array[], maxBytes: number) {
    this.#random = random;
    this.#words = words;
    this.#maxBytes = maxBytes;
  }

  /** `other` is another input to take parts of. */
  of(input: Uint8Array, other: Uint8Array): Uint8Array {
    let made: Uint8Array = input.slice();
    for (let rounds = 2 ** this.#random.between(0, 4); rounds > 0; rounds--) made = this.#once(made, other);
    return made.subarray(0, this.#maxBytes);
  }

  #once(bytes: Uint8Array, other: Uint8Array): Uint8Array {
    const random = this.#random;
    const at = random.between(0, Math.max(0, bytes.length - 1));
    switch (bytes.length === 0 ? random.between(6, 8) : random.between(0, 10)) {
      case 0:
        return bytes.with(at, bytes[at]! ^ (1 << random.between(0, 7)));
      case 1:
        return bytes.with(at, bytes[at]! + random.between(-8, 8));
      case 2:
        return bytes.with(at, random.pick(TELLING_BYTES));
      case 3:
        return this.#number(bytes, at);
      case 4:
        return this.#without(bytes, at);
      case 5:
        return insert(bytes, at, bytes.subarray(at, at + random.between(1, 32)));
      case 6:
        return insert(bytes, at, this.#random.pick(this.#words));
      case 7:
        return insert(
          bytes,
          at,
          Uint8Array.from({ length: random.between(1, 16) }, () => random.between(0, 255)),
        );
      case 8:
        return this.#splice(bytes, at, other);
      case 9:
        return overwrite(bytes, at, this.#random.pick(this.#words));
      default:
        return overwrite(bytes, at, other.subarray(random.between(0, other.length)).subarray(0, random.between(1, 32)));
    }
  }

  /** A number of two or four bytes at `at`: one that is often special, or near what was there. */
  #number(bytes: Uint8Array, at: number): Uint8Array {
    const size = this.#random.pick([2, 4]);
    if (at + size > bytes.length) return bytes;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const value = this.#random.chance(0.5)
      ? this.#random.pick([
          0,
          1,
          0x7fff,
          0x8000,
          0xffff,
          0x7fffffff,
          0x80000000,
          0xffffffff,
          bytes.length,
          bytes.length - at,
        ])
      : (size === 2 ? view.getUint16(at) : view.getUint32(at)) + this.#random.between(-16, 16);
    if (size === 2) view.setUint16(at, value);
    else view.setUint32(at, value);
    return bytes;
  }

  #without(bytes: Uint8Array, at: number): Uint8Array {
    const length = this.#random.chance(0.5) ? 1 : this.#random.between(1, bytes.length);
    return concatBytes(bytes.subarray(0, at), bytes.subarray(at + length));
  }

  #splice(bytes: Uint8Array, at: number, other: Uint8Array): Uint8Array {
    const from = this.#random.between(0, other.length);
    if (this.#random.chance(0.5)) return concatBytes(bytes.subarray(0, at), other.subarray(from));
    return insert(bytes, at, other.subarray(from, from + this.#random.between(1, 64)));
  }
}

/** Not the product's own: what runs here must not look like something that an input reached. */
function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function insert(bytes: Uint8Array, at: number, part: Uint8Array): Uint8Array {
  return concatBytes(bytes.subarray(0, at), part, bytes.subarray(at));
}

function overwrite(bytes: Uint8Array, at: number, part: Uint8Array): Uint8Array {
  bytes.set(part.subarray(0, bytes.length - at), at);
  return bytes;
}

const TELLING_BYTES: readonly number[] = [
  0, 1, 4, 6, 9, 10, 16, 32, 34, 41, 44, 46, 47, 58, 63, 64, 123, 127, 128, 192, 254, 255,
];
