/** The audit log on a real disk: what the daemon does when the disk, or somebody at it, does not play along. */
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Journal } from "../../src/audit/journal.ts";
import { lastOfAuditLog, readAuditLog, verifyAuditLog } from "../../src/daemon/audit-files.ts";
import { AuditLog } from "../../src/daemon/audit-log.ts";
import { AuditDirectory, auditFileName } from "../../src/io/audit-directory.ts";
import { crypto, event, signer } from "../helpers/audit-log.ts";
import { runCli, temporaryDirectory } from "../helpers/control-fixture.ts";

let directory: ReturnType<typeof temporaryDirectory>;
let path: string;
const logs: AuditLog[] = [];

beforeEach(() => {
  directory = temporaryDirectory();
  path = `${directory.path}/audit`;
  vi.spyOn(process.stderr, "write").mockReturnValue(true);
});

afterEach(async () => {
  await Promise.all(logs.splice(0).map((log) => log.close(event("stop"))));
  vi.restoreAllMocks();
  directory.remove();
});

function open(files = new AuditDirectory(path), maxFileBytes = 1 << 20): AuditLog {
  const journal = new Journal({ crypto, signer: signer(), keepFiles: 3, maxFileBytes });
  const started = ({ lastEvent, unsealed }: { lastEvent: string | undefined; unsealed: number }) =>
    event("start", { lastEvent: lastEvent ?? null, unsealed });
  const log = new AuditLog({ journal, directory: files, started });
  logs.push(log);
  log.start();
  return log;
}

const soon = () => AbortSignal.timeout(5_000);
const events = () => [...readAuditLog(path)].map(({ record }) => record.event);
const verify = () => verifyAuditLog(path, { known: [], fingerprint: undefined });
const current = () =>
  `${path}/${readdirSync(path)
    .filter((name) => name.endsWith("jsonl"))
    .sort()
    .at(-1)}`;

