/**
 * Plain agents as ordinary hosts, with ordinary programs. The far side, b, is a pilot-tun told to be a plain agent: it says
 * no hello, takes no packets, and speaks nothing but Pilot's streams, datagrams and pings.
 */
import { appendFileSync, mkdirSync, statSync, truncateSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AT_ONCE_MS, connectOutcome } from "../helpers/connect-error.ts";
import { Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const FILES = { "1 GB": 1_000_000_000, "200 MB": 200_000_000 };
let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("plain");
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b", PLAIN)]);
  await lab.trust("a", "b");
  mkdirSync(`${lab.folder}/www`);
  for (const [name, bytes] of Object.entries(FILES)) {
    const chunk = Buffer.alloc(16 << 20, Buffer.from(seededBytes(11)(65_521)));
    for (let at = 0; at < bytes; at += chunk.length) appendFileSync(`${lab.folder}/www/${name}`, chunk);
    truncateSync(`${lab.folder}/www/${name}`, bytes);
  }
});

afterAll(() => lab?.close());

describe("a plain agent, seen from a pilot-tun", () => {
  it("is answered by name and kind, and its packets are counted", async () => {
    const ping = await lab.exec("a", "ping", ["-6", "-c", "3", "-i", "0.2", "-s", "1000", lab.overlay("b")]);
    expect(ping.stdout).toContain("3 received");
    await waitUntil("a to know what b is", async () => (await peerOf("a", "b")).kind === "plain");
    const before = await peerOf("a", "b");
    const again = await lab.exec("a", "ping", ["-6", "-c", "5", "-i", "0.1", "-s", "1000", lab.overlay("b")]);
    expect(again.stdout).toContain("5 received");
    const after = await peerOf("a", "b");
    expect(after.txBytes - before.txBytes).toBe(5_000);
    expect(after.rxBytes - before.rxBytes).toBe(5_000);
    const whois = await lab.pilot("a", "whois", lab.overlay("b"));
    expect(whois).toMatchObject({ hostname: "b", trust: "mutual" });
  });

  it.each([
    ["a", "1 GB", "b"],
    ["b", "200 MB", "a"],
  ] as const)(
    "curl on %s fetches %s from %s and sends as much there, byte for byte",
    async (from, name, to) => {
      const put = `${lab.folder}/put-${to}`;
      const server = await startProgram(to, HTTP_SERVER, [`${lab.folder}/www`, put]);
      const file = `${lab.folder}/www/${name}`;
      const url = `http://[${lab.overlay(to)}]:8000/${encodeURIComponent(name)}`;
      const curl = async (...words: readonly string[]) => {
        const args = ["-gsSf", "-m", "150", ...words, url];
        const { stderr } = await lab.exec(from, "curl", args, { timeoutMs: 160_000 });
        expect(stderr).toBe("");
      };
      const got = `${lab.folder}/got-${from}`;
      await curl("-o", got);
      expect((await lab.exec(from, "cmp", [got, file])).stdout).toBe("");
      await curl("-T", file);
      expect((await lab.exec(from, "cmp", [put, file])).stdout).toBe("");
      expect(statSync(got).size + statSync(put).size).toBe(2 * FILES[name]);
      expect(server.stdout).toContain(`from ${lab.overlay(from)}`); // the address of who asks, not of the daemon
      await server.stop();
    },
    400_000,
  );

  it.each([
    ["a", "b"],
    ["b", "a"],
  ])("a half-closed upload from %s to %s gets the answer that comes later", async (from, to) => {
    const listening = await startProgram(to, COUNTING_SERVER);
    const args = ["-6", "-N", "-w", "10", lab.overlay(to), "7000"];
    const sent = await lab.exec(from, "nc", args, { input: "x".repeat(1_000_000) });
    expect(sent.stdout).toBe("got 1000000\n");
    await listening.stop();
  });

  it.each([
    ["a", "b"],
    ["b", "a"],
  ])("UDP datagrams from %s to %s keep their ports and boundaries, and so do the answers", async (from, to) => {
    const server = await startProgram(to, UDP_SERVER);
    const { stdout, stderr } = await lab.exec(from, "python3", ["-c", UDP_CLIENT, lab.overlay(to)]);
    expect(stderr).toBe("");
    expect(stdout).toBe("answers 8: 1 2 500 1200 1312 1313 4000 65437\n");
    expect(server.stdout).toContain(`${lab.overlay(from)} 5300`);
    await server.stop();
  });

  it("a program learns that a datagram is too big for any frame by EMSGSIZE", async () => {
    const { stdout, stderr } = await lab.exec("a", "python3", ["-c", BIG_DATAGRAM, lab.overlay("b")]);
    expect(stderr).toBe("");
    expect(stdout).toBe("EMSGSIZE\n");
  });

  it.each([
    ["a", "b"],
    ["b", "a"],
  ])("a port of %s's peer %s on which nobody listens refuses at once", async (from, to) => {
    const { told: answer, tookMs } = await connectOutcome(lab, from, lab.overlay(to), 9);
    expect(answer).toBe("ECONNREFUSED");
    expect(tookMs).toBeLessThan(AT_ONCE_MS);
  });

  it.each([
    ["a", "b"],
    ["b", "a"],
  ])("the other end learns it when a program on %s or %s is killed", async (from, to) => {
    for (const killed of ["client", "server"] as const) {
      const server = await startProgram(to, WATCHING_SERVER);
      const client = await startProgram(from, WATCHING_CLIENT, [lab.overlay(to)]);
      await server.waitForLine(/accepted/);
      (killed === "client" ? client : server).kill("SIGKILL");
      const other = killed === "client" ? server : client;
      expect(await other.waitForLine(/ended by/)).toMatch(/ended by (EOF|ConnectionResetError)/);
      await Promise.all([server.stop(), client.stop()]);
    }
  });

  it("the echo port answers without a local program", async () => {
    const { stdout } = await lab.exec("b", "nc", ["-6", "-N", "-w", "5", lab.overlay("a"), "7"], { input: "hello\n" });
    expect(stdout).toBe("hello\n");
  });

  it("keeps working when it becomes a pilot-tun, and when it is plain again", async () => {
    await lab.stopNode("b");
    await lab.startNode("b");
    await waitUntil("a to see the new kind", async () => (await peerOf("a", "b")).kind === "pilot-tun", 15_000);
    const first = await startProgram("b", COUNTING_SERVER);
    const sent = await lab.exec("a", "nc", ["-6", "-N", "-w", "10", lab.overlay("b"), "7000"], {
      input: "x".repeat(5),
    });
    expect(sent.stdout).toBe("got 5\n");
    await first.stop();
    await lab.stopNode("b");
    await lab.startNode("b", PLAIN);
    await lab.trustAnew("a", "b"); // for this is less than it was
    const second = await startProgram("b", COUNTING_SERVER);
    await waitUntil("a to see the old kind", async () => (await peerOf("a", "b")).kind === "plain", 20_000);
    const again = await lab.exec("a", "nc", ["-6", "-N", "-w", "10", lab.overlay("b"), "7000"], {
      input: "x".repeat(7),
    });
    expect(again.stdout).toBe("got 7\n");
    await second.stop();
  });

  it("a revocation resets the programs of both sides during a download", async () => {
    const server = await startProgram("b", ENDLESS_SENDER);
    const client = await startProgram("a", FAST_READER, [lab.overlay("b")]);
    await client.waitForLine(/receiving/);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const revoked = await lab.pilot("a", "trust", "revoke", "b");
    expect(revoked.cutFlows).toBeGreaterThanOrEqual(1);
    for (const program of [server, client]) {
      expect(await program.waitForLine(/ended by/)).toMatch(/ended by (ConnectionResetError|BrokenPipeError)/);
    }
    await lab.waitForTrust("b", "a", "revoked-by-peer");
    const { stdout } = await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "1", lab.overlay("b")]);
    expect(stdout).toContain("Administratively prohibited");
  });
});

