import { createCipheriv } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { encodeNonce, openFrame, sealFrame } from "../../src/tunnel/portable-frame.ts";
import { nodeId } from "../../src/wire/ids.ts";

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const sealed = fc.record({
  key: bytes(32),
  bindSender: fc.boolean(),
  sender: fc.nat(0xffff_ffff),
  prefix: bytes(4),
  counter: fc.maxSafeNat(),
  plaintext: fc.uint8Array({ maxLength: 300 }),
});

test("what was sealed opens to the same bytes, and is what OpenSSL seals", () => {
  fc.assert(
    fc.property(sealed, ({ sender, prefix, counter, plaintext, ...frameKey }) => {
      const nonce = encodeNonce(prefix, counter);
      const frame = sealFrame(frameKey, nodeId(sender), nonce, plaintext);
      expect(openFrame(frameKey, frame)).toEqual(plaintext);

      const cipher = createCipheriv("aes-256-gcm", frameKey.key, nonce);
      if (frameKey.bindSender) cipher.setAAD(frame.subarray(4, 8));
      const body = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
      expect(frame.subarray(20)).toEqual(new Uint8Array(body));
    }),
  );
});

test("a frame with any byte changed does not open, from the sender number to the tag", () => {
  fc.assert(
    fc.property(sealed, fc.nat(), fc.integer({ min: 1, max: 255 }), (parts, place, change) => {
      const { sender, prefix, counter, plaintext, ...frameKey } = parts;
      const frame = sealFrame(frameKey, nodeId(sender), encodeNonce(prefix, counter), plaintext);
      const firstBound = frameKey.bindSender ? 4 : 8;
      frame[firstBound + (place % (frame.length - firstBound))]! ^= change;
      expect(openFrame(frameKey, frame)).toBeUndefined();
    }),
  );
});

test("no cut or random frame opens", () => {
  const frameKey = { key: new Uint8Array(32).fill(3), bindSender: true };
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 36, maxLength: 200 }), (frame) => {
      expect(openFrame(frameKey, frame)).toBeUndefined();
    }),
  );
});
