import { describe, expect, it } from "vitest";
import { utf8 } from "../../src/base/bytes.ts";
import { encodeSack } from "../../src/wire/stream-sack.ts";
import { FLAG } from "../../src/wire/virtual-packet.ts";
import { OWN_KIND_SEQUENCE, pattern, REFERENCE_SEQUENCE, ScriptedStream } from "../helpers/scripted-stream.ts";

const OWN = 0xffff_fe00;
const MSS = 1152;

/** A SACK over segments [left, right) in relative numbers. */
function sack(...blocks: [number, number][]): Uint8Array {
  return encodeSack(blocks.map(([left, right]) => ({ left: (left + OWN) >>> 0, right: (right + OWN) >>> 0 })))!;
}

function dataOf(packets: { payload: Uint8Array; sequence: number }[]): [number, number][] {
  return packets.filter(({ payload }) => payload.length > 0).map(({ sequence, payload }) => [sequence, payload.length]);
}

describe("segments", () => {
  it("are at most 1152 bytes long and numbered by bytes", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(3_000));
    scripted.stream.closeWrite(scripted.now);
    expect(dataOf(scripted.sent())).toEqual([
      [1, MSS],
      [1 + MSS, MSS],
      [1 + 2 * MSS, 3_000 - 2 * MSS],
    ]);
  });

  it("join what was written in pieces, so that a header and a body leave together", () => {
    const scripted = ScriptedStream.open();
    scripted.write(utf8("head"));
    scripted.write(utf8("er"));
    scripted.write(utf8("body"));
    expect(scripted.sent()[0]!.payload).toEqual(utf8("headerbody"));
  });

  it("never look like a SACK", () => {
    const scripted = ScriptedStream.open({ options: { noDelay: true } });
    const poison = sack([1, 2], [3, 4]);
    scripted.write(poison);
    const payloads = scripted.sent().map(({ payload }) => payload);
    expect(payloads[0]).toEqual(utf8("SACK"));
    expect(payloads.flatMap((payload) => [...payload])).toEqual([...poison]);
  });

  it("keep their boundaries when they are sent again, although more was written meanwhile", () => {
    const scripted = ScriptedStream.open({ options: { noDelay: true } });
    scripted.write(pattern(100));
    scripted.write(pattern(50, 100));
    const first = dataOf(scripted.sent());
    scripted.write(pattern(400, 150));
    scripted.sent();
    const again = dataOf(scripted.pass(1_000));
    expect(first).toEqual([[1, 150]]);
    expect(again[0]).toEqual([1, 150]);
  });
});

describe("runs", () => {
  const open = (peerWindow = 512) => ScriptedStream.open({ peerWindow, options: { maxRunSegments: 56 } });

  it("hold whole segments of one chunk, as many as may go", () => {
    const scripted = open();
    scripted.write(pattern(20 * MSS + 5));
    const first = scripted.stream.pollPacket();
    expect(first).toMatchObject({ segmentBytes: MSS });
    expect(first!.payload).toEqual(pattern(10 * MSS));
    expect(scripted.stream.pollPacket()).toBeUndefined();
    const narrow = open(3);
    narrow.write(pattern(20 * MSS));
    expect(narrow.stream.pollPacket()!.payload).toHaveLength(3 * MSS);
    expect(narrow.stream.pollPacket()).toBeUndefined();
  });

  it("are sent again segment by segment", () => {
    const scripted = open();
    scripted.write(pattern(4 * MSS));
    expect(scripted.sent()).toHaveLength(4);
    const again = scripted.pass(1_000);
    expect(again).toMatchObject([{ sequence: 1 }]);
    expect(again[0]!.payload).toEqual(pattern(MSS));
  });
});

describe("Nagle's algorithm", () => {
  it("holds a small segment back while something is unacknowledged, for at most 40 ms", () => {
    const scripted = ScriptedStream.open();
    scripted.write(utf8("one"));
    scripted.sent();
    scripted.write(utf8("two"));
    expect(dataOf(scripted.pass(39))).toEqual([]);
    expect(dataOf(scripted.pass(1))).toEqual([[4, 3]]);
  });

  it("lets the small segment go when everything is acknowledged", () => {
    const scripted = ScriptedStream.open();
    scripted.write(utf8("one"));
    scripted.sent();
    scripted.write(utf8("two"));
    scripted.receive({ acknowledgement: 4 });
    expect(dataOf(scripted.sent())).toEqual([[4, 3]]);
  });

  it("is off with noDelay", () => {
    const scripted = ScriptedStream.open({ options: { noDelay: true } });
    scripted.write(utf8("one"));
    scripted.sent();
    scripted.write(utf8("two"));
    expect(dataOf(scripted.sent())).toEqual([[4, 3]]);
  });
});

