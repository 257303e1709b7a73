/** Networks that block UDP: the node goes on over TLS by itself, says so, and comes back by itself. */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import { block, unblock } from "../helpers/lab-block.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import { lateness } from "../helpers/lateness.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const PROXY = fileURLToPath(new URL("../helpers/connect-proxy.py", import.meta.url));
const FILE_BYTES = 24 * 1024 * 1024;

/** Sends a file at the pace that the URL asks for, bytes per second: so that a download is under way for a known time. */
const SLOW_SERVER = `
import http.server, socket, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        data, rate = open(sys.argv[2], "rb").read(), int(self.path[1:])
        self.send_response(200); self.send_header("Content-Length", str(len(data))); self.end_headers()
        for start in range(0, len(data), rate // 20):
            self.wfile.write(data[start:start + rate // 20]); time.sleep(0.05)
class Server(http.server.ThreadingHTTPServer): address_family = socket.AF_INET6
server = Server((sys.argv[1], 8000), Handler)
print("serving", flush=True)
server.serve_forever()
`;

let lab: Lab;
let pin: string[];
let body: Buffer;

beforeAll(async () => {
  lab = await Lab.create("udpblocked");
  const compat = `${lab.network.addressOf(lab.rendezvousHost)}:443`;
  const rendezvous = await lab.startRendezvous(["--compat", compat, "--tls-self-signed"]);
  const fingerprint = /certificate ([0-9a-f]{64})/.exec(rendezvous.stdout)?.[1];
  pin = ["--compat-fingerprint", fingerprint!];
  await Promise.all([lab.startNode("a", { extraArgs: pin }), lab.startNode("b", { extraArgs: pin })]);
  await lab.trust("a", "b");
  body = Buffer.alloc(FILE_BYTES, Buffer.from(seededBytes(11)(65_521)));
  writeFileSync(`${lab.folder}/file`, body);
  const serve = ["-u", "-c", SLOW_SERVER, lab.overlay("b"), `${lab.folder}/file`];
  await lab.spawn("b", "python3", serve).waitForLine(/serving/);
});

afterEach(() => unblock(lab, "a"));
afterAll(() => lab?.close());

const transportOf = async (host: string): Promise<string> => (await lab.status(host)).beacon.transport;

const peerOf = async (host: string, peer: string): Promise<Reply> => {
  const { peers } = await lab.peers(host);
  return peers.find((entry: Reply) => entry.node === lab.node(peer).node);
};

const problemsOf = async (host: string): Promise<Reply[]> => (await lab.status(host)).problems;

function download(host: string, bytesPerSecond: number): LabProcess {
  const url = `http://[${lab.overlay("b")}]:8000/${bytesPerSecond}`;
  return lab.spawn(host, "curl", ["-gsSf", "-m", "60", "-o", `${lab.folder}/got`, url]);
}

