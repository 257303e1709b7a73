/** Whose sockets are whose: the shim and the kernel, against what /proc says in plain text. */
import dgram from "node:dgram";
import { once } from "node:events";
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import net from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { ControlGroups, parseUnifiedMount } from "../../src/io/control-groups.ts";
import { findSocket, parseReply, parseSocketList, type SocketPlace } from "../../src/io/socket-diag.ts";
import { cgroupOf, findHolders, parseStatus, readProgram } from "../../src/io/socket-holders.ts";
import { builtShim } from "./build-shim.ts";

const shim = builtShim();
const LOOPBACK = Uint8Array.from({ length: 16 }, (_, index) => (index === 15 ? 1 : 0));
const place = (protocol: number, localPort: number, remotePort: number): SocketPlace => ({
  ...{ protocol, localPort, remotePort, local: LOOPBACK, remote: LOOPBACK, interfaceIndex: 0 },
});
const opened: { close(): unknown }[] = [];

afterEach(() => {
  for (const socket of opened.splice(0)) socket.close();
});

async function listen(): Promise<number> {
  const server = net.createServer((socket) => opened.push({ close: () => socket.destroy() }));
  server.listen(0, "::1");
  await once(server, "listening");
  opened.push(server);
  return (server.address() as net.AddressInfo).port;
}

async function connect(port: number): Promise<number> {
  const socket = net.connect(port, "::1");
  opened.push({ close: () => socket.destroy() });
  await once(socket, "connect");
  return socket.localPort!;
}

async function bind(connectedTo?: number): Promise<number> {
  const socket = dgram.createSocket("udp6");
  opened.push(socket);
  socket.bind(0, "::1");
  await once(socket, "listening");
  if (connectedTo !== undefined) {
    socket.connect(connectedTo, "::1");
    await once(socket, "connect");
  }
  return socket.address().port;
}

/** The inode of the socket with this local port in a list of /proc/net. */
const inodeIn = (file: string, port: number) =>
  parseSocketList(readFileSync(`/proc/net/${file}`, "utf8")).filter((socket) => socket.port === port);

describe("the kernel's answer", () => {
  it("names a connection's own socket, its listener for what is not there yet, and nothing for the rest", async () => {
    const server = await listen();
    const client = await connect(server);
    const own = findSocket(place(6, client, server), shim);
    expect(own).toMatchObject({ uid: process.getuid!(), isConnected: true, isListening: false });
    expect(inodeIn("tcp6", client).map(({ inode }) => inode)).toContain(own!.inode);
    const listener = findSocket(place(6, server, 1), shim);
    expect(listener).toMatchObject({ isConnected: false, isListening: true });
    expect(listener!.inode).not.toBe(findSocket(place(6, server, client), shim)!.inode);
    expect(findSocket(place(6, 1, 1), shim)).toBeUndefined();
    expect(findSocket(place(50, client, server), shim)).toBeUndefined();
  });

  it("tells a UDP socket that speaks with one peer from one that speaks with all", async () => {
    const free = await bind();
    const [listed] = inodeIn("udp6", free);
    expect(findSocket(place(17, free, 53), shim)).toMatchObject({
      ...own(listed!),
      isConnected: false,
      isListening: false,
    });
    const bound = await bind(free);
    expect(findSocket(place(17, bound, free), shim)).toMatchObject({ isConnected: true });
    expect(findSocket(place(17, bound, free + 1), shim)).toBeUndefined();
  });

  it("of a connection that is being closed, which nobody holds any more, is nobody", async () => {
    const server = await listen();
    const client = await connect(server);
    for (const socket of opened.splice(1)) socket.close();
    await expect.poll(() => findSocket(place(6, client, server), shim)).toBeUndefined();
  });

  it("that is cut off, or about another port, is none", () => {
    const whole = new Uint8Array(88);
    const view = new DataView(whole.buffer);
    view.setUint16(4, 20, true);
    view.setUint16(20, 4000);
    view.setUint32(84, 77, true);
    const asked = place(17, 4000, 53);
    expect(parseReply(whole, asked)?.inode).toBe(77);
    for (let length = 0; length < 88; length++) expect(parseReply(whole.subarray(0, length), asked)).toBeUndefined();
    expect(parseReply(whole, place(17, 4001, 53))).toBeUndefined();
    view.setUint16(4, 2, true); // NLMSG_ERROR
    expect(parseReply(whole, asked)).toBeUndefined();
  });
});

