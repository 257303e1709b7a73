/**
 * What people really run, between a pilot-tun (a) and a plain agent (b), both ways; and, by the timestamps of tcpdump on both
 * interfaces over a wire with a delay, when each side is told what. Each server sees the overlay address of its client.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connectError } from "../helpers/connect-error.ts";
import { InnerCapture, PROHIBITED, RESET, type SeenPacket } from "../helpers/inner-capture.ts";
import { Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import { LabWire } from "../helpers/lab-wire.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";
import { SshServer } from "../helpers/ssh-server.ts";
import { converse, endOf, timedCall } from "../helpers/watching-programs.ts";

const PLAIN = { extraArgs: ["--plain-only"] };
/** From a program here to a server there. */
const WAYS = [
  ["a", "b"],
  ["b", "a"],
] as const;
const DELAY_MS = 100;
const CLOSED_PORTS = [9, 10, 11];

let lab: Lab;
let wire: LabWire;
let adminToken: string;

beforeAll(async () => {
  lab = await Lab.create("plainprogs", { hosts: ["a", "b"] });
  adminToken = `${lab.folder}/admin.token`;
  writeFileSync(adminToken, "the operator's own token\n", { mode: 0o600 });
  await lab.startRendezvous(["--admin-token-file", adminToken]);
  wire = await LabWire.insert(lab, "a", 1);
  await Promise.all([lab.startNode("a"), lab.startNode("b", PLAIN)]);
  await lab.trust("a", "b");
  await waitUntil("a to know what b is", async () => (await peerOf("a", "b")).kind === "plain");
});

afterAll(() => lab?.close());

describe("ordinary programs", () => {
  it.each(WAYS)("on %s upload to %s by HTTP/1.0: the body, the end of it, then the answer", async (from, to) => {
    const server = await startPython(to, HTTP_1_0_SERVER);
    const client = await lab.exec(from, "python3", ["-c", HTTP_1_0_CLIENT, lab.overlay(to)]);
    expect(client.stderr).toBe("");
    expect(client.stdout).toBe("HTTP/1.0 200 OK, 3000000 bytes received\n");
    expect(server.stdout).toContain(`from ${lab.overlay(from)}`);
    await server.stop();
  });

  it.each(WAYS)("on %s run commands on %s by ssh and copy files by scp", async (from, to) => {
    const server = await SshServer.start(lab, to, lab.overlay(to));
    const { stdout, stderr } = await server.exec(from, "echo hello, $SSH_CLIENT");
    expect(stderr).toBe("");
    expect(stdout).toMatch(new RegExp(`^hello, ${lab.overlay(from)} \\d+ 22\n$`));
    const [file, copy] = [`${lab.folder}/file-${from}`, `${lab.folder}/copy-${from}`];
    writeFileSync(file, seededBytes(9)(4 << 20));
    expect((await server.copy(from, file, copy)).stderr).toBe("");
    expect(readFileSync(copy).equals(readFileSync(file))).toBe(true);
    await server.stop();
  });

  it.each(WAYS)(
    "on %s ask the DNS server on %s over UDP and TCP, also for more than a packet holds",
    async (from, to) => {
      const long = Array.from({ length: 10 }, (_, index) => String(index).repeat(250));
      const server = lab.spawn(to, "dnsmasq", [
        ...["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file="],
        ...["--log-facility=-", "--log-queries", "--bind-interfaces", `--listen-address=${lab.overlay(to)}`],
        ...["--address=/agent.test/192.0.2.7", `--txt-record=long.test,${long.join()}`, "--edns-packet-max=4096"],
      ]);
      await server.waitForLine(/started/);
      const dig = async (...words: readonly string[]) =>
        (await lab.exec(from, "dig", [`@${lab.overlay(to)}`, "+time=5", "+tries=1", "+short", ...words])).stdout.trim();
      for (const transport of ["+notcp", "+tcp"]) expect(await dig(transport, "agent.test", "A")).toBe("192.0.2.7");
      const answer = await dig("+notcp", "+ignore", "+bufsize=4096", "long.test", "TXT");
      expect(answer).toBe(long.map((text) => `"${text}"`).join(" "));
      expect(server.stderr).toContain(`from ${lab.overlay(from)}`);
      await server.stop();
    },
  );

  it.each(WAYS)("on %s talk to %s with nc -u", async (from, to) => {
    const address = lab.overlay(to);
    const server = lab.spawn(to, "nc", ["-6", "-u", "-l", address, "5354"], { input: "welcome\n" });
    await waitUntil("nc to listen", async () => (await lab.exec(to, "ss", ["-Hlun"])).stdout.includes(":5354"));
    const client = lab.spawn(from, "nc", ["-6", "-u", "-w", "3", address, "5354"], { input: "hello\n" });
    expect(await server.waitForLine(/hello/)).toBe("hello");
    expect(await client.waitForLine(/welcome/)).toBe("welcome");
    await Promise.all([server.stop(), client.stop()]);
  });

  it.each(WAYS)("on %s and %s see a reset as a reset, whichever of them breaks off", async (from, to) => {
    for (const breaker of ["client", "server"]) {
      const server = await startPython(to, RESETTING_SERVER, [breaker]);
      const client = lab.spawn(from, "python3", ["-u", "-c", RESETTING_CLIENT, lab.overlay(to), breaker]);
      const other = breaker === "client" ? server : client;
      expect(await other.waitForLine(/ended by/)).toBe("ended by ConnectionResetError");
      await Promise.all([server.stop(), client.stop()]);
    }
  });
});

