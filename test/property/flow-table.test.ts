import fc from "fast-check";
import { expect, it } from "vitest";
import { type Flow, type FlowKeySource, FlowTable } from "../../src/policy/flow-table.ts";

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

const lastWord = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(bytes.length - 4);
const isOf = (flow: Flow, tuple: Tuple) =>
  lastWord(flow.remote) === tuple.remoteNode &&
  lastWord(flow.local) === tuple.localNode &&
  flow.protocol === tuple.protocol &&
  ((flow.localPort << 16) | flow.remotePort) === tuple.ports;

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
  const cut = table.cut(3, 101);
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
  let lost = 0;
  for (let port = 0; port < 400_000; port++) {
    const tuple = key({ remoteNode: 5, localNode: 1, ports: port, protocol: 17 });
    table.allow(tuple, 1, 1, Math.floor(port / 10_000));
    if (table.find(tuple) < 0) lost++;
  }
  expect(lost).toBe(0);
  expect(table.size).toBeLessThanOrEqual(262_144);
});

it("holds 100,000 flows of one peer at once, whatever their ports", () => {
  fc.assert(
    fc.property(fc.nat(0xffff), fc.nat(10_000), (local, first) => {
      const table = new FlowTable();
      for (let i = 0; i < 100_000; i++) {
        const ports = ((local + (i >= 50_000 ? 1 : 0)) << 16) | (first + (i % 50_000));
        table.allow(key({ remoteNode: 5, localNode: 1, ports, protocol: 17 }), 1, 1, 0);
      }
      expect(table.size).toBeGreaterThan(99_980);
    }),
    { numRuns: 5 },
  );
});

it("keeps the flows of a quiet peer while another scans", () => {
  const table = new FlowTable();
  const quiet = Array.from({ length: 500 }, (_, port) =>
    key({ remoteNode: 6, localNode: 1, ports: port, protocol: 17 }),
  );
  for (const tuple of quiet) table.allow(tuple, 2, 1, 0);
  let refused = 0;
  for (let port = 0; port < 1_000_000; port++) {
    const entry = table.allow(key({ remoteNode: 5, localNode: 1, ports: port, protocol: 17 }), 1, 1, 1);
    if (entry < 0) refused++;
  }
  expect(quiet.filter((tuple) => table.find(tuple) < 0)).toEqual([]);
  expect(refused).toBeLessThan(1_000);
});

it("agrees with a plain map about who began, what stands, and what is over", () => {
  const act = fc.record({
    tuple: tuples,
    kind: fc.constantFrom("allow", "close", "wait", "cut", "forget", "name", "answer"),
    remotely: fc.boolean(),
    governed: fc.boolean(),
    uid: fc.option(fc.nat(3), { nil: undefined }),
    waitS: fc.nat(100),
  });
  fc.assert(
    fc.property(fc.array(act, { maxLength: 60 }), (acts) => {
      const table = new FlowTable();
      const model = new Map<
        string,
        {
          begun: boolean;
          seenS: number;
          closing: boolean;
          protocol: number;
          link: number;
          uid: number | undefined;
          governed: boolean;
          byRelay: boolean;
        }
      >();
      const ownerOf = (uid: number | undefined) =>
        uid === undefined ? undefined : { uid, cgroup: undefined, programs: [] };
      let nowS = 1_000;
      for (const { tuple, kind, remotely, governed, uid, waitS } of acts) {
        const name = JSON.stringify(tuple);
        const entry = table.find(key(tuple));
        const known = model.get(name);
        expect(entry >= 0).toBe(known !== undefined);
        if (kind === "wait") nowS += waitS;
        if (kind === "allow") {
          table.allow(key(tuple), tuple.remoteNode, 1, nowS, {
            direction: remotely ? "in" : "out",
            verdict: 3,
            owner: ownerOf(uid),
            isGoverned: governed,
            isNew: true,
          });
          model.set(name, {
            begun: remotely,
            seenS: nowS,
            closing: false,
            protocol: tuple.protocol,
            link: tuple.remoteNode,
            uid,
            governed,
            byRelay: false,
          });
        }
        if (kind === "name" && uid !== undefined) {
          const flow = table.list(nowS).find((one) => isOf(one, tuple));
          if (flow !== undefined) table.noteOwner(flow.id, ownerOf(uid)!);
          if (flow !== undefined) known!.uid = uid;
        }
        if (kind === "answer" && known !== undefined) {
          table.setAnswersByRelay(entry, remotely);
          known.byRelay = remotely;
        }
        if (kind === "close" && known !== undefined) {
          table.noteClosing(entry, remotely, false);
          known.closing = true;
        }
        if (kind === "cut") {
          table.cut(tuple.remoteNode, nowS);
          for (const [other, flow] of model) if (flow.link === tuple.remoteNode) model.delete(other);
        }
        if (kind === "forget") {
          const verdictOf = (one: number) =>
            table.linkOf(one) === tuple.remoteNode ? undefined : table.verdictOf(one);
          table.rejudge(verdictOf, () => true, nowS);
          for (const [other, flow] of model) if (flow.link === tuple.remoteNode) model.delete(other);
        }
        expect(table.size).toBe(model.size);
      }
      for (const [name, flow] of model) {
        const entry = table.find(key(JSON.parse(name)));
        const limit = flow.protocol === 6 ? (flow.closing ? 120 : 432_000) : flow.protocol === 58 ? 60 : 180;
        expect(table.ownerOf(entry)).toEqual(ownerOf(flow.uid));
        expect(table.isGoverned(entry)).toBe(flow.governed || flow.byRelay);
        expect(table.answersByRelay(entry)).toBe(flow.byRelay);
        const isFresh = nowS - flow.seenS <= limit;
        for (const opens of [false, true]) {
          for (const remotely of [false, true]) {
            const stands = isFresh && (!opens || (!flow.closing && remotely === flow.begun));
            expect(table.isLive(entry, 1, nowS, opens, remotely)).toBe(stands);
            expect(table.isLive(entry, 2, nowS, opens, remotely)).toBe(false);
          }
        }
      }
      const listed = table.list(nowS);
      for (const flow of listed) {
        expect(flow.verdict).toBe(3);
        expect(table.cutOne(`${flow.id}0`)).toBeUndefined();
        expect(table.cutOne(flow.id)?.id).toBe(flow.id);
      }
    }),
    { numRuns: 40 },
  );
});

it("counts neither as live nor as cut what has ended on both sides", () => {
  const table = new FlowTable();
  const open = { remoteNode: 5, localNode: 1, ports: (40_000 << 16) | 80, protocol: 6 };
  const ended = { ...open, ports: (40_001 << 16) | 80 };
  for (const tuple of [open, ended]) table.allow(key(tuple), 3, 1, 100);
  for (const remotely of [false, true]) table.noteClosing(table.find(key(ended)), remotely, false);
  expect(table.list(110).map(({ localPort }) => localPort)).toEqual([40_000]);
  expect(table.cut(3, 110).map(({ localPort }) => localPort)).toEqual([40_000]);
  expect(table.size).toBe(0);
});
