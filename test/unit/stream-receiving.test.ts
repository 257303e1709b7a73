import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { utf8 } from "../../src/base/bytes.ts";
import { parseSack } from "../../src/wire/stream-sack.ts";
import { FLAG } from "../../src/wire/virtual-packet.ts";
import { OWN_KIND_SEQUENCE, pattern, REFERENCE_SEQUENCE, ScriptedStream } from "../helpers/scripted-stream.ts";

describe("acknowledging", () => {
  it("never happens in the instant of arrival to a reference", () => {
    const scripted = ScriptedStream.open({ peerSequence: REFERENCE_SEQUENCE });
    scripted.receive({ payload: utf8("ab") });
    scripted.receive({ sequence: 3, payload: utf8("cd") });
    scripted.receive({ sequence: 5, payload: utf8("ef") });
    expect(scripted.sent()).toEqual([]);
    for (let i = 0; i < 100; i++) scripted.receive({ sequence: 7 + i, payload: utf8("x") });
    expect(scripted.sent()).toEqual([]);
  });

  it("happens at once to others when 32 segments have come", () => {
    const scripted = ScriptedStream.open();
    for (let i = 0; i < 31; i++) scripted.receive({ sequence: 1 + i, payload: utf8("x") });
    expect(scripted.sent()).toEqual([]);
    scripted.receive({ sequence: 32, payload: utf8("x") });
    scripted.receive({ sequence: 33, payload: utf8("x") });
    expect(scripted.sent()).toMatchObject([{ flags: FLAG.ACK, acknowledgement: 34, payload: new Uint8Array(0) }]);
    expect(scripted.pass(100)).toEqual([]);
  });

  it("waits 2 ms after the second segment", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ payload: utf8("ab") });
    scripted.receive({ sequence: 3, payload: utf8("cd") });
    expect(scripted.pass(10)).toMatchObject([
      { at: 2, flags: FLAG.ACK, acknowledgement: 5, payload: new Uint8Array(0) },
    ]);
  });

  it("waits 5 ms after a lone segment", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ payload: utf8("ab") });
    expect(scripted.pass(50)).toMatchObject([{ at: 5, acknowledgement: 3 }]);
  });

  it("is done by data that goes the other way", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ payload: utf8("ab") });
    scripted.write(utf8("cd"));
    expect(scripted.pass(100)).toMatchObject([{ at: 0, acknowledgement: 3, payload: utf8("cd") }]);
  });

  it("answers each early segment at once with a pure duplicate ACK, and then with a SACK", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ sequence: 11, payload: pattern(10) });
    const [pure, selective, ...rest] = scripted.sent();
    expect(pure).toMatchObject({ flags: FLAG.ACK, sequence: 1, acknowledgement: 1, payload: new Uint8Array(0) });
    const left = (OWN_KIND_SEQUENCE + 11) >>> 0;
    expect(parseSack(selective!.payload)).toEqual([{ left, right: left + 10 }]);
    expect(selective).toMatchObject({ flags: FLAG.ACK, sequence: 1, acknowledgement: 1 });
    expect(rest).toEqual([]);
    scripted.receive({ sequence: 21, payload: pattern(10) });
    expect(scripted.sent().filter(({ payload }) => payload.length === 0)).toHaveLength(1);
  });

  it("is repeated for a segment that was there already", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ payload: utf8("ab") });
    scripted.pass(10);
    scripted.receive({ payload: utf8("ab") });
    expect(scripted.pass(10)).toMatchObject([{ acknowledgement: 3 }]);
    expect(scripted.readAll()).toEqual(utf8("ab"));
  });

  it("is never done for a pure ACK", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({});
    scripted.receive({});
    expect(scripted.pass(20_000)).toEqual([]);
  });
});

describe("reading", () => {
  it("gets bytes in order, whatever order they came in", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ sequence: 5, payload: utf8("ef") });
    scripted.receive({ sequence: 3, payload: utf8("cd") });
    expect(scripted.events()).toEqual([]);
    scripted.receive({ sequence: 1, payload: utf8("ab") });
    expect(scripted.events()).toEqual(["readable"]);
    expect(scripted.readAll()).toEqual(utf8("abcdef"));
  });

  it("gets segments of any size up to the largest that travels", () => {
    const scripted = ScriptedStream.open({ peerSequence: REFERENCE_SEQUENCE });
    scripted.receive({ payload: pattern(65_437) });
    expect(scripted.readAll()).toEqual(pattern(65_437));
  });

  it("is announced again only after everything was read", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ payload: utf8("ab") });
    scripted.receive({ sequence: 3, payload: utf8("cd") });
    expect(scripted.events()).toEqual(["readable"]);
    scripted.readAll();
    scripted.receive({ sequence: 5, payload: utf8("ef") });
    expect(scripted.events()).toEqual(["readable"]);
  });

  it("does not see changes that the caller makes to its buffer afterwards, though it is a Node buffer", () => {
    const scripted = ScriptedStream.open();
    const borrowed = Buffer.from("abcdef");
    scripted.receive({ payload: borrowed.subarray(0, 2) });
    scripted.receive({ sequence: 5, payload: borrowed.subarray(4, 6) });
    borrowed.fill(0);
    scripted.receive({ sequence: 3, payload: utf8("cd") });
    expect(scripted.readAll()).toEqual(utf8("abcdef"));
  });
});