describe("Pilot's services", () => {
  it("on a are found by the agent: names, data exchange, event stream", async () => {
    const ask = ["-6", "-N", "-w", "5", lab.overlay("a"), "53"];
    expect((await lab.exec("b", "nc", ask, { input: "QUERY A a\n" })).stdout).toBe(`A a ${lab.node("a").pilot}\n`);
    const server = await startPython("a", FRAME_SERVER);
    const { stdout, stderr } = await lab.exec("b", "python3", ["-c", FRAME_CLIENT, lab.overlay("a")]);
    expect(stderr).toBe("");
    expect(stdout).toBe("ACK TEXT 70000 bytes\nACK JSON 2 bytes\nnews: hello\n");
    await server.stop();
  });
});

describe("over a wire with a delay", () => {
  it.each(WAYS)(
    "a program on %s is answered after the server on %s was, and refused in one round trip",
    async (from, to) => {
      await wire.become({ delayMs: DELAY_MS });
      const roundTripS = (2 * DELAY_MS) / 1_000;
      const server = await startPython(to, SLEEPING_SERVER);
      const captures = { [from]: await InnerCapture.start(lab, from), [to]: await InnerCapture.start(lab, to) };
      expect(await connectError(lab, from, lab.overlay(to), 7400)).toBe("connected");
      const told: string[] = [];
      for (const port of CLOSED_PORTS) told.push(await connectError(lab, from, lab.overlay(to), port));
      expect(told).toEqual(CLOSED_PORTS.map(() => "ECONNREFUSED"));
      await Promise.all([captures[from]!.stop(), captures[to]!.stop()]);
      await wire.become({});
      await server.stop();

      const only = (packets: readonly SeenPacket[]) => packets[0]!.atS;
      const seen = async (host: string, filter: string) => only(await captures[host]!.packets(filter));
      const asked = await seen(from, `${SYN} and ip6[42:2] == 7400`);
      const answeredThere = await seen(to, `${SYN_ACK} and src host ${lab.overlay(to)} and ip6[40:2] == 7400`);
      const answeredHere = await seen(from, `${SYN_ACK} and src host ${lab.overlay(to)} and ip6[40:2] == 7400`);
      expect(answeredThere - asked).toBeGreaterThanOrEqual(roundTripS / 2);
      expect(answeredHere - answeredThere).toBeGreaterThanOrEqual(roundTripS / 2);
      const refusedAfterS: number[] = [];
      for (const port of CLOSED_PORTS) {
        const refused = await seen(from, `${RESET} and src host ${lab.overlay(to)} and ip6[40:2] == ${port}`);
        refusedAfterS.push(refused - (await seen(from, `${SYN} and ip6[42:2] == ${port}`)));
      }
      // The quickest of them, for this machine may have other things to do.
      expect(Math.min(...refusedAfterS)).toBeGreaterThanOrEqual(roundTripS);
      expect(Math.min(...refusedAfterS)).toBeLessThan(1.9 * roundTripS);
    },
  );
});

describe("an agent's address in a network", () => {
  it("is reached, and reaches ours, as its first one", async () => {
    await lab.pilot("a", "network", "create", "ops", "--rule", "open", "--admin-token-file", adminToken);
    await waitUntil("b to be registered", async () => (await lab.status("b")).registry.state === "connected");
    await lab.pilot("b", "network", "join", "ops");
    const inNetwork = (host: string) => `fd50:494c:4f54:1::${lab.node(host).node.toString(16)}`;
    for (const [from, to] of WAYS) {
      const ping = ["-6", "-c", "1", "-W", "1", inNetwork(to)];
      await waitUntil(`${from} to reach ${to}`, async () =>
        (await lab.exec(from, "ping", ping)).stdout.includes("1 received"),
      );
      const server = await startPython(to, HTTP_1_0_SERVER, [], inNetwork(to));
      const client = await lab.exec(from, "python3", ["-c", HTTP_1_0_CLIENT, inNetwork(to)]);
      expect(client.stdout).toBe("HTTP/1.0 200 OK, 3000000 bytes received\n");
      expect(server.stdout).toContain(`from ${inNetwork(from)}`);
      await server.stop();
    }
  });
});

