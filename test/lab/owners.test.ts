/** Rules about local programs, with real users, groups, control groups and network namespaces. */
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";

/** Numbers that no host uses. */
const ANN = 71_001;
const BEN = 71_002;
const OPS = 71_010;

let lab: Lab;
let file: string;

const setPolicy = async (host: string, text: string) => {
  writeFileSync(`${lab.folder}/${host}.policy`, text, { mode: 0o600 });
  await lab.pilot(host, "policy", "reload");
};
/** A program of ours, run as somebody: user, group and supplementary groups. */
const as = (uid: number, gid = uid, groups: readonly number[] = []): string => `${uid}:${gid}:${groups.join(",")}`;
const ROOT = "0:0:";
const python = (who: string, program: string, ...args: readonly (string | number)[]): string[] => {
  return ["python3", "-u", "-c", BECOME + program, who, ...args.map(String)];
};
/** How a program of this user ends that connects from a to b. */
const connect = async (who: string, port = 7001): Promise<string> => {
  const { stdout } = await lab.exec("a", "env", python(who, CONNECT, lab.overlay("b"), port));
  return stdout.trim();
};
const serve = async (who: string, port: number): Promise<LabProcess> => {
  const server = lab.spawn("b", "env", python(who, SERVE, lab.overlay("b"), port));
  await server.waitForLine(/listening/);
  return server;
};

beforeAll(async () => {
  lab = await Lab.create("owners", { hosts: ["a", "b"] });
  await lab.startRendezvous();
  for (const host of ["a", "b"]) {
    file = `${lab.folder}/${host}.policy`;
    writeFileSync(file, "allow in any from trusted\nallow out any to trusted\n", { mode: 0o600 });
    await lab.startNode(host, { extraArgs: ["--policy", file, "--see-programs"] });
  }
  await lab.trust("a", "b");
  await serve(ROOT, 7001);
});

afterAll(() => lab?.close());

