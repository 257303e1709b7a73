/** Whatever is done to a log that was written is named; a log that was left alone is found to be whole. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hashOf, NO_HASH } from "../../src/audit/record.ts";
import type { Finding } from "../../src/audit/verify.ts";
import { crypto, event, MemoryLog, nameOf, START, seqOf, signer } from "../helpers/audit-log.ts";

const RUNS = { numRuns: 100 } as const;

const text = fc.string({ unit: "binary", maxLength: 40 });
const eventsIn = fc.array(fc.record({ name: fc.constantFrom("flow-open", "flow-close", "denial", "trust"), text }), {
  minLength: 1,
  maxLength: 60,
});

function logOf(events: readonly { name: string; text: string }[], options = {}): MemoryLog {
  const log = new MemoryLog(options);
  for (const [index, { name, text }] of events.entries()) {
    log.journal.add(event(name, { text, index }));
    if (index % 7 === 6) log.flush();
  }
  log.flush();
  log.seal();
  return log;
}

/** A line of the log, chosen by fractions. */
function pick(log: MemoryLog, fileAt: number, lineAt: number): { number: number; index: number; lines: string[] } {
  const numbers = log.numbers();
  const number = numbers[Math.floor(fileAt * numbers.length)]!;
  const lines = log.lines(number);
  return { number, index: Math.floor(lineAt * lines.length), lines };
}

/** Evenly: any byte is as likely as the first. */
const fraction = fc.noBias(fc.integer({ min: 0, max: 999_999 })).map((millionths) => millionths / 1_000_000);

const names = (finding: Finding, number: number, seqs: readonly number[], lines: readonly number[]): boolean =>
  finding.file === nameOf(number) &&
  ((finding.seq !== null && seqs.some((seq) => finding.seq! <= seq && seq <= finding.toSeq!)) ||
    (finding.line !== null && lines.includes(finding.line)));