describe("a control group", () => {
  it("is found by the number that the kernel gives for a socket", async () => {
    const mount = parseUnifiedMount(readFileSync("/proc/self/mounts", "utf8"))!;
    const groups = new ControlGroups();
    expect(groups.pathOf(statSync(mount).ino, 0)).toBe("/");
    expect(groups.pathOf(1e15, 1_000)).toBeUndefined();
    const socket = findSocket(place(17, await bind(), 53), shim);
    const own = /^0::(.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))![1];
    expect(groups.pathOf(socket!.cgroup!, 2_000)).toBe(own);
  });

  it("is looked for in the first unified hierarchy that is mounted", () => {
    const mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
    expect(parseUnifiedMount(mounts)).toBe("/sys/fs/cgroup/unified");
    expect(parseUnifiedMount("proc /proc proc rw 0 0\n")).toBeUndefined();
  });
});

describe("the holders of sockets", () => {
  it("are those whose descriptors say so", async () => {
    const ports = [await bind(), await bind(), await listen()];
    const inodes = ports.map((port) => inodeIn(port === ports[2] ? "tcp6" : "udp6", port)[0]!.inode);
    const found = await findHolders([...inodes, 1], shim);
    expect([...found.keys()].sort()).toEqual([...inodes].sort());
    for (const inode of inodes) expect(found.get(inode)!.map(({ pid }) => pid)).toEqual(holdersByHand(inode));
    expect(found.get(inodes[0]!)![0]).toEqual(readProgram(process.pid));
  });

  it("of nothing are none", async () => {
    expect((await findHolders([], shim)).size).toBe(0);
    expect(readProgram(0x7fffffff)).toBeUndefined();
  });
});

describe("a program", () => {
  it("has its effective group and the supplementary ones, each once", () => {
    const text = "Name:\tmy prog\nUmask:\t0022\nUid:\t1\t2\t3\t4\nGid:\t10\t20\t30\t40\nGroups:\t20 27 100 \n";
    expect(parseStatus(text)).toEqual({ name: "my prog", groups: [20, 27, 100] });
    expect(parseStatus("Name:\tx\nGid:\t0\t0\t0\t0\nGroups:\t \n")).toEqual({ name: "x", groups: [0] });
  });

  it("is in the control group of the unified hierarchy, or of the service manager's own", () => {
    expect(cgroupOf("0::/system.slice/a.service\n")).toBe("/system.slice/a.service");
    expect(cgroupOf("9:name=systemd:/b.service\n8:cpu,cpuacct:/x\n0::/\n")).toBe("/b.service");
    expect(cgroupOf("9:name=systemd:/b.service\n0::/c.service\n")).toBe("/c.service");
    expect(cgroupOf("0::/\n")).toBe("/");
    expect(cgroupOf("8:cpu:/x\n")).toBeUndefined();
    expect(cgroupOf("0::/a:b.service\n")).toBe("/a:b.service");
  });
});

function own({ uid, inode }: { uid: number; inode: number }) {
  return { uid, inode };
}

/** The plain way to the same answer. */
function holdersByHand(inode: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => linksOf(pid).includes(`socket:[${inode}]`))
    .map(Number);
}

/** What has ended, or was closed meanwhile, is not there. */
function linksOf(pid: string): string[] {
  return namesIn(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return [];
    }
  });
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
