/** When the thread that moves packets goes before other programs: what is seen of traffic, and what is done about it. */
import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { loadOf, Preference } from "../../src/daemon/preference.ts";
import { groupsAbove } from "../../src/io/cpu-quota.ts";
import { ownTurns, parseTurns } from "../../src/io/run-queue.ts";
import { type Batch, OUT, ROW_WORDS } from "../../src/tunnel/data-plane.ts";
import {
  BULK_MS,
  LARGE_WINDOWS,
  MAX_SHORT_BYTES,
  MAX_SPARSE_RATE,
  MAX_WAIT_MS,
  MIN_BULK_RATE,
  SPARSE_MS,
  SparseTraffic,
  WAITING_MS,
  WANTED_WINDOWS,
  WINDOW_MS,
} from "../../src/tunnel/sparse-traffic.ts";

interface Packet {
  readonly protocol: number;
  readonly length: number;
  readonly port?: number;
  readonly isRun?: boolean;
}

const PING: Packet = { protocol: 58, length: 104 };
const KEY: Packet = { protocol: 6, length: 108, port: 22 };
const ACKNOWLEDGEMENT: Packet = { protocol: 6, length: 72, port: 5201 };
const TCP_HEADER_WORDS = 8; // with timestamps: 32 bytes
const BULK_PER_WINDOW = (MIN_BULK_RATE * WINDOW_MS) / 1000;

function batchOf(packets: readonly Packet[]): Batch {
  const batch = { rows: new Int32Array(packets.length * ROW_WORDS), arena: new Uint8Array(packets.length * 128) };
  packets.forEach(({ protocol, length, port = 0, isRun = false }, index) => {
    const offset = index * 128;
    batch.arena[offset + 6] = protocol;
    batch.arena[offset + 42] = port >> 8;
    batch.arena[offset + 43] = port & 0xff;
    if (protocol === 6) batch.arena[offset + 52] = TCP_HEADER_WORDS << 4;
    batch.rows[index * ROW_WORDS + OUT.OFFSET] = offset;
    batch.rows[index * ROW_WORDS + OUT.LENGTH] = length;
    batch.rows[index * ROW_WORDS + OUT.GSO_TYPE] = isRun ? 4 : 0;
  });
  return batch;
}

/** A node at which the same comes in each window. */
class Node {
  readonly traffic = new SparseTraffic(instant(0));
  nowMs = 0;
  #moved = 0;
  #turns = { waitedMs: 0, count: 0 };
  /** Undefined: the kernel does not count. */
  waitMs: number | undefined = 0;

