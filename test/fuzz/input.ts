/** Reads values out of the bytes a fuzzer made: the same bytes give the same values, and no bytes give zeros for ever. */
export class FuzzInput {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isEmpty(): boolean {
    return this.#at >= this.#bytes.length;
  }

  u8(): number {
    return this.#bytes[this.#at++] ?? 0;
  }

  u16(): number {
    return (this.u8() << 8) | this.u8();
  }

  u32(): number {
    return ((this.u16() << 16) | this.u16()) >>> 0;
  }

  /** From 0, below `end`; `end` is at most 256. */
  below(end: number): number {
    return this.u8() % end;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  /** A copy, shorter than asked when the input ends. */
  bytes(length: number): Uint8Array {
    const taken = this.#bytes.slice(this.#at, this.#at + length);
    this.#at += length;
    return taken;
  }

  /** A copy with its length in front: one byte, or after 255 two more. */
  block(): Uint8Array {
    const length = this.u8();
    return this.bytes(length === 255 ? this.u16() : length);
  }

  rest(): Uint8Array {
    return this.bytes(this.#bytes.length);
  }
}

/** Bytes as text the way a lenient reader takes them: one character per byte unless they are UTF-8. */
export function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return Buffer.from(bytes).toString("latin1");
  }
}

/** What the text says as JSON; undefined when it is none. */
export function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(textOf(bytes));
  } catch {
    return undefined;
  }
}

/** A finding: `claim` names the property, `details` what was seen. */
export function demand(holds: boolean, claim: string, ...details: readonly unknown[]): void {
  if (!holds) throw new Error([claim, ...details.map((detail) => JSON.stringify(detail) ?? "undefined")].join(": "));
}

export function demandSame(a: unknown, b: unknown, claim: string): void {
  const [left, right] = [JSON.stringify(a, plainly), JSON.stringify(b, plainly)];
  demand(left === right, claim, left, right);
}

/** Byte arrays by their hexadecimal digits: short, and the same whatever kind of array it is. */
function plainly(_key: string, value: unknown): unknown {
  return value instanceof Uint8Array ? `hex ${Buffer.from(value).toString("hex")}` : value;
}
