import { describe, expect, test } from "vitest";
import { fromHex, toHex } from "../../src/base/bytes.ts";
import { encodeNonce, openFrame, sealFrame } from "../../src/tunnel/portable-frame.ts";
import { nodeId } from "../../src/wire/ids.ts";
import frames from "./frames.json" with { type: "json" };

const hex = (text: string) => fromHex(text)!;

describe.each(frames.pils)("PILS frame of the reference: $name", (vector) => {
  const frameKey = { key: hex(vector.key), bindSender: vector.gen === 2 };

  test("opens to its plaintext", () => {
    expect(toHex(openFrame(frameKey, hex(vector.frame))!)).toBe(vector.plaintext);
  });

  test("is what sealing gives", () => {
    const counter = BigInt(vector.counter).toString(16).padStart(16, "0");
    const nonce = hex(vector.prefix + counter);
    expect(toHex(sealFrame(frameKey, nodeId(vector.sender_node), nonce, hex(vector.plaintext)))).toBe(vector.frame);
    if (BigInt(vector.counter) > Number.MAX_SAFE_INTEGER) return;
    expect(encodeNonce(hex(vector.prefix), Number(vector.counter))).toEqual(nonce);
  });

  test("does not open under the rule of the other generation", () => {
    expect(openFrame({ ...frameKey, bindSender: !frameKey.bindSender }, hex(vector.frame))).toBeUndefined();
  });
});
