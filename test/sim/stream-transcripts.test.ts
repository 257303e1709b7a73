/**
 * Recorded conversations of reference daemons, with one side played by our stream: it must take what the other really sent.
 * Initial sequence numbers are 0 as in the recording, so that the recorded acknowledgements fit.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { concatBytes, fromHex, printableUtf8 } from "../../src/base/bytes.ts";
import { type Instant, instant } from "../../src/base/instant.ts";
import { Stream } from "../../src/stream/stream.ts";
import { DEFAULT_STREAM_OPTIONS } from "../../src/stream/stream-options.ts";
import type { StreamPacket } from "../../src/stream/stream-packet.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { FLAG, parseVirtualPacket, type VirtualPacket } from "../../src/wire/virtual-packet.ts";

interface Recorded {
  readonly ms: number;
  readonly packet: VirtualPacket;
}

const file = new URL("../vectors/session-transcripts.json", import.meta.url);
const transcripts: Record<string, { ms: number; datagram: string }[]> = JSON.parse(readFileSync(file, "utf8"));
const FRAME_MAGIC_BYTES = 4;
const STORM = "v1_2_ping_then_fin_storm_begins";
const SESSION = "v1_9_ping_rst_dataexchange";

/** The stream packets of one conversation, found by the dialler's port. */
function conversation(name: string, diallerPort: number): Recorded[] {
  const recorded: Recorded[] = [];
  for (const { ms, datagram } of transcripts[name]!) {
    const packet = parseVirtualPacket(fromHex(datagram)!.subarray(FRAME_MAGIC_BYTES));
    if (packet === undefined) continue;
    if (packet.sourcePort === diallerPort || packet.destinationPort === diallerPort) recorded.push({ ms, packet });
  }
  expect(recorded.length).toBeGreaterThan(1);
  return recorded;
}

class Replay {
  readonly sent: StreamPacket[] = [];
  readonly events: string[] = [];
  readonly received: Uint8Array[] = [];
  readonly #stream: Stream;
  readonly #localPort: number;
  #now: Instant = instant(0);

  constructor(recorded: Recorded[], localPort: number, remotePort: number) {
    this.#localPort = localPort;
    this.#stream = new Stream({
      remote: { network: networkId(0), node: nodeId(9) },
      localPort,
      remotePort,
      options: { ...DEFAULT_STREAM_OPTIONS, noDelay: true },
      initialSequence: 0,
      now: this.#now,
      onChange: () => {},
    });
    for (const { ms, packet } of recorded) this.#step(packet, instant(ms));
    this.#letTimePass(instant(this.#now + 30_000));
  }

  get stateKind(): string {
    return this.#stream.stateKind;
  }

  /** What the played side said in the recording, our program says; what the other side said, our stream hears. */
  #step(packet: VirtualPacket, at: Instant): void {
    this.#letTimePass(at);
    if (packet.sourcePort !== this.#localPort) this.#hear(packet);
    else if (packet.flags === FLAG.SYN) this.#stream.connect(at);
    else if (packet.payload.length > 0) this.#stream.write(packet.payload, at);
    else if (packet.flags === FLAG.FIN) this.#stream.close(at);
    this.#drain();
  }

  #hear(packet: VirtualPacket): void {
    if (packet.flags === FLAG.SYN) {
      this.#stream.offer(packet, this.#now);
      this.#stream.accept(this.#now);
    } else this.#stream.handlePacket(packet, this.#now);
  }

  #letTimePass(until: Instant): void {
    for (
      let next = this.#stream.pollTimeout();
      next !== undefined && next.at <= until;
      next = this.#stream.pollTimeout()
    ) {
      this.#now = next.at;
      this.#stream.handleTimeout(this.#now);
      this.#drain();
    }
    this.#now = until;
  }

  #drain(): void {
    for (let packet = this.#stream.pollPacket(); packet !== undefined; packet = this.#stream.pollPacket()) {
      this.sent.push(packet);
    }
    for (let event = this.#stream.pollEvent(); event !== undefined; event = this.#stream.pollEvent()) {
      this.events.push(event.kind);
    }
    for (let chunk = this.#stream.read(this.#now); chunk !== undefined; chunk = this.#stream.read(this.#now)) {
      this.received.push(chunk);
    }
  }

  get finPackets(): number {
    return this.sent.filter(({ flags }) => (flags & FLAG.FIN) !== 0).length;
  }

  get text(): string {
    return printableUtf8(concatBytes(...this.received));
  }
}

