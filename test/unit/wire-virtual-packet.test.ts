import { expect, it } from "vitest";
import { writeU16, writeU32 } from "../../src/base/bytes.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import {
  encodeVirtualHeader,
  encodeVirtualPacket,
  PROTOCOL,
  parseVirtualPacket,
  type VirtualHeader,
  virtualPacketCrc,
} from "../../src/wire/virtual-packet.ts";

const HEADER: VirtualHeader = {
  flags: 0,
  protocol: PROTOCOL.DATAGRAM,
  source: { network: networkId(0), node: nodeId(1) },
  destination: { network: networkId(0), node: nodeId(2) },
  sourcePort: 41,
  destinationPort: 41,
  sequence: 0,
  acknowledgement: 0,
  window: 0,
};

it("a header template leaves length and CRC to whoever fills in the payload", () => {
  const packet = encodeVirtualPacket({ ...HEADER, payload: Uint8Array.of(1, 2, 3) });
  const template = encodeVirtualHeader(HEADER);
  expect(template.length).toBe(34);
  const filled = Uint8Array.from([...template, 1, 2, 3]);
  writeU16(filled, 2, 3);
  writeU32(filled, 30, virtualPacketCrc(filled));
  expect(filled).toEqual(packet);
});

it("a packet that claims more payload than it has is refused even when its CRC fits what is there", () => {
  const packet = encodeVirtualPacket({ ...HEADER, payload: Uint8Array.of(1, 2, 3) });
  writeU16(packet, 2, 4);
  writeU32(packet, 30, virtualPacketCrc(packet));
  expect(parseVirtualPacket(packet)).toBeUndefined();
});