describe("the audit log", () => {
  it("writes by itself, seals when asked, and goes on where the last run ended", async () => {
    const first = open();
    first.add(event("denial"));
    await vi.waitFor(() => expect(events()).toEqual(["file", "start", "denial"]));
    expect(await first.flush(soon())).toMatchObject({ seq: 3, sealedSeq: 3, waiting: 0, lost: 0, failure: null });
    await first.close(event("stop"));
    const second = open();
    await second.flush(soon());
    expect(events()).toEqual(["file", "start", "denial", "stop", "start"]);
    expect(lastOfAuditLog(path, 1)[0]!.record.fields).toMatchObject({ lastEvent: "stop", unsealed: 0 });
    expect(verify().findings).toEqual([]);
  });

  it("keeps the newest files and no more", async () => {
    const log = open(undefined, 64 * 1024);
    for (let i = 0; i < 2_000; i++) {
      log.add(event("flow-open", { text: "x".repeat(100) }));
      if (i % 100 === 0) await log.flush(soon());
    }
    await log.flush(soon());
    expect(readdirSync(path).filter((name) => name.endsWith("jsonl"))).toHaveLength(3);
    expect(readdirSync(path)).not.toContain(auditFileName(1));
    const report = verify();
    expect(report.findings).toEqual([]);
    expect(report.first!.seq).toBeGreaterThan(1);
  });

  it("cuts off what a crash left unfinished, and says so", async () => {
    await open().flush(soon());
    logs.splice(0); // killed: nothing of it runs any more
    appendFileSync(current(), '{"seq":3,"at":"2030');
    const log = open();
    await log.flush(soon());
    expect(events()).toEqual(["file", "start", "repair", "start"]);
    expect(verify().findings).toEqual([]);
    expect(verify().admissions).toMatchObject([{ detail: "19 bytes of an unfinished record were cut off" }]);
  });

  it("does not stop a daemon whose disk refuses it: it shows a problem, and catches up when it may", async () => {
    writeFileSync(path, "in the way");
    const log = open();
    for (let i = 0; i < 9_000; i++) log.add(event("flow-open"));
    const facts = await log.flush(soon());
    expect(facts.failure).toContain("EEXIST");
    expect(facts.lost).toBeGreaterThan(2_000);
    const [problem] = log.problems.values();
    expect(problem).toMatchObject({ code: "audit_failing" });
    expect(problem!.message).toMatch(/packets go on\. \d+ events wait, \d+ are lost/);
    rmSync(path);
    expect(await log.flush(soon())).toMatchObject({ failure: null, waiting: 0 });
    expect(log.problems.size).toBe(0);
    expect(events().filter((name) => name === "gap")).toHaveLength(1);
    expect(verify().findings).toEqual([]);
  });

  it("finishes a write of which only a part went to the disk, and tears no record", async () => {
    class Narrow extends AuditDirectory {
      isFull = false;
      override async append(...[write]: Parameters<AuditDirectory["append"]>): Promise<void> {
        if (this.isFull) throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
        await super.append(write);
      }
    }
    const files = new Narrow(path);
    const log = open(files);
    await log.flush(soon());
    files.isFull = true;
    log.add(event("denial"));
    expect((await log.flush(soon())).failure).toContain("ENOSPC");
    expect([...log.problems.values()][0]!.hint).toContain("Make room");
    files.isFull = false;
    await log.flush(soon());
    expect(events()).toEqual(["file", "start", "denial"]);
    expect(verify().findings).toEqual([]);
  });

  it("writes nothing twice when an old file could not be removed at once", async () => {
    const log = open(undefined, 64 * 1024);
    const file = (number: number) => `${path}/${auditFileName(number)}`;
    const fillUpTo = async (number: number) => {
      for (let i = 0; !existsSync(file(number)) && i < 200; i++) {
        for (let j = 0; j < 20; j++) log.add(event("flow-open", { text: "x".repeat(100) }));
        await log.flush(soon());
      }
    };
    await fillUpTo(3);
    rmSync(file(1)); // the fourth takes it away, and finds something else in its place
    mkdirSync(file(1));
    await fillUpTo(4);
    expect((await log.flush(soon())).failure).toContain("EISDIR");
    rmdirSync(file(1));
    expect((await log.flush(soon())).failure).toBeNull();
    expect([...log.problems.keys()]).toEqual([]);
    expect(verify().findings).toEqual([]);
  });

  it.each([
    ["removed", (file: string) => rmSync(file)],
    ["removed", (file: string) => renameSync(file, `${file}.elsewhere`)],
    ["shortened", (file: string) => truncateSync(file, 40)],
    ["grown", (file: string) => appendFileSync(file, "somebody was here\n")],
  ])("notices that its file was %s by somebody else, says it, and begins a new one", async (what, disturb) => {
    const log = open();
    log.add(event("denial"));
    await log.flush(soon());
    disturb(current());
    log.add(event("denial"));
    await log.flush(soon());
    expect(log.problems.get("audit_disturbed")?.message).toContain(what);
    log.add(event("denial"));
    await log.flush(soon());
    const report = verify();
    expect(report.findings.length).toBeGreaterThan(0);
    expect(report.admissions.some(({ detail }) => detail.includes(`file 1 was ${what}`))).toBe(true);
    expect(lastOfAuditLog(path, 2).map(({ record }) => record.event)).toEqual(["repair", "denial"]);
  });

  it("keeps its files from other users", async () => {
    await open().flush(soon());
    const modes = [path, ...readdirSync(path).map((name) => `${path}/${name}`)].map((name) => statSync(name).mode);
    expect(modes.filter((mode) => (mode & 0o077) !== 0)).toEqual([]);
  });
});

