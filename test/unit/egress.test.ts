import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { Egress } from "../../src/daemon/egress.ts";
import { type Batch, OUT, packetOfRow, ROW_WORDS, type StagedPacket } from "../../src/tunnel/data-plane.ts";
import { EgressQueue } from "../../src/tunnel/egress-queue.ts";
import { INITIAL_BYTES } from "../../src/tunnel/socket-budget.ts";
import { bytesOf, udpPacket, whole } from "../helpers/inner-packets.ts";

/** Packets from here do not go to the network. */
const TURNING_PORT = 200;

/** A socket with room for some bytes. */
class Socket {
  readonly outbound: Batch = { rows: new Int32Array(64 * ROW_WORDS), arena: new Uint8Array(65_536) };
  readonly sent: StagedPacket[] = [];
  readonly turned: StagedPacket[] = [];
  limitBytes = 0;
  room = 0;
  unsentBytes = 0;
  /** What streams have to say. */
  streamBytes = 0;
  streamsHeld = false;
  sentOfStreams = 0;
  readonly egress = new Egress(this, new EgressQueue(1, () => {}), {
    staysHere: (at) => this.outbound.arena[this.outbound.rows[at + OUT.OFFSET]! + 41] === TURNING_PORT,
    sendRows: (count) => {
      for (let at = 0; at < count * ROW_WORDS; at += ROW_WORDS) this.turned.push(packetOfRow(this.outbound, at));
    },
    sendPackets: (packets) => this.#send(packets),
    holdStreams: (held) => {
      this.streamsHeld = held;
    },
    sendStreams: (bytes) => {
      const sent = Math.min(bytes, this.streamBytes);
      this.streamBytes -= sent;
      this.sentOfStreams += sent;
      this.room -= sent;
      return sent;
    },
  });

  get sendBlocked(): boolean {
    return this.room <= 0;
  }

  limitUnsent(bytes: number): void {
    this.limitBytes = bytes;
  }

  #send(packets: readonly StagedPacket[]): void {
    this.sent.push(...packets);
    for (const { bytes } of packets) this.room -= bytes.length;
  }

  /** As the interface's packets come: in rows, in memory that is used again. */
  read(...packets: readonly StagedPacket[]): number {
    let offset = 0;
    for (const [row, { bytes }] of packets.entries()) {
      this.outbound.arena.set(bytes, offset);
      this.outbound.rows.fill(0, row * ROW_WORDS, (row + 1) * ROW_WORDS);
      this.outbound.rows[row * ROW_WORDS + OUT.OFFSET] = offset;
      this.outbound.rows[row * ROW_WORDS + OUT.LENGTH] = bytes.length;
      offset += bytes.length;
    }
    return packets.length;
  }
}

const packet = (port: number, length = 1_000): StagedPacket =>
  whole(udpPacket({ sourcePort: port, payload: bytesOf(length) }));

describe("the way out", () => {
  it("is not used as long as the socket takes everything", () => {
    const socket = new Socket();
    socket.room = 1;
    expect(socket.limitBytes).toBe(INITIAL_BYTES);
    socket.egress.settle(instant(5));
    expect(socket.egress.isPacing).toBe(false);
  });

  it("keeps copies of what comes while the socket is full, and sends them when it has room", () => {
    const socket = new Socket();
    socket.egress.settle(instant(1));
    expect(socket.egress.isPacing).toBe(true);
    const [first, second] = [packet(1), packet(2)];
    socket.egress.takeRows(socket.read(first, second), instant(2));
    socket.outbound.arena.fill(0);
    expect(socket.sent).toEqual([]);
    socket.room = 10_000;
    socket.egress.handleWritable(instant(3));
    expect(socket.sent.map(({ bytes }) => bytes)).toEqual([first.bytes, second.bytes]);
  });

  it("does not keep what turns around within the host", () => {
    const socket = new Socket();
    socket.egress.settle(instant(1));
    const [first, second] = [packet(TURNING_PORT), packet(TURNING_PORT, 500)];
    socket.egress.takeRows(socket.read(packet(1), first, packet(2), second), instant(2));
    expect(socket.turned.map(({ bytes }) => bytes)).toEqual([first.bytes, second.bytes]);
    socket.room = 1e6;
    socket.egress.handleWritable(instant(3));
    expect(socket.sent.map(({ bytes }) => bytes[41])).toEqual([1, 2]);
  });

  it("gives the socket small portions, so that what comes later still finds its turn", () => {
    const socket = new Socket();
    socket.egress.settle(instant(0));
    socket.egress.take(
      Array.from({ length: 2_000 }, () => packet(1)),
      instant(1),
    );
    socket.room = 1;
    socket.egress.handleWritable(instant(2));
    const bytes = socket.sent.reduce((sum, one) => sum + one.bytes.length, 0);
    expect(bytes).toBeLessThanOrEqual(INITIAL_BYTES / 4 + 1_048);
    socket.egress.take([packet(2)], instant(3));
    socket.room = 2_000;
    socket.egress.handleWritable(instant(4));
    expect(socket.sent.slice(-200).some((one) => one.bytes[41] === 2)).toBe(true);
  });

  it("ends a moment after the last packet that had to wait", () => {
    const socket = new Socket();
    socket.egress.settle(instant(0));
    socket.egress.take([packet(1)], instant(10));
    socket.room = 1e9;
    socket.egress.handleWritable(instant(20));
    socket.egress.settle(instant(259));
    expect([socket.egress.isPacing, socket.streamsHeld]).toEqual([true, true]);
    socket.egress.settle(instant(260));
    expect([socket.egress.isPacing, socket.streamsHeld]).toEqual([false, false]);
  });

  it("lets streams and packets take turns", () => {
    const socket = new Socket();
    socket.streamBytes = 1e6;
    socket.egress.settle(instant(0));
    socket.egress.take(
      Array.from({ length: 900 }, () => packet(1)),
      instant(1),
    );
    socket.room = 800_000;
    socket.egress.handleWritable(instant(2));
    const bytes = socket.sent.reduce((sum, one) => sum + one.bytes.length, 0);
    expect(Math.abs(bytes - socket.sentOfStreams)).toBeLessThan(INITIAL_BYTES / 2);
  });

  it("tells the socket how much it may hold once it knows how fast the network is", () => {
    const socket = new Socket();
    socket.unsentBytes = INITIAL_BYTES;
    socket.egress.settle(instant(0));
    socket.unsentBytes = INITIAL_BYTES / 2;
    socket.room = 1;
    socket.egress.handleWritable(instant(INITIAL_BYTES / 2 / 12_500));
    expect(socket.limitBytes / 100_000).toBeCloseTo(1, 1);
  });
});
