/** The policy with real programs: connections, pings, live flows, reloads, lockdowns. */
import { writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AT_ONCE_MS, connectError, connectOutcome } from "../helpers/connect-error.ts";
import { Lab, waitUntil } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";

let lab: Lab;
let file: string;

const setPolicy = (text: string) => writeFileSync(file, text, { mode: 0o600 });
const ping = async (from: string, to: string) =>
  (await lab.exec(from, "ping", ["-6", "-c", "1", "-W", "1", lab.overlay(to)])).stdout;
const serve = async (host: string, port: number) => {
  const server = lab.spawn(host, "python3", ["-u", "-c", SERVER, lab.overlay(host), String(port)]);
  await server.waitForLine(/listening/);
};
/** A connection from a to b that stays open and says how it ended. */
const connectAndStay = async (port: number): Promise<LabProcess> => {
  const client = lab.spawn("a", "python3", ["-u", "-c", CLIENT, lab.overlay("b"), String(port)]);
  await client.waitForLine(/connected/);
  return client;
};

beforeEach(async () => {
  lab = await Lab.create("policy", { hosts: ["a", "b"] });
  file = `${lab.folder}/policy`;
  setPolicy("allow out tcp 7001 to b\nallow out icmp to b\ntest deny in tcp 22 from b\n");
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a", { extraArgs: ["--policy", file] }), lab.startNode("b")]);
  await lab.trust("a", "b");
});

afterEach(() => lab?.close());

describe("a policy file", () => {
  it("lets out what a rule allows, with its replies, and refuses the rest at once in both directions", async () => {
    await serve("b", 7001);
    await serve("b", 7002);
    await serve("a", 7001);
    const client = await connectAndStay(7001);
    expect(client.stdout).toContain("connected");
    const { told: answer, tookMs } = await connectOutcome(lab, "a", lab.overlay("b"), 7002);
    expect(answer).toBe("EACCES");
    expect(tookMs).toBeLessThan(AT_ONCE_MS);
    expect(await ping("a", "b")).toContain("1 received");
    expect(await ping("b", "a")).toContain("0 received");
    const capture = await lab.exec("b", "timeout", ["2", "python3", "-c", PROBE, lab.overlay("a"), "7001"]);
    expect(capture.stdout).not.toContain("connected");
    const { flows } = await lab.pilot("a", "flows");
    expect(flows).toContainEqual(
      expect.objectContaining({ protocol: "tcp", direction: "out", remotePort: 7001, rule: { file, line: 1 } }),
    );
    const { drops } = await lab.status("a");
    expect(drops.policy).toBeGreaterThanOrEqual(2);
  });

  it("is checked with what it would cut, applied, and taken back when nobody confirms", async () => {
    await serve("b", 7001);
    const client = await connectAndStay(7001);
    const next = `${lab.folder}/next`;
    writeFileSync(next, "allow out tcp 7002 to b\n", { mode: 0o600 });
    const checked = await lab.pilot("a", "policy", "check", next);
    expect(checked.wouldCut.map((flow: { remotePort: number }) => flow.remotePort)).toContain(7001);
    const applied = await lab.pilot("a", "policy", "apply", next, "--confirm", "4s");
    expect(applied.confirmWithinS).toBe(4);
    expect(await client.waitForLine(/ended by/, 3_000)).toContain("ConnectionResetError");
    expect(await connectError(lab, "a", lab.overlay("b"), 7001)).toBe("EACCES");
    await waitUntil("the roll-back", async () => (await lab.pilot("a", "policy", "show")).confirmWithinS === null);
    await connectAndStay(7001);
    expect((await lab.tryPilot("a", "policy", "confirm")).reply.error.code).toBe("nothing_applied");

    await lab.pilot("a", "policy", "apply", next, "--confirm", "20s");
    await lab.pilot("a", "policy", "confirm");
    await lab.stopNode("a");
    await lab.startNode("a", { extraArgs: ["--policy", file] });
    expect((await lab.pilot("a", "policy", "show")).rules[0].text).toBe("allow out tcp 7002 to b");
  });

  it("that has mistakes or fails its tests leaves the running one, and says where", async () => {
    setPolicy("allow out tpc 7001 to b\nallow in tcp from trustd\n");
    const refused = await lab.tryPilot("a", "policy", "reload");
    expect(refused.reply.error.code).toBe("policy_invalid");
    expect(refused.reply.error.message).toContain(`${file}:1:11: Unknown word "tpc" after out. Did you mean tcp?`);
    expect(refused.reply.error.message).toContain(`${file}:2:19: `);
    setPolicy("allow in tcp from trusted\ntest deny in tcp 22 from b\n");
    expect((await lab.tryPilot("a", "policy", "reload")).reply.error.message).toContain(`${file}:2: the test fails`);
    expect(await ping("a", "b")).toContain("1 received");

    process.kill(await daemonOf("a"), "SIGHUP");
    await waitUntil("status to tell", async () => {
      const { problems } = await lab.status("a");
      return problems.some((problem: { code: string }) => problem.code === "not_reloaded");
    });
    setPolicy("allow out udp to b\n");
    process.kill(await daemonOf("a"), "SIGHUP");
    await waitUntil("the new policy", async () => (await lab.pilot("a", "policy", "show")).rules.length === 1);
    expect(await ping("a", "b")).toContain("Administratively prohibited");
    expect((await lab.status("a")).problems).toEqual([]);
  });
});

