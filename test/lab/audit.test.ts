/** The audit log of real daemons: what is in it, and what becomes of it when a daemon or its disk fails. */
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LAUNCHER, Lab, type Reply } from "../helpers/lab.ts";

let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("audit", { hosts: ["a", "b"] });
  await lab.startRendezvous();
  await Promise.all(["a", "b"].map((host) => lab.startNode(host)));
  await lab.trust("a", "b");
});

afterAll(async () => {
  await lab?.close();
});

const folderOf = (host: string) => `${lab.node(host).stateDir}/audit`;

/** Every record that matches, after what waits was written. */
async function recordsOf(host: string, match: Record<string, unknown> = {}, ...args: string[]): Promise<Reply[]> {
  const words = ["--control", lab.node(host).control, "audit", "export", ...args];
  const { stdout } = await lab.exec(host, LAUNCHER, words);
  const records = stdout.split("\n").flatMap((line): Reply[] => (line === "" ? [] : [JSON.parse(line)]));
  return records.filter((record) => Object.entries(match).every(([key, value]) => record[key] === value));
}

const verifyOf = async (host: string) => (await lab.tryPilot(host, "audit", "verify")).reply;

describe("the audit log", () => {
  it("begins with who runs, and is found whole while it is written", async () => {
    const [head, start] = await recordsOf("a");
    expect(head).toMatchObject({ seq: 1, event: "file", file: 1, previous: null });
    const { node, address } = lab.node("a");
    expect(start).toMatchObject({ event: "start", after: "nothing", self: { node, address, name: "a" } });
    expect(await verifyOf("a")).toMatchObject({ whole: true, findings: [], admissions: [] });
  });

  it("goes on after kill -9, says that the last run did not end, and is whole", async () => {
    await lab.stopNode("a", "SIGKILL");
    await lab.startNode("a");
    expect((await recordsOf("a", { event: "start" })).at(-1)).toMatchObject({ after: "crash" });
    await lab.stopNode("a");
    await lab.startNode("a");
    expect((await recordsOf("a", { event: "start" })).at(-1)).toMatchObject({ after: "stop", unsealed: 0 });
    expect(await verifyOf("a")).toMatchObject({ whole: true });
  });
});

describe("pilot-tun audit verify", () => {
  it("names the record that was changed, and one that was cut off, while no daemon runs", async () => {
    await lab.stopNode("b");
    const file = `${folderOf("b")}/audit-00000001.jsonl`;
    const text = readFileSync(file, "utf8");
    const verify = ["--json", "audit", "verify", "--dir", folderOf("b")];
    const findings = async () => JSON.parse((await lab.exec("b", LAUNCHER, verify)).stdout).findings;
    expect(await findings()).toEqual([]);
    writeFileSync(file, text.replace('"name":"b"', '"name":"c"'));
    expect(await findings()).toMatchObject([{ kind: "changed", file: "audit-00000001.jsonl", seq: 2, line: 2 }]);
    const lines = text.trimEnd().split("\n");
    writeFileSync(file, `${lines.slice(0, -1).join("\n")}\n`);
    expect(await findings()).toMatchObject([{ kind: "missing", seq: lines.length, toSeq: lines.length }]);
    await lab.startNode("b");
    const { whole, admissions } = await verifyOf("b");
    expect(whole).toBe(true);
    expect(admissions[0]).toMatchObject({ kind: "lost", seq: lines.length });
  });
});
