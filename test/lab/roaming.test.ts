import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import { LabNat } from "../helpers/lab-nat.ts";
import { lateness } from "../helpers/lateness.ts";

/** a and c behind one router, b behind another; a third waits for a to move. */
describe("paths between two hosts behind routers", () => {
  let lab: Lab;
  let ofA: LabNat;
  let ofB: LabNat;
  let third: LabNat;

  const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
  const peerOf = async (from: string, to: string): Promise<Reply> => {
    const { peers } = await lab.peers(from);
    return peers.find((peer: Reply) => peer.node === lab.node(to).node);
  };
  const waitForPath = async (from: string, to: string, path: string, withinMs: number): Promise<number> => {
    const start = performance.now();
    const isSo = async (): Promise<boolean> => (await peerOf(from, to)).path === path;
    await waitUntil(`${from} to reach ${to} by ${path}`, isSo, withinMs);
    return performance.now() - start;
  };
  const answered = async (from: string, to: string, timeoutS: number): Promise<boolean> => {
    const { code } = await lab.exec(from, "ping", ["-6", "-q", "-c", "1", "-W", String(timeoutS), lab.overlay(to)]);
    return code === 0;
  };
  /** Pings without end; how long after `at` (performance.now) the first answer to a later ping came, in ms. */
  const pingAlong = (from: string, to: string) => {
    const process = lab.spawn(from, "ping", ["-6", "-D", "-i", "0.1", lab.overlay(to)]);
    return {
      async firstAnswerAfter(wallMs: number, withinMs: number): Promise<number> {
        let first: number | undefined;
        await waitUntil(
          "an answer",
          () => {
            const times = [...process.stdout.matchAll(/^\[(\d+\.\d+)\] \d+ bytes/gm)].map((match) => 1000 * +match[1]!);
            first = times.find((time) => time > wallMs);
            return first !== undefined;
          },
          withinMs,
        );
        return first! - wallMs;
      },
      stop: () => process.stop(),
    };
  };

  beforeAll(async () => {
    lab = await Lab.create("roam", { hosts: ["a", "b", "c", "ra", "rb", "rc"] });
    await lab.startRendezvous();
    ofA = new LabNat(lab, "ra", 1);
    ofB = new LabNat(lab, "rb", 2);
    third = new LabNat(lab, "rc", 3);
    for (const router of [ofA, ofB, third]) await router.create("port-dependent");
    await ofA.adopt("a");
    await ofA.adopt("c");
    await ofB.adopt("b");
    await Promise.all(["a", "b", "c"].map((host) => lab.startNode(host)));
    await lab.trust("a", "b");
    await lab.trust("a", "c");
  });
  afterAll(() => lab?.close());

  it("two hosts on one LAN reach each other by their LAN addresses", async () => {
    expect(await answered("a", "c", 5)).toBe(true);
    await waitForPath("a", "c", "direct", 20_000);
    await waitUntil("the LAN's addresses", async () => (await peerOf("a", "c")).endpoint.startsWith("192.168.1."));
    await waitUntil("the LAN's addresses", async () => (await peerOf("c", "a")).endpoint.startsWith("192.168.1."));
  });

  it("a download goes on by relay when direct is blocked, comes back when the block lifts, and is not reset", async () => {
    await waitForPath("a", "b", "direct", 10_000);
    const folder = `${lab.folder}/www`;
    mkdirSync(folder);
    const content = randomBytes(40 * 1024 * 1024);
    writeFileSync(`${folder}/file`, content);
    const server = lab.spawn("b", "python3", ["-c", PACED, `${folder}/file`]);
    await server.waitForLine(/listening/);
    const url = `http://[${lab.overlay("b")}]:8000/file`;
    const curl = lab.spawn("a", "curl", ["-sS", "-o", `${folder}/got`, "-w", "%{num_connects}", url]);
    await sleep(1_500);
    const lateMs = lateness(lab, "a", "b");
    await ofA.block(ofB.outside);
    const downMs = await waitForPath("a", "b", "relay", 20_000);
    await sleep(2_000);
    const received = (await peerOf("a", "b")).rxBytes;
    await sleep(1_000);
    expect((await peerOf("a", "b")).rxBytes).toBeGreaterThan(received); // it flows through the relay
    await ofA.block(undefined);
    const upMs = await waitForPath("a", "b", "direct", 30_000);
    console.log(`to relay in ${downMs.toFixed(0)} ms, back to direct in ${upMs.toFixed(0)} ms`);
    expect(downMs).toBeLessThan(5_000 + lateMs());
    expect(upMs).toBeLessThan(10_000 + lateMs());
    const { code } = await curl.waitForEnd(30_000);
    expect(curl.stderr).toBe("");
    expect(code).toBe(0);
    expect(curl.stdout).toBe("1");
    const { stdout } = await lab.exec("a", "sha256sum", [`${folder}/got`]);
    expect(stdout.split(" ")[0]).toBe(createHash("sha256").update(content).digest("hex"));
    await server.stop();
  });

  it("traffic comes back within 2 s when the router of one side forgets its mappings and gives others", async () => {
    const pings = pingAlong("a", "b");
    await pings.firstAnswerAfter(0, 5_000);
    for (const kind of ["symmetric", "port-dependent"] as const) {
      const lateMs = lateness(lab, "a", "b");
      await ofA.become(kind);
      const tookMs = await pings.firstAnswerAfter(Date.now(), 10_000);
      console.log(`after other mappings: ${tookMs.toFixed(0)} ms`);
      expect(tookMs).toBeLessThan(2_000 + lateMs());
    }
    await pings.stop();
  });

  it("so it does for a host that only receives, and of whose router nobody tells it", async () => {
    const receiver = lab.spawn("a", "python3", ["-u", "-c", RECEIVE, lab.overlay("a")]);
    await receiver.waitForLine(/listening/);
    const sender = lab.spawn("b", "python3", ["-c", SEND, lab.overlay("a")]);
    await receiver.waitForLine(/^\d/);
    await sleep(1_500);
    const lateMs = lateness(lab, "a", "b");
    await ofA.become("symmetric");
    const changedAt = Date.now() / 1000;
    const isBack = (): boolean => Number(receiver.stdout.trim().split("\n").at(-1)) > changedAt + 0.02;
    await waitUntil("datagrams again", isBack, 10_000);
    const tookMs = Date.now() - 1000 * changedAt;
    console.log(`after other mappings, one way: ${tookMs.toFixed(0)} ms`);
    expect(tookMs).toBeLessThan(2_000 + lateMs());
    await Promise.all([sender.stop(), receiver.stop(), ofA.become("port-dependent")]);
  });

  it("traffic comes back within 2 s of a move to another network, with the connection that was open", async () => {
    const server = lab.spawn("b", "python3", ["-c", ECHO]);
    await server.waitForLine(/listening/);
    const client = lab.spawn("a", "python3", ["-c", TALK, lab.overlay("b")]);
    await client.waitForLine(/^5$/m, 10_000);
    const pings = pingAlong("a", "b");
    await pings.firstAnswerAfter(0, 5_000);
    const lateMs = lateness(lab, "a", "b");
    await third.adopt("a");
    const tookMs = await pings.firstAnswerAfter(Date.now(), 10_000);
    console.log(`after a move: ${tookMs.toFixed(0)} ms`);
    expect(tookMs).toBeLessThan(2_000 + lateMs());
    expect((await client.waitForEnd(20_000)).code).toBe(0);
    await waitForPath("a", "b", "direct", 10_000);
    await pings.stop();
    await server.stop();
  });
});

