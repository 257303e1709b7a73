/** Pilot's reliable stream: all streams of a node under any packets of two peers, with writes, reads and time between. */
import { after, type Instant, instant } from "../../../src/base/instant.ts";
import type { Stream } from "../../../src/stream/stream.ts";
import type { StreamPacket } from "../../../src/stream/stream-packet.ts";
import { StreamTable } from "../../../src/stream/stream-table.ts";
import { networkId, nodeId } from "../../../src/wire/ids.ts";
import { encodeSack, looksLikeSack, parseSack } from "../../../src/wire/stream-sack.ts";
import { FLAG } from "../../../src/wire/virtual-packet.ts";
import { seededBytes } from "../../helpers/seeded-bytes.ts";
import { demand, demandSame, FuzzInput } from "../input.ts";

const LIMITS = { maxStreams: 24, maxStreamsPerNode: 16, backlog: 8, memoryBytes: 1 << 20, memoryBytesPerNode: 1 << 19 };
const PEERS = [nodeId(2), nodeId(3)].map((node) => ({ network: networkId(0), node }));

export function fuzz(data: Uint8Array): void {
  const blocks = parseSack(data);
  demand((blocks !== undefined) === looksLikeSack(data), "what looks like a SACK reads as one");
  const again = blocks && encodeSack(blocks);
  if (again !== undefined) demandSame(parseSack(again), blocks, "a SACK survives");
  const input = new FuzzInput(data);
  let now = instant(10_000);
  const table = new StreamTable(seededBytes(1), now, LIMITS);
  const heard: Heard = new Map();
  table.listen(80, "accept");
  table.listen(81, "ask");
  for (let steps = 0; steps < MAX_STEPS && !input.isEmpty; steps++) {
    const remote = input.pick(PEERS);
    switch (input.below(6)) {
      case 0:
        table.dial(remote, input.pick([80, 81, 7]), now);
        break;
      case 1:
        now = after(now, input.u16());
        table.handleTimeout(now);
        break;
      case 2:
        for (const stream of table.streams()) stream.write(new Uint8Array(input.u16()), now);
        break;
      case 3:
        for (const stream of table.streams()) readAll(stream, now);
        break;
      default:
        table.handlePacket(remote, packet(input, table, heard), now);
    }
    drain(table, heard, now);
    demand(table.size <= LIMITS.maxStreams, "streams are bounded", table.size);
    const deadline = table.pollTimeout();
    demand(deadline === undefined || Number.isFinite(deadline.at), "a deadline is a time", deadline);
  }
}

/** What the far side of a stream saw last: where an honest one would go on. Key: local and remote port. */
type Heard = Map<string, { readonly sequence: number; readonly acknowledgement: number }>;

/** Ports of a stream there is, so that something comes of it, or any others; numbers that fit, are near, or any. */
function packet(input: FuzzInput, table: StreamTable, heard: Heard): StreamPacket {
  const streams = [...table.streams()];
  const stream = streams[input.u8() % Math.max(1, streams.length)];
  const expected = heard.get(`${stream?.localPort} ${stream?.remotePort}`) ?? { sequence: 0, acknowledgement: 1_000 };
  const fit = input.below(4);
  const number = (right: number) => (fit < 2 ? right : fit === 2 ? (right + input.u16() - 0x8000) >>> 0 : input.u32());
  return {
    flags: input.u8() & 15,
    sourcePort: stream?.remotePort ?? input.u16(),
    destinationPort: stream?.localPort ?? input.pick([80, 81, 7]),
    sequence: number(expected.acknowledgement),
    acknowledgement: number(expected.sequence),
    window: input.u16(),
    payload: input.block(),
  };
}

function drain(table: StreamTable, heard: Heard, now: Instant): void {
  let packets = 0;
  for (let out = table.pollPacket(); out !== undefined; out = table.pollPacket()) {
    demand(++packets < 5_000, "what a stream has to say ends");
    const { flags, sequence, acknowledgement, payload, sourcePort, destinationPort } = out.packet;
    demand(payload.length <= 1 << 20, "a packet is bounded");
    const counted = payload.length + (flags & (FLAG.SYN | FLAG.FIN) ? 1 : 0);
    const next = { sequence: (sequence + counted) >>> 0, acknowledgement: acknowledgement || 1_000 };
    heard.set(`${sourcePort} ${destinationPort}`, next);
  }
  for (let event = table.pollEvent(), turns = 0; event !== undefined; event = table.pollEvent()) {
    demand(++turns < 5_000, "events end");
    if (event.kind === "requested") event.stream.accept(now);
  }
}

function readAll(stream: Stream, now: Instant): void {
  for (let reads = 0; stream.read(now) !== undefined; reads++) demand(reads < 100_000, "what there is to read ends");
}

const MAX_STEPS = 96;
