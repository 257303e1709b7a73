/** Bad input and faults: each is reported or counted, nothing is lost, and the daemon lives on. */
import { readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SEALED_OVERHEAD_BYTES } from "../../src/io/native.ts";
import { VIRTUAL_HEADER_BYTES } from "../../src/wire/virtual-packet.ts";
import { LAUNCHER, Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import { lateness } from "../helpers/lateness.ts";
import { datagramsOf } from "../helpers/pcap.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("faults");
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b")]);
  await lab.trust("a", "b");
});

afterAll(() => lab?.close());

/** An echo request of ping's usual 56 bytes, in its frame. */
const PING_FRAME_BYTES = SEALED_OVERHEAD_BYTES + VIRTUAL_HEADER_BYTES + 40 + 8 + 56;

const pings = async (from: string, to: string, count = 2): Promise<number> => {
  const args = ["-6", "-c", String(count), "-i", "0.1", "-W", "1", lab.overlay(to)];
  const { stdout } = await lab.exec(from, "ping", args);
  return Number(/(\d+) received/.exec(stdout)?.[1]);
};

const portOf = async (host: string): Promise<number> => {
  const status = await lab.status(host);
  return Number(status.listen.split(":").at(-1));
};

/** Sends datagrams from a host, hex lines on stdin. */
async function inject(from: string, address: string, port: number, datagrams: readonly Uint8Array[]): Promise<void> {
  const program = `
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i, line in enumerate(sys.stdin):
    s.sendto(bytes.fromhex(line.strip()), (sys.argv[1], int(sys.argv[2])))
    if i % 50 == 0: time.sleep(0.01)
`;
  const input = datagrams.map((datagram) => Buffer.from(datagram).toString("hex")).join("\n");
  const { code, stderr } = await lab.exec(from, "python3", ["-c", program, address, String(port)], { input });
  expect(code, stderr).toBe(0);
}

describe("hostile input", () => {
  it("random and truncated datagrams at the daemon's port are counted, and peers notice nothing", async () => {
    const seed = Date.now() & 0xffff;
    console.log(`seed ${seed}`);
    const random = seededBytes(seed);
    const magics = ["PILT", "PILS", "PILK", "PILA", "PILP"].map((text) => Buffer.from(text));
    const datagrams: Uint8Array[] = [];
    for (let i = 0; i < 600; i++) {
      const body = random((random(1)[0]! << 2) + (i % 7));
      if (i % 2 === 0) body.set(magics[i % magics.length]!.subarray(0, Math.min(4, body.length)));
      // Some name the trusted peer as their sender.
      if (i % 4 === 0 && body.length >= 8) new DataView(body.buffer).setUint32(4, lab.node("b").node);
      datagrams.push(body);
    }
    await inject("c", lab.network.addressOf("a"), await portOf("a"), datagrams);
    expect(await pings("a", "b", 5)).toBe(5);
    const { drops } = await lab.status("a");
    const counted = Object.values(drops as Record<string, number>).reduce((sum, count) => sum + count, 0);
    expect(counted).toBeGreaterThan(500);
    expect(drops).toMatchObject({
      "plaintext-refused": expect.any(Number),
      "anonymous-exchange-refused": expect.any(Number),
    });
  });

  it("forged frames with a high counter and replayed frames move nothing", async () => {
    // Frames under keys that are no longer held would be counted as bad tags: the session's own keys are agreed first.
    expect(await pings("b", "a", 1)).toBe(1);
    await waitUntil("a and b to hold the session's own keys", async () => {
      const statuses = await Promise.all([lab.status("a"), lab.status("b")]);
      return statuses.every(({ peers }) => peers[0].session === "noise");
    });
    const file = `${lab.folder}/sealed.pcap`;
    const capture = lab.spawn("a", "tcpdump", [
      "--immediate-mode",
      "-i",
      "eth0",
      "-U",
      "-w",
      file,
      "-Q",
      "in",
      `udp and (host ${lab.network.addressOf("b")} or host ${lab.network.address6Of("b")})`,
    ]);
    await capture.waitForLine(/listening on/);
    expect(await pings("b", "a", 3)).toBe(3);
    await capture.stop();
    // Of the pings: messages between the daemons may leave as a run, which looks like one long frame here.
    const isPing = (datagram: Buffer) =>
      datagram.length === PING_FRAME_BYTES && datagram.toString("latin1", 0, 4) === "PILS";
    const sealed = datagramsOf(readFileSync(file)).filter(isPing);
    expect(sealed.length).toBeGreaterThanOrEqual(3);
    const forged = sealed.map((frame) => {
      const copy = Buffer.from(frame);
      copy.fill(0xff, 12, 20); // the counter's eight bytes
      return copy;
    });
    const before = (await lab.status("a")).drops;
    await inject("c", lab.network.addressOf("a"), await portOf("a"), [...forged, ...sealed, ...sealed]);
    const after = (await lab.status("a")).drops;
    expect((after["bad-tag"] ?? 0) - (before["bad-tag"] ?? 0)).toBe(forged.length);
    expect((after.replayed ?? 0) - (before.replayed ?? 0)).toBe(2 * sealed.length);
    expect(await pings("b", "a", 3)).toBe(3);
    const { endpoint } = await peerOf("a", "b");
    const hosts = [lab.network.addressOf("b"), `[${lab.network.address6Of("b")}]`];
    expect(hosts).toContain(endpoint.slice(0, endpoint.lastIndexOf(":")));
  });

  it("random bytes at the registry's and the beacon's port leave the rendezvous serving", async () => {
    const random = seededBytes(99);
    const address = lab.network.addressOf(lab.rendezvousHost);
    await inject(
      "c",
      address,
      9001,
      Array.from({ length: 300 }, (_, i) => random(i * 3)),
    );
    const program = `
import os, socket, sys
for i in range(60):
    s = socket.create_connection((sys.argv[1], 9000), 5)
    try: s.sendall(os.urandom(i * 40)); s.settimeout(0.05); s.recv(100)
    except OSError: pass
    s.close()
`;
    await lab.exec("c", "python3", ["-c", program, address]);
    expect(lab.rendezvous.isRunning).toBe(true);
    await lab.startNode("c");
    expect((await lab.status("c")).registry.state).toBe("connected");
  });

  it("garbage at the control socket is answered or cut, and the daemon goes on", async () => {
    const program = `
import os, socket, sys
for i in range(40):
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(0.2)
    try: s.sendall(os.urandom(500)); s.recv(1000)
    except OSError: pass
    s.close()
`;
    await lab.exec("a", "python3", ["-c", program, lab.node("a").control]);
    expect((await lab.status("a")).interface).toBe("pilot0");
  });
});

