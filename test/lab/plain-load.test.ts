/** Many connections with a plain agent, programs that do not read, and daemons that are killed while programs talk. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import { converse } from "../helpers/watching-programs.ts";

const PLAIN = { extraArgs: ["--plain-only"] };
let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("plainload");
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b", PLAIN)]);
  await lab.trust("a", "b");
  await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "2", lab.overlay("b")]);
  await waitUntil("a to know what b is", isKnownAsPlain);
});

afterAll(() => lab?.close());

describe.each([
  ["a", "b"],
  ["b", "a"],
])("1,000 connections at once from %s to %s", (from, to) => {
  it("are all answered", async () => {
    const server = await startProgram(to, ECHO_SERVER);
    const args = ["-c", MANY_CLIENTS, lab.overlay(to), "1000"];
    const { stdout, stderr } = await lab.exec(from, "python3", args, { timeoutMs: 50_000 });
    expect(stderr).toBe("");
    expect(stdout).toBe("1000 of 1000\n");
    await server.stop();
  });
});

describe("a reader that does not read", () => {
  it("holds its sender back, costs both daemons bounded memory, and loses nothing", async () => {
    const before = daemons().map(residentBytes);
    const server = await startProgram("b", ENDLESS_SENDER);
    const reader = await startProgram("a", SLOW_READER, [lab.overlay("b")]);
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    const heldAt = lastNumber(server);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(lastNumber(server) - heldAt).toBeLessThan(2 << 20); // it does not go on without the reader
    expect(heldAt).toBeLessThan(64 << 20); // sockets of both hosts among it
    // A stream and its connection hold 5 MB at most on either side; the rest is the collector's.
    for (const [index, grown] of daemons().map(residentBytes).entries()) {
      expect(grown - before[index]!).toBeLessThan(64 << 20);
    }
    expect(await reader.waitForLine(/^read /, 20_000)).toBe("read 16777216 in order");
    await server.stop();
  });
});

describe("programs of both ends, with a connection each way, idle and busy", () => {
  it.each([
    ["b, the agent", "b", PLAIN],
    ["a", "a", {}],
  ])("hear of it when the daemon of %s is killed with -9 and comes back", async (_, killed, options) => {
    const talks = [
      await converse(lab, "idle", { client: "a", server: "b", port: 7401 }),
      await converse(lab, "idle", { client: "b", server: "a", port: 7402 }),
      await converse(lab, "bulk", { client: "a", server: "b", port: 7403 }),
      await converse(lab, "bulk", { client: "b", server: "a", port: 7404 }),
    ];
    await lab.stopNode(killed, "SIGKILL");
    await lab.startNode(killed, options);
    const programs = talks.flatMap(({ client, server }) => [client, server]);
    const ends = await Promise.all(programs.map((program) => program.waitForLine(/ended by/, 10_000)));
    for (const end of ends) expect(end).toMatch(/ended by (ConnectionResetError|BrokenPipeError|EOF)/);
    await waitUntil("both to talk again", async () => {
      const { stdout } = await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "1", lab.overlay("b")]);
      return stdout.includes("1 received");
    });
  });
});

async function isKnownAsPlain(): Promise<boolean> {
  const { peers } = await lab.peers("a");
  return peers.some((peer: Reply) => peer.node === lab.node("b").node && peer.kind === "plain");
}

function daemons(): LabProcess[] {
  return ["a", "b"].map((host) => lab.node(host).process);
}

function residentBytes({ pid }: LabProcess): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kib) * 1024;
}

/** A Python program that says "ready" when it is; its first argument is its own host's overlay address. */
async function startProgram(host: string, code: string, args: readonly string[] = []): Promise<LabProcess> {
  const program = lab.spawn(host, "python3", ["-u", "-c", code, lab.overlay(host), ...args]);
  await program.waitForLine(/ready/);
  return program;
}

function lastNumber(program: LabProcess): number {
  return Number(program.stdout.trim().split("\n").at(-1));
}

const LISTEN = `
import resource, selectors, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
def listen(port):
    s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((sys.argv[1], port)); s.listen(2048); print('ready'); return s
`;
const ECHO_SERVER = `${LISTEN}
s = listen(7100); ready = selectors.DefaultSelector(); ready.register(s, selectors.EVENT_READ)
while True:
    for key, _ in ready.select():
        if key.fileobj is s: ready.register(s.accept()[0], selectors.EVENT_READ); continue
        d = key.fileobj.recv(4096)
        if d: key.fileobj.send(d)
        else: ready.unregister(key.fileobj); key.fileobj.close()
`;
const MANY_CLIENTS = `
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
n = int(sys.argv[2]); sockets = [socket.socket(socket.AF_INET6) for _ in range(n)]
for s in sockets: s.setblocking(False); s.connect_ex((sys.argv[1], 7100))
ok = 0
for i, s in enumerate(sockets): s.settimeout(20); s.sendall(b'%d.' % i)
for i, s in enumerate(sockets):
    want = b'%d.' % i; got = b''
    while len(got) < len(want): got += s.recv(64) or exit('ended')
    ok += got == want
print('%d of %d' % (ok, n))
`;
const ENDLESS_SENDER = `${LISTEN}
s = listen(7200); c, _ = s.accept(); sent = 0; block = bytes(range(256)) * 256
try:
    while True: sent += c.send(block[sent % 256:]); print(sent)
except OSError: pass
`;
const SLOW_READER = `
import socket, sys, time
c = socket.create_connection((sys.argv[2], 7200)); print('ready'); time.sleep(4); n = 0; right = True; pattern = bytes(range(256)) * 258
while n < 16777216:
    d = c.recv(min(65536, 16777216 - n)); right = right and d == pattern[n % 256:][:len(d)]; n += len(d)
print('read', n, 'in order' if right else 'spoiled')
`;