describe("a program that does not read", () => {
  const small = { receiveBufferBytes: 8 * 1152 };

  it("is protected by a window in segments that shrinks to 0 for our own kind", () => {
    const scripted = ScriptedStream.open({ options: small });
    for (let i = 0; i < 8; i++) scripted.receive({ sequence: 1 + i * 1152, payload: pattern(1152) });
    expect(scripted.pass(10).at(-1)).toMatchObject({ acknowledgement: 1 + 8 * 1152, window: 0 });
  });

  it("is never announced as 0 to the reference, which takes 0 for no limit", () => {
    const scripted = ScriptedStream.open({ peerSequence: REFERENCE_SEQUENCE, options: small });
    for (let i = 0; i < 8; i++) scripted.receive({ sequence: 1 + i * 1152, payload: pattern(1152) });
    expect(scripted.pass(10).at(-1)).toMatchObject({ window: 1 });
  });

  it("makes what finds no room be dropped and sent again", () => {
    const scripted = ScriptedStream.open({ options: small });
    for (let i = 0; i < 10; i++) scripted.receive({ sequence: 1 + i * 1152, payload: pattern(1152) });
    expect(scripted.stream.statistics).toMatchObject({ receivedBytes: 8 * 1152, droppedSegments: 2 });
    scripted.readAll();
    scripted.receive({ sequence: 1 + 8 * 1152, payload: pattern(1152) });
    expect(scripted.readAll()).toHaveLength(1152);
  });

  it("lets the fourth copy of a segment in, because the reference gives up after eight", () => {
    const scripted = ScriptedStream.open({ peerSequence: REFERENCE_SEQUENCE, options: small });
    for (let i = 0; i < 8; i++) scripted.receive({ sequence: 1 + i * 1152, payload: pattern(1152) });
    const copies = [1, 2, 3, 4].map(() => {
      scripted.receive({ sequence: 1 + 8 * 1152, payload: pattern(1152) });
      return scripted.stream.statistics!.receivedBytes / 1152;
    });
    expect(copies).toEqual([8, 8, 8, 9]);
  });

  it("holds at most twice its buffer however long it stalls", () => {
    const scripted = ScriptedStream.open({ peerSequence: REFERENCE_SEQUENCE, options: small });
    for (let copy = 0; copy < 1_000; copy++) {
      const next = 1 + scripted.stream.statistics!.receivedBytes;
      scripted.receive({ sequence: next, payload: pattern(1152) });
    }
    expect(scripted.stream.statistics!.receivedBytes).toBeLessThanOrEqual(16 * 1152);
  });

  it("tells of room again when it has read a good part", () => {
    const scripted = ScriptedStream.open({ options: small });
    for (let i = 0; i < 8; i++) scripted.receive({ sequence: 1 + i * 1152, payload: pattern(1152) });
    scripted.pass(10);
    scripted.stream.read(scripted.now);
    expect(scripted.sent()).toEqual([]);
    scripted.stream.read(scripted.now);
    expect(scripted.sent()).toMatchObject([{ flags: FLAG.ACK, window: 2 }]);
  });

  it("counts a slot as large as the largest segment seen", () => {
    const scripted = ScriptedStream.open({ options: { receiveBufferBytes: 65_536 } });
    scripted.receive({ payload: pattern(4_096) });
    expect(scripted.pass(10)).toMatchObject([{ window: 15 }]);
  });
});

describe("what is out of place", () => {
  it("is dropped when it lies far beyond the window", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ sequence: 6_000_000, payload: utf8("far") });
    expect(scripted.sent().filter(({ payload }) => payload.length > 0)).toEqual([]);
    expect(scripted.stream.statistics!.droppedSegments).toBe(1);
  });

  it("is ignored without ACK, FIN, SYN or RST", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ flags: 0, payload: utf8("odd") });
    expect(scripted.readAll()).toHaveLength(0);
  });
});

describe("a run of segments", () => {
  it("becomes readable in one piece", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ payload: pattern(35), segmentBytes: 10 });
    expect(scripted.events()).toEqual(["readable"]);
    expect(scripted.stream.read(scripted.now)).toEqual(pattern(35));
  });

  it("is treated as its segments are, wherever it lies and however little room there is", () => {
    const size = 10;
    const bytes = pattern(60 * size);
    const run = fc.record({
      from: fc.integer({ min: 0, max: 59 }),
      segments: fc.integer({ min: 2, max: 20 }),
      short: fc.integer({ min: 0, max: 9 }),
      finAfter: fc.constantFrom(false, false, false, false, false, true),
      reads: fc.boolean(),
    });
    const peerSequence = fc.constantFrom(OWN_KIND_SEQUENCE, REFERENCE_SEQUENCE);
    fc.assert(
      fc.property(peerSequence, fc.array(run, { maxLength: 15 }), (sequence, runs) => {
        const open = () => ScriptedStream.open({ peerSequence: sequence, options: { receiveBufferBytes: 300 } });
        const [inOne, oneByOne] = [open(), open()];
        for (const { from, segments, short, finAfter, reads } of runs) {
          const payload = bytes.subarray(from * size, (from + segments) * size - short);
          inOne.receive({ sequence: 1 + from * size, payload, segmentBytes: size });
          for (let at = 0; at < payload.length; at += size) {
            oneByOne.receive({ sequence: 1 + from * size + at, payload: payload.subarray(at, at + size) });
          }
          const fin = { flags: FLAG.FIN | FLAG.ACK, sequence: 1 + 60 * size };
          for (const scripted of finAfter ? [inOne, oneByOne] : []) scripted.receive(fin);
          expect(inOne.sent()).toEqual(oneByOne.sent());
          if (reads) expect(inOne.readAll()).toEqual(oneByOne.readAll());
          expect(inOne.pass(3)).toEqual(oneByOne.pass(3));
        }
        expect(inOne.readAll()).toEqual(oneByOne.readAll());
        expect(inOne.events()).toEqual(oneByOne.events());
        expect(inOne.stream.statistics).toEqual(oneByOne.stream.statistics);
      }),
    );
  });
});