describe("in a recorded session of the reference", () => {
  it("we can be the one who pings", () => {
    const replay = new Replay(conversation(SESSION, 49_152), 49_152, 7);
    expect(replay.text).toBe("ping-0");
    expect(replay.events.filter((kind) => kind !== "readable")).toEqual(["established", "ended", "closed"]);
    expect(replay.stateKind).toBe("closed");
  });

  it("we can be the echo", () => {
    const replay = new Replay(conversation(SESSION, 49_152), 7, 49_152);
    expect(replay.text).toBe("ping-0");
    expect(replay.events.filter((kind) => kind !== "readable")).toEqual(["established", "ended", "closed"]);
    expect(replay.finPackets).toBe(1);
  });

  it("we are refused at once by a port without a listener", () => {
    const replay = new Replay(conversation(SESSION, 49_153), 49_153, 999);
    expect(replay.events).toEqual(["refused"]);
    expect(replay.sent.map(({ flags }) => flags)).toEqual([FLAG.SYN]);
  });

  it("we can be the client of a data exchange, and send the very same packets up to the end", () => {
    const recorded = conversation(SESSION, 49_154);
    const replay = new Replay(recorded, 49_154, 1_001);
    expect(replay.text).toContain("ACK TEXT 11 bytes");
    const form = ({ flags, sequence, payload }: StreamPacket) => ({ flags, sequence, payload });
    const isTelling = ({ flags, payload }: StreamPacket) => flags !== FLAG.ACK || payload.length > 0;
    const theirs = recorded.map(({ packet }) => packet).filter(({ sourcePort }) => sourcePort === 49_154);
    expect(replay.sent.filter(isTelling).map(form)).toEqual(theirs.filter(isTelling).map(form));
  });

  it("we can be the server of a data exchange", () => {
    const replay = new Replay(conversation(SESSION, 49_154), 1_001, 49_154);
    expect(replay.text).toContain("hello world");
    expect(replay.events.filter((kind) => kind !== "readable")).toEqual(["established", "ended", "closed"]);
  });
});

describe("in the recorded storm of FIN+ACK", () => {
  it.each([
    ["the one who ends", 49_152, 7],
    ["the one who is ended", 7, 49_152],
  ])("we are silent as %s", (_, localPort, remotePort) => {
    const replay = new Replay(conversation(STORM, 49_152), localPort, remotePort);
    expect(replay.text).toBe("ping-0");
    expect(replay.events).toContain("closed");
    expect(replay.finPackets).toBe(1);
    expect(replay.stateKind).toBe("closed");
  });

  it("a reference that answers every FIN with FIN+ACK gets nothing to answer", () => {
    const recorded = conversation(STORM, 49_152);
    const stormy = recorded.flatMap((entry) =>
      entry.packet.flags === (FLAG.FIN | FLAG.ACK) ? Array.from({ length: 500 }, () => entry) : [entry],
    );
    const replay = new Replay(stormy, 49_152, 7);
    expect(replay.finPackets).toBe(1);
    const afterEnd = replay.sent.slice(replay.sent.findIndex(({ flags }) => flags === FLAG.FIN) + 1);
    expect(afterEnd.length).toBeLessThanOrEqual(1);
    expect(replay.stateKind).toBe("closed");
  });
});