async function expectWhole(curl: LabProcess): Promise<void> {
  const { code } = await curl.waitForEnd(60_000);
  expect(code, curl.report()).toBe(0);
  expect(sha256(readFileSync(`${lab.folder}/got`))).toBe(sha256(body));
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Bytes that the peer has sent us so far. */
const receivedFrom = async (host: string, peer: string): Promise<number> => (await peerOf(host, peer)).rxBytes;

describe("a host whose UDP is blocked", () => {
  it("keeps a download going over TLS as soon as the way is there, and returns to the direct way after the block", async () => {
    await waitUntil("a direct path", async () => (await peerOf("a", "b")).path === "direct");
    const curl = download("a", 1_200_000);
    await pause(1500);
    const lateMs = lateness(lab, "a", "b");
    await block(lab, "a", "meta l4proto udp");
    const blockedAt = performance.now();
    const before = await receivedFrom("a", "b");
    await waitUntil("TCP to the beacon", async () => (await transportOf("a")) === "tcp");
    const foundMs = performance.now() - blockedAt;
    expect(foundMs).toBeLessThan(5_000 + lateMs());
    await waitUntil("bytes again", async () => (await receivedFrom("a", "b")) > before + 500_000);
    const movedMs = performance.now() - blockedAt;
    // Packets waited for the way: the kernel's next repetition comes only 6 s after the block.
    expect(movedMs - foundMs).toBeLessThan(2_000 + lateMs());
    expect(await peerOf("a", "b")).toMatchObject({ path: "tcp" });
    const [problem] = (await problemsOf("a")).filter(({ code }) => code === "udp_blocked");
    expect(problem?.message).toContain("wss://");
    await unblock(lab, "a");
    const liftedAt = performance.now();
    await waitUntil("UDP to the beacon", async () => (await transportOf("a")) === "udp");
    await waitUntil("a direct path", async () => (await peerOf("a", "b")).path === "direct", 20_000);
    const backMs = performance.now() - liftedAt;
    console.log(`found ${foundMs.toFixed(0)} ms, moved ${movedMs.toFixed(0)} ms, back ${backMs.toFixed(0)} ms`);
    expect((await problemsOf("a")).map(({ code }) => code)).not.toContain("udp_blocked");
    await expectWhole(curl);
  });

  it("finds out within five seconds by itself, though nothing is sent, and hears its peer again", async () => {
    await waitUntil("a direct path", async () => (await peerOf("a", "b")).path === "direct");
    expect((await lab.exec("a", "ping", ["-6", "-c", "2", "-W", "5", lab.overlay("b")])).code).toBe(0);
    await pause(8_000); // no program says a word
    const lateMs = lateness(lab, "a", "b");
    await block(lab, "a", "meta l4proto udp");
    const blockedAt = performance.now();
    await waitUntil("TCP to the beacon", async () => (await transportOf("a")) === "tcp");
    const foundMs = performance.now() - blockedAt;
    console.log(`found ${foundMs.toFixed(0)} ms after the block, without traffic`);
    expect(foundMs).toBeLessThan(5_000 + lateMs());
    // The first packet comes from the other side, which cannot know what happened here.
    const { stdout } = await lab.exec("b", "ping", ["-6", "-c", "15", "-i", "0.2", "-W", "2", lab.overlay("a")]);
    expect(Number(/(\d+) received/.exec(stdout)?.[1])).toBeGreaterThan(3);
    await unblock(lab, "a");
    await waitUntil("UDP to the beacon", async () => (await transportOf("a")) === "udp");
  });

  it("reaches a peer when it starts behind the block", async () => {
    await block(lab, "a", "meta l4proto udp");
    await lab.stopNode("a");
    await lab.startNode("a", { extraArgs: pin });
    await waitUntil("TCP to the beacon", async () => (await transportOf("a")) === "tcp");
    const { stdout } = await lab.exec("a", "ping", ["-6", "-c", "5", "-W", "5", lab.overlay("b")]);
    expect(Number(/(\d+) received/.exec(stdout)?.[1])).toBeGreaterThanOrEqual(4);
    expect((await lab.exec("b", "ping", ["-6", "-c", "2", "-W", "5", lab.overlay("a")])).code).toBe(0);
  });

  it("with --no-compat says within five seconds that UDP is blocked and nothing goes around it", async () => {
    await block(lab, "a", "meta l4proto udp");
    await lab.stopNode("a");
    await lab.startNode("a", { extraArgs: ["--no-compat"] });
    const [lateMs, startedAt] = [lateness(lab, "a"), performance.now()];
    const isTold = async () => (await problemsOf("a")).some(({ code }) => code === "udp_blocked");
    await waitUntil("the problem", isTold);
    expect(performance.now() - startedAt).toBeLessThan(5_000 + lateMs());
    expect(await transportOf("a")).toBe("udp");
    const told = await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "8", lab.overlay("b")]);
    expect(told.stdout).toContain("Address unreachable"); // and programs are not left waiting
    await lab.stopNode("a");
    await unblock(lab, "a");
    await lab.startNode("a", { extraArgs: pin });
  });
});

describe("a host whose only way out is a proxy", () => {
  it("reaches the beacon and its peer through CONNECT, and is told that the registry's port is closed", async () => {
    const address = lab.network.addressOf("c");
    const proxy = lab.spawn("c", "python3", ["-u", PROXY, address, "3128"]);
    await proxy.waitForLine(/listening/);
    await lab.stopNode("a");
    await block(lab, "a", `ip daddr != ${address} ip saddr != ${address}`);
    await lab.startNode("a", { extraArgs: pin, env: { HTTPS_PROXY: `http://${address}:3128`, NO_PROXY: "localhost" } });
    await waitUntil("TCP to the beacon", async () => (await transportOf("a")) === "tcp");
    expect(proxy.stdout).toContain(`CONNECT ${lab.network.addressOf(lab.rendezvousHost)}:443`);
    const { stdout } = await lab.exec("a", "ping", ["-6", "-c", "5", "-W", "5", lab.overlay("b")]);
    expect(Number(/(\d+) received/.exec(stdout)?.[1])).toBeGreaterThanOrEqual(4);
    const isTold = async () => (await problemsOf("a")).some(({ code }) => code === "registry_port_blocked");
    await waitUntil("the registry's problem", isTold, 10_000);
    await expectWhole(download("a", 20_000_000));
  });
});
