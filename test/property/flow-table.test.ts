import fc from "fast-check";
import { expect, it } from "vitest";
import { type FlowKeySource, FlowTable } from "../../src/policy/flow-table.ts";

interface Tuple {
  readonly remoteNode: number;
  readonly localNode: number;
  readonly ports: number;
  readonly protocol: number;
}

/** An outbound packet: source (ours) at 8, destination (theirs) at 24. */
function key(tuple: Tuple): FlowKeySource {
  const view = new DataView(new ArrayBuffer(40));
  view.setUint32(8, 0xfd50494c);
  view.setUint32(24, 0xfd50494c);
  view.setUint32(20, tuple.localNode);
  view.setUint32(36, tuple.remoteNode);
  return { view, localOffset: 8, remoteOffset: 24, ports: tuple.ports, protocol: tuple.protocol };
}

const tuples = fc.record({
  remoteNode: fc.nat(50),
  localNode: fc.nat(2),
  ports: fc.integer({ min: -0x80000000, max: 0x7fffffff }),
  protocol: fc.constantFrom(6, 17, 58),
});

it("finds the link of every allowed flow and no flow that was not allowed", () => {
  fc.assert(
    fc.property(fc.uniqueArray(tuples, { selector: (t) => JSON.stringify(t), maxLength: 200 }), (all) => {
      const table = new FlowTable();
      const allowed = all.filter((_, index) => index % 2 === 0);
      for (const [link, tuple] of allowed.entries()) table.allow(key(tuple), link, 1, 0);
      for (const [link, tuple] of allowed.entries()) {
        const entry = table.find(key(tuple));
        expect(entry).toBeGreaterThanOrEqual(0);
        expect(table.linkOf(entry)).toBe(link);
        expect(table.isCurrent(entry, 1)).toBe(true);
        expect(table.isCurrent(entry, 2)).toBe(false);
      }
      for (const tuple of all.filter((_, index) => index % 2 === 1)) expect(table.find(key(tuple))).toBe(-1);
      expect(table.size).toBe(allowed.length);
    }),
  );
});

it("cuts exactly the flows of one link and tells what a reset needs", () => {
  const table = new FlowTable();
  const mine = { remoteNode: 5, localNode: 1, ports: (40_000 << 16) | 80, protocol: 6 };
  const entry = table.allow(key(mine), 3, 1, 100);
  table.noteAckSent(entry, 0xfffffff0 | 0);
  table.noteNextSeq(entry, 17);
  table.allow(key({ ...mine, remoteNode: 6 }), 4, 1, 100);
  const cut = table.cut(3, 101, 60);
  expect(cut).toHaveLength(1);
  expect(cut[0]).toMatchObject({
    protocol: 6,
    localPort: 40_000,
    remotePort: 80,
    lastAckSent: 0xfffffff0,
    nextSeqReceived: 17,
  });
  expect(table.find(key(mine))).toBe(-1);
  expect(table.size).toBe(1);
});

it("keeps its bound under a scan and still answers for the newest flow", () => {
  const table = new FlowTable();
  for (let port = 0; port < 100_000; port++) {
    const tuple = { remoteNode: 5, localNode: 1, ports: port, protocol: 17 };
    table.allow(key(tuple), 1, 1, port);
    expect(table.find(key(tuple))).toBeGreaterThanOrEqual(0);
  }
  expect(table.size).toBeLessThanOrEqual(32_768);
});
