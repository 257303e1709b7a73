/** The audit log of real daemons and programs: what is in it, and what becomes of it when a daemon or its disk fails. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LAUNCHER, Lab, type Reply, waitUntil } from "../helpers/lab.ts";

let lab: Lab;
let policy: string;

beforeAll(async () => {
  lab = await Lab.create("audit", { hosts: ["a", "b"] });
  await lab.startRendezvous();
  policy = `${lab.folder}/policy`;
  writeFileSync(policy, "allow in any from trusted\nallow out tcp 7001 to trusted\nallow out icmp to trusted\n", {
    mode: 0o600,
  });
  await lab.startNode("a", { extraArgs: ["--policy", policy, "--see-programs"] });
  await lab.startNode("b", { extraArgs: ["--see-programs"] });
  await lab.trust("a", "b");
  const server = lab.spawn("b", "python3", ["-u", "-c", SERVER, lab.overlay("b")]);
  await server.waitForLine(/listening/);
});

afterAll(() => lab?.close());

const folderOf = (host: string) => `${lab.node(host).stateDir}/audit`;

/** Every record that matches, after what waits was written. */
async function recordsOf(host: string, match: Record<string, unknown> = {}, ...args: string[]): Promise<Reply[]> {
  const words = ["--control", lab.node(host).control, "audit", "export", ...args];
  const { stdout, stderr, code } = await lab.exec(host, LAUNCHER, words);
  if (code !== 0) throw new Error(stderr);
  const records = stdout.split("\n").flatMap((line): Reply[] => (line === "" ? [] : [JSON.parse(line)]));
  return records.filter((record) => Object.entries(match).every(([key, value]) => record[key] === value));
}

const verifyOf = async (host: string) => (await lab.tryPilot(host, "audit", "verify")).reply;

/** Opens so many connections to a port of b, one after the other, each with the marker both ways, and holds them so long. */
const connect = (count: number, port = 7001, holdS = 0) => {
  const args = ["-c", CLIENT, lab.overlay("b"), String(port), String(count), MARKER, String(holdS)];
  return lab.exec("a", "python3", args, { timeoutMs: 30_000 });
};