describe("the end of a daemon", () => {
  it("by SIGTERM resets the programs on both sides", async () => {
    const pair = await converse(lab, "idle", { client: "a", server: "b", port: 7402 });
    await lab.stopNode("b");
    for (const program of [pair.client, pair.server]) expect((await endOf(program)).how).toMatch(/ConnectionReset/);
    await lab.startNode("b", PLAIN);
  });

  it("by SIGKILL resets programs on the other side as soon as it is there again", async () => {
    const { client } = await converse(lab, "idle", { client: "a", server: "b", port: 7403 });
    await lab.stopNode("b", "SIGKILL");
    expect(client.stdout).not.toContain("ended");
    await lab.startNode("b", PLAIN);
    await lab.exec("b", "ping", ["-6", "-c", "1", "-W", "2", lab.overlay("a")]);
    expect((await endOf(client, 15_000)).how).toBe("ConnectionResetError");
  });

  it("leaves programs with an ICMPv6 error, not with a wait", async () => {
    await Promise.all([lab.stopNode("a"), lab.stopNode("b")]);
    await lab.startNode("a"); // remembers what b is, and finds nobody
    const capture = await InnerCapture.start(lab, "a");
    expect(await connectError(lab, "a", lab.overlay("b"), 80)).toBe("EHOSTUNREACH");
    await capture.stop();
    const [asked] = await capture.packets(SYN);
    const [told] = await capture.packets("icmp6 and ip6[40] == 1 and ip6[41] == 3");
    expect(told!.atS - asked!.atS).toBeLessThan(5);
    await lab.startNode("b", PLAIN);
  });
});

describe("a revocation", () => {
  it("resets the streams of an agent on both sides by its deadlines, and lets nothing of it in afterwards", async () => {
    const toB = { client: "a", server: "b" };
    await waitUntil("b to be there", async () => (await peerOf("a", "b")).path !== "none");
    const pairs = [
      await converse(lab, "idle", { ...toB, port: 7501 }),
      await converse(lab, "udp", { ...toB, port: 7502 }),
      await converse(lab, "idle", { client: "b", server: "a", port: 7503 }),
      await converse(lab, "bulk", { ...toB, port: 7504 }),
    ];
    expect(await lab.pilot("a", "whois", lab.overlay("b"))).toMatchObject({ hostname: "b", trust: "mutual" });
    const { rxBytes, txBytes, trust } = await peerOf("a", "b");
    expect([rxBytes > 100_000, txBytes >= 10, trust]).toEqual([true, true, "mutual"]);
    const onA = await InnerCapture.start(lab, "a");
    const onB = await InnerCapture.start(lab, "b");
    const { sentS, answeredS, reply } = await timedCall(lab, "a", "trust/revoke", { peer: "b" });
    const cut = reply.cut.map((flow: Reply) => (flow.direction === "in" ? flow.localPort : flow.remotePort));
    expect(cut).toEqual(expect.arrayContaining([7501, 7502, 7503, 7504]));
    expect(reply.peerTold).toBe("acknowledged");
    for (const [index, pair] of pairs.entries()) {
      for (const [end, program] of Object.entries(pair)) {
        const isOnA = (end === "client") === (index !== 2);
        if (index === 1 && !isOnA) continue; // no agent is told that a datagram was unwelcome
        const { how, atS } = await endOf(program);
        expect(how).toMatch(index === 1 ? /PermissionError/ : /ConnectionReset|BrokenPipe/);
        expect(atS - sentS, `${end} ${index}`).toBeLessThan(isOnA ? HERE_S : THERE_S);
      }
    }
    await Promise.all([onA.stop(), onB.stop()]);
    const resets = await onA.packets(`src host ${lab.overlay("b")} and ${RESET}`);
    const refusals = await onA.packets(PROHIBITED);
    expect(Math.max(resets[0]!.atS, refusals[0]!.atS) - sentS).toBeLessThan(HERE_S);
    const ofB = await onA.packets(`src host ${lab.overlay("b")} and not ${RESET}`);
    expect(ofB.length).toBeGreaterThan(10); // the capture saw the conversations
    expect(ofB.filter(({ atS }) => atS > answeredS)).toEqual([]);
    expect((await onB.packets(`src host ${lab.overlay("a")} and ${RESET}`))[0]!.atS - sentS).toBeLessThan(THERE_S);
    await lab.waitForTrust("b", "a", "revoked-by-peer");
    await Promise.all(pairs.flatMap(({ client, server }) => [client.stop(), server.stop()]));
  });
});