describe("restarts and outages", () => {
  it("a receiver killed with -9 is reached again within 3 s of its return, and left nothing behind", async () => {
    await lab.stopNode("b", "SIGKILL");
    const links = await lab.exec("b", "ip", ["-o", "link"]);
    expect(links.stdout).not.toContain("pilot0");
    const stream = lab.spawn("a", "ping", ["-6", "-D", "-i", "0.1", "-c", "300", lab.overlay("b")]);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await lab.startNode("b");
    const readyAt = Date.now() / 1000;
    const lateMs = lateness(lab, "a", "b");
    const line = await stream.waitForLine(/bytes from/);
    expect(Number(/\[([\d.]+)\]/.exec(line)?.[1]) - readyAt).toBeLessThan(3 + lateMs() / 1_000);
    await stream.stop();
  });

  it("the registry's loss is survived: transfers run on, restarts find known peers, status says so", async () => {
    const server = lab.spawn("b", "iperf3", ["-s", "-p", "5301", "--forceflush"]);
    await server.waitForLine(/listening/i);
    const args = ["-6", "-c", lab.overlay("b"), "-p", "5301", "-t", "4", "-J"];
    const transfer = lab.exec("a", "iperf3", args, { timeoutMs: 15_000 });
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await lab.rendezvous.stop();
    const { code, stdout } = await transfer;
    expect(code).toBe(0);
    const { intervals } = JSON.parse(stdout);
    for (const interval of intervals) expect(interval.sum.bits_per_second).toBeGreaterThan(1_000_000);
    await server.stop();

    await lab.stopNode("a");
    await lab.stopNode("b");
    await lab.startNode("a");
    await lab.startNode("b");
    await waitUntil("a and b to reach each other without a registry", async () => (await pings("a", "b", 1)) === 1);
    const { registry } = await lab.status("a");
    expect(registry.state).not.toBe("connected");
    expect(registry.error).toMatch(/ECONNREFUSED|unreachable|timed out/);
    await lab.startRendezvous();
    await waitUntil(
      "a to be connected again",
      async () => (await lab.status("a")).registry.state === "connected",
      15_000,
    );
  });

  it("a trusted peer that is away is reported as unreachable within 4 s, not by silence", async () => {
    await lab.stopNode("b");
    await lab.stopNode("a");
    await lab.startNode("a");
    const { stdout } = await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "6", lab.overlay("b")]);
    expect(stdout).toContain("Address unreachable");
    await lab.startNode("b");
    await waitUntil("b to be reached again", async () => (await pings("a", "b", 1)) === 1);
  });

  it("SIGTERM ends the daemon with 0 and takes interface, route and socket away", async () => {
    const { process, control } = lab.node("c");
    process.kill("SIGTERM");
    expect((await process.ended).code).toBe(0);
    expect((await lab.exec("c", "ip", ["-o", "link"])).stdout).not.toContain("pilot0");
    expect((await lab.exec("c", "ip", ["-6", "route"])).stdout).not.toContain("fd50:494c");
    expect(readdirSync(lab.folder)).not.toContain(control.split("/").at(-1));
  });
});

