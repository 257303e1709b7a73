/** Machines that sleep, and clocks that are set: what was agreed stays agreed, and traffic is there at once. */
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, type LabNode, type Reply, waitUntil } from "../helpers/lab.ts";
import { LabClock } from "../helpers/lab-clock.ts";
import { LabNat } from "../helpers/lab-nat.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import { lateness } from "../helpers/lateness.ts";

const HOUR_S = 3_600;
/** A daemon in use has been so within the last minute. */
const QUIET_MS = 63_000;
const EVERYWHERE = "0.0.0.0/0";
const POLICY = `
allow in icmp from trusted
allow out icmp to trusted
allow in tcp 7777 from b
allow in udp 7778 from b
`;

let lab: Lab;
/** Hosts whose clocks are ours to set, each behind a router of its own; b, which all speak with, is behind another. */
const sleepers = new Map<string, { readonly node: LabNode; readonly clock: LabClock; readonly router: LabNat }>();
/** A connection of b to c that says a line when it is told to. */
let poked: LabProcess;
let quietSince: number;

beforeAll(async () => {
  lab = await Lab.create("sleep", { hosts: ["a", "b", "c", "ra", "rb", "rc"] });
  await lab.startRendezvous();
  await routed("b", 2);
  await lab.startNode("b");
  writeFileSync(`${lab.folder}/policy`, POLICY);
  for (const [index, host] of ["a", "c"].entries()) {
    const router = await routed(host, 1 + 2 * index);
    const clock = new LabClock(`${lab.folder}/clock-${host}`);
    const node = await lab.startNode(host, { env: clock.env, extraArgs: ["--policy", `${lab.folder}/policy`] });
    sleepers.set(host, { node, clock, router });
    await lab.trust(host, "b");
    await waitForDirect(host);
  }
  await lab.spawn("c", "python3", ["-u", "-c", ECHO]).waitForLine(/listening/);
  poked = lab.spawn("b", "python3", ["-u", "-c", POKED, lab.overlay("c")]);
  await poked.waitForLine(/^0$/m);
  quietSince = performance.now();
});

afterAll(() => lab?.close());

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function routed(host: string, subnet: number): Promise<LabNat> {
  const router = new LabNat(lab, `r${host}`, subnet);
  await router.create("port-dependent");
  await router.adopt(host);
  return router;
}

/**
 * Stops a host's daemon, whose timers stand still as they do in a sleep, and has its router forget. Nothing reaches its
 * sockets meanwhile, for that would be answered first thing and open the router. Returns when it went on, in Unix ms.
 */
async function sleepFor(host: string, ms: number, beforeWaking: () => void): Promise<number> {
  const { node, router } = sleepers.get(host)!;
  await router.block(EVERYWHERE);
  node.process.kill("SIGSTOP");
  await pause(ms);
  await router.block(undefined);
  await router.become("symmetric"); // other mappings than before
  beforeWaking();
  node.process.kill("SIGCONT");
  return Date.now();
}

async function waitForDirect(host: string): Promise<void> {
  const pings = lab.spawn("b", "ping", ["-6", "-i", "0.2", lab.overlay(host)]);
  for (const [from, to] of [[host, "b"] as const, ["b", host] as const]) {
    const isDirect = async (): Promise<boolean> => {
      const { peers } = await lab.peers(from);
      return peers.find((peer: Reply) => peer.node === lab.node(to).node)?.path === "direct";
    };
    await waitUntil(`${from} to reach ${to} directly`, isDirect, 15_000);
  }
  await pings.stop();
}

/** Pings from now on; `times` are those of the answers, as the test's own clock has them. */
function pingAlong(
  from: string,
  to: string,
): { process: LabProcess; firstAfter(at: number, withinMs: number): Promise<number> } {
  const process = lab.spawn(from, "ping", ["-6", "-D", "-i", "0.1", lab.overlay(to)]);
  const firstAfter = async (at: number, withinMs: number): Promise<number> => {
    let first: number | undefined;
    const isThere = (): boolean => {
      const times = [...process.stdout.matchAll(/^\[(\d+\.\d+)\] \d+ bytes/gm)].map((match) => 1000 * +match[1]!);
      first = times.find((time) => time > at);
      return first !== undefined;
    };
    await waitUntil(`an answer of ${to} to ${from}`, isThere, withinMs);
    return first! - at;
  };
  return { process, firstAfter };
}

/** Lines both ways over a connection that b opens, until `end`; a reset or a hang makes either fail. */
async function talkAlong(host: string): Promise<{ end(): Promise<void> }> {
  const server = lab.spawn(host, "python3", ["-u", "-c", ECHO]);
  await server.waitForLine(/listening/);
  const client = lab.spawn("b", "python3", ["-u", "-c", TALK, lab.overlay(host)]);
  await client.waitForLine(/^0$/m);
  return {
    async end() {
      const seen = Number(client.stdout.trim().split("\n").at(-1));
      await client.waitForLine(new RegExp(`^${seen + 3}$`)); // it still talks
      expect(client.stderr).toBe("");
      await client.stop();
      await server.stop();
    },
  };
}

