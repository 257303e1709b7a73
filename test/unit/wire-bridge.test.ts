import { describe, expect, it } from "vitest";
import { fromHex, toHex } from "../../src/base/bytes.ts";
import {
  type BridgeMessage,
  classifyBridgePayload,
  encodeBridgeMessage,
  parseBridgeMessage,
} from "../../src/wire/bridge.ts";

const hex = (text: string) => fromHex(text.replaceAll(" ", ""))!;

const HELLO_BODY = {
  consents: true,
  features: 0x01020304,
  mtu: 1360,
  instance: hex("a0a1a2a3a4a5a6a7"),
  epoch: 9,
} as const;

/** The layouts of docs/bridge-protocol.md, written by hand. */
const LAYOUTS: readonly (readonly [BridgeMessage, string])[] = [
  [{ kind: "hello", ...HELLO_BODY }, "01 01 0001 01020304 0550 a0a1a2a3a4a5a6a7 00000009"],
  [{ kind: "hello-ack", ...HELLO_BODY, consents: false }, "02 01 0000 01020304 0550 a0a1a2a3a4a5a6a7 00000009"],
  [{ kind: "revoked", epoch: 0xfffffffe }, "03 000000 fffffffe"],
  [{ kind: "mtu-probe", size: 12, id: 0xdeadbeef }, "05 00 000c deadbeef 00000000"],
  [{ kind: "mtu-answer", size: 1360, id: 0xdeadbeef }, "06 00 0550 deadbeef"],
  [{ kind: "revoked-ack", epoch: 3 }, "07 000000 00000003"],
  [
    { kind: "fragment", id: 0xdeadbeef, offset: 0x0480, more: true, bytes: hex("60aabb") },
    "08 01 0480 deadbeef 60aabb",
  ],
  [{ kind: "fragment", id: 1, offset: 0, more: false, bytes: hex("00") }, "08 00 0000 00000001 00"],
];

describe("bridge messages", () => {
  it.each(LAYOUTS)("$kind has the documented layout", (message, layout) => {
    expect(encodeBridgeMessage(message)).toEqual(hex(layout));
    expect(parseBridgeMessage(hex(layout))).toEqual(message);
  });

  it.each(["00", "09", "0f0102"])("type of %s is unknown, not malformed", (payload) => {
    expect(parseBridgeMessage(hex(payload))).toEqual({ kind: "unknown", type: hex(payload)[0] });
  });

  it("a hello of another version is unknown", () => {
    const hello = encodeBridgeMessage({ kind: "hello", ...HELLO_BODY });
    hello[1] = 2;
    expect(parseBridgeMessage(hello)).toEqual({ kind: "unknown", type: 1 });
  });

  it("reserved bits and bytes are not looked at", () => {
    expect(parseBridgeMessage(hex("03 ffffff 00000001"))).toEqual({ kind: "revoked", epoch: 1 });
    const hello = encodeBridgeMessage({ kind: "hello", ...HELLO_BODY, consents: false });
    hello[2] = 0xff;
    hello[3] = 0xfe;
    expect(parseBridgeMessage(hello)).toMatchObject({ consents: false });
  });

  it("a probe that claims more than arrived is malformed", () => {
    const probe = encodeBridgeMessage({ kind: "mtu-probe", size: 1360, id: 1 });
    expect(probe.length).toBe(1360);
    expect(parseBridgeMessage(probe)).toEqual({ kind: "mtu-probe", size: 1360, id: 1 });
    expect(parseBridgeMessage(probe.subarray(0, 1359))).toBeUndefined();
  });

  it("a fragment of nothing, or of more than the longest packet, is malformed", () => {
    expect(parseBridgeMessage(hex("08 00 0000 00000001"))).toBeUndefined();
    expect(parseBridgeMessage(hex("08 00 fffe 00000001 aabb"))).toBeUndefined();
    expect(parseBridgeMessage(hex("08 00 fffe 00000001 aa"))).toMatchObject({ kind: "fragment", offset: 0xfffe });
  });

  it("the first half-byte tells packets from messages", () => {
    expect(classifyBridgePayload(hex("60"))).toBe("packet");
    expect(classifyBridgePayload(hex("6f"))).toBe("packet");
    expect(classifyBridgePayload(hex("07"))).toBe("message");
    for (const other of ["", "45", "10", "70", "ff"]) {
      expect(classifyBridgePayload(hex(other)), toHex(hex(other))).toBeUndefined();
      expect(parseBridgeMessage(hex(other))).toBeUndefined();
    }
    expect(parseBridgeMessage(hex("60000000"))).toBeUndefined();
  });
});
