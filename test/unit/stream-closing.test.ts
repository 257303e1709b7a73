import { describe, expect, it } from "vitest";
import { utf8 } from "../../src/base/bytes.ts";
import { FLAG } from "../../src/wire/virtual-packet.ts";
import { pattern, REFERENCE_SEQUENCE, ScriptedStream } from "../helpers/scripted-stream.ts";

const FIN_ACK = FLAG.FIN | FLAG.ACK;
const reference = { peerSequence: REFERENCE_SEQUENCE };

describe("our end", () => {
  it("is a packet with flags FIN alone, no acknowledgement and a window of 0", () => {
    const scripted = ScriptedStream.open();
    scripted.stream.closeWrite(scripted.now);
    expect(scripted.sent()).toMatchObject([{ flags: FLAG.FIN, sequence: 1, acknowledgement: 0, window: 0 }]);
  });

  it("waits until all data is acknowledged", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(3_000));
    scripted.stream.closeWrite(scripted.now);
    expect(scripted.sent().some(({ flags }) => flags === FLAG.FIN)).toBe(false);
    scripted.receive({ acknowledgement: 2_000 });
    expect(scripted.sent()).toEqual([]);
    scripted.receive({ acknowledgement: 3_001 });
    expect(scripted.sent()).toMatchObject([{ flags: FLAG.FIN, sequence: 3_001 }]);
  });

  it("is repeated until it is answered", () => {
    const scripted = ScriptedStream.open();
    scripted.stream.closeWrite(scripted.now);
    scripted.sent();
    expect(scripted.pass(3_000)).toMatchObject([{ flags: FLAG.FIN }, { flags: FLAG.FIN }]);
    scripted.receive({ acknowledgement: 2 });
    expect(scripted.pass(20_000)).toEqual([]);
  });

  it("lets what is owed be acknowledged first", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ payload: utf8("x") });
    scripted.stream.closeWrite(scripted.now);
    expect(scripted.sent()).toMatchObject([{ flags: FLAG.ACK, acknowledgement: 2 }, { flags: FLAG.FIN }]);
  });

  it("leaves reading open towards our own kind, as long as it takes", () => {
    const scripted = ScriptedStream.open();
    scripted.stream.closeWrite(scripted.now);
    scripted.sent();
    scripted.receive({ acknowledgement: 2 });
    scripted.pass(20_000);
    scripted.receive({ acknowledgement: 2, payload: utf8("late answer") });
    expect(scripted.readAll()).toEqual(utf8("late answer"));
    scripted.receive({ flags: FLAG.FIN, sequence: 12 });
    expect(scripted.events()).toEqual(["readable", "ended", "closed"]);
  });

  it("is held back from a reference until it ends too, so that its answer is delivered", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.write(utf8("question"));
    scripted.stream.closeWrite(scripted.now);
    scripted.sent();
    scripted.receive({ acknowledgement: 9 });
    expect(scripted.pass(5_000)).toEqual([]);
    scripted.receive({ acknowledgement: 9, payload: utf8("answer") });
    scripted.receive({ flags: FLAG.FIN, sequence: 7 });
    expect(scripted.readAll()).toEqual(utf8("answer"));
    expect(scripted.sent()).toMatchObject([{ flags: FIN_ACK, sequence: 9, acknowledgement: 8, window: 0 }]);
    expect(scripted.events()).toEqual(["readable", "ended", "closed"]);
  });

  it("goes to a reference all the same when it has been quiet for 10 s, because it may be waiting for the end", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.stream.closeWrite(scripted.now);
    scripted.pass(6_000);
    scripted.receive({ payload: utf8("some") });
    expect(scripted.pass(9_000).some(({ flags }) => flags === FLAG.FIN)).toBe(false);
    expect(scripted.pass(1_000)).toMatchObject([{ flags: FLAG.FIN }]);
  });

  it("is not held back any longer by packets that say nothing", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.stream.closeWrite(scripted.now);
    for (let i = 0; i < 3; i++) {
      expect(scripted.pass(3_000).some(({ flags }) => flags === FLAG.FIN)).toBe(false);
      scripted.receive({ window: 0 }); // a keep-alive of the reference
    }
    expect(scripted.pass(1_000).filter(({ flags }) => flags === FLAG.FIN)).toHaveLength(1);
  });

  it("goes to a reference that opened the stream 0.3 s after the last data, for its program reads to the end", () => {
    const scripted = ScriptedStream.answered(reference);
    scripted.write(utf8("all there is"));
    scripted.stream.closeWrite(scripted.now);
    scripted.pass(50);
    scripted.receive({ acknowledgement: 13, payload: utf8("more") });
    expect(scripted.pass(299).some(({ flags }) => flags === FLAG.FIN)).toBe(false);
    expect(scripted.pass(1)).toMatchObject([{ flags: FLAG.FIN, sequence: 13 }]);
  });

  it("goes to a reference at once when nobody reads any more", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.write(utf8("bye"));
    scripted.stream.close(scripted.now);
    scripted.sent();
    scripted.receive({ acknowledgement: 4 });
    expect(scripted.sent()).toMatchObject([{ flags: FLAG.FIN, sequence: 4 }]);
  });

  it("answered by FIN+ACK ends both directions, and FIN+ACK is never answered with FIN", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.stream.close(scripted.now);
    scripted.sent();
    scripted.receive({ flags: FIN_ACK, sequence: 1, acknowledgement: 2, window: 0 });
    expect(scripted.events()).toEqual(["ended", "closed"]);
    const answers = scripted.pass(100);
    expect(answers.every(({ flags }) => flags === FLAG.ACK)).toBe(true);
    expect(answers.length).toBeLessThanOrEqual(1);
  });

  it("that nobody answers is no failure, because all data was acknowledged", () => {
    const scripted = ScriptedStream.open();
    scripted.stream.closeWrite(scripted.now);
    scripted.pass(120_000);
    expect(scripted.events()).toEqual(["closed"]);
  });

  it("acknowledged by a reference that never ends is over after 10 s", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.stream.close(scripted.now);
    scripted.sent();
    scripted.receive({ acknowledgement: 2 });
    scripted.pass(9_900);
    expect(scripted.events()).toEqual([]);
    scripted.pass(100);
    expect(scripted.events()).toEqual(["closed"]);
  });

  it("of both directions breaks off after a minute with a far side of our kind that never ends", () => {
    const scripted = ScriptedStream.open();
    scripted.stream.close(scripted.now);
    scripted.sent();
    scripted.receive({ acknowledgement: 2 });
    for (let second = 0; second < 59; second++) {
      scripted.pass(1_000);
      scripted.receive({ sequence: 1 + second, acknowledgement: 2, payload: utf8("x") });
    }
    expect(scripted.events()).toEqual([]);
    expect(scripted.pass(1_000).at(-1)).toMatchObject({ flags: FLAG.RST });
    expect(scripted.events()).toEqual(["timed-out"]);
  });

  it("asked for while connecting is kept until the stream is open", () => {
    const scripted = new ScriptedStream();
    scripted.stream.connect(scripted.now);
    scripted.stream.close(scripted.now);
    scripted.sent();
    scripted.receive({ flags: FLAG.SYN | FLAG.ACK, sequence: 0, acknowledgement: 1 });
    expect(scripted.sent().map(({ flags }) => flags)).toEqual([FLAG.ACK, FLAG.FIN]);
  });

  it("takes no bytes after it", () => {
    const scripted = ScriptedStream.open();
    scripted.stream.closeWrite(scripted.now);
    expect(scripted.write(utf8("late"))).toBe(0);
  });
});

