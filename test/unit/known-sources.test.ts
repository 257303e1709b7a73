import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { KnownSources } from "../../src/rendezvous/known-sources.ts";
import { TABLE_BITS } from "../../src/rendezvous/source-sorting.ts";

const MINUTE = 60_000;
const at = (minutes: number) => instant(minutes * MINUTE);
const bitsOf = (sources: KnownSources, minutes: number): number =>
  sources.table(5, at(minutes)).reduce((sum, word) => sum + word.toString(2).replaceAll("0", "").length, 0);
const address = (net: number, index: number): string => `${net}.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;

describe("a source that showed itself", () => {
  it("is known for a quarter of an hour after it last did", () => {
    const sources = new KnownSources();
    sources.noteProof("198.51.100.1", at(0));
    sources.noteConnection("198.51.100.2", at(0));
    sources.noteConnection("198.51.100.2", at(10));
    expect([sources.has("198.51.100.1", at(14)), sources.has("198.51.100.2", at(14))]).toEqual([true, true]);
    expect([sources.has("198.51.100.1", at(15)), sources.has("198.51.100.2", at(24))]).toEqual([false, true]);
    expect([bitsOf(sources, 14), bitsOf(sources, 24), bitsOf(sources, 25)]).toEqual([2, 1, 0]);
    expect(sources.has("198.51.100.3", at(1))).toBe(false);
  });

  it("changes what is sorted by when it is new, and when it was forgotten, and not in between", () => {
    const sources = new KnownSources();
    const revisions = [0, 5, 25].map((minutes) => {
      sources.noteProof("198.51.100.1", at(minutes));
      return sources.revision;
    });
    expect(revisions).toEqual([1, 1, 2]);
  });

  it("is a whole /64 of IPv6", () => {
    const sources = new KnownSources();
    sources.noteProof("2001:db8:0:1::5", at(0));
    sources.noteProof("2001:db8:0:1::6", at(0));
    expect([sources.revision, bitsOf(sources, 1)]).toEqual([1, 1]);
  });
});

it("this machine's own addresses are known for ever", () => {
  const sources = new KnownSources();
  sources.noteOwn("127.0.0.1");
  expect(bitsOf(sources, 1_000_000)).toBe(1);
});

it("connections without number push no proven source out, and leave half of the table empty", () => {
  const sources = new KnownSources();
  sources.noteProof("198.51.100.1", at(0));
  const proven = sources.table(5, at(0));
  for (let i = 0; i < 70_000; i++) sources.noteConnection(address(10, i), at(0));
  expect(sources.connectedCount).toBe(65_536);
  expect(sources.has("198.51.100.1", at(1))).toBe(true);
  expect(sources.table(5, at(1)).every((word, index) => (word & proven[index]!) >>> 0 === proven[index])).toBe(true);
  expect(bitsOf(sources, 1)).toBe(TABLE_BITS / 2);
});

it("proven sources are all in the table, though it sorts less then", () => {
  const sources = new KnownSources();
  for (let i = 0; i < 60_000; i++) sources.noteProof(address(10, i), at(0));
  sources.noteConnection("198.51.100.1", at(0));
  const without = bitsOf(sources, 1);
  expect(without).toBeGreaterThan(0.9 * TABLE_BITS);
});