describe("a rule by user, group and unit", () => {
  it("lets out the programs of that user, and nobody else's, whatever the protocol", async () => {
    await setPolicy("a", `allow out any to b by user:${ANN}\n`);
    expect(await connect(as(ANN))).toBe("connected");
    expect(await connect(as(BEN))).toBe("EACCES");
    expect(await connect(ROOT)).toBe("EACCES");
    const udp = async (uid: number) =>
      (await lab.exec("a", "env", python(as(uid), UDP, lab.overlay("b"), 7009))).stdout.trim();
    expect(await udp(ANN)).toBe("ECONNREFUSED"); // b's kernel answered: it went through
    expect(await udp(BEN)).toBe("EACCES");
    const ping = async () => (await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "1", lab.overlay("b")])).stdout;
    expect(await ping()).toContain("Administratively prohibited");
    await setPolicy("a", `allow out icmp to b by user:root\n`);
    expect(await ping()).toContain("1 received");
  });

  it("knows the groups of the program, not of the user", async () => {
    await setPolicy("a", `allow out tcp to b by group:${OPS}\n`);
    expect(await connect(as(ANN, ANN, [OPS]))).toBe("connected");
    expect(await connect(as(BEN, OPS))).toBe("connected");
    expect(await connect(as(ANN))).toBe("EACCES");
  });

  it("knows the unit by the program's control group", async () => {
    const folder = cgroupFolder("lab-owners.service");
    await setPolicy("a", "allow out tcp to b by unit:lab-owners.service\n");
    try {
      const join = `echo $$ > ${folder}/cgroup.procs && exec "$@"`;
      // The lab's hosts have a /sys of their own, without control groups.
      const words = [`--mount=/proc/${process.pid}/ns/mnt`, "sh", "-c", join, "-"];
      const { stdout } = await lab.exec("a", "nsenter", [...words, ...python(ROOT, CONNECT, lab.overlay("b"), 7001)]);
      expect(stdout.trim()).toBe("connected");
      expect(await connect(ROOT)).toBe("EACCES");
    } finally {
      rmdirSync(folder);
    }
  });

  it("lets peers reach servers of that user alone, and shows whose flows are whose", async () => {
    await setPolicy("a", "allow out any to b\n");
    await setPolicy("b", `allow in tcp from a by user:${ANN}\n`);
    const server = await serve(as(ANN), 7002);
    await serve(as(BEN), 7003);
    const client = lab.spawn("a", "env", python(as(BEN), STAY, lab.overlay("b"), 7002));
    await client.waitForLine(/connected/);
    expect(await connect(ROOT, 7003)).toBe("ETIMEDOUT"); // a peer is told nothing
    const [flow] = (await lab.pilot("b", "flows")).flows;
    expect(flow).toMatchObject({
      direction: "in",
      localPort: 7002,
      program: { uid: ANN, name: "python3", pid: server.pid },
    });
    const own = (await lab.pilot("a", "flows")).flows.find((one: { remotePort: number }) => one.remotePort === 7002);
    expect(own.program).toMatchObject({ uid: BEN, pid: client.pid });
    expect(own.txBytes).toBeGreaterThan(0);
    // What lives is judged by its owner when the rules change.
    const next = `${lab.folder}/next`;
    writeFileSync(next, `deny in any from a by user:${ANN}\nallow in any from a\n`, { mode: 0o600 });
    const { wouldCut } = await lab.pilot("b", "policy", "check", next);
    expect(wouldCut.map((cut: { localPort: number }) => cut.localPort)).toEqual([7002]);
    await setPolicy("b", "allow in any from a\nallow out any to a\n");
  });

  it("does not know programs of another network namespace, whatever they call themselves", async () => {
    const inside = lab.spawn("a", "unshare", ["--net", "sh", "-c", "echo up; exec sleep 600"]);
    await inside.waitForLine(/up/);
    const enter = ["-t", String(inside.pid), "-n"];
    for (const line of [
      `ip link add out0 type veth peer name in0 netns ${inside.pid}`,
      "ip addr add fd99::1/64 dev out0 nodad",
      "ip link set out0 up",
      `nsenter ${enter.join(" ")} ip addr add fd99::2/64 dev in0 nodad`,
      `nsenter ${enter.join(" ")} ip link set in0 up`,
      `nsenter ${enter.join(" ")} ip -6 route add default via fd99::1`,
      "sysctl -qw net.ipv6.conf.all.forwarding=1",
      "nft add table ip6 lab",
      "nft add chain ip6 lab post { type nat hook postrouting priority 100 \\; }",
      "nft add rule ip6 lab post oifname pilot0 masquerade",
    ]) {
      const { code, stderr } = await lab.exec("a", "sh", ["-c", line]);
      expect([line, code, stderr]).toEqual([line, 0, ""]);
    }
    const masked = async (program: string, port: number, from: number) => {
      const words = [...enter, ...python(as(ANN), program, lab.overlay("b"), port, from)];
      return (await lab.exec("a", "nsenter", words)).stdout.trim();
    };
    await setPolicy("a", "allow out any to b\n");
    expect(await masked(CONNECT, 7001, 0)).toBe("connected"); // the way is there
    await setPolicy("a", `allow out any to b by user:${ANN}\n`);
    expect(await masked(CONNECT, 7001, 0)).toBe("EACCES");
    // A socket of ann's on the host with the very port that the other's datagrams come from.
    const bound = lab.spawn("a", "env", python(as(ANN), BIND, 7055));
    await bound.waitForLine(/bound/);
    expect(await masked(UDP, 7009, 7055)).toBe("EACCES");
    expect(await connect(as(ANN))).toBe("connected");
  });
});

/** A control group of our own in the unified hierarchy. */
function cgroupFolder(name: string): string {
  const mount = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .find(([, , type]) => type === "cgroup2");
  if (mount === undefined) throw new Error("no unified hierarchy of control groups is mounted");
  mkdirSync(`${mount[1]}/${name}`);
  return `${mount[1]}/${name}`;
}

/** Modules first: they may lie where only root can read. */
const BECOME = `
import encodings.idna, errno, os, socket, sys, time
uid, gid, groups = sys.argv.pop(1).split(":")
os.setgroups([int(group) for group in groups.split(",") if group]); os.setgid(int(gid)); os.setuid(int(uid))
`;
const CONNECT = `
import errno, socket, sys
try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 2); print("connected")
except TimeoutError: print("ETIMEDOUT")
except OSError as error: print(errno.errorcode.get(error.errno, error))
`;
/** A datagram, and what the socket hears of it. */
const UDP = `
import errno, socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(2)
if len(sys.argv) > 3: s.bind(("::", int(sys.argv[3])))
s.connect((sys.argv[1], int(sys.argv[2])))
try: s.send(b"x"); s.recv(1); print("answered")
except TimeoutError: print("ETIMEDOUT")
except OSError as error: print(errno.errorcode.get(error.errno, error))
`;
const BIND = `
import socket, sys, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(("::", int(sys.argv[1]))); print("bound"); time.sleep(600)
`;
const SERVE = `
import socket, sys
s = socket.socket(socket.AF_INET6); s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(); print("listening")
kept = []
while True: kept.append(s.accept()[0])
`;
const STAY = `
import socket, sys
c = socket.create_connection((sys.argv[1], int(sys.argv[2]))); print("connected"); c.recv(1)
`;