async function peerOf(host: string, peer: string): Promise<Reply> {
  const { peers } = await lab.peers(host);
  return peers.find((entry: Reply) => entry.node === lab.node(peer).node);
}

/** A Python program that says "ready" when it is; its first argument is an address of its own host. */
async function startPython(
  host: string,
  code: string,
  args: readonly string[] = [],
  address = lab.overlay(host),
): Promise<LabProcess> {
  const program = lab.spawn(host, "python3", ["-u", "-c", code, address, ...args]);
  await program.waitForLine(/ready/);
  return program;
}

/** From the command on; both are a few milliseconds on a machine that does nothing else. */
const HERE_S = 1;
const THERE_S = 2;
const SYN = "(ip6[6] == 6 and ip6[53] & 0x12 == 2)";
const SYN_ACK = "(ip6[6] == 6 and ip6[53] & 0x12 == 0x12)";

const LISTEN = `
import socket, struct, sys, threading, time
def listen(port):
    s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((sys.argv[1], port)); s.listen(16); return s
`;
/** Without a length: the end of the body is the end of what the client sends. */
const HTTP_1_0_SERVER = `${LISTEN}
s = listen(8000); print('ready'); c, who = s.accept(); print('from', who[0]); f = c.makefile('rb')
while f.readline().strip(): pass
n = len(f.read()); time.sleep(0.2); text = b'%d bytes received' % n
c.sendall(b'HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(text) + text); c.close()
`;
const HTTP_1_0_CLIENT = `
import socket, sys
c = socket.create_connection((sys.argv[1], 8000), 15); c.sendall(b'POST /upload HTTP/1.0\\r\\n\\r\\n')
c.sendall(bytes(range(256)) * 11718 + bytes(192)); c.shutdown(socket.SHUT_WR)
answer = c.makefile('rb').read().decode().split('\\r\\n'); print(answer[0] + ', ' + answer[-1])
`;
const BREAK = `
def act(c, breaks):
    c.sendall(b'x'); c.recv(1)
    if breaks: time.sleep(0.2); c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); c.close(); return
    try: print('ended by', 'EOF' if c.recv(1) == b'' else 'data')
    except OSError as error: print('ended by', type(error).__name__)
`;
const RESETTING_SERVER = `${LISTEN}${BREAK}
s = listen(7401); print('ready'); act(s.accept()[0], sys.argv[2] == 'server'); time.sleep(5)
`;
const RESETTING_CLIENT = `
import socket, struct, sys, time
${BREAK}
act(socket.create_connection((sys.argv[1], 7401)), sys.argv[2] == 'client'); time.sleep(5)
`;
const SLEEPING_SERVER = `${LISTEN}
s = listen(7400); print('ready'); time.sleep(60)
`;
/** Data exchange on 1001: frames of type, length, payload, each acknowledged. Event stream on 1002: subscribe, then events. */
const FRAME_SERVER = `${LISTEN}
def read(f, form): return struct.unpack(form, f.read(struct.calcsize(form)))
def frame(kind, payload): return struct.pack('!II', kind, len(payload)) + payload
def exchange(c):
    f = c.makefile('rb')
    while head := f.read(8):
        kind, length = struct.unpack('!II', head); n = len(f.read(length))
        c.sendall(frame(1, b'ACK %s %d bytes' % ({1: b'TEXT', 3: b'JSON'}[kind], n)))
def events(c):
    f = c.makefile('rb'); topic = f.read(read(f, '!H')[0]); f.read(read(f, '!I')[0])
    c.sendall(struct.pack('!H', len(topic)) + topic + struct.pack('!I', 5) + b'hello')
for port, serve in ((1001, exchange), (1002, events)):
    threading.Thread(target=lambda s, serve: serve(s.accept()[0]), args=(listen(port), serve)).start()
print('ready')
`;
const FRAME_CLIENT = `
import socket, struct, sys
c = socket.create_connection((sys.argv[1], 1001), 5); f = c.makefile('rb')
for kind, payload in ((1, b't' * 70000), (3, b'{}')):
    c.sendall(struct.pack('!II', kind, len(payload)) + payload)
    print(f.read(struct.unpack('!II', f.read(8))[1]).decode())
e = socket.create_connection((sys.argv[1], 1002), 5); g = e.makefile('rb')
e.sendall(struct.pack('!H', 4) + b'news' + struct.pack('!I', 0))
topic = g.read(struct.unpack('!H', g.read(2))[0]).decode(); print(topic + ': ' + g.read(struct.unpack('!I', g.read(4))[0]).decode())
`;
