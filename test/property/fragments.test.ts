import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import {
  cutIntoFragments,
  type Fragment,
  MAX_PACKETS_PER_PEER,
  MAX_PEERS,
  Reassembly,
} from "../../src/tunnel/fragments.ts";

const MAX_BYTES = 1360;
const start = instant(0);
const packets = fc.array(fc.uint8Array({ minLength: 1, maxLength: MAX_BYTES }), { minLength: 1, maxLength: 8 });

describe("cutting", () => {
  it("makes pieces that are no longer than asked and join to the packet", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 9000 }),
        fc.integer({ min: 1, max: 1500 }),
        (packet, size) => {
          const fragments = cutIntoFragments(packet, size, 7);
          expect(Math.max(...fragments.map(({ bytes }) => bytes.length))).toBeLessThanOrEqual(size);
          expect(fragments.map(({ more }) => more)).toEqual(fragments.map((_, i) => i < fragments.length - 1));
          expect(fragments.flatMap(({ bytes }) => [...bytes])).toEqual([...packet]);
          expect(fragments.length).toBe(Math.ceil(packet.length / Math.ceil(packet.length / fragments.length)));
        },
      ),
    );
  });
});

describe("reassembly", () => {
  it("gives every packet, once, when fragments of several arrive in any order", () => {
    fc.assert(
      fc.property(packets, fc.integer({ min: 40, max: 600 }), fc.infiniteStream(fc.nat()), (all, size, random) => {
        const fragments = shuffled(cutAll(all, size), random);
        const reassembly = new Reassembly(MAX_BYTES);
        const out = fragments.flatMap((fragment) => taken(reassembly, fragment));
        expect(sorted(out)).toEqual(sorted(all));
        expect(reassembly.heldBytes).toBe(0);
        expect(reassembly.takeLost()).toBe(0);
      }),
    );
  });

  it("never gives a packet that was not sent, whatever is lost, repeated, reordered or late", () => {
    const fate = fc.record({ copies: fc.nat(3), atMs: fc.nat(5_000) });
    fc.assert(
      fc.property(packets, fc.integer({ min: 40, max: 600 }), fc.infiniteStream(fate), (all, size, fates) => {
        const arrivals = cutAll(all, size).flatMap((fragment) => {
          const { copies, atMs } = fates.next().value;
          return Array.from({ length: copies }, (_, i) => ({ fragment, atMs: atMs + 37 * i }));
        });
        arrivals.sort((a, b) => a.atMs - b.atMs);
        const reassembly = new Reassembly(MAX_BYTES);
        const sent = new Set(all.map(String));
        for (const { fragment, atMs } of arrivals) {
          for (const packet of taken(reassembly, fragment, atMs)) expect(sent).toContain(String(packet));
        }
      }),
    );
  });

  it("gives only what its fragments say, when a peer sends any fragments at all", () => {
    const anything = fc.record({
      id: fc.nat(1),
      offset: fc.nat(12),
      more: fc.boolean(),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 6 }),
    });
    fc.assert(
      fc.property(fc.array(anything, { maxLength: 40 }), (fragments) => {
        const reassembly = new Reassembly(16);
        fragments.forEach((fragment, i) => {
          for (const packet of taken(reassembly, fragment)) {
            expect(packet.length).toBeLessThanOrEqual(16);
            const seen = fragments.slice(0, i + 1).filter(({ id }) => id === fragment.id);
            packet.forEach((byte, at) => {
              expect(seen.some(({ offset, bytes }) => at >= offset && bytes[at - offset] === byte)).toBe(true);
            });
          }
        });
      }),
      { numRuns: 500 },
    );
  });

  it.each<[string, Fragment[]]>([
    ["overlap", [piece(0, 10, true), piece(9, 10, false)]],
    ["have two ends", [piece(10, 10, false), piece(30, 10, false)]],
    ["go on behind the end", [piece(10, 10, false), piece(20, 10, true)]],
    ["end before what came", [piece(20, 10, true), piece(10, 5, false)]],
    ["change", [piece(0, 10, true), { ...piece(0, 10, true), bytes: new Uint8Array(10).fill(9) }]],
    ["are longer than the interface takes", [piece(MAX_BYTES - 5, 10, false)]],
  ])("drops the whole packet when its fragments %s, and counts it once", (_, fragments) => {
    const reassembly = new Reassembly(MAX_BYTES);
    const kinds = fragments.map((fragment) => reassembly.add(1, fragment, start).kind);
    expect(kinds.at(-1)).toBe("refused");
    expect(reassembly.heldBytes).toBe(0);
    for (const rest of [piece(0, 10, true), piece(10, 10, false)]) {
      expect(reassembly.add(1, rest, start).kind).toBe("waiting");
    }
    expect(reassembly.takeLost()).toBe(0);
  });

  it("gives up a packet whose rest does not come in two seconds, and counts it", () => {
    const reassembly = new Reassembly(MAX_BYTES);
    reassembly.add(1, piece(0, 10, true), start);
    reassembly.add(1, { ...piece(0, 10, true), id: 8 }, instant(2_000));
    expect(reassembly.takeLost()).toBe(1);
    expect(reassembly.add(1, piece(10, 10, false), instant(2_001)).kind).toBe("waiting");
  });

  it("holds a bounded number of bytes under a flood of first fragments, and still serves others", () => {
    const reassembly = new Reassembly(MAX_BYTES);
    for (let id = 0; id < 20_000; id++) reassembly.add(1, { ...piece(0, 1_000, true), id }, start);
    expect(reassembly.heldBytes).toBeLessThanOrEqual(MAX_PACKETS_PER_PEER * 1_000);
    expect(reassembly.takeLost()).toBe(20_000 - MAX_PACKETS_PER_PEER);
    for (let peer = 2; peer < 3_000; peer++) reassembly.add(peer, piece(0, 1_000, true), start);
    expect(reassembly.heldBytes).toBeLessThanOrEqual((MAX_PACKETS_PER_PEER + MAX_PEERS) * 1_000);
    reassembly.add(5_000, piece(0, 10, true), start);
    expect(reassembly.add(5_000, piece(10, 10, false), start).kind).toBe("packet");
  });

  it("does not mix what two peers send under one id", () => {
    const reassembly = new Reassembly(MAX_BYTES);
    reassembly.add(1, piece(0, 10, true), start);
    expect(reassembly.add(2, piece(10, 10, false), start).kind).toBe("waiting");
  });
});

function piece(offset: number, length: number, more: boolean): Fragment {
  return { id: 7, offset, more, bytes: new Uint8Array(length).fill(1) };
}

function cutAll(all: readonly Uint8Array[], size: number): Fragment[] {
  return all.flatMap((packet, id) => cutIntoFragments(packet, size, id));
}

function taken(reassembly: Reassembly, fragment: Fragment, atMs = 0): Uint8Array[] {
  const result = reassembly.add(1, fragment, instant(atMs));
  return result.kind === "packet" ? [result.packet] : [];
}

function sorted(all: readonly Uint8Array[]): string[] {
  return all.map(String).sort();
}

function shuffled<T>(items: readonly T[], random: Iterator<number>): T[] {
  return items
    .map((item) => ({ item, key: random.next().value as number }))
    .sort((a, b) => a.key - b.key)
    .map(({ item }) => item);
}
