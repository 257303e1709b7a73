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
  [{ kind: "agree", noise: new Uint8Array(48).fill(0xab) }, `0b 01 0000 ${"ab".repeat(48)}`],
  [{ kind: "agreed", noise: new Uint8Array(48).fill(0xcd) }, `0c 01 0000 ${"cd".repeat(48)}`],
  [{ kind: "revoked", epoch: 0xfffffffe, reason: "revoked" }, "03 00 0000 fffffffe"],
  [{ kind: "revoked", epoch: 2, reason: "lease-time" }, "03 01 0000 00000002"],
  [{ kind: "revoked", epoch: 2, reason: "lease-bytes" }, "03 02 0000 00000002"],
  [
    {
      kind: "hello",
      ...HELLO_BODY,
      features: 3,
      lease: {
        forReceiver: [
          { protocol: 6, first: 443, last: 443 },
          { protocol: 17, first: 53, last: 60 },
        ],
        forSender: [],
        leftMs: 7_200_000,
        leftBytes: 2 ** 32 + 1,
        answers: 12,
      },
    },
    "01 01 0001 00000003 0550 a0a1a2a3a4a5a6a7 00000009" +
      "0f 02 00 00 0000000c 00000000006ddd00 0000000100000001 06 01bb 01bb 11 0035 003c",
  ],
  [
    {
      kind: "hello-ack",
      ...HELLO_BODY,
      features: 2,
      lease: { forReceiver: undefined, forSender: undefined, leftMs: undefined, leftBytes: undefined, answers: 0 },
    },
    "02 01 0001 00000002 0550 a0a1a2a3a4a5a6a7 00000009 00 00 00 00 00000000 0000000000000000 0000000000000000",
  ],
  [{ kind: "mtu-probe", size: 12, id: 0xdeadbeef }, "05 00 000c deadbeef 00000000"],
  [{ kind: "mtu-answer", size: 1360, id: 0xdeadbeef }, "06 00 0550 deadbeef"],
  [{ kind: "revoked-ack", epoch: 3, reason: "revoked" }, "07 000000 00000003"],
  [{ kind: "why-question", id: 0xdeadbeef, protocol: 6, port: 443, begins: "sender" }, "09 06 01bb deadbeef 00"],
  [{ kind: "why-question", id: 1, protocol: 58, port: 0, begins: "receiver" }, "09 3a 0000 00000001 01"],
  [{ kind: "why-answer", id: 0xdeadbeef, isAllowed: true, hasListener: true }, "0a 01 01 00 deadbeef"],
  [{ kind: "why-answer", id: 1, isAllowed: true, hasListener: false }, "0a 01 02 00 00000001"],
  [{ kind: "why-answer", id: 1, isAllowed: false, hasListener: undefined }, "0a 00 00 00 00000001"],
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

  it.each(["00", "0d", "0f0102"])("type of %s is unknown, not malformed", (payload) => {
    expect(parseBridgeMessage(hex(payload))).toEqual({ kind: "unknown", type: hex(payload)[0] });
  });

  it("a hello of another version is unknown", () => {
    const hello = encodeBridgeMessage({ kind: "hello", ...HELLO_BODY });
    hello[1] = 2;
    expect(parseBridgeMessage(hello)).toEqual({ kind: "unknown", type: 1 });
  });

  it("reserved bits and bytes are not looked at", () => {
    expect(parseBridgeMessage(hex("03 00ffff 00000001"))).toEqual({ kind: "revoked", epoch: 1, reason: "revoked" });
    expect(parseBridgeMessage(hex("03 ff0000 00000001"))).toEqual({ kind: "revoked", epoch: 1, reason: "revoked" });
    const hello = encodeBridgeMessage({ kind: "hello", ...HELLO_BODY, consents: false });
    hello[2] = 0xff;
    hello[3] = 0xfe;
    expect(parseBridgeMessage(hello)).toMatchObject({ consents: false });
  });

  it("a hello that promises limits and does not tell them whole is malformed", () => {
    const [, layout] = LAYOUTS.find(([{ kind }, text]) => kind === "hello" && text.includes("01bb"))!;
    const whole = hex(layout);
    for (let length = 22; length < whole.length; length++) {
      expect(parseBridgeMessage(whole.subarray(0, length)), String(length)).toBeUndefined();
    }
    const strange = whole.slice();
    strange[46] = 99; // a protocol that no lease names
    expect(parseBridgeMessage(strange)).toBeUndefined();
  });

  it("a probe that claims more than arrived is malformed", () => {
    const probe = encodeBridgeMessage({ kind: "mtu-probe", size: 1360, id: 1 });
    expect(probe.length).toBe(1360);
    expect(parseBridgeMessage(probe)).toEqual({ kind: "mtu-probe", size: 1360, id: 1 });
    expect(parseBridgeMessage(probe.subarray(0, 1359))).toBeUndefined();
  });

  it("an agreement of another version is of an unknown type, and one that is cut short is malformed", () => {
    const message = encodeBridgeMessage({ kind: "agree", noise: new Uint8Array(48) });
    expect(parseBridgeMessage(message.subarray(0, 51))).toBeUndefined();
    message[1] = 2;
    expect(parseBridgeMessage(message)).toEqual({ kind: "unknown", type: 11 });
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
