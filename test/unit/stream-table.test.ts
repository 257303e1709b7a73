import { describe, expect, it } from "vitest";
import { utf8 } from "../../src/base/bytes.ts";
import { type Instant, instant, after as later } from "../../src/base/instant.ts";
import type { Stream } from "../../src/stream/stream.ts";
import type { StreamPacket } from "../../src/stream/stream-packet.ts";
import { StreamTable, type TableEvent, type TableLimits } from "../../src/stream/stream-table.ts";
import { networkId, nodeId, type PilotAddress } from "../../src/wire/ids.ts";
import { FLAG } from "../../src/wire/virtual-packet.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";
import { PERFECT_LINK, StreamNetwork, Transfer } from "../helpers/stream-network.ts";

const START = instant(50_000);
const NOTHING = new Uint8Array(0);

function node(id: number, network = 0): PilotAddress {
  return { network: networkId(network), node: nodeId(id) };
}

function tableWith(limits: Partial<TableLimits> = {}): StreamTable {
  return new StreamTable(seededBytes(7), START, limits);
}

function packet(fields: Partial<StreamPacket>): StreamPacket {
  const { flags = FLAG.ACK, sourcePort = 49_152, destinationPort = 80, sequence = 0 } = fields;
  const { acknowledgement = 0, window = 512, payload = NOTHING } = fields;
  return { flags, sourcePort, destinationPort, sequence, acknowledgement, window, payload };
}

function syn(sourcePort: number, destinationPort = 80): StreamPacket {
  return packet({ flags: FLAG.SYN, sourcePort, destinationPort });
}

function packetsOf(table: StreamTable): { to: number; flags: number; packet: StreamPacket }[] {
  const packets = [];
  for (let out = table.pollPacket(); out !== undefined; out = table.pollPacket()) {
    packets.push({ to: out.remote.node as number, flags: out.packet.flags, packet: out.packet });
  }
  return packets;
}

function eventsOf(table: StreamTable): TableEvent[] {
  const events = [];
  for (let event = table.pollEvent(); event !== undefined; event = table.pollEvent()) events.push(event);
  return events;
}

/** Runs deadlines until `until`, and returns when SYNs left. */
function synTimes(table: StreamTable, until: Instant): number[] {
  const times = packetsOf(table)
    .filter(({ flags }) => flags === FLAG.SYN)
    .map(() => 0);
  for (let next = table.pollTimeout(); next !== undefined && next.at <= until; next = table.pollTimeout()) {
    table.handleTimeout(next.at);
    for (const { flags } of packetsOf(table)) if (flags === FLAG.SYN) times.push(next.at - START);
  }
  return times;
}

describe("packets for no stream", () => {
  it("are answered with a bare RST when they are a SYN for an unbound port", () => {
    const table = tableWith();
    expect(table.handlePacket(node(2), syn(49_152, 999), START)).toBeUndefined();
    expect(table.pollPacket()).toEqual({
      remote: node(2),
      packet: packet({ flags: FLAG.RST, sourcePort: 999, destinationPort: 49_152, window: 0 }),
    });
    expect(table.size).toBe(0);
  });

  it("are refused on a port that nobody listens on any more, although a stream there is in TIME_WAIT", () => {
    const table = tableWith();
    table.listen(80, "accept");
    table.handlePacket(node(2), syn(49_152), START);
    const acknowledgement = (packetsOf(table)[0]!.packet.sequence + 1) >>> 0;
    table.handlePacket(node(2), packet({ sequence: 1, acknowledgement }), START);
    table.handlePacket(node(2), packet({ flags: FLAG.FIN, sequence: 1 }), START);
    packetsOf(table);
    table.unlisten(80);
    table.handlePacket(node(2), syn(49_152), START);
    expect(packetsOf(table).map(({ flags }) => flags)).toEqual([FLAG.RST]);
  });

  it("are reset when they are data of a stream that is not known", () => {
    const table = tableWith();
    const data = packet({ flags: FLAG.ACK, sequence: 5, acknowledgement: 77, payload: utf8("x") });
    expect(table.handlePacket(node(2), data, START)).toBe("unknown-stream");
    expect(packetsOf(table).map(({ flags, packet: { sequence } }) => [flags, sequence])).toEqual([[FLAG.RST, 77]]);
  });

  it("are dropped without a word when they are anything else", () => {
    const table = tableWith();
    table.listen(80, "accept");
    expect(table.handlePacket(node(2), packet({ flags: FLAG.ACK }), START)).toBe("unknown-stream");
    for (const flags of [FLAG.FIN, FLAG.RST, FLAG.FIN | FLAG.ACK, FLAG.SYN | FLAG.ACK, 0]) {
      expect(table.handlePacket(node(2), packet({ flags, payload: utf8("x") }), START)).toBe("unknown-stream");
    }
    expect(packetsOf(table)).toEqual([]);
  });
});