describe("an audit log", () => {
  it("is found whole when nobody touched it, over any rotation", () => {
    fc.assert(
      fc.property(eventsIn, fc.integer({ min: 2, max: 6 }), (events, keepFiles) => {
        const log = logOf(events, { maxFileBytes: 2_048, keepFiles });
        expect(log.numbers().length).toBeLessThanOrEqual(keepFiles);
        const report = log.verify();
        expect(report.findings).toEqual([]);
        expect(report.admissions).toEqual([]);
        expect(report.sealedSeq).toBe(report.last!.seq);
        expect(report.records).toBe(report.last!.seq - report.first!.seq + 1);
      }),
      RUNS,
    );
  });

  it("names the record in which one byte was changed, and no other", () => {
    fc.assert(
      fc.property(eventsIn, fraction, fraction, fc.integer({ min: 1, max: 255 }), (events, fileAt, byteAt, mask) => {
        const log = logOf(events);
        const { number, lines } = pick(log, fileAt, 0);
        const bytes = Buffer.from(log.files.get(number)!);
        const at = Math.floor(byteAt * bytes.length);
        const line = bytes.subarray(0, at).filter((byte) => byte === 10).length;
        const seq = seqOf(lines[line]!);
        bytes[at]! ^= mask;
        log.files.set(number, bytes);
        const { findings } = log.verify();
        expect(findings.some((finding) => names(finding, number, [seq], [line + 1]))).toBe(true);
        // A changed line feed joins two lines.
        const mayName = [null, seq, seq + 1];
        expect(findings.filter((finding) => !mayName.includes(finding.seq) && finding.kind !== "missing")).toEqual([]);
      }),
      RUNS,
    );
  });

  it("knows a record again whose number alone was changed", () => {
    const log = logOf(Array.from({ length: 9 }, () => ({ name: "denial", text: "" })));
    const lines = log.lines(1);
    for (const [index, seq] of [
      [4, 2],
      [4, 8],
      [4, 700],
    ] as const) {
      log.setLines(1, lines.with(index, lines[index]!.replace(/"seq":\d+/, `"seq":${seq}`)));
      expect(log.verify().findings).toMatchObject([{ kind: "changed", seq: index + 1, line: index + 1 }]);
    }
  });

  it("names the records that were taken out of it", () => {
    fc.assert(
      fc.property(eventsIn, fraction, fraction, fc.integer({ min: 1, max: 5 }), (events, fileAt, lineAt, count) => {
        const log = logOf(events);
        const { number, index, lines } = pick(log, fileAt, lineAt);
        const gone = lines.splice(index, count).map(seqOf);
        fc.pre(lines.length > 0);
        log.setLines(number, lines);
        const { findings } = log.verify();
        const isFirst = number === log.numbers()[0] && index === 0;
        const missing = findings.filter(({ kind }) => kind === "missing");
        if (isFirst) expect(findings[0]).toMatchObject({ kind: "head", file: nameOf(number), line: 1 });
        else expect(missing).toMatchObject([{ seq: gone[0], toSeq: gone.at(-1) }]);
      }),
      RUNS,
    );
  });

  it("names what was cut off at its end, at any byte, and a file that was removed", () => {
    fc.assert(
      fc.property(eventsIn, fraction, (events, byteAt) => {
        const log = logOf(events);
        const number = log.numbers().at(-1)!;
        const whole = log.files.get(number)!;
        const last = log.records().at(-1).seq;
        log.files.set(number, whole.subarray(0, Math.floor(byteAt * whole.length)));
        const missing = log.verify().findings.filter(({ kind }) => kind === "missing");
        expect(missing).toMatchObject([{ file: nameOf(number), toSeq: last }]);
        log.files.delete(number);
        expect(log.verify().findings.some(({ kind, toSeq }) => kind === "missing" && toSeq === last)).toBe(true);
      }),
      RUNS,
    );
  });

  it("names a file that is gone from its middle or its beginning", () => {
    fc.assert(
      fc.property(fraction, (fileAt) => {
        const events = Array.from({ length: 60 }, (_, index) => ({ name: "denial", text: String(index) }));
        const log = logOf(events, { maxFileBytes: 2_048 });
        const numbers = log.numbers();
        const number = numbers[Math.floor(fileAt * (numbers.length - 1))]!;
        log.files.delete(number);
        const missing = log.verify().findings.filter(({ kind }) => kind === "missing");
        expect(missing.some(({ detail }) => detail.includes(`file ${number} `))).toBe(true);
      }),
      RUNS,
    );
  });

  it("names records that change places, and one that stands there twice", () => {
    fc.assert(
      fc.property(eventsIn, fraction, fraction, fraction, (events, fileAt, one, other) => {
        const log = logOf(events);
        const { number, lines } = pick(log, fileAt, one);
        fc.pre(lines.length > 2);
        const [i, j] = [one, other].map((at) => 1 + Math.floor(at * (lines.length - 1))).sort((a, b) => a - b);
        const twice = lines.toSpliced(j!, 0, lines[i!]!);
        log.setLines(number, twice);
        expect(log.verify().findings).toMatchObject([{ kind: "repeated", seq: seqOf(lines[i!]!) }]);
        fc.pre(i !== j);
        const swapped = lines.with(i!, lines[j!]!).with(j!, lines[i!]!);
        log.setLines(number, swapped);
        const { findings } = log.verify();
        expect(findings.some(({ kind, seq }) => kind === "out-of-order" && seq === seqOf(lines[i!]!))).toBe(true);
        expect(findings.every(({ kind }) => kind === "out-of-order")).toBe(true);
      }),
      RUNS,
    );
  });

  it("names a record that was moved and changed as both", () => {
    const log = logOf(Array.from({ length: 9 }, (_, index) => ({ name: "denial", text: `n${index}` })));
    const lines = log.lines(1);
    const moved = lines[5]!.replace('"text":"n4"', '"text":"n9"');
    log.setLines(1, [...lines.slice(0, 3), moved, lines[3]!, lines[4]!, ...lines.slice(6)]);
    const { findings } = log.verify();
    expect(findings.map(({ kind, seq }) => [kind, seq])).toEqual([
      ["out-of-order", 4],
      ["out-of-order", 5],
      ["changed", 6],
    ]);
  });

  it("shows a rewritten past to whoever has the anchor, or one number and hash on paper", () => {
    fc.assert(
      fc.property(eventsIn, fraction, (events, at) => {
        const log = logOf(events, { maxFileBytes: 1 << 20 });
        const paper = log.records().at(-1);
        const lines = log.lines(1);
        const from = Math.floor(at * lines.length);
        // Somebody without the key, who knows how hashes are made.
        let previous = from === 0 ? NO_HASH : JSON.parse(lines[from - 1]!).hash;
        const forged = lines.map((line, index) => {
          if (index < from) return line;
          const body = line.replace(/,"hash":.*\n/, index === from ? ',"forged":true' : "");
          previous = hashOf(crypto, previous, body);
          return `${body},"hash":"${previous}"}\n`;
        });
        log.setLines(1, forged);
        const named = { kind: "changed", seq: lines.length };
        expect(log.verify().findings).toMatchObject([named]);
        const known = [{ seq: paper.seq, hash: paper.hash }];
        expect(log.verify({ anchor: "missing", known }).findings).toMatchObject([named, { kind: "anchor" }]);
      }),
      RUNS,
    );
  });

  it("is not taken for this node's when another key sealed it", () => {
    const log = logOf([{ name: "trust", text: "" }], { signer: signer(8) });
    const key = Buffer.from(signer(7).publicKey).toString("base64");
    const isOwnKey = (other: string) => other === key;
    expect(log.verify({ isOwnKey }).findings).toMatchObject([{ kind: "seal" }]);
    const forged = { ...log.anchor!, key };
    expect(log.verify({ isOwnKey, anchor: forged }).findings).toMatchObject([{ kind: "seal" }]);
  });

  it("shows an anchor in which anything was changed, or that is gone", () => {
    const log = logOf([{ name: "trust", text: "" }]);
    const { file, seq, hash, signature } = log.anchor!;
    const other = (text: string) => text.replace(/^./, (first) => (first === "1" ? "2" : "1"));
    const changes = [{ file: file + 1 }, { seq: seq - 1 }, { hash: other(hash) }, { signature: other(signature) }];
    for (const change of changes) {
      expect(log.verify({ anchor: { ...log.anchor!, ...change } }).findings).toContainEqual(
        expect.objectContaining({ kind: "seal" }),
      );
    }
    for (const anchor of ["missing", "damaged"] as const) {
      expect(log.verify({ anchor }).findings).toMatchObject([{ kind: "anchor" }]);
    }
  });

  it("never makes the verifier throw or overlook it, whatever bytes stand there", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 4 }), (files) => {
        const log = new MemoryLog();
        files.forEach((bytes, index) => void log.files.set(index + 1, Buffer.from(bytes)));
        expect(log.verify().findings.length).toBeGreaterThan(0);
      }),
      RUNS,
    );
  });
});