async function peerOf(host: string, peer: string): Promise<Reply> {
  const { peers } = await lab.peers(host);
  return peers.find((entry: Reply) => entry.node === lab.node(peer).node);
}

/** A Python program that says "ready" when it is; its first argument is its own host's overlay address. */
async function startProgram(host: string, code: string, args: readonly string[] = []): Promise<LabProcess> {
  const program = lab.spawn(host, "python3", ["-u", "-c", code, lab.overlay(host), ...args]);
  await program.waitForLine(/ready/);
  return program;
}

const PLAIN = { extraArgs: ["--plain-only"] };

const LISTEN = `
import socket, sys, time, threading
def listen(port):
    s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((sys.argv[1], port)); s.listen(512); print('ready'); return s
def watch(act):
    try:
        while act(): pass
        print('ended by EOF')
    except OSError as error:
        print('ended by', type(error).__name__)
`;
const HTTP_SERVER = `${LISTEN}
import http.server, os
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_PUT(self):
        left = int(self.headers['Content-Length'])
        if self.headers.get('Expect'): self.send_response_only(100); self.end_headers()
        with open(sys.argv[3], 'wb') as f:
            while left:
                d = self.rfile.read(min(left, 1 << 16)); f.write(d); left -= len(d)
        self.send_response(201); self.send_header('Content-Length', '0'); self.end_headers()
    def log_message(self, *a): print('from', self.client_address[0])
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
os.chdir(sys.argv[2]); server = Server((sys.argv[1], 8000), Handler); print('ready'); server.serve_forever()
`;
const COUNTING_SERVER = `${LISTEN}
s = listen(7000); c, _ = s.accept(); n = 0
while (d := c.recv(65536)): n += len(d)
time.sleep(0.3); c.sendall(b'got %d\\n' % n); c.close()
`;
const UDP_SERVER = `
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind((sys.argv[1], 5353)); print('ready')
while True:
    d, who = s.recvfrom(65536); print(who[0], who[1]); s.sendto(d, who)
`;
const UDP_CLIENT = `
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', 5300)); s.connect((sys.argv[1], 5353)); s.settimeout(5)
sizes = []
for n in (1, 2, 500, 1200, 1312, 1313, 4000, 65437):
    s.send(bytes([n & 255]) * n); d = s.recv(65536); assert d == bytes([n & 255]) * n; sizes.append(str(len(d)))
print('answers %d: %s' % (len(sizes), ' '.join(sizes)))
`;
const BIG_DATAGRAM = `
import errno, socket, sys, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.connect((sys.argv[1], 5353)); s.settimeout(5)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20); s.send(bytes(65438))
try: s.recv(1)
except OSError as error: print(errno.errorcode.get(error.errno, error))
`;
const ENDLESS_SENDER = `${LISTEN}
s = listen(7200); c, _ = s.accept(); sent = 0; block = bytes(range(256)) * 256
def send():
    global sent
    sent += c.send(block[sent % 256:]); print(sent); return True
watch(send)
`;
const FAST_READER = `${LISTEN}
c = socket.create_connection((sys.argv[2], 7200)); print('ready'); c.recv(1); print('receiving')
watch(lambda: c.recv(65536))
`;
const WATCHING_SERVER = `${LISTEN}
s = listen(7300); c, _ = s.accept(); print('accepted'); watch(lambda: c.recv(1))
`;
const WATCHING_CLIENT = `${LISTEN}
c = socket.create_connection((sys.argv[2], 7300)); c.send(b'x'); print('ready'); watch(lambda: c.recv(1))
`;