describe("audit", () => {
  async function filled(): Promise<AuditLog> {
    const log = open();
    const bob = { node: 7, pilot: "0:0000.0000.0007", address: "fd50:494c:4f54::7", name: "bob" };
    log.add(event("trust", { peer: bob, from: "none", to: "asked" }, 1_000_000_000_000 as never));
    log.add(
      event("denial", { peer: { node: 8 }, count: 3, reason: "policy", ports: [22] }, 1_900_000_100_000 as never),
    );
    await log.flush(soon());
    return log;
  }

  it("verify says that a whole log is whole, and exits with a failure naming the record that is not", async () => {
    await filled();
    const whole = await runCli(["audit", "verify", "--dir", path]);
    expect(whole.code).toBe(0);
    expect(whole.out).toMatch(/^whole: 4 records in 1 file\n/);
    const [, hash] = /^hash {5}(4:[0-9a-f]{64})$/m.exec(whole.out)!;
    expect((await runCli(["audit", "verify", "--dir", path, "--known", hash!])).code).toBe(0);
    const file = current();
    writeFileSync(file, readFileSync(file, "utf8").replace('"count":3', '"count":1'));
    const changed = await runCli(["--json", "audit", "verify", "--dir", path]);
    expect(changed.code).toBe(1);
    const { whole: isWhole, findings } = JSON.parse(changed.out);
    expect(isWhole).toBe(false);
    expect(findings).toMatchObject([{ kind: "changed", file: "audit-00000001.jsonl", line: 4, seq: 4 }]);
  });

  it("verify holds the seal against the identity beside the log, or the key that is named", async () => {
    await filled();
    const own = Buffer.from(signer().publicKey).toString("base64");
    const other = Buffer.from(signer(8).publicKey).toString("base64");
    writeFileSync(`${directory.path}/identity.json`, JSON.stringify({ public_key: own }));
    expect((await runCli(["audit", "verify", "--dir", path])).code).toBe(0);
    writeFileSync(`${directory.path}/identity.json`, JSON.stringify({ public_key: other }));
    expect((await runCli(["audit", "verify", "--dir", path])).out).toContain("another key than the one expected");
    expect((await runCli(["audit", "verify", "--dir", path, "--key", "SHA256:abc"])).code).toBe(1);
  });

  it("tail prints the newest as people read them, or as they stand", async () => {
    await filled();
    const { out } = await runCli(["audit", "tail", "--dir", path, "--lines", "2"]);
    expect(out).toMatch(
      /^2001-09-09 01:46:40 +3 +trust +bob: none → asked\n2030.* denial .*refused 3 times: policy\n$/,
    );
    const raw = await runCli(["--json", "audit", "tail", "--dir", path, "--lines", "1"]);
    expect(raw.out).toBe(`${readFileSync(current(), "utf8").trimEnd().split("\n").at(-1)}\n`);
  });

  it("export picks by time and peer", async () => {
    await filled();
    const exported = async (...args: string[]) => (await runCli(["audit", "export", "--dir", path, ...args])).out;
    expect((await exported()).trimEnd().split("\n")).toHaveLength(4);
    for (const peer of ["bob", "bob.pilot", "7", "0:0000.0000.0007", "fd50:494c:4f54::7"]) {
      expect(JSON.parse(await exported("--peer", peer)).event).toBe("trust");
    }
    expect(JSON.parse(await exported("--since", "2030-03-17T17:47Z")).event).toBe("denial");
    expect(JSON.parse(await exported("--until", "2010-01-01")).event).toBe("trust");
    const { code, err } = await runCli(["audit", "export", "--dir", path, "--since", "yesterday"]);
    expect(code).toBe(2);
    expect(err).toContain("is not a time");
  });

  it("says what is wrong with a folder that is none", async () => {
    mkdirSync(path);
    const empty = await runCli(["audit", "verify", "--dir", path]);
    expect(empty.out).toContain("whole: 0 records in 0 files");
    const missing = await runCli(["audit", "verify", "--dir", `${path}/none`]);
    expect(missing.code).toBe(1);
    expect(missing.err).toContain("(ENOENT)");
  });
});