describe("a plain agent", () => {
  it("is judged like any other peer: streams and datagrams only to the ports allowed, and their answers pass", async () => {
    await lab.stopNode("b");
    await lab.startNode("b", { extraArgs: ["--plain-only"] });
    await lab.trustAnew("a", "b");
    setPolicy("allow in tcp 7001 from b\nallow in udp 7003 from b\n");
    await lab.pilot("a", "policy", "reload");
    await serve("a", 7001);
    await serve("a", 7002);
    const udp = lab.spawn("a", "python3", ["-u", "-c", UDP_SERVER, lab.overlay("a")]);
    await udp.waitForLine(/listening/);
    const connect = (port: number) =>
      lab.exec("b", "python3", ["-c", PROBE, lab.overlay("a"), String(port)], { timeoutMs: 8_000 });
    await waitUntil("the first connection", async () => (await connect(7001)).stdout.includes("connected"), 15_000);
    expect((await connect(7002)).stdout).not.toContain("connected");
    // It was something else before its restart: what it is now shows by its silence.
    await waitUntil("a to know what b is", async () => (await lab.peers("a")).peers[0].kind === "plain");
    const answers = await lab.exec("b", "python3", ["-c", UDP_CLIENT, lab.overlay("a")]);
    expect(answers.stdout).toBe("7003 answered\n7004 silent\n");
    expect(udp.stdout).not.toContain("7004");
  });
});

/** The daemon behind the launcher, which may be a shell. */
async function daemonOf(host: string): Promise<number> {
  const { stdout } = await lab.exec(host, "sh", ["-c", `ss -lxp 2>/dev/null | grep -F ${lab.node(host).control}`]);
  const pid = /pid=(\d+)/.exec(stdout)?.[1];
  if (pid === undefined) throw new Error(`nobody listens at ${lab.node(host).control}: ${stdout}`);
  return Number(pid);
}

const SERVER = `
import socket, sys, threading, time
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(); print('listening')
kept = []
while True: kept.append(s.accept()[0])
`;
const CLIENT = `
import socket, sys
c = socket.create_connection((sys.argv[1], int(sys.argv[2]))); print('connected')
try: c.recv(1); print('ended by EOF')
except OSError as error: print('ended by', type(error).__name__)
`;
const PROBE = `
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 1); print('connected')
`;
const UDP_SERVER = `
import socket, select, sys
both = []
for port in (7003, 7004):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind((sys.argv[1], port)); both.append(s)
print('listening')
while True:
    for s in select.select(both, [], [])[0]:
        data, sender = s.recvfrom(2000); print('got', s.getsockname()[1]); s.sendto(data, sender)
`;
const UDP_CLIENT = `
import socket, sys
for port in (7003, 7004):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(1)
    s.sendto(b'x', (sys.argv[1], port))
    try: s.recvfrom(100); print(port, 'answered')
    except OSError: print(port, 'silent')
`;