describe("the far side's end", () => {
  it("in order is answered with an ACK when our direction can go on", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ flags: FLAG.FIN, sequence: 1 });
    expect(scripted.events()).toEqual(["ended"]);
    expect(scripted.pass(10)).toMatchObject([{ flags: FLAG.ACK, acknowledgement: 2 }]);
    scripted.write(utf8("still here"));
    expect(scripted.sent()).toMatchObject([{ payload: utf8("still here") }]);
  });

  it("comes after data that is still to be read", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.receive({ payload: utf8("last words") });
    scripted.receive({ flags: FLAG.FIN, sequence: 11 });
    scripted.pass(15_000);
    expect(scripted.stream.stateKind).toBe("closed");
    expect(scripted.readAll()).toEqual(utf8("last words"));
  });

  it("waits for data that is missing before it", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.receive({ flags: FLAG.FIN, sequence: 4 });
    expect(scripted.events()).toEqual([]);
    scripted.pass(3_000);
    scripted.receive({ payload: utf8("abc") });
    expect(scripted.events()).toEqual(["readable", "ended", "closed"]);
  });

  it("with data missing for 5 s is a truncation, and no clean end", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.receive({ payload: utf8("ab") });
    scripted.receive({ flags: FLAG.FIN, sequence: 100 });
    scripted.events();
    scripted.pass(4_900);
    expect(scripted.events()).toEqual([]);
    const packets = scripted.pass(100);
    expect(scripted.events()).toEqual(["truncated"]);
    expect(packets.at(-1)).toMatchObject({ flags: FLAG.RST });
  });

  it("is where the first FIN says; the reference's later FINs with a lower number do not count", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.receive({ payload: utf8("ab") });
    scripted.receive({ flags: FLAG.FIN, sequence: 10 });
    scripted.receive({ flags: FLAG.FIN, sequence: 3 });
    scripted.pass(6_000);
    expect(scripted.events()).toEqual(["readable", "truncated"]);
  });

  it("is believed at once when it comes promptly after data", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.pass(5_000);
    scripted.receive({ payload: utf8("ab") });
    scripted.pass(149);
    scripted.receive({ flags: FLAG.FIN, sequence: 3 });
    expect(scripted.events()).toEqual(["readable", "ended", "closed"]);
  });

  it("is doubted for 1 s when it comes late, and then believed", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.pass(5_000);
    scripted.receive({ flags: FLAG.FIN, sequence: 1 });
    expect(scripted.pass(999)).toMatchObject([{ flags: FLAG.ACK, acknowledgement: 2 }]);
    expect(scripted.events()).toEqual([]);
    expect(scripted.pass(1)).toMatchObject([{ flags: FIN_ACK, acknowledgement: 2 }]);
    expect(scripted.events()).toEqual(["ended", "closed"]);
  });

  it("is no clean end when it keeps coming though we acknowledge it: it stands for data that was lost", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.receive({ payload: utf8("ab") });
    for (let i = 0; i < 3; i++) {
      scripted.pass(400);
      scripted.receive({ flags: FLAG.FIN, sequence: 3 });
    }
    expect(scripted.events()).toEqual(["readable", "truncated"]);
  });

  it("is no clean end when a later FIN shows that there was more", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.pass(400);
    scripted.receive({ flags: FLAG.FIN, sequence: 1 });
    scripted.receive({ flags: FLAG.FIN, sequence: 900 });
    expect(scripted.events()).toEqual(["truncated"]);
  });

  it("is never doubted of our own kind", () => {
    const scripted = ScriptedStream.open();
    scripted.pass(5_000);
    scripted.receive({ flags: FLAG.FIN, sequence: 1 });
    expect(scripted.events()).toEqual(["ended"]);
  });

  it("is not passed by data behind it", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ flags: FLAG.FIN, sequence: 3 });
    scripted.receive({ sequence: 3, payload: utf8("beyond") });
    scripted.receive({ sequence: 1, payload: utf8("ab") });
    expect(scripted.readAll()).toEqual(utf8("ab"));
    expect(scripted.events()).toEqual(["readable", "ended"]);
  });

  it("ends our direction too when the far side is a reference, and what it will not take is counted", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.write(pattern(5_000));
    scripted.sent();
    scripted.receive({ flags: FLAG.FIN, sequence: 1 });
    scripted.stream.pollEvent();
    expect(scripted.stream.pollEvent()).toEqual({ kind: "closed", undeliveredBytes: 5_000 });
    expect(scripted.sent()).toMatchObject([{ flags: FIN_ACK, acknowledgement: 2 }]);
  });
});

