import { expect, test } from "vitest";
import { toHex } from "../../src/base/bytes.ts";
import {
  counterOf,
  encodeNonce,
  isSealedFrame,
  prefixOf,
  sealFrame,
  senderOf,
} from "../../src/tunnel/portable-frame.ts";
import { nodeId } from "../../src/wire/ids.ts";

const frameKey = { key: new Uint8Array(32).fill(1), bindSender: true };

test("a nonce is the prefix and the counter in eight bytes", () => {
  expect(toHex(encodeNonce(Uint8Array.of(1, 2, 3, 4), 5))).toBe("010203040000000000000005");
  expect(toHex(encodeNonce(Uint8Array.of(1, 2, 3, 4), 2 ** 53 - 1))).toBe("01020304001fffffffffffff");
});

test("the parts of a frame can be read from it", () => {
  const frame = sealFrame(
    frameKey,
    nodeId(0xfffffffe),
    encodeNonce(Uint8Array.of(0xff, 2, 3, 4), 2 ** 40 + 9),
    new Uint8Array(3),
  );
  expect(frame).toHaveLength(39);
  expect(isSealedFrame(frame)).toBe(true);
  expect(senderOf(frame)).toBe(0xfffffffe);
  expect(prefixOf(frame)).toBe(0xff020304);
  expect(counterOf(frame)).toEqual({ high: 256, low: 9 });
});

test("a datagram is a sealed frame by its magic and only when nonce and tag fit", () => {
  const frame = sealFrame(frameKey, nodeId(1), encodeNonce(new Uint8Array(4), 1), new Uint8Array(0));
  expect(isSealedFrame(frame)).toBe(true);
  expect(isSealedFrame(frame.subarray(0, 35))).toBe(false);
  expect(isSealedFrame(frame.with(3, 0x54))).toBe(false);
});
