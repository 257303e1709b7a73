/**
 * The daemon as a service: what it tells the manager that started it, and what a restart keeps. The manager is
 * test/helpers/service-manager.py, which speaks the protocol of systemd.
 */
import { chownSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LAUNCHER, Lab, waitUntil } from "../helpers/lab.ts";
import { LabService } from "../helpers/lab-service.ts";

const WATCHDOG_MS = 600;
const NOBODY = 65_534;

let lab: Lab;
let service: LabService;

beforeAll(async () => {
  lab = await Lab.create("service", { hosts: ["a", "b", "c"] });
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b")]);
  await lab.trust("a", "b");
  await lab.stopNode("b");
  writeFileSync(`${lab.folder}/b.policy`, "allow in any from trusted\nallow out any to trusted\n");
  service = new LabService(lab, "b", {
    extraArgs: ["--policy", `${lab.folder}/b.policy`],
    watchdogMs: WATCHDOG_MS,
  });
  await service.waitUntilReady(1);
  await firstAnswer();
}, 60_000);

afterAll(() => lab?.close());

async function firstAnswer(): Promise<void> {
  await waitUntil("b to answer", async () => {
    const { code } = await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "1", lab.overlay("b")]);
    return code === 0;
  });
}

describe("a daemon under a service manager", () => {
  it("says that it is ready when a service can bind to its address, and in one line what it is", async () => {
    const { code } = await lab.exec("b", "python3", ["-c", BIND, lab.overlay("b")]);
    expect(code).toBe(0);
    expect(service.manager.stdout).toMatch(/^notify STATUS=ready: pilot0 fd50:.* listening on /m);
  });

  it("shows the watchdog that its event loop turns", async () => {
    const before = service.count(/^notify WATCHDOG=1$/gm);
    await waitUntil("three signs", () => service.count(/^notify WATCHDOG=1$/gm) >= before + 3, 3 * WATCHDOG_MS);
  });

  it("gives its TUN device to keep, once", () => {
    expect(service.count(/^kept tun$/gm)).toBe(1);
  });

  for (const [how, text] of [
    ["restart", "a restart"],
    ["kill", "being killed"],
  ] as const) {
    it(`keeps interface, address and an established connection over ${text}`, { timeout: 40_000 }, async () => {
      const before = await interfaceIndex();
      const ready = service.readyTimes;
      const server = lab.spawn("b", "python3", ["-c", ECHO, lab.overlay("b")]);
      await server.waitForLine(/^listening$/);
      const client = lab.spawn("a", "python3", ["-c", TALK, lab.overlay("b")]);
      await client.waitForLine(/^echo 3$/);
      service.order(how);
      await service.waitUntilReady(ready + 1);
      const said = Number(/^echo (\d+)$/m.exec(client.stdout.trim().split("\n").at(-1)!)?.[1]);
      await client.waitForLine(new RegExp(`^echo ${said + 10}$`), 15_000);
      expect(await interfaceIndex()).toBe(before);
      expect(service.count(/^kept tun$/gm)).toBe(1); // what it was given back it need not give again
      expect(client.isRunning).toBe(true);
      await client.stop();
      await server.stop();
    });
  }

  it("lets the far side go on talking into a connection that this host opened, under a policy that lets it begin none", {
    timeout: 30_000,
  }, async () => {
    writeFileSync(`${lab.folder}/b.policy`, "allow out any to trusted\n");
    await lab.pilot("b", "policy", "reload");
    const talker = lab.spawn("a", "python3", ["-c", COUNT, lab.overlay("a")]);
    await talker.waitForLine(/^listening$/);
    const listener = lab.spawn("b", "python3", ["-c", LISTEN, lab.overlay("a")]);
    await listener.waitForLine(/^5$/);
    const ready = service.readyTimes;
    service.order("restart");
    await service.waitUntilReady(ready + 1);
    const heard = Number(listener.stdout.trim().split("\n").at(-1));
    await listener.waitForLine(new RegExp(`^${heard + 20}$`), 15_000);
    await Promise.all([listener.stop(), talker.stop()]);
    writeFileSync(`${lab.folder}/b.policy`, "allow in any from trusted\nallow out any to trusted\n");
    await lab.pilot("b", "policy", "reload");
  });

  it("answers the first ping within half a second of being ready again", { timeout: 30_000 }, async () => {
    const ready = service.readyTimes;
    const pinging = lab.spawn("a", "ping", ["-6", "-D", "-i", "0.05", lab.overlay("b")]);
    await pinging.waitForLine(/icmp_seq=3 /);
    service.order("restart");
    await service.waitUntilReady(ready + 1);
    const readyAt = Date.now() / 1000;
    await waitUntil("an answer after it", () => answersAfter(pinging.stdout, readyAt) !== undefined, 10_000);
    expect(answersAfter(pinging.stdout, readyAt)! - readyAt).toBeLessThan(0.5);
    await pinging.stop();
  });

  it("needs no user but its own, and no capability but CAP_NET_ADMIN", { timeout: 30_000 }, async () => {
    const folder = `${lab.folder}/c`;
    mkdirSync(folder);
    chownSync(folder, NOBODY, NOBODY);
    const drop = ["--reuid", String(NOBODY), "--regid", String(NOBODY), "--clear-groups", "--no-new-privs"];
    const capabilities = ["--inh-caps", "-all,+net_admin", "--ambient-caps", "-all,+net_admin"];
    const where = ["--registry", lab.registry, "--beacon", lab.beacon, "--state", `${folder}/state`];
    const up = [LAUNCHER, "--control", `${folder}/sock`, "up", ...where, "--tun", "pilot0"];
    const words = [...drop, ...capabilities, "--bounding-set", "-all,+net_admin", ...up];
    const daemon = lab.spawn("c", "setpriv", words);
    await daemon.waitForLine(/^ready: /, 15_000);
    const status = readFileSync(`/proc/${daemon.pid}/status`, "utf8");
    expect(/^Uid:\t(\d+)\t(\d+)/m.exec(status)?.slice(1)).toEqual([String(NOBODY), String(NOBODY)]);
    const CAP_NET_ADMIN = 1n << 12n;
    for (const set of ["CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
      expect([set, BigInt(`0x${new RegExp(`^${set}:\\t(\\w+)`, "m").exec(status)?.[1]}`)]).toEqual([
        set,
        CAP_NET_ADMIN,
      ]);
    }
    expect(status).toMatch(/^NoNewPrivs:\t1$/m);
    await daemon.stop();
  });

  it("leaves nothing behind when it is stopped for good", async () => {
    service.order("stop");
    await service.manager.waitForEnd(10_000);
    expect(service.manager.stdout).toMatch(/^notify STOPPING=1$/m);
    const { code } = await lab.exec("b", "ip", ["link", "show", "dev", "pilot0"]);
    expect(code).not.toBe(0);
  });
});

async function interfaceIndex(): Promise<string> {
  const { stdout } = await lab.exec("b", "ip", ["-o", "link", "show", "dev", "pilot0"]);
  return stdout.split(":")[0]!;
}

/** When the first answer after `since` came, by ping's own clock. */
function answersAfter(output: string, since: number): number | undefined {
  const times = [...output.matchAll(/^\[([\d.]+)\] .*icmp_seq=/gm)].map((match) => Number(match[1]));
  return times.find((time) => time > since);
}

const BIND = `
import socket, sys
socket.create_server((sys.argv[1], 8080), family=socket.AF_INET6)
`;

const ECHO = `
import socket, sys
server = socket.create_server((sys.argv[1], 7777), family=socket.AF_INET6)
print("listening", flush=True)
connection, _ = server.accept()
while data := connection.recv(100):
    connection.sendall(data)
`;

/** One word each 50 ms over one connection; what comes back must be what was sent, in order. */
const TALK = `
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 7777), 10)
for i in range(1, 2000):
    word = b"%06d" % i
    connection.sendall(word)
    got = b""
    while len(got) < len(word):
        piece = connection.recv(len(word) - len(got))
        if not piece:
            sys.exit("the connection ended")
        got += piece
    if got != word:
        sys.exit("another word came back")
    print("echo", i, flush=True)
    time.sleep(0.05)
`;

/** Says a number each 50 ms, and never hears one. */
const COUNT = `
import socket, sys, time
server = socket.create_server((sys.argv[1], 7778), family=socket.AF_INET6)
print("listening", flush=True)
connection, _ = server.accept()
for i in range(1, 2000):
    connection.sendall(b"%d\\n" % i)
    time.sleep(0.05)
`;

const LISTEN = `
import socket, sys
connection = socket.create_connection((sys.argv[1], 7778), 10)
connection.settimeout(20)
for line in connection.makefile():
    print(line, end="", flush=True)
`;
