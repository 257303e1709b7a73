import fc from "fast-check";
import { expect, test } from "vitest";
import { fromBase64, fromHex, fromUtf8, toBase64, toHex, utf8 } from "../../src/base/bytes.ts";

const anyBytes = fc.uint8Array({ maxLength: 300 });

test("base64, hex and UTF-8 are what Node writes and reads", () => {
  fc.assert(
    fc.property(anyBytes, fc.string({ unit: "grapheme", maxLength: 100 }), (bytes, text) => {
      const buffer = Buffer.from(bytes);
      expect(toBase64(bytes)).toBe(buffer.toString("base64"));
      expect(toHex(bytes)).toBe(buffer.toString("hex"));
      expect(fromBase64(toBase64(bytes))).toEqual(bytes);
      expect(fromHex(toHex(bytes).toUpperCase())).toEqual(bytes);
      expect(Buffer.from(utf8(text)).toString("utf8")).toBe(text);
      expect(fromUtf8(utf8(text))).toBe(text);
    }),
  );
});

test("text that is no base64 or no hex is refused, whatever is wrong with it", () => {
  const odd = fc.stringMatching(/^[A-Za-z0-9+/=\-_ \n\u0100é]{0,12}$/);
  fc.assert(
    fc.property(odd, (text) => {
      const isBase64 = text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
      expect(fromBase64(text) !== undefined).toBe(isBase64);
      expect(fromHex(text) !== undefined).toBe(text.length % 2 === 0 && /^[0-9a-fA-F]*$/.test(text));
    }),
    { numRuns: 2000 },
  );
});

test("a long array becomes base64 too", () => {
  const bytes = new Uint8Array(1_000_001).map((_, at) => at * 31);
  expect(toBase64(bytes)).toBe(Buffer.from(bytes).toString("base64"));
});
