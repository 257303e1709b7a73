import { describe, expect, it } from "vitest";
import { utf8 } from "../../src/base/bytes.ts";
import { encodeHandshake, type HandshakeMessage, parseHandshake } from "../../src/wire/handshake.ts";
import { nodeId } from "../../src/wire/ids.ts";

const MESSAGE: HandshakeMessage = {
  type: "handshake_revoke",
  node: nodeId(1),
  publicKey: new Uint8Array(32).fill(1),
  justification: "",
  signature: new Uint8Array(64).fill(2),
  reason: "moved",
  timestampS: 1_770_000_000,
};

function fields(): Record<string, unknown> {
  return JSON.parse(new TextDecoder().decode(encodeHandshake(MESSAGE)));
}

function parseFields(changed: Record<string, unknown>): HandshakeMessage | undefined {
  return parseHandshake(utf8(JSON.stringify({ ...fields(), ...changed })));
}

describe("a trust message", () => {
  it("has all seven fields, in order", () => {
    const names = ["type", "node_id", "public_key", "justification", "signature", "reason", "timestamp"];
    expect(Object.keys(fields())).toEqual(names);
  });

  it.each([["plain"], ['"\\'], ["\u0000\n"], ["é"], ["🙂"], ["\ud800"]])(
    "stays below 1000 bytes however long texts of %j are",
    (unit) => {
      const long = unit.repeat(5_000);
      const encoded = encodeHandshake({ ...MESSAGE, node: nodeId(0xffffffff), justification: long, reason: long });
      expect(encoded.length).toBeLessThan(1000);
      const kept = parseHandshake(encoded)!.justification;
      expect(long.startsWith(kept)).toBe(true);
      expect(kept.length).toBeGreaterThan(40);
    },
  );

  it("with an overlong reason is still heard, the text cut", () => {
    const heard = parseFields({ reason: "x".repeat(20_000) });
    expect(heard?.type).toBe("handshake_revoke");
    expect(heard?.reason.length).toBe(1_024);
  });

  it.each([
    ["an empty key", { public_key: "" }],
    ["an empty signature", { signature: "" }],
    ["a short key", { public_key: "AAAA" }],
    ["a key that is not base64", { public_key: "!".repeat(44) }],
    ["an unknown type", { type: "handshake_other" }],
    ["a node as text", { node_id: "1" }],
    ["node 0", { node_id: 0 }],
    ["a node of more than 32 bits", { node_id: 2 ** 32 }],
    ["a broken number", { node_id: 1.5 }],
    ["a time before 1970", { timestamp: -1 }],
    ["a reason that is no text", { reason: 7 }],
    ["a justification that is null", { justification: null }],
  ])("with %s is refused", (_what, changed) => {
    expect(parseFields({})).toEqual(MESSAGE);
    expect(parseFields(changed)).toBeUndefined();
  });

  it("with fields nobody knows is read", () => {
    expect(parseFields({ extra: { deep: [1] } })).toEqual(MESSAGE);
  });

  it.each(["", "[]", "null", "1", '"x"', "{", "{}\u0000"])("%j is none", (json) => {
    expect(parseHandshake(utf8(json))).toBeUndefined();
  });
});