describe("a start that cannot succeed", () => {
  const failed = async (): Promise<Reply> => {
    const child = lab.spawnNode("c");
    const { code } = await child.ended;
    expect(code).not.toBe(0);
    return JSON.parse(child.stdout).error;
  };

  it("says that the identity is damaged, keeps it, and invents no other, also at the next try", async () => {
    const state = lab.node("c").stateDir;
    const whole = readFileSync(`${state}/identity.json`);
    truncateSync(`${state}/identity.json`, 40);
    for (let attempt = 0; attempt < 2; attempt++) {
      const error = await failed();
      expect(error).toMatchObject({ code: "identity_damaged", hint: expect.stringContaining("Restore identity.json") });
    }
    expect(readdirSync(state)).not.toContain("identity.json");
    const aside = readdirSync(state).find((name) => name.startsWith("identity.json.damaged-"))!;
    expect(readFileSync(`${state}/${aside}`)).toEqual(whole.subarray(0, 40));
    writeFileSync(`${state}/identity.json`, whole, { mode: 0o600 });
    const before = lab.node("c").node;
    expect((await lab.startNode("c")).node).toBe(before);
  });

  it("says that trust could not be read, starts with none, and shows the problem", async () => {
    await lab.stopNode("c");
    writeFileSync(`${lab.node("c").stateDir}/trust.json`, '{"version":1,"rec');
    await lab.startNode("c");
    const status = await lab.status("c");
    expect(status.problems).toMatchObject([{ code: "trust_damaged" }]);
    expect(status.peers).toEqual([]);
  });

  it("names the daemon that already uses the state, the interface or the port", async () => {
    const port = await portOf("c");
    expect((await failed()).code).toBe("state_locked");
    expect((await errorOf(start("other", ["--tun", "pilot0"]))).code).toBe("tun_busy");
    const taken = await errorOf(start("other", ["--tun", "pilot1", "--listen", `[::]:${port}`]));
    expect(taken).toMatchObject({ code: "port_taken", hint: expect.any(String) });
  });

  it("says that root is needed, and that TUN is missing", async () => {
    const unprivileged = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", ...start("unprivileged")];
    expect(await errorOf(unprivileged)).toMatchObject({ code: "not_privileged", hint: expect.any(String) });
    const script = 'mount -t tmpfs none /dev/net && exec "$@"';
    expect(await errorOf(["unshare", "-m", "sh", "-c", script, "sh", ...start("tunless")])).toMatchObject({
      code: "tun_missing",
      hint: expect.any(String),
    });
  });

  it("without a registry ever reached it says so, waits, and ends cleanly when told", async () => {
    const nowhere = `${lab.network.addressOf("a")}:1`;
    const where = ["--registry", nowhere, "--beacon", nowhere, "--tun", "pilot2"];
    const [program, ...args] = start("waiting", where);
    const waiting = lab.spawn("c", program!, args);
    expect(await waiting.waitForLine(/waiting for the registry/)).toContain(nowhere);
    waiting.kill("SIGTERM");
    expect((await waiting.ended).code).toBe(0);
  });
});

/** A second daemon with a state of its own, as words of a command. */
function start(name: string, extra: readonly string[] = []): string[] {
  const own = ["--control", `${lab.folder}/${name}.sock`, "up", "--state", `${lab.folder}/${name}`, "--tun", "pilot3"];
  return [LAUNCHER, "--json", ...own, "--registry", lab.registry, "--beacon", lab.beacon, ...extra];
}

/** How a command on host c that must fail says it failed. */
async function errorOf([program, ...args]: readonly string[]): Promise<Reply> {
  const { code, stdout } = await lab.exec("c", program!, args);
  expect(code).not.toBe(0);
  return JSON.parse(stdout).error;
}

async function peerOf(host: string, peer: string): Promise<Reply> {
  const { peers } = await lab.peers(host);
  return peers.find((entry: Reply) => entry.node === lab.node(peer).node);
}