describe("TIME_WAIT", () => {
  function inTimeWait(): ScriptedStream {
    const scripted = ScriptedStream.open(reference);
    scripted.receive({ flags: FLAG.FIN, sequence: 1 });
    scripted.sent();
    return scripted;
  }

  it("answers a repeated FIN with an ACK", () => {
    const scripted = inTimeWait();
    scripted.receive({ flags: FLAG.FIN, sequence: 1 });
    expect(scripted.pass(10)).toMatchObject([{ flags: FLAG.ACK, acknowledgement: 2 }]);
  });

  it("answers FIN+ACK with nothing, which ends the reference's storm", () => {
    const scripted = inTimeWait();
    for (let i = 0; i < 100; i++) scripted.receive({ flags: FIN_ACK, sequence: 1, acknowledgement: 2, window: 0 });
    expect(scripted.pass(100)).toEqual([]);
  });

  it("lasts 10 s, whatever comes meanwhile", () => {
    const scripted = inTimeWait();
    for (let second = 0; second < 10; second++) {
      expect(scripted.stream.stateKind).toBe("time-wait");
      scripted.pass(1_000);
      scripted.receive({ flags: FIN_ACK, sequence: 1, acknowledgement: 2, window: 0 });
    }
    expect(scripted.stream.stateKind).toBe("closed");
  });
});

