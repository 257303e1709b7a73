import { describe, expect, it } from "vitest";
import { utf8 } from "../../src/base/bytes.ts";
import { FLAG } from "../../src/wire/virtual-packet.ts";
import { REFERENCE_SEQUENCE, ScriptedStream } from "../helpers/scripted-stream.ts";

const SYN_ACK = FLAG.SYN | FLAG.ACK;
const NOTHING = new Uint8Array(0);

function syn(scripted: ScriptedStream, sequence = 0): void {
  const packet = { flags: FLAG.SYN, sequence, acknowledgement: 0, window: 512, payload: NOTHING };
  scripted.stream.offer({ ...packet, sourcePort: 80, destinationPort: 50_000 }, scripted.now);
}

describe("dialling", () => {
  it("sends a SYN with the initial sequence number, no acknowledgement and a window of 512 segments", () => {
    const scripted = new ScriptedStream();
    scripted.stream.connect(scripted.now);
    expect(scripted.sent()).toEqual([
      { at: 0, flags: FLAG.SYN, sequence: 0, acknowledgement: 0, window: 512, payload: NOTHING },
    ]);
  });

  it("repeats the SYN after 1, 2, 4, 8, 8 and 8 s and then gives up", () => {
    const scripted = new ScriptedStream();
    scripted.stream.connect(scripted.now);
    const syns = scripted.pass(60_000);
    expect(syns.map((packet) => packet.at)).toEqual([0, 1_000, 3_000, 7_000, 15_000, 23_000, 31_000]);
    expect(scripted.events()).toEqual(["timed-out"]);
    expect(scripted.stream.stateKind).toBe("closed");
  });

  it("answers SYN+ACK with an ACK and is open", () => {
    const scripted = new ScriptedStream();
    scripted.stream.connect(scripted.now);
    scripted.sent();
    scripted.receive({ flags: SYN_ACK, sequence: 0, acknowledgement: 1 });
    expect(scripted.sent()).toMatchObject([{ flags: FLAG.ACK, sequence: 1, acknowledgement: 1 }]);
    expect(scripted.events()).toEqual(["established"]);
  });

  it("ignores a SYN+ACK that acknowledges another SYN", () => {
    const scripted = new ScriptedStream();
    scripted.stream.connect(scripted.now);
    scripted.receive({ flags: SYN_ACK, sequence: 0, acknowledgement: 2 });
    expect(scripted.stream.stateKind).toBe("connecting");
  });

  it("is refused by the RST of the reference, whose numbers are all 0", () => {
    const scripted = new ScriptedStream();
    scripted.stream.connect(scripted.now);
    scripted.receiveRaw({ flags: FLAG.RST, sequence: 0, acknowledgement: 0, window: 0, payload: NOTHING });
    expect(scripted.events()).toEqual(["refused"]);
  });

  it("is not refused by an RST of some other stream", () => {
    const scripted = new ScriptedStream();
    scripted.stream.connect(scripted.now);
    scripted.receiveRaw({ flags: FLAG.RST, sequence: 77, acknowledgement: 0, window: 0, payload: NOTHING });
    expect(scripted.events()).toEqual([]);
  });

  it("answers a repeated SYN+ACK with an ACK and does not believe its numbers", () => {
    const scripted = ScriptedStream.open({ peerSequence: REFERENCE_SEQUENCE });
    scripted.receive({ sequence: 1, payload: utf8("abc") });
    scripted.receive({ flags: SYN_ACK, sequence: 3, acknowledgement: 1 });
    expect(scripted.pass(2)).toMatchObject([{ flags: FLAG.ACK, sequence: 1, acknowledgement: 4 }]);
  });

  it("learns from the initial sequence number 0 that the far side is the reference", () => {
    expect(ScriptedStream.open({ peerSequence: 0 }).stream.traits).toEqual({ isReference: true, halfClose: false });
    expect(ScriptedStream.open({ peerSequence: 9 }).stream.traits).toEqual({ isReference: false, halfClose: true });
  });
});