describe("a machine that slept", () => {
  it("for longer than keepalives and mappings last has traffic again within 2 s, though its peer had given it up", async () => {
    const pings = pingAlong("b", "a");
    await pings.firstAfter(0, 5_000);
    const lateMs = lateness(lab, "a", "b");
    const wokeAt = await sleepFor("a", 33_000, () => {});
    const tookMs = await pings.firstAfter(wokeAt, 10_000);
    await pings.process.stop();
    console.log(`after 33 s without a turn: ${tookMs.toFixed(0)} ms`);
    expect(tookMs).toBeLessThan(2_000 + lateMs());
    await sleepers.get("a")!.router.become("port-dependent");
    await waitForDirect("a");
  });
});

describe("a clock that is set", () => {
  it.each([
    ["a week ahead", 168 * HOUR_S],
    ["two weeks back", -168 * HOUR_S],
    ["right again", 0],
  ])("%s interrupts nothing: no ping is lost, the connection goes on, trust stays", async (_, offsetS) => {
    const trust = await lab.ask("a", "trust/ls", {});
    const [before] = (await lab.peers("a")).peers;
    const stream = lab.spawn("b", "python3", ["-u", "-c", SUBSCRIBE, lab.overlay("a")]);
    const source = lab.spawn("a", "python3", ["-u", "-c", PUBLISH]);
    await stream.waitForLine(/^3$/m);
    const talk = await talkAlong("a");
    const pings = lab.spawn("b", "ping", ["-6", "-i", "0.1", "-c", "40", "-W", "1", lab.overlay("a")]);
    await pause(1_000);
    sleepers.get("a")!.clock.set(offsetS);
    await pings.waitForEnd(10_000);
    expect(Number(/(\d+) received/.exec(pings.stdout)?.[1])).toBeGreaterThanOrEqual(39);
    await talk.end();
    const seen = Number(stream.stdout.trim().split("\n").at(-1));
    await stream.waitForLine(new RegExp(`^${seen + 10}$`)); // nothing but replies of a flow that b began
    await stream.stop();
    await source.stop();
    const states = ({ entries }: Reply) => entries.map(({ node, trust, epoch }: Reply) => ({ node, trust, epoch }));
    expect(states(await lab.ask("a", "trust/ls", {}))).toEqual(states(trust));
    expect((await lab.peers("a")).peers[0]).toMatchObject({ path: before.path, trust: "mutual" });
  });
});

describe("a machine that had nothing to do, and slept", () => {
  it("for an hour by its clock has traffic again within 2 s, both ways, with the connection that was open", async () => {
    // Who is in use asks the beacon every two seconds, and would find out so.
    await pause(QUIET_MS - (performance.now() - quietSince));
    const lateMs = lateness(lab, "b", "c");
    const wokeAt = await sleepFor("c", 300, () => sleepers.get("c")!.clock.set(HOUR_S));
    const pings = pingAlong("b", "c");
    const tookMs = await pings.firstAfter(wokeAt, 10_000);
    await pings.process.stop();
    console.log(`after an hour's sleep: ${tookMs.toFixed(0)} ms`);
    expect(tookMs).toBeLessThan(2_000 + lateMs());
    const backSince = Date.now();
    const back = pingAlong("c", "b");
    expect(await back.firstAfter(backSince, 10_000)).toBeLessThan(2_000 + lateMs());
    await back.process.stop();
    poked.kill("SIGUSR1");
    await poked.waitForLine(/^1$/m);
    expect((await lab.status("c")).registry.state).toBe("connected");
  });
});

const ECHO = `
import socket
s = socket.create_server(("::", 7777), family=socket.AF_INET6)
print("listening", flush=True)
c, _ = s.accept()
while d := c.recv(999): c.sendall(d)
`;
/** A line every 100 ms, each answered within 15 s. */
const TALK = `
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7777), timeout=15)
for i in range(10000):
    s.sendall(b"line")
    assert s.recv(99)
    print(i, flush=True)
    time.sleep(0.1)
`;
/** A line at the start, and one at each SIGUSR1. */
const POKED = `
import signal, socket, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
s = socket.create_connection((sys.argv[1], 7777), timeout=15)
for i in range(10000):
    s.sendall(b"line")
    assert s.recv(99)
    print(i, flush=True)
    signal.pause()
`;
/** Asks once over UDP and is sent numbers from then on. */
const SUBSCRIBE = `
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(1)
while True:
    s.sendto(b"please", (sys.argv[1], 7778))
    try: print(s.recv(99).decode(), flush=True)
    except (socket.timeout, ConnectionError): continue
    break
s.settimeout(5)
while True: print(s.recv(99).decode(), flush=True)
`;
const PUBLISH = `
import socket, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 7778))
_, who = s.recvfrom(99)
for i in range(10000):
    s.sendto(str(i).encode(), who)
    time.sleep(0.1)
`;