describe("RST", () => {
  it("in the window ends the stream without an answer", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ flags: FLAG.RST, sequence: 1 });
    expect(scripted.events()).toEqual(["reset"]);
    expect(scripted.pass(1_000)).toEqual([]);
  });

  it("outside the window is ignored", () => {
    const scripted = ScriptedStream.open();
    scripted.receive({ payload: utf8("abc") });
    for (const sequence of [1, 3, 4_000_000]) scripted.receive({ flags: FLAG.RST, sequence });
    expect(scripted.events()).toEqual(["readable"]);
    expect(scripted.stream.stateKind).toBe("open");
  });

  it("with all numbers 0 is believed of a reference only", () => {
    const bare = { flags: FLAG.RST, sequence: 0, acknowledgement: 0, window: 0, payload: new Uint8Array(0) };
    const ofReference = ScriptedStream.open(reference);
    ofReference.receive({ payload: utf8("abc") });
    ofReference.receiveRaw(bare);
    expect(ofReference.events()).toEqual(["readable", "reset"]);
    const ofOwnKind = ScriptedStream.open({ peerSequence: 5_000 });
    ofOwnKind.receiveRaw(bare);
    expect(ofOwnKind.events()).toEqual([]);
  });

  it("is sent by reset, with the sequence number the far side looks for", () => {
    const scripted = ScriptedStream.open();
    scripted.write(pattern(10));
    scripted.sent();
    scripted.stream.reset(scripted.now);
    expect(scripted.sent()).toMatchObject([{ flags: FLAG.RST, sequence: 11, acknowledgement: 0, window: 0 }]);
  });

  it("is sent again, once a second, to a far side that missed it", () => {
    const scripted = ScriptedStream.open();
    scripted.stream.reset(scripted.now);
    scripted.sent();
    const resets: number[] = [];
    for (let i = 0; i < 30; i++) {
      scripted.pass(100);
      scripted.receive({ payload: utf8("x") });
      resets.push(...scripted.sent().map(({ flags }) => flags));
    }
    expect(resets).toEqual([FLAG.RST, FLAG.RST, FLAG.RST]);
    scripted.pass(5_000);
    expect(scripted.stream.stateKind).toBe("closed");
  });
});

describe("an idle stream", () => {
  it("says that it lives every 25 s, with its true window", () => {
    const scripted = ScriptedStream.open();
    expect(scripted.pass(55_000)).toMatchObject([
      { at: 25_000, flags: FLAG.ACK, sequence: 1, acknowledgement: 1, window: 1_024, payload: new Uint8Array(0) },
      { at: 50_000, flags: FLAG.ACK },
    ]);
  });

  it("provokes an answer from a reference by a byte that it has already", () => {
    const scripted = ScriptedStream.open(reference);
    const probes = scripted.pass(100_000).filter(({ payload }) => payload.length > 0);
    expect(probes).toMatchObject([
      { at: 75_000, sequence: 0, payload: new Uint8Array(1) },
      { at: 100_000, sequence: 0 },
    ]);
  });

  it("is over when nothing was heard for 150 s in spite of that", () => {
    const scripted = ScriptedStream.open(reference);
    scripted.pass(149_000);
    expect(scripted.events()).toEqual([]);
    expect(scripted.pass(1_000).at(-1)).toMatchObject({ flags: FLAG.RST });
    expect(scripted.events()).toEqual(["timed-out"]);
  });

  it("lives on as long as the far side answers", () => {
    const scripted = ScriptedStream.open(reference);
    for (let minute = 0; minute < 60; minute++) {
      scripted.pass(60_000);
      scripted.receive({});
    }
    expect(scripted.stream.stateKind).toBe("open");
  });

  it("answers an empty ACK at most once per 5 s", () => {
    const scripted = ScriptedStream.open();
    const answers: number[] = [];
    for (let i = 0; i < 100; i++) {
      answers.push(...scripted.pass(100).map(({ at }) => at));
      scripted.receive({});
    }
    expect(answers).toHaveLength(1);
    expect(answers[0]).toBeGreaterThanOrEqual(5_000);
  });

  it("answers a byte that it has already, so that the far side knows it lives", () => {
    const scripted = ScriptedStream.open();
    scripted.pass(1_000);
    scripted.receive({ sequence: 0, payload: new Uint8Array(1) });
    expect(scripted.pass(10)).toMatchObject([{ flags: FLAG.ACK, acknowledgement: 1 }]);
    expect(scripted.readAll()).toHaveLength(0);
  });
});
