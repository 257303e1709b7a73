import fc from "fast-check";
import { expect, test } from "vitest";
import { fromHex, readU16, readU32, writeU16, writeU32 } from "../../src/base/bytes.ts";
import {
  finishChecksum,
  foldSum,
  sumWords,
  transportChecksum,
  updateChecksum,
  updateChecksum32,
} from "../../src/wire/checksum.ts";
import { ipv6Packet, naiveChecksum } from "../helpers/inner-packets.ts";

test("the example of RFC 1071 adds up", () => {
  const bytes = fromHex("0001f203f4f5f6f7")!;
  expect(foldSum(sumWords(bytes, 0, bytes.length))).toBe(0xddf2);
  expect(finishChecksum(sumWords(bytes, 0, bytes.length))).toBe(0x220d);
});

test("the example of RFC 1624 is updated to the right zero", () => {
  expect(updateChecksum(0xdd2f, 0x5555, 0x3285)).toBe(0x0000);
});

test("the transport checksum is that of a naive sum over the pseudo-header and the rest", () => {
  fc.assert(
    fc.property(fc.constantFrom(6, 17, 58), fc.uint8Array({ minLength: 8, maxLength: 1500 }), (nextHeader, upper) => {
      const packet = ipv6Packet(nextHeader, upper);
      expect(transportChecksum(packet, 40, nextHeader)).toBe(naiveChecksum(packet));
    }),
  );
});

test("a packet with its checksum stored verifies to zero, and not with another bit", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 8, maxLength: 300 }), fc.nat(), (upper, flip) => {
      const packet = ipv6Packet(58, upper);
      writeU16(packet, 42, 0);
      writeU16(packet, 42, transportChecksum(packet, 40, 58));
      expect(transportChecksum(packet, 40, 58)).toBe(0);
      packet[40 + (flip % upper.length)]! ^= 1 << (flip % 8);
      expect(transportChecksum(packet, 40, 58)).not.toBe(0);
    }),
  );
});

test("updating a checksum gives what computing it anew gives", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 12, maxLength: 200 }),
      fc.nat(),
      fc.nat(0xffff),
      fc.nat(0xffff_ffff),
      (bytes, place, word, longWord) => {
        bytes[0] = 1; // a sum that is not all zero has one form only
        const at = 4 + 2 * (place % ((bytes.length - 8) >> 1));
        const checksum = finishChecksum(sumWords(bytes, 0, bytes.length));
        const updated16 = updateChecksum(checksum, readU16(bytes, at), word);
        const updated32 = updateChecksum32(checksum, readU32(bytes, at), longWord);
        const changed = bytes.slice();
        writeU16(changed, at, word);
        expect(updated16).toBe(finishChecksum(sumWords(changed, 0, changed.length)));
        changed.set(bytes);
        writeU32(changed, at, longWord);
        expect(updated32).toBe(finishChecksum(sumWords(changed, 0, changed.length)));
      },
    ),
  );
});
