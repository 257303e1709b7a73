import fc from "fast-check";
import { expect, test } from "vitest";
import { crc32 } from "../../src/base/crc32.ts";
import { finishChecksum, sumWords } from "../../src/wire/checksum.ts";
import { builtShim } from "./build-shim.ts";

const shim = builtShim();

/** Bytes at any alignment. */
const bytes = fc
  .tuple(fc.uint8Array({ maxLength: 3000 }), fc.nat(15))
  .map(([all, skip]) => all.subarray(Math.min(skip, all.length)));

test("the shim's CRC-32 is that of its twin at every length and alignment", () => {
  fc.assert(
    fc.property(bytes, (input) => {
      expect(shim.crc32(input)).toBe(crc32(input));
    }),
  );
  const long = Uint8Array.from({ length: 400 }, (_, index) => (index * 73) & 0xff);
  for (let length = 0; length <= long.length; length++) {
    expect(shim.crc32(long.subarray(0, length))).toBe(crc32(long.subarray(0, length)));
  }
});

test("the shim's checksum is that of its twin at every length and alignment", () => {
  fc.assert(
    fc.property(bytes, (input) => {
      expect(shim.checksum(input)).toBe(finishChecksum(sumWords(input, 0, input.length)));
    }),
  );
});

test("the shim's checksum carries over in the longest packet", () => {
  const ones = new Uint8Array(65_535).fill(0xff);
  expect(shim.checksum(ones)).toBe(finishChecksum(sumWords(ones, 0, ones.length)));
});
