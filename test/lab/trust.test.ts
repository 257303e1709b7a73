/** Consent and its end, seen with tcpdump on both interfaces. */
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { connectError } from "../helpers/connect-error.ts";
import { Lab, waitUntil } from "../helpers/lab.ts";

let lab: Lab;

beforeEach(async () => {
  lab = await Lab.create("trust", { hosts: ["a", "b"] });
  await lab.startRendezvous();
  await lab.startNode("a");
  await lab.startNode("b");
});

afterEach(() => lab?.close());

const ping = (from: string, to: string, count = 1) =>
  lab.exec(from, "ping", ["-6", "-c", String(count), "-i", "0.1", "-W", "1", lab.overlay(to)]);

describe("consent", () => {
  it("is needed of both before any packet passes, and the refusal says why", async () => {
    const onB = await captureInner("b");
    expect((await ping("a", "b")).stdout).toContain("Administratively prohibited");
    await lab.pilot("a", "trust", "ask", String(lab.node("b").node), "--reason", "lab");
    expect((await ping("a", "b")).stdout).toContain("Administratively prohibited");
    expect((await ping("b", "a")).stdout).toContain("Administratively prohibited");
    const started = performance.now();
    expect(await connectError(lab, "a", lab.overlay("b"), 80)).toBe("EACCES");
    expect(performance.now() - started).toBeLessThan(1_000);
    const pending = await lab.pilot("b", "trust", "pending");
    expect(pending.requests).toMatchObject([{ node: lab.node("a").node, hostname: "a", reason: "lab" }]);
    expect(await onB.packetsFrom(lab.overlay("a"))).toBe(0);

    await lab.pilot("b", "trust", "approve", "a");
    await lab.waitForTrust("a", "b", "mutual", 2_000);
    expect((await ping("a", "b", 3)).stdout).toContain("3 received");
  });

  it("is refused by deny, and the asker learns it", async () => {
    await lab.pilot("a", "trust", "ask", String(lab.node("b").node));
    await waitUntil("the request", async () => (await lab.pilot("b", "trust", "pending")).requests.length === 1);
    await lab.pilot("b", "trust", "deny", "a");
    await lab.waitForTrust("a", "b", "none", 3_000);
    expect((await ping("a", "b")).stdout).toContain("Administratively prohibited");
    expect((await lab.tryPilot("b", "trust", "approve", "a")).reply.error.code).toMatch(/nothing_pending|unknown_peer/);
  });

  it("given by one side alone opens nothing, also when the registry is told so", async () => {
    await lab.pilot("a", "trust", "ask", String(lab.node("b").node));
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const status = await lab.pilot("a", "status");
    expect(status.peers[0]).toMatchObject({ trust: "asked", path: "none" });
    expect((await lab.tryPilot("a", "ping", String(lab.node("b").node), "-c", "1")).code).toBe(5);
  });
});

describe("revocation", () => {
  it("cuts a running transfer on both sides, tells both programs, and stays", async () => {
    await lab.trust("a", "b");
    const server = lab.spawn("b", "python3", ["-u", "-c", SENDER, lab.overlay("b")]);
    await server.waitForLine(/listening/);
    const client = lab.spawn("a", "python3", ["-u", "-c", RECEIVER, lab.overlay("b")]);
    await client.waitForLine(/receiving/);
    const idleServer = lab.spawn("b", "python3", ["-u", "-c", IDLE_SERVER, lab.overlay("b")]);
    await idleServer.waitForLine(/listening/);
    const idle = lab.spawn("a", "python3", ["-u", "-c", IDLE_CLIENT, lab.overlay("b")]);
    await idle.waitForLine(/connected/);
    const onB = await captureInner("b");

    const revoked = await lab.pilot("b", "trust", "revoke", "a");
    const returnedAt = Date.now() / 1000;
    expect(revoked.cutFlows).toBeGreaterThanOrEqual(2);
    expect(revoked.elapsedMs).toBeLessThan(100);
    expect(revoked.peerTold).toBe("acknowledged");
    expect(revoked.toldAfterMs).toBeLessThan(1_000);

    for (const program of [server, client, idleServer, idle]) {
      const line = await program.waitForLine(/ended by/, 2_000);
      expect(line).toMatch(/ended by (ConnectionResetError|BrokenPipeError)/);
      expect(Number(line.split(" ").at(-1))).toBeLessThan(returnedAt + 1);
    }
    await lab.waitForTrust("a", "b", "revoked-by-peer", 1_000);
    expect((await ping("a", "b")).stdout).toContain("Administratively prohibited");
    expect((await ping("b", "a")).stdout).toContain("Administratively prohibited");
    expect(await onB.packetsFrom(lab.overlay("a"), returnedAt)).toBe(0);

    // Restarts of all three bring nothing back.
    for (const host of ["a", "b"]) await lab.stopNode(host, "SIGKILL");
    await lab.rendezvous.stop();
    await lab.startRendezvous();
    for (const host of ["a", "b"]) await lab.startNode(host);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect(await lab.trustOf("b", "a")).toBe("revoked");
    expect(await lab.trustOf("a", "b")).toBe("revoked-by-peer");
    expect((await ping("a", "b")).stdout).toContain("Administratively prohibited");
  });
});

/** Counts packets of a source that the daemon wrote to the interface of `host`. */
async function captureInner(host: string) {
  const file = `${lab.folder}/${host}-inner.pcap`;
  const capture = lab.spawn(host, "tcpdump", ["--immediate-mode", "-n", "-i", "pilot0", "-Q", "in", "-U", "-w", file]);
  await capture.waitForLine(/listening on/);
  return {
    async packetsFrom(source: string, sinceS = 0): Promise<number> {
      await new Promise((resolve) => setTimeout(resolve, 300));
      readFileSync(file); // there, or the test is wrong
      // Resets and errors that the daemon writes itself are not the peer's: they are the answer to the cut.
      const filter = `src host ${source} and not (ip6[6] == 6 and ip6[53] & 4 != 0)`;
      const { stdout } = await lab.exec(host, "tcpdump", ["-n", "-tt", "-r", file, filter]);
      return stdout.split("\n").filter((line) => line !== "" && Number(line.split(" ")[0]) > sinceS).length;
    },
  };
}

const WATCH = `
import socket, sys, time
def watch(act):
    try:
        while act(): pass
        print('ended by EOF', time.time())
    except OSError as error:
        print('ended by', type(error).__name__, time.time())
`;
const LISTEN = `${WATCH}
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
`;
const SENDER = `${LISTEN}
s.bind((sys.argv[1], 7001)); s.listen(); print('listening')
c, _ = s.accept(); block = b'x' * 65536
watch(lambda: c.send(block))
`;
const RECEIVER = `${WATCH}
c = socket.create_connection((sys.argv[1], 7001)); c.recv(1); print('receiving')
watch(lambda: c.recv(65536))
`;
const IDLE_SERVER = `${LISTEN}
s.bind((sys.argv[1], 7002)); s.listen(); print('listening')
c, _ = s.accept(); watch(lambda: c.recv(1))
`;
const IDLE_CLIENT = `${WATCH}
c = socket.create_connection((sys.argv[1], 7002)); c.send(b'hello'); print('connected')
watch(lambda: c.recv(1))
`;
