/** How long an agent with new keys may take to show that it knows its streams from before. */
import { describe, expect, it } from "vitest";
import { after, instant } from "../../src/base/instant.ts";
import { RestartQuestions, type Suspicion } from "../../src/engine/plain/restart-questions.ts";
import type { Stream } from "../../src/stream/stream.ts";
import { nodeId } from "../../src/wire/ids.ts";

const START = instant(10_000);
const SUSPICION: Suspicion = { node: nodeId(7), than: instant(9_990) };

/** A stream that has heard something, or nothing, and counts how often it asked for more. */
function stream(heardAt = 9_000) {
  const told = { heardAt: instant(heardAt), provoked: 0 };
  return Object.assign(told, { provoke: () => (told.provoked += 1) });
}

function run(questions: RestartQuestions, untilMs: number, atEach: (nowMs: number) => void = () => undefined) {
  for (let at = questions.pollTimeout()?.at; at !== undefined && at <= after(START, untilMs); ) {
    atEach(at - START);
    const unanswered = questions.handleTimeout(at);
    if (unanswered.length > 0) return { at: at - START, unanswered };
    at = questions.pollTimeout()?.at;
  }
  return undefined;
}

const ask = (streams: () => ReturnType<typeof stream>[]) => {
  const questions = new RestartQuestions(() => streams() as unknown as Stream[]);
  questions.ask(SUSPICION, START);
  return questions;
};

describe("an agent with new keys", () => {
  it("was started anew when it answers on no stream for a few seconds", () => {
    const streams = Array.from({ length: 20 }, () => stream());
    const told = run(
      ask(() => streams),
      60_000,
    );
    expect(told).toMatchObject({ unanswered: [SUSPICION] });
    expect(told!.at).toBeGreaterThan(3_000);
    expect(told!.at).toBeLessThan(5_000);
    expect(streams.map(({ provoked }) => provoked)).toEqual([...Array(8).fill(6), ...Array(12).fill(0)]);
  });

  it("lives when one stream of many is answered, however late", () => {
    const streams = [stream(), stream(), stream()];
    const questions = ask(() => streams);
    const told = run(questions, 60_000, (nowMs) => {
      if (nowMs >= 3_000) streams[1]!.heardAt = instant(START + 2_999);
    });
    expect(told).toBeUndefined();
    expect(questions.pollTimeout()).toBeUndefined();
  });

  it("is asked about other streams when those that were asked are over", () => {
    const streams = Array.from({ length: 12 }, () => stream());
    const questions = ask(() => streams);
    streams.splice(0, 8); // each was answered by a reset
    expect(run(questions, 700)).toBeUndefined();
    expect(streams.map(({ provoked }) => provoked)).toEqual([1, 1, 1, 1]);
    streams.length = 0;
    expect(run(questions, 60_000)).toBeUndefined();
    expect(questions.pollTimeout()).toBeUndefined();
  });

  it("is not asked when no stream is from before", () => {
    expect(ask(() => []).pollTimeout()).toBeUndefined();
  });
});
