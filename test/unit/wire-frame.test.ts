import { describe, expect, it } from "vitest";
import { utf8 } from "../../src/base/bytes.ts";
import { classifyDatagram } from "../../src/wire/frame.ts";

describe("a datagram", () => {
  it("is a beacon message when its first byte is below 0x10, however short", () => {
    for (let first = 0; first < 0x10; first++) expect(classifyDatagram(Uint8Array.of(first))).toBe("beacon");
    expect(classifyDatagram(Uint8Array.of(0x10))).toBe("unknown");
  });

  it.each([
    ["PILT", "pilt"],
    ["PILS", "pils"],
    ["PILK", "pilk"],
    ["PILA", "pila"],
    ["PILP", "pilp"],
    ["PILX", "unknown"],
    ["pils", "unknown"],
    ["PIL", "unknown"],
    ["", "unknown"],
  ])("that begins with %j is %s", (magic, kind) => {
    expect(classifyDatagram(utf8(magic))).toBe(kind);
    if (magic.length === 4) expect(classifyDatagram(utf8(`${magic} and more`))).toBe(kind);
  });
});
