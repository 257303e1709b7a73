/** Unmodified programs through pilot0: the main job. */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connectError } from "../helpers/connect-error.ts";
import { Lab } from "../helpers/lab.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("programs");
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b")]);
  await lab.trust("a", "b");
});

afterAll(() => lab?.close());

describe("between two trusted hosts", () => {
  it("ping6 is answered by the far host, in both directions", async () => {
    for (const [from, to] of [
      ["a", "b"],
      ["b", "a"],
    ] as const) {
      const { code, stdout } = await lab.exec(from, "ping", ["-6", "-c", "5", "-i", "0.1", "-W", "1", lab.overlay(to)]);
      expect(stdout).toContain("5 received");
      expect(code).toBe(0);
    }
  });

  it("curl fetches a file of 20 MB from python's http.server, byte for byte", async () => {
    const folder = `${lab.folder}/www`;
    mkdirSync(folder);
    const body = Buffer.alloc(20 * 1024 * 1024, Buffer.from(seededBytes(7)(65_521)));
    writeFileSync(`${folder}/file`, body);
    const server = lab.spawn("b", "python3", [
      "-u",
      "-m",
      "http.server",
      "8000",
      "--bind",
      lab.overlay("b"),
      "-d",
      folder,
    ]);
    await server.waitForLine(/Serving HTTP/);
    const url = `http://[${lab.overlay("b")}]:8000/file`;
    const { code } = await lab.exec("a", "curl", ["-gsf", "-m", "15", "-o", `${lab.folder}/got`, url]);
    expect(code).toBe(0);
    expect(sha256(readFileSync(`${lab.folder}/got`))).toBe(sha256(body));
    // The server sees the caller's overlay address, and whois knows whose it is.
    expect(server.stderr + server.stdout).toContain(lab.overlay("a"));
    const whois = await lab.pilot("b", "whois", lab.overlay("a"));
    expect(whois).toMatchObject({ node: lab.node("a").node, hostname: "a", trust: "mutual" });
  });

  it("a UDP datagram arrives with its boundaries, at its port, and only there", async () => {
    const receiver = lab.spawn("b", "nc", ["-6", "-u", "-l", lab.overlay("b"), "5353"]);
    const other = lab.spawn("b", "nc", ["-6", "-u", "-l", lab.overlay("b"), "5354"]);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await lab.exec("a", "nc", ["-6", "-u", "-w", "1", lab.overlay("b"), "5353"], { input: "a datagram\n" });
    expect(await receiver.waitForLine(/datagram/)).toBe("a datagram");
    expect(other.stdout).toBe("");
  });

  it("a closed port refuses at once and a late answer survives half-close", async () => {
    expect(await connectError(lab, "a", lab.overlay("b"), 9)).toBe("ECONNREFUSED");
    const server =
      "import socket,sys,time\ns=socket.socket(socket.AF_INET6);s.bind((sys.argv[1],7000));s.listen()\nprint('up',flush=True)\nc,_=s.accept()\nn=0\nwhile (d:=c.recv(65536)): n+=len(d)\ntime.sleep(0.3);c.sendall(b'got %d\\n'%n);c.close()";
    const listening = lab.spawn("b", "python3", ["-c", server, lab.overlay("b")]);
    await listening.waitForLine(/up/);
    const sent = await lab.exec("a", "nc", ["-6", "-N", "-w", "5", lab.overlay("b"), "7000"], {
      input: "x".repeat(100_000),
    });
    expect(sent.stdout).toBe("got 100000\n");
  });

  it("iperf3 runs both ways, with TCP and with UDP, without losing the connection", async () => {
    const server = lab.spawn("b", "iperf3", ["-s", "-p", "5201", "--forceflush"]);
    await server.waitForLine(/listening/i);
    for (const extra of [[], ["-R"], ["-P", "4"], ["-u", "-b", "20M", "-l", "1200"]]) {
      const args = ["-6", "-c", lab.overlay("b"), "-t", "1", "-J", ...extra];
      const { code, stdout } = await lab.exec("a", "iperf3", args, { timeoutMs: 15_000 });
      expect(code, stdout.slice(0, 500)).toBe(0);
      const { end } = JSON.parse(stdout);
      expect((end.sum_received ?? end.sum).bytes, extra.join(" ")).toBeGreaterThan(100_000);
    }
    await server.stop();
  });

  it("status shows address, path, traffic and round trip of the peer", async () => {
    const status = await lab.status("a");
    expect(status).toMatchObject({
      schema: "pilot-tun/1",
      interface: "pilot0",
      address: lab.overlay("a"),
      node: lab.node("a").node,
      hostname: "a",
      mtu: 1360,
      registry: { state: "connected" },
      problems: [],
    });
    const peer = status.peers.find((entry: { node: number }) => entry.node === lab.node("b").node);
    expect(peer).toMatchObject({
      hostname: "b",
      trust: "mutual",
      path: "direct",
      kind: "pilot-tun",
      session: "noise",
      address: lab.overlay("b"),
    });
    expect(peer.rxBytes).toBeGreaterThan(20_000_000);
    expect(peer.txBytes).toBeGreaterThan(20_000_000);
    expect(peer.rttMs).toBeGreaterThan(0);
    expect(await lab.pilot("a", "addr", "b")).toMatchObject({ address: lab.overlay("b"), self: false });
    const pinged = await lab.pilot("a", "ping", "b.pilot", "-c", "2", "-i", "0.1s");
    expect(pinged).toMatchObject({ sent: 2, received: 2, path: "direct" });
  });

  it("nothing readable travels on the underlay", async () => {
    const file = `${lab.folder}/wire.pcap`;
    const capture = lab.spawn("a", "tcpdump", ["-i", "eth0", "-U", "-w", file, "udp"]);
    await capture.waitForLine(/listening on/);
    const marker = "planted-marker-of-this-test";
    const receiver = lab.spawn("b", "nc", ["-6", "-u", "-l", lab.overlay("b"), "5355"]);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await lab.exec("a", "nc", ["-6", "-u", "-w", "1", lab.overlay("b"), "5355"], { input: `${marker}\n` });
    await receiver.waitForLine(/planted/);
    await capture.stop();
    const captured = readFileSync(file).toString("latin1");
    expect(captured).toContain("PILS");
    expect(captured).not.toContain(marker);
  });
});