describe("listening", () => {
  it("accepts at once, and tells when the stream is open", () => {
    const table = tableWith();
    table.listen(80, "accept");
    table.handlePacket(node(2), syn(49_152), START);
    const [answer] = packetsOf(table);
    expect(answer).toMatchObject({ to: 2, flags: FLAG.SYN | FLAG.ACK });
    expect(eventsOf(table)).toEqual([]);
    const acknowledgement = (answer!.packet.sequence + 1) >>> 0;
    table.handlePacket(node(2), packet({ sequence: 1, acknowledgement }), START);
    expect(eventsOf(table)).toMatchObject([{ kind: "accepted", stream: { localPort: 80, remotePort: 49_152 } }]);
  });

  it("lets the program decide, and says nothing meanwhile", () => {
    const table = tableWith();
    table.listenToRest("ask");
    table.handlePacket(node(2), syn(49_152, 8_080), START);
    table.handlePacket(node(2), syn(49_153, 8_081), START);
    expect(packetsOf(table)).toEqual([]);
    const [first, second] = eventsOf(table);
    expect([first!.kind, second!.kind]).toEqual(["requested", "requested"]);
    first!.stream.accept(START);
    second!.stream.refuse(START);
    expect(packetsOf(table).map(({ flags }) => flags)).toEqual([FLAG.SYN | FLAG.ACK, FLAG.RST]);
    expect(table.size).toBe(1);
  });

  it("tells streams apart by local port, remote address with network, and remote port", () => {
    const table = tableWith();
    table.listen(80, "accept");
    table.listen(81, "accept");
    table.handlePacket(node(2), syn(49_152), START);
    table.handlePacket(node(2), syn(49_153), START);
    table.handlePacket(node(2, 1), syn(49_152), START);
    table.handlePacket(node(3), syn(49_152), START);
    table.handlePacket(node(2), syn(49_152, 81), START);
    expect(table.size).toBe(5);
  });

  it("stops with unlisten, and keeps streams that are open", () => {
    const table = tableWith();
    table.listen(80, "accept");
    table.handlePacket(node(2), syn(49_152), START);
    table.unlisten(80);
    packetsOf(table);
    table.handlePacket(node(2), syn(49_153), START);
    expect(packetsOf(table).map(({ flags }) => flags)).toEqual([FLAG.RST]);
    expect(table.size).toBe(1);
  });
});

describe("limits", () => {
  it("drop SYNs of one node beyond its rate in silence, and let those of others through", () => {
    const table = tableWith({ synsPerSecondPerNode: 10, synBurstPerNode: 3 });
    table.listen(80, "accept");
    const verdicts = [1, 2, 3, 4].map((port) => table.handlePacket(node(2), syn(port), START));
    expect(verdicts).toEqual([undefined, undefined, undefined, "syn-limited"]);
    expect(packetsOf(table)).toHaveLength(3);
    expect(table.handlePacket(node(3), syn(1), START)).toBeUndefined();
    expect(table.handlePacket(node(2), syn(5), later(START, 100))).toBeUndefined();
  });

  it("drop SYNs of all nodes together beyond the rate", () => {
    const table = tableWith({ synsPerSecond: 10, synBurst: 2 });
    table.listen(80, "accept");
    expect([2, 3, 4].map((id) => table.handlePacket(node(id), syn(1), START))).toEqual([
      undefined,
      undefined,
      "syn-limited",
    ]);
  });

  it("refuse with RST when too many handshakes of a port are under way", () => {
    const table = tableWith({ backlog: 2 });
    table.listen(80, "accept");
    for (const port of [1, 2, 3]) table.handlePacket(node(2), syn(port), START);
    expect(
      packetsOf(table)
        .map(({ flags }) => flags)
        .sort(),
    ).toEqual([3, 3, FLAG.RST]);
  });

  it("free a place in the backlog when a handshake ends", () => {
    const table = tableWith({ backlog: 1 });
    table.listen(80, "accept");
    table.handlePacket(node(2), syn(1), START);
    const [answer] = packetsOf(table);
    const acknowledgement = (answer!.packet.sequence + 1) >>> 0;
    table.handlePacket(node(2), packet({ sourcePort: 1, sequence: 1, acknowledgement }), START);
    expect(table.handlePacket(node(2), syn(2), START)).toBeUndefined();
  });

  it("refuse with RST when there are too many streams, in all or with one node", () => {
    const table = tableWith({ maxStreams: 3, maxStreamsPerNode: 2 });
    table.listen(80, "accept");
    const verdicts = [2, 2, 2, 3, 4].map((id, index) => table.handlePacket(node(id), syn(index), START));
    expect(verdicts).toEqual([undefined, undefined, "stream-limit", undefined, "stream-limit"]);
    expect(table.dial(node(9), 80, START)).toBeUndefined();
  });

  it("bound the nodes that are remembered, and forget those with nothing left to know", () => {
    const table = tableWith({ maxNodes: 2 });
    table.listen(80, "ask");
    for (const id of [2, 3]) table.handlePacket(node(id), syn(1), START);
    expect(table.handlePacket(node(4), syn(1), START)).toBe("syn-limited");
    for (const event of eventsOf(table)) event.stream.refuse(START);
    packetsOf(table);
    expect(table.handlePacket(node(4), syn(1), later(START, 60_000))).toBeUndefined();
  });
});