  /** The last answer. */
  run(windows: number, { packets = [] as readonly Packet[], moved = BULK_PER_WINDOW }): boolean {
    let answer = false;
    for (let i = 0; i < windows; i++) {
      this.traffic.note(batchOf(packets), packets.length);
      this.nowMs += WINDOW_MS;
      this.#moved += moved;
      this.#turns = { waitedMs: this.#turns.waitedMs + 10 * (this.waitMs ?? 0), count: this.#turns.count + 10 };
      const turns = () => (this.waitMs === undefined ? undefined : this.#turns);
      answer = this.traffic.isHeldUp({ movedPackets: this.#moved, turns }, instant(this.nowMs));
    }
    return answer;
  }
}

describe("sparse traffic on a busy machine", () => {
  it.each([
    ["pings", PING],
    ["keys", KEY],
  ])("is %s in several windows of a transfer", (_name, packet) => {
    const node = new Node();
    expect(node.run(WANTED_WINDOWS - 1, { packets: [packet] })).toBe(false);
    expect(node.run(1, { packets: [packet] })).toBe(true);
  });

  it("is one ping a second, and no longer so when they have stopped", () => {
    const node = new Node();
    const second = Math.round(1000 / WINDOW_MS);
    for (let i = 0; i < WANTED_WINDOWS; i++) {
      node.run(1, { packets: [PING] });
      node.run(second - 1, {});
    }
    for (let i = 0; i < 5; i++) {
      expect(node.run(1, { packets: [PING] })).toBe(true);
      expect(node.run(second - 1, {})).toBe(true);
    }
    expect(node.run(SPARSE_MS / WINDOW_MS, {})).toBe(false);
  });

  it("ends with the transfer", () => {
    const node = new Node();
    expect(node.run(10, { packets: [PING] })).toBe(true);
    expect(node.run(BULK_MS / WINDOW_MS, { packets: [PING], moved: 10 })).toBe(false);
  });

  it.each([
    ["pings without a transfer", [PING], 10],
    ["a transfer's acknowledgements", [ACKNOWLEDGEMENT, ACKNOWLEDGEMENT], BULK_PER_WINDOW],
    ["long packets", [{ ...PING, length: MAX_SHORT_BYTES + 1 }], BULK_PER_WINDOW],
    ["short runs of segments", [{ ...KEY, isRun: true }], BULK_PER_WINDOW],
    ["nothing but a transfer", [], BULK_PER_WINDOW],
    [
      "a flood of short packets",
      Array.from({ length: (MAX_SPARSE_RATE * WINDOW_MS) / 1000 + 1 }, () => PING),
      BULK_PER_WINDOW,
    ],
  ])("is not %s", (_name, packets, moved) => {
    expect(new Node().run(50, { packets, moved })).toBe(false);
  });

  it("is not the short rest of each write of a transfer, but is what another connection says", () => {
    const node = new Node();
    const large = { ...KEY, length: 60_000, isRun: true, port: 5201 };
    const rest = { ...KEY, length: 432, port: 5201 };
    expect(node.run(50, { packets: [large, rest, rest] })).toBe(false);
    expect(node.run(LARGE_WINDOWS, { packets: [rest] })).toBe(false);
    expect(node.run(WANTED_WINDOWS, { packets: [large, rest, KEY] })).toBe(true);
  });

  it("is what a connection says that sent much a while ago", () => {
    const node = new Node();
    node.run(1, { packets: [{ ...KEY, length: 60_000, isRun: true }] });
    expect(node.run(LARGE_WINDOWS, { packets: [KEY] })).toBe(false);
    expect(node.run(WANTED_WINDOWS, { packets: [KEY] })).toBe(true);
  });

  it("is pings without a transfer while this thread has to wait for its turns, and for a while after", () => {
    const node = new Node();
    node.waitMs = MAX_WAIT_MS * 2;
    expect(node.run(WANTED_WINDOWS, { packets: [PING], moved: 10 })).toBe(false); // the first look has nothing to compare with
    expect(node.run(1, { packets: [PING], moved: 10 })).toBe(true);
    node.waitMs = 0; // as it is for a thread that is preferred
    expect(node.run(WAITING_MS / WINDOW_MS - WANTED_WINDOWS, { packets: [PING], moved: 10 })).toBe(true);
    expect(node.run(WANTED_WINDOWS + 1, { packets: [PING], moved: 10 })).toBe(false);
    expect(node.run(50, { packets: [PING], moved: 10 })).toBe(false);
    node.waitMs = MAX_WAIT_MS * 2;
    expect(node.run(WANTED_WINDOWS + 1, { packets: [PING], moved: 10 })).toBe(true);
  });

  it.each([
    ["waits are short", MAX_WAIT_MS / 2],
    ["nobody counts them", undefined],
  ])("is not seen in pings alone where %s", (_name, waitMs) => {
    const node = new Node();
    node.waitMs = waitMs;
    expect(node.run(50, { packets: [PING], moved: 10 })).toBe(false);
  });

  it("asks for a rate, however long a window was", () => {
    const traffic = new SparseTraffic(instant(0));
    for (let i = 1; i <= 10; i++) {
      traffic.note(batchOf([PING]), 1);
      const load = { movedPackets: i * BULK_PER_WINDOW, turns: () => undefined };
      expect(traffic.isHeldUp(load, instant(i * WINDOW_MS * 20))).toBe(false);
    }
  });
});

describe("the preference of the thread that moves packets", () => {
  function preferenceThat(isPossible: boolean, result = 0) {
    const done: boolean[] = [];
    let moved = 0;
    const load = loadOf({
      get movedPackets() {
        return moved;
      },
    });
    const preference = new Preference(load, instant(0), isPossible, (preferred) => {
      done.push(preferred);
      return result;
    });
    let nowMs = 0;
    const run = (packets: readonly Packet[], each: number) => {
      for (let i = 0; i < 20; i++) {
        preference.note(batchOf(packets), packets.length);
        nowMs += WINDOW_MS;
        moved += each;
        preference.update(instant(nowMs));
      }
    };
    return { preference, done, run };
  }

  it("is told to the kernel when it begins and when it ends", () => {
    const { preference, done, run } = preferenceThat(true);
    run([PING], BULK_PER_WINDOW);
    expect([preference.isOn, done]).toEqual([true, [true]]);
    run([PING], 0);
    expect([preference.isOn, done]).toEqual([false, [true, false]]);
  });

  it("is not asked for again where the kernel refuses, and never where something stands against it", () => {
    const refused = preferenceThat(true, -1);
    refused.run([PING], BULK_PER_WINDOW);
    expect([refused.preference.isOn, refused.done]).toEqual([false, [true]]);
    const impossible = preferenceThat(false);
    impossible.run([PING], BULK_PER_WINDOW);
    expect([impossible.preference.isOn, impossible.done]).toEqual([false, []]);
  });
});

it("the kernel's count of turns is read, and nothing else taken for one", () => {
  expect(parseTurns("863203 7092391 2\n")).toEqual({ waitedMs: 7.092391, count: 2 });
  expect(parseTurns("")).toBeUndefined();
  expect(parseTurns("0 0")).toBeUndefined();
  expect(ownTurns()!.count).toBeGreaterThan(0);
});

it("a quota of processor time may lie in every control group above, the root of the hierarchy too", () => {
  expect(groupsAbove("/system.slice/pilot-tun.service")).toEqual([
    "/system.slice/pilot-tun.service",
    "/system.slice",
    "",
  ]);
  expect(groupsAbove("/")).toEqual([""]);
});