describe("limits in flight", () => {
  it("start with ten segments (RFC 6928)", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(100_000));
    expect(scripted.sent()).toHaveLength(10);
  });

  it("count the window in segments, however small they are", () => {
    const scripted = ScriptedStream.open({ peerWindow: 3, options: { noDelay: true } });
    for (let i = 0; i < 5; i++) {
      scripted.write(utf8("x"));
      scripted.sent();
    }
    scripted.write(pattern(10_000));
    scripted.sent();
    expect(scripted.stream.statistics!.inFlightSegments).toBe(3);
  });

  it("are 64 segments towards a reference nearby, and the far side's window towards our own kind", () => {
    const mostInFlight = (peerSequence: number, maxRunSegments: number) => {
      const scripted = ScriptedStream.open({ peerSequence, options: { maxRunSegments } });
      scripted.write(pattern(600_000));
      let most = 0;
      for (let packets = scripted.sent(); packets.length > 0; packets = scripted.sent()) {
        most = Math.max(most, scripted.stream.statistics!.inFlightSegments);
        scripted.pass(1);
        const last = packets.at(-1)!;
        scripted.receive({ acknowledgement: last.sequence + last.payload.length });
      }
      return most;
    };
    for (const maxRunSegments of [1, 56]) {
      expect(mostInFlight(REFERENCE_SEQUENCE, maxRunSegments)).toBe(64);
      expect(mostInFlight(OWN_KIND_SEQUENCE, maxRunSegments)).toBeGreaterThan(128);
    }
  });

  it("bound what is taken from the program, and tell it when there is room again", () => {
    const scripted = ScriptedStream.open({ options: { sendBufferBytes: 4_000 } });
    expect(scripted.write(pattern(10_000))).toBe(4_000);
    expect(scripted.write(pattern(10))).toBe(0);
    scripted.sent();
    scripted.receive({ acknowledgement: 1 + MSS });
    expect(scripted.events()).toEqual([]);
    scripted.receive({ acknowledgement: 1 + 2 * MSS });
    expect(scripted.events()).toEqual(["writable"]);
  });

  it("fall back to ten segments after silence (RFC 5681 §4.1)", () => {
    const scripted = ScriptedStream.open({ options: { sendBufferBytes: 1 << 20 } });
    scripted.write(pattern(20 * MSS));
    scripted.sent();
    scripted.receive({ acknowledgement: 1 + 10 * MSS });
    scripted.sent();
    scripted.receive({ acknowledgement: 1 + 20 * MSS });
    expect(scripted.stream.statistics!.congestionWindowBytes).toBeGreaterThanOrEqual(20 * MSS);
    scripted.pass(5_000);
    scripted.write(pattern(30 * MSS));
    expect(dataOf(scripted.sent())).toHaveLength(10);
  });
});

describe("a window of 0", () => {
  it("does not stop the stream for good: one segment goes after a while", () => {
    const scripted = ScriptedStream.open({ peerWindow: 0 });
    scripted.write(pattern(5_000));
    expect(scripted.sent()).toEqual([]);
    expect(dataOf(scripted.pass(1_000))).toEqual([[1, MSS]]);
  });

  it("is left by the window in the answer to that segment", () => {
    const scripted = ScriptedStream.open({ peerWindow: 0 });
    scripted.write(pattern(5_000));
    scripted.pass(1_000);
    scripted.receive({ acknowledgement: 1 + MSS, window: 512 });
    expect(dataOf(scripted.sent())).toHaveLength(3);
  });

  it("means nothing in a FIN+ACK", () => {
    const scripted = ScriptedStream.open({ options: { halfClose: true } });
    scripted.receive({ flags: FLAG.FIN | FLAG.ACK, window: 0 });
    scripted.write(pattern(5_000));
    expect(dataOf(scripted.sent())).toHaveLength(4);
  });

  it("means nothing in the reference's keep-alive", () => {
    const scripted = ScriptedStream.open({ peerSequence: REFERENCE_SEQUENCE });
    scripted.receive({ window: 0 });
    scripted.write(pattern(5_000));
    expect(dataOf(scripted.sent())).toHaveLength(4);
  });

  it("never ends the stream while the far side keeps answering, and a larger window resumes at once", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(MSS));
    scripted.sent();
    for (let second = 0; second < 300; second++) {
      scripted.pass(1_000);
      scripted.receive({ window: 0 });
    }
    expect(scripted.events()).toEqual([]);
    scripted.receive({ window: 100 });
    expect(dataOf(scripted.sent())).toEqual([[1, MSS]]);
  });
});