describe("a log after a crash", () => {
  it("is gone on with from any byte at which its last write ended, says so, and is whole again", () => {
    fc.assert(
      fc.property(eventsIn, eventsIn, fraction, fc.boolean(), (before, after, at, sealed) => {
        const log = logOf(before, { maxFileBytes: 2_048 });
        if (!sealed) log.anchor = undefined;
        for (const { name, text } of after) log.journal.add(event(name, { text }));
        const next = log.journal.takeWrite(START)!;
        const torn = Math.floor(at * next.bytes.length);
        log.flush(torn);
        const found = log.restart();
        log.journal.add(event("start"));
        log.flush();
        log.seal();
        const report = log.verify();
        expect(report.findings).toEqual([]);
        const isClean = sealed && (torn === 0 || next.bytes[torn - 1] === 10);
        expect(found.repair === undefined).toBe(isClean);
        expect(report.admissions.length).toBe(isClean ? 0 : 1);
        expect(log.records().at(-1).event).toBe("start");
      }),
      RUNS,
    );
  });

  it("that lost records which were sealed uses none of their numbers again, and says which are lost", () => {
    const log = logOf(Array.from({ length: 9 }, () => ({ name: "denial", text: "" })));
    const [number] = log.numbers();
    const lines = log.lines(number!);
    log.setLines(number!, lines.slice(0, -3));
    log.restart();
    log.journal.add(event("start"));
    log.flush();
    log.seal();
    const report = log.verify();
    expect(report.findings).toEqual([]);
    expect(report.admissions).toMatchObject([
      { kind: "lost", seq: 8, detail: "records 8 to 10 had been lost when the daemon started" },
      { kind: "repair", seq: 11 },
    ]);
  });

  it("leaves a file alone whose last lines cannot be read, and begins a new one", () => {
    const log = logOf(Array.from({ length: 5 }, () => ({ name: "denial", text: "" })));
    const damaged = Buffer.concat([log.files.get(1)!, Buffer.alloc(100), Buffer.from("\n")]);
    log.files.set(1, damaged);
    expect(log.restart().repair).toMatchObject({ unreadableFile: 1 });
    log.journal.add(event("start"));
    log.flush();
    log.seal();
    expect(log.files.get(1)).toEqual(damaged);
    expect(log.numbers()).toEqual([1, 2]);
    expect(log.verify().findings).toMatchObject([{ kind: "unreadable", file: nameOf(1), line: 7 }]);
  });

  it("of which every file was removed goes on behind the last sealed number", () => {
    const log = logOf(Array.from({ length: 5 }, () => ({ name: "denial", text: "" })));
    log.files.clear();
    expect(log.restart().repair).toMatchObject({ anchor: "ahead", lost: { from: 1, to: 6 } });
    log.flush();
    expect(log.records()[0].seq).toBe(7);
  });
});
