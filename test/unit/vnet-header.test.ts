import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { segmentPacket } from "../../src/tunnel/segment.ts";
import {
  type OffloadedPacket,
  parseVnetFrame,
  VNET_HEADER_BYTES,
  writeVnetHeader,
} from "../../src/wire/vnet-header.ts";

function frameOf(packet: OffloadedPacket): Uint8Array {
  const frame = new Uint8Array(VNET_HEADER_BYTES + packet.bytes.length);
  writeVnetHeader(packet, frame, 0);
  frame.set(packet.bytes, VNET_HEADER_BYTES);
  return frame;
}

const whole = { gsoType: 0, gsoSize: 0, csumStart: 0, csumOffset: 0, headerLength: 0 };

describe("the header in front of a packet of a TUN device", () => {
  it("says what was left undone, and is read as it was written", () => {
    const plain = { ...whole, bytes: new Uint8Array(60).fill(1) };
    expect(parseVnetFrame(frameOf(plain))).toEqual(plain);
    const partial = { ...plain, csumStart: 40, csumOffset: 6 };
    expect(parseVnetFrame(frameOf(partial))).toEqual(partial);
    const bytes = new Uint8Array(3000);
    bytes[40 + 12] = 0x50; // a TCP header of 20 bytes
    const superpacket = { bytes, gsoType: 4, gsoSize: 1200, csumStart: 40, csumOffset: 16, headerLength: 60 };
    expect(parseVnetFrame(frameOf(superpacket))).toEqual(superpacket);
  });

  it("is refused where it contradicts the packet, or names another kind of segmentation", () => {
    const bytes = new Uint8Array(100);
    for (const wrong of [
      { ...whole, bytes, csumStart: 98, csumOffset: 16 },
      { ...whole, bytes, gsoType: 1, gsoSize: 10, csumStart: 40, csumOffset: 16 },
      { ...whole, bytes, gsoType: 4, gsoSize: 10 },
      { ...whole, bytes: bytes.with(52, 0x50), gsoType: 4, gsoSize: 0, csumStart: 40, csumOffset: 16 },
    ]) {
      expect(parseVnetFrame(frameOf(wrong))).toBeUndefined();
    }
    expect(parseVnetFrame(new Uint8Array(10))).toBeUndefined();
  });

  it("never leads outside the packet, whatever it says", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (frame) => {
        const packet = parseVnetFrame(frame);
        if (packet === undefined) return;
        for (const part of segmentPacket(packet) ?? []) expect(part.length).toBeLessThanOrEqual(packet.bytes.length);
      }),
    );
  });
});
