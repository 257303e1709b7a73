import { expect, it } from "vitest";
import { BLOCK_BYTES, BlockPool } from "../../src/base/block-pool.ts";

it("uses a block again when all that was lent of it was given back, in whatever parts", () => {
  const pool = new BlockPool();
  const block = pool.take();
  expect(block).toHaveLength(BLOCK_BYTES);
  const lent = pool.lend(block, 100);
  expect(lent).toHaveLength(100);
  pool.giveBack(lent.buffer, 60);
  expect(pool.take().buffer).not.toBe(block.buffer);
  pool.giveBack(lent.subarray(60).buffer, 40);
  expect(pool.take().buffer).toBe(block.buffer);
  expect(pool.take().buffer).not.toBe(block.buffer);
});

it("ignores memory that it did not lend, and what is given back again", () => {
  const pool = new BlockPool();
  pool.giveBack(new Uint8Array(BLOCK_BYTES).buffer, BLOCK_BYTES);
  const block = pool.take();
  pool.lend(block, 5);
  pool.giveBack(block.buffer, 5);
  pool.giveBack(block.buffer, 5);
  const [first, second] = [pool.take(), pool.take()];
  expect(first.buffer).toBe(block.buffer);
  expect(second.buffer).not.toBe(block.buffer);
});

it("keeps 64 free blocks at most", () => {
  const pool = new BlockPool();
  const blocks = Array.from({ length: 100 }, () => pool.take());
  for (const block of blocks) pool.giveBack(pool.lend(block, 1).buffer, 1);
  const known = new Set(blocks.map(({ buffer }) => buffer));
  const again = blocks.map(() => pool.take()).filter(({ buffer }) => known.has(buffer));
  expect(again).toHaveLength(64);
});
