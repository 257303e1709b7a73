/** Every frame and virtual packet: read what it is, write what was read, and compare. */
import { equalBytes, readU32 } from "../../../src/base/bytes.ts";
import { pilaFlags } from "../../../src/tunnel/key-exchange.ts";
import { parseAddressBytes } from "../../../src/wire/address.ts";
import {
  classifyDatagram,
  encodePila,
  encodePilk,
  encodePilsHeader,
  parsePila,
  parsePilk,
  parsePils,
} from "../../../src/wire/frame.ts";
import { parseRelayEcho } from "../../../src/wire/relay-echo.ts";
import { encodeVirtualPacket, parseVirtualPacket, virtualPacketCrc } from "../../../src/wire/virtual-packet.ts";
import { demand, demandSame } from "../input.ts";

export function fuzz(data: Uint8Array): void {
  const kind = classifyDatagram(data);
  const [pila, pilk, pils] = [parsePila(data), parsePilk(data), parsePils(data)];
  if (pila !== undefined) {
    demand(kind === "pila", "what reads as a PILA is classified as one", kind);
    pilaFlags(pila.trailer);
    demand(equalBytes(encodePila(pila), data.subarray(0, data.length - pila.trailer.length)), "a PILA survives");
  }
  if (pilk !== undefined) {
    demand(kind === "pilk", "what reads as a PILK is classified as one", kind);
    demand(equalBytes(encodePilk(pilk), data.subarray(0, encodePilk(pilk).length)), "a PILK survives");
  }
  if (pils !== undefined) {
    demand(kind === "pils", "what reads as a PILS is classified as one", kind);
    const header = encodePilsHeader(pils);
    demand(equalBytes(header, data.subarray(0, header.length)), "the head of a PILS survives");
  }
  parseRelayEcho(data, data.subarray(0, 8));
  virtual(data);
}

function virtual(data: Uint8Array): void {
  const lenient = parseVirtualPacket(data, true);
  const strict = parseVirtualPacket(data);
  if (strict !== undefined) demandSame(strict, lenient, "a checked packet reads as an unchecked one");
  if (lenient === undefined) return;
  demand(lenient.payload.length <= data.length, "a payload lies in its packet");
  const again = encodeVirtualPacket(lenient);
  demandSame(parseVirtualPacket(again), lenient, "a virtual packet survives");
  const crc = readU32(data, 30);
  if (strict !== undefined)
    demand(crc === virtualPacketCrc(data) || data.length > again.length, "its CRC was looked at");
  parseAddressBytes({ bytes: data.slice(0, 6), text: "" } as never, data, 0);
}