describe("the interface", () => {
  it("carries the address, MTU and route, and nothing else of the host is changed", async () => {
    const address = await lab.exec("a", "ip", ["-6", "addr", "show", "dev", "pilot0"]);
    expect(address.stdout).toContain(`inet6 ${lab.overlay("a")}/128`);
    expect(address.stdout).toContain("mtu 1360");
    expect(address.stdout).not.toContain("fe80");
    expect(address.stdout).not.toContain("tentative");
    const routes = await lab.exec("a", "ip", ["-6", "route", "show", "dev", "pilot0"]);
    expect(routes.stdout).toContain("fd50:494c:4f54::/48");
  });

  it("answers a ping to a node that does not exist with no route, at once", async () => {
    const { stdout } = await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "2", "fd50:494c:4f54::dead:beef"]);
    expect(stdout).toContain("No route");
    const outside = await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "2", "fd50:494c:4f54:77::1"]);
    expect(outside.stdout).toContain("No route");
  });

  it("drops and counts packets with a source that is not ours", async () => {
    await lab.exec("a", "ip", ["-6", "addr", "add", "fd50:494c:4f54::7777/128", "dev", "lo", "nodad"]);
    await lab.exec("a", "ping", [
      "-6",
      "-c",
      "2",
      "-i",
      "0.2",
      "-W",
      "1",
      "-I",
      "fd50:494c:4f54::7777",
      lab.overlay("b"),
    ]);
    await lab.exec("a", "ip", ["-6", "addr", "del", "fd50:494c:4f54::7777/128", "dev", "lo"]);
    const status = await lab.status("a");
    expect(status.drops["spoofed-source"]).toBeGreaterThanOrEqual(2);
  });
});

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