describe("dialling", () => {
  it("uses ephemeral ports in sequence, each once per far side", () => {
    const table = tableWith();
    const ports = [1, 2, 3].map(() => table.dial(node(2), 80, START)!.localPort);
    expect(new Set(ports).size).toBe(3);
    for (const port of ports) expect(port).toBeGreaterThanOrEqual(49_152);
  });

  it("sends at most a burst of 8 SYNs to a node, and then 8 a second", () => {
    const table = tableWith();
    for (let i = 0; i < 12; i++) table.dial(node(2), 80, START);
    expect(synTimes(table, later(START, 600))).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 125, 250, 375, 500]);
  });

  it("does not hold SYNs to one node back because of another", () => {
    const table = tableWith();
    for (let i = 0; i < 8; i++) table.dial(node(2), 80, START);
    table.dial(node(3), 80, START);
    expect(packetsOf(table).filter(({ to }) => to === 3)).toHaveLength(1);
  });

  it("stops pacing as soon as a handshake shows that the far side is not the reference", () => {
    const table = tableWith();
    for (let i = 0; i < 50; i++) table.dial(node(2), 80, START);
    const [first] = packetsOf(table);
    const { sourcePort, sequence } = first!.packet;
    const answer = { flags: FLAG.SYN | FLAG.ACK, sequence: 12_345, acknowledgement: (sequence + 1) >>> 0 };
    table.handlePacket(node(2), packet({ ...answer, sourcePort: 80, destinationPort: sourcePort }), START);
    expect(packetsOf(table).filter(({ flags }) => flags === FLAG.SYN)).toHaveLength(42);
  });

  it("gives a held-back dial up when the program resets it", () => {
    const table = tableWith();
    const streams = Array.from({ length: 10 }, () => table.dial(node(2), 80, START)!);
    for (const stream of streams) stream.reset(START);
    const packets = packetsOf(table);
    expect(packets.filter(({ flags }) => flags === FLAG.SYN)).toEqual([]);
    expect(synTimes(table, later(START, 10_000))).toEqual([]);
    expect(table.size).toBe(0);
  });
});

