/** What waits for the disk: its order, its bounds, and what is said of what did not fit. */
import { describe, expect, it } from "vitest";
import { type FlowEnds, flowIdOf } from "../../src/audit/flow-id.ts";
import { FlowQuota, PEER_AT_ONCE, PEER_PER_SECOND } from "../../src/audit/flow-quota.ts";
import { parseRecord } from "../../src/audit/record.ts";
import { type Scope, Tally } from "../../src/audit/tally.ts";
import { instant } from "../../src/base/instant.ts";
import { isoUtc } from "../../src/base/utc.ts";
import { crypto, event, MemoryLog, START } from "../helpers/audit-log.ts";

describe("the journal", () => {
  it("keeps what matters when too much waits, counts the rest by kind, and says so when it can write again", () => {
    const log = new MemoryLog({ maxFileBytes: 1 << 24 });
    for (let i = 0; i < 10_000; i++) log.journal.add(event("flow-open", { i }));
    for (let i = 0; i < 3_000; i++) log.journal.add({ ...event("trust", { i }), matters: true });
    expect(log.journal.waiting).toBe(8_192);
    expect(log.journal.lost).toBe(13_000 - 8_192);
    log.flush();
    log.seal();
    const records = log.records();
    const gaps = records.filter((record) => record.event === "gap");
    expect(gaps).toMatchObject([{ lost: 4_808, kinds: { "flow-open": 10_000 - 6_144, trust: 3_000 - 2_048 } }]);
    expect(records.filter((record) => record.event === "trust")).toHaveLength(2_048);
    const report = log.verify();
    expect(report.findings).toEqual([]);
    expect(report.admissions).toMatchObject([{ kind: "gap", detail: "4808 events were not written down" }]);
  });

  it("gives the same write again until it is done, and what came meanwhile after it", () => {
    const log = new MemoryLog();
    log.journal.add(event("denial", { n: 1 }));
    const write = log.journal.takeWrite(START);
    log.journal.add(event("denial", { n: 2 }));
    expect(log.journal.takeWrite(START)).toBe(write);
    log.flush();
    expect(log.records().map(({ event, n }) => [event, n])).toEqual([
      ["file", undefined],
      ["denial", 1],
      ["denial", 2],
    ]);
  });

  it("asks an event for its fields only when its line is made", () => {
    const log = new MemoryLog();
    let asked = 0;
    log.journal.add({ event: "flow-open", at: START, fields: () => ({ asked: ++asked }) });
    expect(asked).toBe(0);
    log.flush();
    expect(asked).toBe(1);
  });

  it("makes one line of whatever text is in an event", () => {
    const log = new MemoryLog();
    const name = 'a\n"b"\u2028\ud800 \u0000,"hash":"x"}';
    log.journal.add(event("trust", { name }));
    log.flush();
    const [, line] = log.lines(1);
    expect(log.lines(1)).toHaveLength(2);
    expect(parseRecord(line!.trimEnd())?.fields.name).toBe(name);
  });
});

describe("a tally", () => {
  const tally = () => new Tally<{ count: number; scope: Scope }>([1_000, 10_000, 60_000]);
  const note = (to: ReturnType<typeof tally>, owner: number, key: string, at: number) => {
    to.sumFor(owner, key, instant(at), (scope) => ({ count: 0, scope })).count++;
  };

  it("tells a new key soon, then ever more rarely, and forgets it when it is quiet", () => {
    const denials = tally();
    note(denials, 1, "a", 0);
    note(denials, 1, "a", 999);
    expect(denials.pollTimeout()).toBe(1_000);
    expect(denials.take(instant(999))).toEqual([]);
    expect(denials.take(instant(1_000))).toEqual([{ count: 2, scope: "key" }]);
    note(denials, 1, "a", 1_001);
    expect(denials.take(instant(10_999))).toEqual([]);
    expect(denials.take(instant(11_000))).toEqual([{ count: 1, scope: "key" }]);
    note(denials, 1, "a", 12_000);
    expect(denials.pollTimeout()).toBe(71_000);
    expect(denials.take(instant(71_000))).toHaveLength(1);
    expect(denials.take(instant(131_000))).toEqual([]);
    expect(denials.pollTimeout()).toBeUndefined();
  });

  it("adds up what one peer does beyond its share, and what all do beyond the whole, without losing a count", () => {
    const denials = tally();
    for (let i = 0; i < 1_000; i++) note(denials, 1, `1 ${i}`, 0);
    const ofOne = denials.takeAll(instant(1));
    expect(ofOne).toHaveLength(65);
    expect(ofOne.at(-1)).toEqual({ count: 936, scope: "owner" });
    for (let i = 0; i < 5_000; i++) note(denials, i + 2, `${i + 2}`, 2);
    const ofAll = denials.takeAll(instant(3));
    expect(ofAll.length).toBeLessThanOrEqual(1_025);
    expect(ofAll.at(-1)?.scope).toBe("everybody");
    expect(ofAll.reduce((total, { count }) => total + count, 0)).toBe(5_000);
  });
});

describe("the quota of flow records", () => {
  it("lets no peer take what another may have, and fills up again", () => {
    const quota = new FlowQuota(instant(0));
    const taken = (node: number, at: number) => {
      let count = 0;
      while (quota.take(node, instant(at))) count++;
      return count;
    };
    expect(taken(1, 0)).toBe(PEER_AT_ONCE);
    expect(taken(2, 0)).toBe(PEER_AT_ONCE);
    expect(taken(1, 1_000)).toBe(PEER_PER_SECOND);
  });
});

describe("a flow's name", () => {
  const a = { local: Uint8Array.of(0, 1), localPort: 51_000 };
  const b = { local: Uint8Array.of(0, 2), localPort: 443 };
  const tcp = { protocol: 6, asker: undefined, openingSequence: 17 } as const;
  const from = (one: typeof a, two: typeof a, rest: Omit<FlowEnds, "local" | "remote" | "localPort" | "remotePort">) =>
    flowIdOf(crypto, { ...one, remote: two.local, remotePort: two.localPort, ...rest });

  it("is the same at both ends, whoever looks", () => {
    expect(from(a, b, tcp)).toBe(from(b, a, tcp));
    expect(from(a, b, tcp)).toMatch(/^[0-9a-f]{24}$/);
    const asks = from(a, b, { ...tcp, protocol: 58, asker: "local" });
    expect(asks).toBe(from(b, a, { ...tcp, protocol: 58, asker: "remote" }));
    expect(asks).not.toBe(from(a, b, { ...tcp, protocol: 58, asker: "remote" }));
  });

  it("is another for another protocol, port, address or connection", () => {
    const names = [
      from(a, b, tcp),
      from(a, b, { ...tcp, protocol: 17 }),
      from(a, b, { ...tcp, openingSequence: 18 }),
      from(a, b, { ...tcp, openingSequence: undefined }),
      from(a, b, { ...tcp, openingSequence: 0 }),
      from({ ...a, localPort: 443 }, { ...b, localPort: 51_000 }, tcp),
      from({ ...a, local: Uint8Array.of(0, 3) }, b, tcp),
    ];
    expect(new Set(names).size).toBe(names.length);
  });
});

describe("a moment as text", () => {
  it("is what Date says, from year 0 to 9999", () => {
    const DAY_MS = 86_400_000;
    for (let day = -719_000; day < 2_900_000; day += 97) {
      const at = day * DAY_MS + ((day * 7_919) % DAY_MS);
      expect(isoUtc(at as never)).toBe(new Date(at).toISOString());
    }
    expect(isoUtc(253_402_300_800_000 as never)).toBe("9999-12-31T23:59:59.999Z");
  });
});