describe("answering", () => {
  it("says nothing to an offered SYN until it is accepted", () => {
    const scripted = new ScriptedStream({ peerSequence: 0 });
    syn(scripted);
    expect(scripted.sent()).toEqual([]);
    scripted.stream.accept(scripted.now);
    expect(scripted.sent()).toMatchObject([{ flags: SYN_ACK, sequence: 0, acknowledgement: 1, window: 512 }]);
  });

  it("refuses with flags RST alone and all numbers 0", () => {
    const scripted = new ScriptedStream({ peerSequence: 0, ownSequence: 0 });
    syn(scripted);
    scripted.stream.refuse(scripted.now);
    expect(scripted.sent()).toMatchObject([{ flags: FLAG.RST, sequence: 0, acknowledgement: 0, window: 0 }]);
  });

  it("is open only when its SYN is acknowledged", () => {
    const scripted = new ScriptedStream({ peerSequence: 0 });
    syn(scripted);
    scripted.stream.accept(scripted.now);
    scripted.receive({ acknowledgement: 0 });
    expect(scripted.stream.stateKind).toBe("accepting");
    scripted.receive({ acknowledgement: 1 });
    expect(scripted.events()).toEqual(["established"]);
  });

  it("takes data from the packet that opens it, because the ACK before it may be lost", () => {
    const scripted = new ScriptedStream({ peerSequence: 0 });
    syn(scripted);
    scripted.stream.accept(scripted.now);
    scripted.receive({ acknowledgement: 1, payload: utf8("hello") });
    expect(scripted.events()).toEqual(["established", "readable"]);
    expect(scripted.readAll()).toEqual(utf8("hello"));
  });

  it("answers a repeated SYN with the same SYN+ACK, before and after it is open", () => {
    const scripted = new ScriptedStream({ peerSequence: 0 });
    syn(scripted);
    scripted.stream.accept(scripted.now);
    const [first] = scripted.sent();
    scripted.receive({ flags: FLAG.SYN, sequence: 0 });
    expect(scripted.sent()).toEqual([first]);
    scripted.receive({ acknowledgement: 1 });
    scripted.receive({ flags: FLAG.SYN, sequence: 0 });
    expect(scripted.sent()).toEqual([first]);
  });

  it("repeats the SYN+ACK and forgets a half-open stream after 10 s", () => {
    const scripted = new ScriptedStream({ peerSequence: 0 });
    syn(scripted);
    scripted.stream.accept(scripted.now);
    const answers = scripted.pass(20_000).filter(({ flags }) => flags === SYN_ACK);
    expect(answers.map((packet) => packet.at)).toEqual([0, 1_000, 3_000, 7_000]);
    expect(scripted.stream.stateKind).toBe("closed");
  });

  it("provokes the lost ACK of a reference by a byte that lies before what it expects", () => {
    const scripted = new ScriptedStream({ peerSequence: 0 });
    syn(scripted);
    scripted.stream.accept(scripted.now);
    scripted.sent();
    expect(scripted.pass(1_000)).toMatchObject([
      { flags: SYN_ACK, sequence: 0 },
      { flags: FLAG.ACK, sequence: 0, acknowledgement: 1, payload: new Uint8Array(1) },
    ]);
  });

  it("gives way to a restarted far side whose SYN keeps coming into a stream in use", () => {
    const scripted = ScriptedStream.open({ peerSequence: 0 });
    scripted.receive({ payload: utf8("abc") });
    const packet = { flags: FLAG.SYN, sequence: 0, acknowledgement: 0, window: 512, payload: NOTHING };
    const offer = () =>
      scripted.stream.handlePacket({ ...packet, sourcePort: 80, destinationPort: 50_000 }, scripted.now);
    expect(offer()).toBeUndefined();
    scripted.pass(1_000);
    expect(offer()).toBe("superseded");
    expect(scripted.events()).toEqual(["readable", "reset"]);
  });
});