describe("loss", () => {
  function tenInFlight(): ScriptedStream {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(10 * MSS));
    scripted.sent();
    scripted.pass(20);
    return scripted;
  }

  it("is repaired at the third pure duplicate ACK, not at the second", () => {
    const scripted = tenInFlight();
    scripted.receive({});
    scripted.receive({});
    expect(dataOf(scripted.sent())).toEqual([]);
    scripted.receive({});
    expect(dataOf(scripted.sent())).toEqual([[1, MSS]]);
    expect(scripted.stream.statistics!.fastRecoveries).toBe(1);
  });

  it("is not inferred from window updates", () => {
    const scripted = tenInFlight();
    for (const window of [400, 300, 200, 100]) scripted.receive({ window });
    expect(dataOf(scripted.sent())).toEqual([]);
  });

  it("is repaired when a SACK shows that three later segments arrived, as the reference tells it", () => {
    const scripted = tenInFlight();
    scripted.receive({ payload: sack([1 + MSS, 1 + 3 * MSS]) });
    expect(dataOf(scripted.sent())).toEqual([]);
    scripted.receive({ payload: sack([1 + MSS, 1 + 4 * MSS]) });
    expect(dataOf(scripted.sent())).toEqual([[1, MSS]]);
  });

  it("sends again only what the SACK leaves out", () => {
    const scripted = tenInFlight();
    scripted.receive({ payload: sack([1 + MSS, 1 + 4 * MSS], [1 + 5 * MSS, 1 + 9 * MSS]) });
    expect(dataOf(scripted.sent())).toEqual([
      [1, MSS],
      [1 + 4 * MSS, MSS],
    ]);
  });

  it("halves the congestion window once, however many segments are lost", () => {
    const scripted = tenInFlight();
    scripted.receive({ payload: sack([1 + 2 * MSS, 1 + 5 * MSS]) });
    scripted.receive({ payload: sack([1 + 2 * MSS, 1 + 5 * MSS], [1 + 6 * MSS, 1 + 10 * MSS]) });
    expect(scripted.stream.statistics).toMatchObject({ fastRecoveries: 1, congestionWindowBytes: 5 * MSS });
  });

  it("of everything is met by one segment per timeout, from 1 s on doubling up to 10 s", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(10 * MSS));
    scripted.sent();
    const again = scripted.pass(30_000).filter(({ payload }) => payload.length > 1);
    expect(again.map(({ at, sequence }) => [at, sequence])).toEqual([
      [1_000, 1],
      [3_000, 1],
      [7_000, 1],
      [15_000, 1],
      [25_000, 1],
    ]);
    expect(scripted.stream.statistics!.congestionWindowBytes).toBe(MSS);
  });

  it("of everything for ever ends the stream with RST", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(10));
    const packets = scripted.pass(120_000);
    expect(packets.at(-1)).toMatchObject({ flags: FLAG.RST, sequence: 11, acknowledgement: 0, window: 0 });
    expect(scripted.events()).toEqual(["timed-out"]);
  });
});

describe("acknowledgements", () => {
  it("beyond what was sent are ignored with everything the packet carries", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ acknowledgement: 500, payload: utf8("evil") });
    expect(scripted.readAll()).toHaveLength(0);
  });

  it("that arrive late do no harm", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(3 * MSS));
    scripted.sent();
    scripted.receive({ acknowledgement: 1 + 3 * MSS });
    scripted.receive({ acknowledgement: 1 + MSS, window: 0 });
    scripted.write(pattern(10));
    expect(dataOf(scripted.sent())).toEqual([[1 + 3 * MSS, 10]]);
  });

  it("with a SACK that is out of date are not delivered as data", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(4 * MSS));
    scripted.sent();
    scripted.receive({ acknowledgement: 1 + 4 * MSS });
    scripted.receive({ acknowledgement: 1, payload: sack([1 + MSS, 1 + 2 * MSS]) });
    expect(scripted.readAll()).toHaveLength(0);
  });

  it("with something that looks like a SACK of what was never sent are data", () => {
    const scripted = ScriptedStream.open();
    const text = sack([1 + MSS, 1 + 2 * MSS]);
    scripted.receive({ payload: text });
    expect(scripted.readAll()).toEqual(text);
  });

  it("with a SACK that has bytes behind its blocks are data", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(4 * MSS));
    scripted.sent();
    const text = Uint8Array.from([...sack([1 + MSS, 1 + 2 * MSS]), 1]);
    scripted.receive({ payload: text });
    expect(scripted.readAll()).toEqual(text);
  });

  it("with a SACK time the path by segments that were sent once", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(4 * MSS));
    scripted.sent();
    scripted.pass(70);
    scripted.receive({ payload: sack([1 + MSS, 1 + 2 * MSS]) });
    expect(scripted.stream.statistics!.smoothedRttMs).toBe(70);
  });

  it("time the path only by segments that were sent once", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(10));
    scripted.sent();
    scripted.pass(1_500);
    scripted.receive({ acknowledgement: 11 });
    expect(scripted.stream.statistics!.smoothedRttMs).toBeUndefined();
    scripted.write(pattern(10));
    scripted.sent();
    scripted.pass(30);
    scripted.receive({ acknowledgement: 21 });
    expect(scripted.stream.statistics!.smoothedRttMs).toBe(30);
  });
});
