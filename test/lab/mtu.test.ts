/**
 * Underlays that carry less than Ethernet does. `silent`: the switch drops what is too long and says nothing. `router`: b
 * is behind a router that answers "fragmentation needed" one way, and the other way b's own interface is that small.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import { NET } from "../helpers/lab-network.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

let lab: Lab;

beforeEach(async () => {
  lab = await Lab.create("mtu", { hosts: ["a", "b"] });
  for (const host of ["a", "b"]) {
    // A run of datagrams must meet the narrow place as the datagrams it stands for.
    await run(host, "ethtool", "-K", "eth0", "gso", "off", "tso", "off", "tx-udp-segmentation", "off");
  }
});

afterEach(() => lab.close());

const NARROW: Readonly<Record<string, (mtuBytes: number) => Promise<void>>> = {
  silent: async (mtuBytes) => {
    for (const port of ["to-a", "to-b"]) await ip(NET, "link", "set", port, "mtu", String(mtuBytes));
  },
  router: async (mtuBytes) => {
    await ip(NET, "link", "set", "to-b", "nomaster", "mtu", String(mtuBytes));
    await ip(NET, "addr", "add", "10.78.0.1/24", "dev", "to-b");
    await run(NET, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1");
    await ip("a", "route", "add", "default", "via", lab.network.addressOf(NET));
    await ip("b", "addr", "flush", "dev", "eth0");
    await ip("b", "addr", "add", "10.78.0.2/24", "dev", "eth0");
    await ip("b", "link", "set", "eth0", "mtu", String(mtuBytes));
    await ip("b", "route", "add", "default", "via", "10.78.0.1");
  },
};

describe.each(["silent", "router"])("over an underlay with a %s bottleneck", (kind) => {
  it.each([1280, 1100, 576])("of %d bytes, programs get through with everything", async (mtuBytes) => {
    await NARROW[kind]!(mtuBytes);
    await startPair();
    await waitUntil("both to know the path", async () => {
      return (await peer("a", "b")).pathMtuBytes === mtuBytes && (await peer("b", "a")).pathMtuBytes === mtuBytes;
    });
    expect(await peer("a", "b")).toMatchObject({ mtuBytes: 1280, path: "direct" });

    const ping = await lab.exec("a", "ping", ["-6", "-c", "5", "-i", "0.1", "-W", "1", "-s", "1200", lab.overlay("b")]);
    expect(ping.stdout).toContain("5 received");

    const tooBig = await lab.exec("a", "ping", ["-6", "-c", "2", "-M", "do", "-s", "1300", lab.overlay("b")]);
    expect(tooBig.code).not.toBe(0);
    expect(tooBig.stdout + tooBig.stderr).toMatch(/(Packet too big|message too long).*mtu[ =:]+1280/i);

    await download(50);
  });
});

describe("a path in use", () => {
  it("that shrinks during a download lets it finish, and says what it carries", async () => {
    await startPair();
    await waitUntil("the path to be known", async () => (await peer("b", "a")).pathMtuBytes === 1500);
    // Buffers would hold the whole file, and it would have left before the path shrinks.
    await run("a", "sysctl", "-q", "-w", "net.ipv4.tcp_rmem=4096 131072 524288");
    await run("b", "sysctl", "-q", "-w", "net.ipv4.tcp_wmem=4096 131072 524288");
    const done = download(30, ["--limit-rate", "6M"]);
    await waitUntil("data to flow", async () => (await peer("b", "a")).txBytes > 2_000_000);
    await NARROW.silent!(1100);
    await done;
    expect(await peer("b", "a")).toMatchObject({ mtuBytes: 1280, pathMtuBytes: 1100 });
  });

  it("of 1400 bytes tells a program which packets fit", async () => {
    await NARROW.silent!(1400);
    await startPair();
    await waitUntil("the path to be known", async () => (await peer("a", "b")).pathMtuBytes === 1400);
    const { endpoint, mtuBytes } = await peer("a", "b");
    expect(mtuBytes).toBe(1400 - 70 - 8 - (endpoint.startsWith("[") ? 40 : 20));
    const tooBig = await lab.exec("a", "ping", ["-6", "-c", "2", "-M", "do", "-s", "1300", lab.overlay("b")]);
    expect(tooBig.stdout + tooBig.stderr).toMatch(new RegExp(`mtu[ =:]+${mtuBytes}`, "i"));
    const fits = await lab.exec("a", "ping", [
      "-6",
      "-c",
      "2",
      "-M",
      "do",
      "-s",
      String(mtuBytes - 48),
      lab.overlay("b"),
    ]);
    expect(fits.stdout).toContain("2 received");
  });
});

async function startPair(): Promise<void> {
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b")]);
  await lab.trust("a", "b");
  await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "2", lab.overlay("b")]);
}

/** a fetches a file of random bytes from b and gets each of them. */
async function download(megabytes: number, curlArgs: readonly string[] = []): Promise<void> {
  const folder = `${lab.folder}/www`;
  mkdirSync(folder, { recursive: true });
  const body = Buffer.alloc(megabytes * 1024 * 1024, Buffer.from(seededBytes(7)(65_521)));
  writeFileSync(`${folder}/file`, body);
  const where = ["--bind", lab.overlay("b"), "-d", folder];
  const server = lab.spawn("b", "python3", ["-u", "-m", "http.server", "8000", ...where]);
  await server.waitForLine(/Serving HTTP/);
  const url = `http://[${lab.overlay("b")}]:8000/file`;
  const args = ["-gsf", "-m", "60", ...curlArgs, "-o", `${lab.folder}/got`, url];
  const { code } = await lab.exec("a", "curl", args, { timeoutMs: 70_000 });
  expect(code).toBe(0);
  expect(sha256(readFileSync(`${lab.folder}/got`))).toBe(sha256(body));
  await server.stop();
}

async function peer(host: string, other: string): Promise<Reply> {
  const { peers } = await lab.status(host);
  return peers.find((entry: Reply) => entry.node === lab.node(other).node);
}

async function run(host: string, program: string, ...args: readonly string[]): Promise<void> {
  const { code, stderr } = await lab.exec(host, program, args);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} on ${host}: ${stderr}`);
}

async function ip(host: string, ...args: readonly string[]): Promise<void> {
  await run(host, "ip", ...args);
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