describe("the audit log", () => {
  it("begins with who runs, says who answered for trust, and is found whole while it is written", async () => {
    const [head, start] = await recordsOf("a");
    expect(head).toMatchObject({ seq: 1, event: "file", file: 1, previous: null });
    const { node, address } = lab.node("a");
    expect(start).toMatchObject({ event: "start", after: "nothing", self: { node, address, name: "a" } });
    const peer = { node: lab.node("b").node, name: "b", key: expect.stringMatching(/^SHA256:/) };
    const trust = await recordsOf("a", { event: "trust", to: "mutual" });
    expect(trust.at(-1)).toMatchObject({ from: "asked", peer: { node: peer.node } });
    const [approved] = await recordsOf("b", { event: "trust", to: "mutual" });
    expect(approved.by).toMatchObject({ uid: 0, user: "root", pid: expect.any(Number), program: expect.any(String) });
    expect((await recordsOf("a", { event: "policy" }))[0]).toMatchObject({ change: "start", rules: 3 });
    expect(await verifyOf("a")).toMatchObject({ whole: true, findings: [], admissions: [] });
  });

  it("tells what happens to who looks on: paths, trust, problems, and flows as in the log", async () => {
    const words = ["--json", "--control", lab.node("a").control, "events", "--watch"];
    const watch = lab.spawn("a", LAUNCHER, words);
    await watch.waitForLine(/"event":"path".*"path":"direct"/);
    await lab.exec("a", "ping", ["-6", "-c", "1", lab.overlay("b")]);
    await watch.waitForLine(/"event":"flow-open".*"protocol":"icmp"/);
    const shown = JSON.parse(watch.stdout.split("\n").find((line) => line.includes('"icmp"'))!);
    const [kept] = await recordsOf("a", { event: "flow-open", protocol: "icmp" });
    expect(shown.facts.flow).toBe(kept.flow);
    await watch.stop();
  });

  it("has each connection of programs under one name at both ends, with the same bytes, and nothing of what they said", async () => {
    expect((await connect(20)).stdout).toBe("20 done\n");
    const closed = async (host: string) => recordsOf(host, { event: "flow-close", protocol: "tcp" });
    await waitUntil("both to have told the ends", async () => {
      return (await closed("a")).length >= 20 && (await closed("b")).length >= 20;
    });
    const [here, there] = [await closed("a"), await closed("b")];
    const byFlow = new Map(there.map((record) => [record.flow, record]));
    for (const record of here) {
      expect(record).toMatchObject({
        direction: "out",
        remotePort: 7001,
        cause: "closed",
        rule: { file: policy, line: 2 },
        program: { uid: 0 },
      });
      const other = byFlow.get(record.flow);
      expect(other).toMatchObject({ direction: "in", localPort: 7001, remotePort: record.localPort });
      expect([other.rxBytes, other.txBytes]).toEqual([record.txBytes, record.rxBytes]);
      expect(record.txBytes).toBeGreaterThan(MARKER.length);
    }
    expect(byFlow.size).toBe(20);
    const opened = await recordsOf("a", { event: "flow-open", protocol: "tcp" }, "--peer", "b");
    expect(opened.map(({ flow }) => flow).sort()).toEqual([...byFlow.keys()].sort());
    for (const host of ["a", "b"]) {
      for (const name of readdirSync(folderOf(host))) {
        expect(readFileSync(`${folderOf(host)}/${name}`, "utf8")).not.toContain(MARKER.slice(0, 12));
      }
    }
  });

  it("names the programs that a connection has at both ends, when they stay long enough to be seen", async () => {
    await connect(1, 7001, 1);
    const opened = async (host: string) => (await recordsOf(host, { event: "flow-open", protocol: "tcp" })).at(-1);
    const program = { uid: 0, name: "python3", pid: expect.any(Number) };
    expect(await opened("a")).toMatchObject({ direction: "out", program });
    expect(await opened("b")).toMatchObject({ direction: "in", program });
    expect((await opened("a")).flow).toBe((await opened("b")).flow);
  });

  it("adds up what the policy refused, with rule and port, and tells a change of policy with who made it", async () => {
    await connect(3, 7002);
    const denied = async () => recordsOf("a", { event: "denial" });
    await waitUntil("the refusals to be told", async () => (await denied()).length > 0);
    expect((await denied())[0]).toMatchObject({ reason: "policy", direction: "out", ports: [7002], rule: null });
    writeFileSync(policy, "allow in any from trusted\nallow out any to trusted\n");
    await lab.pilot("a", "policy", "reload");
    const [changed] = await recordsOf("a", { event: "policy", change: "reload" });
    expect(changed).toMatchObject({ rules: 2, digest: expect.stringMatching(/^SHA256:/), by: { uid: 0 } });
  });

  it("goes on after kill -9 amid many connections, says what happened, and is whole", async () => {
    const many = connect(5_000);
    await waitUntil("flows to be written", async () => (await recordsOf("a", { event: "flow-open" })).length > 60);
    await lab.stopNode("a", "SIGKILL");
    await lab.startNode("a", { extraArgs: ["--policy", policy] });
    const start = (await recordsOf("a", { event: "start" })).at(-1);
    expect(start).toMatchObject({ after: "crash" });
    expect(start.unsealed).toBeGreaterThanOrEqual(0);
    const { whole, findings } = await verifyOf("a");
    expect(findings).toEqual([]);
    expect(whole).toBe(true);
    await many;
    // Asked to end amid packets, it ends in order.
    const senders = [1, 2].map(() => lab.spawn("a", "ping", ["-6", "-q", "-f", "-w", "20", lab.overlay("b")]));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const { process: daemon } = lab.node("a");
    expect(await daemon.stop(), daemon.report()).toEqual({ code: 0, signal: null });
    for (const sender of senders) await sender.stop();
    await lab.startNode("a", { extraArgs: ["--policy", policy] });
    expect((await recordsOf("a", { event: "start" })).at(-1)).toMatchObject({ after: "stop" });
  });

  it("on a full disk is a problem and no hindrance, and says later how much is missing", async () => {
    await lab.stopNode("a");
    const disk = `${lab.folder}/disk`;
    const launcher = `${lab.folder}/on-a-small-disk`;
    // In the mount namespace of the daemon alone: it goes away with the daemon.
    const mount = `mkdir -p ${disk} && mount -t tmpfs -o size=48k,mode=700 tmpfs ${disk}`;
    writeFileSync(launcher, `#!/bin/sh\n${mount} && exec ${LAUNCHER} "$@"\n`, { mode: 0o700 });
    const extraArgs = ["--policy", policy, "--audit", `${disk}/log`, "--audit-keep", "2x1M"];
    const { process: daemon } = await lab.startNode("a", { launcher, extraArgs });
    const inside = (path: string) => `/proc/${daemon.pid}/root${path}`;
    const log = () => readFileSync(inside(`${disk}/log/audit-00000001.jsonl`), "utf8");
    await connect(120);
    await waitUntil("the disk to be full", async () => {
      return (await lab.status("a")).problems.some(({ code }: Reply) => code === "audit_failing");
    });
    const [problem] = (await lab.status("a")).problems;
    expect(problem.message).toMatch(/ENOSPC.*packets go on. \d+ events wait/);
    expect((await connect(5)).stdout).toBe("5 done\n");
    // Room again, where the log is.
    const remount = ["-t", String(daemon.pid), "-m", "mount", "-o", "remount,size=4m", disk];
    expect((await lab.exec("a", "nsenter", remount)).code).toBe(0);
    await waitUntil("the log to be written again", async () => {
      return (await lab.status("a")).problems.every(({ code }: Reply) => code !== "audit_failing");
    });
    await waitUntil("all to be told", () => log().split('"event":"flow-open"').length > 125);
    const words = ["--json", "audit", "verify", "--dir", inside(`${disk}/log`)];
    expect(JSON.parse((await lab.exec("b", LAUNCHER, words)).stdout)).toMatchObject({ whole: true, findings: [] });
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

const MARKER = "attack-at-dawn-".repeat(20);
const SERVER = `
import socket, sys, threading
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], 7001)); s.listen(100); print('listening')
while True:
    c = s.accept()[0]
    try: c.sendall(c.recv(10000))
    except OSError: pass
    c.close()
`;
const CLIENT = `
import socket, sys, time
done = 0
for i in range(int(sys.argv[3])):
    try:
        c = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
        time.sleep(float(sys.argv[5])); c.sendall(sys.argv[4].encode())
        while c.recv(10000): pass
        c.close(); done += 1
    except OSError:
        if int(sys.argv[3]) > 1000: break
print(done, 'done')
`;
