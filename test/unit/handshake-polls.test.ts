/** When the registry is asked for waiting handshakes. */
import { expect, test } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { HandshakePolls } from "../../src/registry/handshake-polls.ts";

const at = (ms: number) => instant(1_000_000 + ms);

function polled(): HandshakePolls {
  const polls = new HandshakePolls();
  polls.handleRegistered(at(0));
  polls.handleSent(at(0));
  return polls;
}

test("every half minute, or two seconds while an answer is awaited", () => {
  const polls = polled();
  polls.handleAnswered(at(10));
  expect(polls.at).toBe(at(30_010));
  polls.expect(at(5_000), at(20));
  expect(polls.at).toBe(at(2_020));
  for (const [sent, next] of [
    [2_020, 4_020],
    [4_020, 6_020],
    [6_020, 36_020],
  ] as const) {
    polls.handleSent(at(sent));
    polls.handleAnswered(at(sent));
    expect(polls.at).toBe(at(next));
  }
});

test.each(["handleAnswered", "handleRefused"] as const)(
  "a notice while a poll is under way leads to another at once behind it (%s), for the answer may not have it yet",
  (handle) => {
    const polls = polled();
    polls.notice(at(10));
    polls[handle](at(20));
    expect(polls.at).toBe(at(10));
  },
);

test("notices at any rate lead to four at once and two a second, none of which takes two turns", () => {
  const polls = polled();
  polls.handleAnswered(at(0));
  const sent: number[] = [];
  for (let ms = 1; ms <= 10_000; ms++) {
    polls.notice(at(ms));
    if (polls.at > at(ms)) continue;
    sent.push(ms);
    polls.handleSent(at(ms));
    polls.handleAnswered(at(ms));
  }
  expect(sent.slice(0, 4)).toEqual([1, 2, 3, 4]);
  expect(sent.length).toBeGreaterThan(20);
  expect(sent.length).toBeLessThanOrEqual(4 + 2 * 10);
});
