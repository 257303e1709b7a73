/** Replies about thousands of peers are made in turns, so that packets pass meanwhile. */
import { expect, test } from "vitest";
import { jsonInTurns, mapInTurns } from "../../src/control/turns.ts";

test.each([
  [{}],
  [{ schema: 1, peers: [] }],
  [{ a: undefined, b: null, c: [undefined, null, "ü\u2028"], d: { e: [1] } }],
  [{ list: Array.from({ length: 5_000 }, (_, node) => ({ node, name: `ñode-${node}`, gone: undefined })), last: "x" }],
])("the text of a reply is that of JSON.stringify (%#)", async (reply) => {
  expect(Buffer.concat(await jsonInTurns(reply)).toString()).toBe(JSON.stringify(reply));
});

test("other work has its turn many times while a list is made", async () => {
  let turns = 0;
  let isDone = false;
  const count = () => {
    turns++;
    if (!isDone) setImmediate(count);
  };
  setImmediate(count);
  const squares = await mapInTurns(
    Array.from({ length: 400 }, (_, i) => i),
    (i) => {
      for (const until = performance.now() + 0.1; performance.now() < until; );
      return i * i;
    },
  );
  isDone = true;
  expect(squares).toEqual(Array.from({ length: 400 }, (_, i) => i * i));
  expect(turns).toBeGreaterThan(20); // 40 ms of work in turns of half a millisecond
});