describe("streams of a table", () => {
  it("are forgotten when they are over, with every deadline", () => {
    const network = new StreamNetwork(PERFECT_LINK, 1);
    const server = new Transfer(utf8("from the server"));
    const client = new Transfer(utf8("from the client"));
    network.b.table.listen(80, "accept");
    network.a.program = client.handle;
    network.b.program = server.handle;
    network.a.table.dial(network.b.address, 80, network.now);
    network.runFor(60_000);
    expect([network.a.table.size, network.b.table.size]).toEqual([0, 0]);
    expect([network.a.table.pollTimeout(), network.b.table.pollTimeout()]).toEqual([undefined, undefined]);
  });

  it("take turns in sending", () => {
    const network = new StreamNetwork(PERFECT_LINK, 1);
    network.b.table.listen(80, "accept");
    const dialled = [1, 2, 3].map(() => network.a.table.dial(network.b.address, 80, network.now)!);
    network.runFor(100);
    for (const stream of dialled) stream.write(new Uint8Array(50_000), network.now);
    network.settle();
    const ports = network.sent
      .filter(({ packet: { payload } }) => payload.length > 0)
      .map((seen) => seen.packet.sourcePort);
    expect(new Set(ports.slice(0, 3)).size).toBe(3);
  });

  it("to a reference node have 64 segments in flight together, and each gets its turn", () => {
    const table = tableWith();
    const streams = Array.from({ length: 8 }, () => table.dial(node(2), 80, START)!);
    const sequences = new Map(packetsOf(table).map(({ packet: { sourcePort, sequence } }) => [sourcePort, sequence]));
    for (const [port, sequence] of sequences) {
      const acknowledgement = (sequence + 1) >>> 0;
      const numbers = { sequence: 0, acknowledgement, sourcePort: 80, destinationPort: port };
      table.handlePacket(node(2), packet({ flags: FLAG.SYN | FLAG.ACK, ...numbers }), START);
    }
    packetsOf(table);
    for (const stream of streams) stream.write(new Uint8Array(100_000), START);
    const sent = packetsOf(table).filter(({ packet: { payload } }) => payload.length > 0);
    expect(sent).toHaveLength(64);
    expect(new Set(sent.map(({ packet: { sourcePort } }) => sourcePort)).size).toBe(8);
    const { sourcePort, sequence, payload } = sent[0]!.packet;
    const acknowledgement = (sequence + payload.length) >>> 0;
    const ack = { sequence: 1, acknowledgement, sourcePort: 80, destinationPort: sourcePort };
    table.handlePacket(node(2), packet(ack), later(START, 5));
    expect(packetsOf(table).filter((out) => out.packet.payload.length > 0)).toHaveLength(1);
    for (const stream of streams) stream.reset(later(START, 5));
  });

  it("hold no more memory than their node may, and go on when there is room again", () => {
    const network = new StreamNetwork(PERFECT_LINK, 2, { memoryBytesPerNode: 300_000, memoryBytes: 1 << 30 });
    const chunk = new Uint8Array(200_000);
    const streams: Stream[] = [];
    network.b.table.listen(80, "accept");
    network.b.program = (event) => {
      if (event.kind === "accepted") streams.push(event.stream);
    };
    network.a.program = (event, now) => {
      const kind = event.kind === "stream" ? event.event.kind : event.kind;
      if (kind === "established" || kind === "writable") event.stream.write(chunk, now);
    };
    for (let i = 0; i < 5; i++) network.a.table.dial(network.b.address, 80, network.now);
    network.runFor(20_000);
    const received = () => streams.reduce((sum, stream) => sum + stream.statistics!.receivedBytes, 0);
    expect(received()).toBeGreaterThan(290_000);
    expect(received()).toBeLessThanOrEqual(300_000);
    for (const stream of streams) while (stream.read(network.now) !== undefined);
    network.runFor(20_000);
    expect(received()).toBeGreaterThan(550_000);
  });

  it("with a node are all reset at once, on both sides", () => {
    const network = new StreamNetwork(PERFECT_LINK, 1);
    const events: string[] = [];
    network.b.table.listen(80, "accept");
    network.b.program = (event) => events.push(event.kind === "stream" ? event.event.kind : event.kind);
    for (let i = 0; i < 3; i++) network.a.table.dial(network.b.address, 80, network.now);
    network.runFor(100);
    expect(network.a.table.resetNode(network.b.address.node, network.now)).toHaveLength(3);
    network.runFor(30_000);
    expect(events).toEqual(["accepted", "accepted", "accepted", "reset", "reset", "reset"]);
    expect([network.a.table.size, network.b.table.size]).toEqual([0, 0]);
  });

  it("are replaced by a SYN from the same ports once they are in TIME_WAIT", () => {
    const table = tableWith();
    table.listen(80, "accept");
    const open = () => {
      table.handlePacket(node(2), syn(49_152), START);
      const answer = packetsOf(table).find(({ flags }) => flags === (FLAG.SYN | FLAG.ACK))!;
      const acknowledgement = (answer.packet.sequence + 1) >>> 0;
      table.handlePacket(node(2), packet({ sequence: 1, acknowledgement }), START);
    };
    open();
    table.handlePacket(node(2), packet({ flags: FLAG.FIN, sequence: 1 }), START);
    packetsOf(table);
    open();
    expect(eventsOf(table).filter(({ kind }) => kind === "accepted")).toHaveLength(2);
    expect(table.size).toBe(1);
  });
});