/** Serves one file at some 2.5 MB/s: a client that reads slowly would not do, its kernel takes the whole file at once. */
const PACED = `
import http.server, socket, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        data = open(sys.argv[1], "rb").read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for i in range(0, len(data), 65536):
            self.wfile.write(data[i:i + 65536])
            time.sleep(0.025)
class Server(http.server.HTTPServer):
    address_family = socket.AF_INET6
server = Server(("::", 8000), Handler)
print("listening", flush=True)
server.serve_forever()
`;

/** When each datagram came, in Unix seconds. */
const RECEIVE = `
import socket, sys, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 7000))
print("listening", flush=True)
while True:
    s.recv(99)
    print(time.time(), flush=True)
`;
const SEND = `
import socket, sys, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
while True:
    try: s.sendto(b"x", (sys.argv[1], 7000))
    except OSError: pass
    time.sleep(0.05)
`;
const ECHO = `
import socket
s = socket.create_server(("::", 7777), family=socket.AF_INET6)
print("listening", flush=True)
c, _ = s.accept()
while True:
    d = c.recv(999)
    if not d: break
    c.sendall(d)
`;
/** Forty lines each way, one every 200 ms; a reset ends it with an error. */
const TALK = `
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7777), timeout=10)
for i in range(40):
    s.sendall(b"line")
    assert s.recv(99)
    print(i, flush=True)
    time.sleep(0.2)
`;
