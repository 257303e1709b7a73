/** Inner packets: headers, flows, echoes, errors about them, and offloads cut and joined. The twin of the shim's C. */
import { equalBytes } from "../../../src/base/bytes.ts";
import { type FlowKey, fragmentId, readFlowKey } from "../../../src/policy/flow-key.ts";
import { Coalescer } from "../../../src/tunnel/coalesce.ts";
import { segmentPacket } from "../../../src/tunnel/segment.ts";
import { encodeEcho, encodeUnreachable, mayAnswerWithError, parseEcho } from "../../../src/wire/icmpv6.ts";
import { emptyParsedPacket, parsePacket } from "../../../src/wire/ipv6.ts";
import { clampMss } from "../../../src/wire/tcp.ts";
import { encodeUdpPacket, parseUdpPacket } from "../../../src/wire/udp.ts";
import { demand, demandSame, FuzzInput } from "../input.ts";

export function fuzz(data: Uint8Array): void {
  const input = new FuzzInput(data);
  const staged = {
    gsoType: input.pick([0, 0, 4, 5, 1]),
    gsoSize: input.u16(),
    csumStart: input.u8(),
    csumOffset: input.u8(),
    headerLength: input.u8(),
  };
  const packet = input.rest();
  headers(packet);
  const segments = segmentPacket({ ...staged, bytes: packet });
  if (segments !== undefined) offloads(segments, packet.length);
}

function headers(packet: Uint8Array): void {
  const parsed = emptyParsedPacket();
  const isWhole = parsePacket(packet, 0, packet.length, parsed);
  if (isWhole) {
    demand(parsed.transportOffset >= 40 && parsed.transportOffset <= packet.length, "the transport lies in the packet");
    const clamped = packet.slice();
    clampMss(clamped, 0, parsed.transportOffset, 1200, false);
    demand(!clampMss(clamped, 0, parsed.transportOffset, 1200, false), "an MSS is lowered once");
  }
  if (mayAnswerWithError(packet)) {
    demand(isWhole, "only about whole packets there are errors");
    const error = encodeUnreachable({ source: packet.slice(24, 40), offending: packet, code: 1 });
    demand(error.length <= 1280 && !mayAnswerWithError(error), "an error fits every link and is never answered");
  }
  if (packet.length >= 40) {
    for (const side of ["source-is-local", "source-is-remote"] as const) {
      readFlowKey(packet, 0, packet.length, side, emptyFlowKey(packet));
    }
    fragmentId(packet, 0, packet.length);
  }
  const echo = parseEcho(packet);
  const addresses = { source: packet.slice(8, 24), destination: packet.slice(24, 40) };
  if (echo !== undefined) demandSame(parseEcho(encodeEcho({ ...echo, ...addresses })), echo, "an echo survives");
  const udp = parseUdpPacket(packet);
  if (udp !== undefined)
    demandSame(parseUdpPacket(encodeUdpPacket({ ...addresses, ...udp })), udp, "a UDP datagram survives");
}

function offloads(segments: readonly Uint8Array[], longest: number): void {
  const coalescer = new Coalescer();
  const runs = new Set<ReturnType<Coalescer["add"]>["run"]>();
  for (const segment of segments) {
    demand(segment.length <= longest, "no segment is longer than what it was cut from", segment.length);
    runs.add(coalescer.add(segment, "").run);
  }
  const joined = [...runs].flatMap((run) => run.packets);
  demand(joined.length === segments.length, "every packet is in one run", joined.length, segments.length);
  // One flow at most: its packets keep their order.
  demand(
    joined.every((packet, i) => equalBytes(packet, segments[i]!)),
    "packets keep their order",
  );
}

function emptyFlowKey(packet: Uint8Array): FlowKey {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  return { view, localOffset: 0, remoteOffset: 0, protocol: 0, ports: 0, opens: false, openingSequence: 0 };
}
