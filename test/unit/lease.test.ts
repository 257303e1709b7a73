/** Limits of consent as values: what an ask says, what is granted, what both sides hold, and the clock they end by. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import { effective, grant, type LeaseTime, leaseOfAsk, NO_STANDING, permits } from "../../src/trust/lease.ts";
import { type LeaseMark, leaseTimeAt } from "../../src/trust/lease-clock.ts";
import { TrustBook } from "../../src/trust/trust-book.ts";
import * as trust from "../../src/trust/trust-record.ts";
import { formatAskText, MAX_LEASE_MS, NO_TERMS, parseAskText, type Terms } from "../../src/wire/ask-text.ts";
import { MAX_SENT_TEXT_BYTES } from "../../src/wire/handshake.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { covers, intersectServices, parseServices, type Services, serviceWords } from "../../src/wire/services.ts";

const at = (ms: number) => ms as LeaseTime;
const wall = (ms: number) => (1_700_000_000_000 + ms) as WallClock;

const word = fc.oneof(
  fc.constantFrom("icmp", "tcp", "udp"),
  fc
    .record({ name: fc.constantFrom("tcp", "udp"), first: fc.integer({ min: 1, max: 40 }), length: fc.nat(6) })
    .map(({ name, first, length }) => `${name}/${first}-${first + length}`),
);
const services = fc.array(word, { minLength: 1, maxLength: 8 }).map((words) => parseServices(words.join(","))!);
const probes = [6, 17, 58].flatMap((protocol) => Array.from({ length: 50 }, (_, port) => [protocol, port] as const));
const reached = (list: Services | undefined) =>
  probes.filter(([protocol, port]) => list === undefined || covers(list, protocol, port)).join(" ");

describe("a list of services", () => {
  it("is read as people write it, and written in one way", () => {
    expect(serviceWords(parseServices("udp/53,tcp/443,tcp/8000-8099,icmp")!)).toEqual([
      "tcp/443",
      "tcp/8000-8099",
      "udp/53",
      "icmp",
    ]);
    expect(serviceWords(parseServices("tcp/80-90,tcp/85-95,tcp/96,udp")!)).toEqual(["tcp/80-96", "udp"]);
  });

  it.each(["", "tcp/0", "tcp/65536", "tcp/9-8", "sctp/1", "icmp/8", "tcp/1,", "tcp /1", "tcp/1;udp/2", "TCP/1"])(
    "is not %j",
    (text) => expect(parseServices(text)).toBeUndefined(),
  );

  it("has a bound", () => {
    const many = Array.from({ length: 17 }, (_, index) => `tcp/${2 * index + 1}`);
    expect(parseServices(many.slice(0, 16).join(","))).toHaveLength(16);
    expect(parseServices(many.join(","))).toBeUndefined();
  });

  it("intersects as sets of ports do", () => {
    fc.assert(
      fc.property(fc.option(services, { nil: undefined }), fc.option(services, { nil: undefined }), (a, b) => {
        const both = probes.filter(
          ([protocol, port]) =>
            (a === undefined || covers(a, protocol, port)) && (b === undefined || covers(b, protocol, port)),
        );
        expect(reached(intersectServices(a, b))).toBe(both.join(" "));
      }),
    );
  });
});

describe("the text of an ask", () => {
  const amount = (most: number) => fc.option(fc.integer({ min: 1, max: most }), { nil: undefined });
  const terms: fc.Arbitrary<Terms> = fc.record({
    services: fc.option(services, { nil: undefined }),
    durationMs: amount(MAX_LEASE_MS / 1000).map((s) => s && s * 1000),
    maxBytes: amount(1e12),
  });

  it("carries its terms in front, in words", () => {
    const ask = {
      terms: { services: parseServices("udp/53,tcp/443"), durationMs: 7_200_000, maxBytes: 50e6 },
      serial: 12,
      purpose: "invoice check",
    };
    expect(formatAskText(ask)).toBe("[lease 12: tcp/443,udp/53 for 2h max 50MB] invoice check");
    expect(formatAskText({ terms: undefined, serial: 0, purpose: "hello" })).toBe("hello");
  });

  it("is read back whole, and its terms also when the purpose is cut off", () => {
    fc.assert(
      fc.property(
        terms,
        fc.integer({ min: 1, max: 999_999_999 }),
        fc.string({ maxLength: 400 }),
        (asked, serial, purpose) => {
          const text = formatAskText({ terms: asked, serial, purpose });
          expect(parseAskText(text)).toEqual({ terms: asked, serial, purpose });
          expect(parseAskText(text.slice(0, MAX_SENT_TEXT_BYTES))).toMatchObject({ terms: asked, serial });
        },
      ),
    );
  });

  it.each([
    "[lease x: tcp/1] a",
    "[lease 1: tcp/0] a",
    "[lease 1: for 999999d] a",
    "[lease 1: max 0B] a",
    "[lease 1 tcp/1]",
    "hello [lease 1: tcp/1]",
  ])("is %j: a purpose without terms", (text) =>
    expect(parseAskText(text)).toEqual({ terms: undefined, serial: 0, purpose: text }),
  );
});

describe("what both sides hold", () => {
  it("is never more than either allows", () => {
    const terms = fc.record({
      services: fc.option(services, { nil: undefined }),
      durationMs: fc.option(fc.nat(1000), { nil: undefined }),
      maxBytes: fc.option(fc.nat(1000), { nil: undefined }),
    });
    fc.assert(
      fc.property(terms, terms, (asked, named) => {
        const asker = leaseOfAsk(asked, NO_STANDING, at(0));
        const granted = grant(NO_STANDING, asked, named, 1, at(0));
        // Each side sees the other's words from its own place.
        const seen = granted && { ...granted, inward: granted.outward, outward: granted.inward };
        const here = effective(asker, seen);
        const there = effective(granted, { ...asker, inward: asker.outward, outward: asker.inward });
        for (const [protocol, port] of probes) {
          const allowed = [asked.services, named.services].every(
            (list) => list === undefined || covers(list, protocol, port),
          );
          expect(permits(here, "out", protocol, port)).toBe(allowed);
          expect(permits(there, "in", protocol, port)).toBe(allowed);
          expect(permits(there, "out", protocol, port)).toBe(permits(here, "in", protocol, port));
        }
        const least = (a: number | undefined, b: number | undefined) =>
          a === undefined || b === undefined ? (a ?? b) : Math.min(a, b);
        expect([here?.endsAt, there?.endsAt]).toEqual(Array(2).fill(least(asked.durationMs, named.durationMs)));
        expect([here?.leftBytes, there?.leftBytes]).toEqual(Array(2).fill(least(asked.maxBytes, named.maxBytes)));
      }),
    );
  });
});

describe("a record with limits", () => {
  it("is read back from the file as it was, and no damage to its limits goes unnoticed", () => {
    const asked = trust.ask(trust.emptyRecord(nodeId(7), wall(0)), "check", wall(1), {
      services: parseServices("tcp/443"),
      durationMs: 5_000,
      maxBytes: 9,
    });
    const mutual = trust.heardLimits(
      trust.heardAccept(asked, undefined, wall(2), at(2)),
      { inward: [], outward: parseServices("tcp/1-500"), endsAt: at(99), leftBytes: undefined },
      1,
      at(3),
    );
    const waiting = trust.heardRequest(
      trust.emptyRecord(nodeId(8), wall(0)),
      { reason: "r", at: wall(1), terms: { ...NO_TERMS, durationMs: 60_000 }, serial: 4 },
      wall(1),
    );
    const ended = trust.endLease({ ...mutual, node: nodeId(9) }, "bytes", wall(5));
    const book = new TrustBook();
    for (const record of [mutual, waiting, ended]) book.put(record);
    const stored = JSON.parse(JSON.stringify(book.toJson()));
    expect([...TrustBook.fromJson(stored)!.records()]).toEqual([...book.records()]);
    const paths = [
      ["lease", "inward"],
      ["lease", "outward"],
      ["lease", "ends_at_ms"],
      ["lease", "left_bytes"],
      ["lease", "max_bytes"],
      ["lease", "answers"],
      ["peer_lease", "inward"],
      ["peer_lease", "ends_at_ms"],
      ["ask", "serial"],
      ["ask", "answered"],
      ["ask", "services"],
    ] as const;
    for (const [part, key] of paths) {
      for (const wrong of ["tcp/0", ["tcp/0"], [5], { a: 1 }]) {
        const damaged = structuredClone(stored);
        damaged.records[0][part][key] = wrong;
        expect(TrustBook.fromJson(damaged), `${part}.${key} ${JSON.stringify(wrong)}`).toBeUndefined();
      }
    }
    for (const part of ["lease", "peer_lease", "ask"]) {
      const damaged = structuredClone(stored);
      damaged.records[0][part] = 5;
      expect(TrustBook.fromJson(damaged), part).toBeUndefined();
    }
  });
});

describe("the clock of leases", () => {
  const mark: LeaseMark = { at: at(1_000), boot: "one", sinceBootMs: 50_000, wall: wall(0) };

  it("goes by the kernel's clock within one boot, whatever the wall clock says", () => {
    for (const jump of [-1e12, 0, 1e12]) {
      expect(leaseTimeAt(mark, { boot: "one", sinceBootMs: 57_000, wall: wall(jump) })).toBe(8_000);
    }
  });

  it("goes by the wall clock over a reboot, and never back", () => {
    expect(leaseTimeAt(mark, { boot: "two", sinceBootMs: 90_000, wall: wall(3_000) })).toBe(4_000);
    expect(leaseTimeAt(mark, { boot: "two", sinceBootMs: 90_000, wall: wall(-3_000) })).toBe(1_000);
    // A container that tells its host's boot and its own time since then.
    expect(leaseTimeAt(mark, { boot: "one", sinceBootMs: 10, wall: wall(3_000) })).toBe(4_000);
  });

  it("begins when there was none", () => {
    expect(leaseTimeAt(undefined, { boot: "one", sinceBootMs: 5, wall: wall(0) })).toBe(0);
  });
});
