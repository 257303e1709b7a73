/** Machines that sleep, and clocks that are set: what was agreed stays agreed, and traffic is there at once. */
import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, type LabNode, type Reply, waitUntil } from "../helpers/lab.ts";
import { LabClock } from "../helpers/lab-clock.ts";
import { LabNat } from "../helpers/lab-nat.ts";
import type { LabProcess } from "../helpers/lab-process.ts";

const HOUR_S = 3_600;
const EVERYWHERE = "0.0.0.0/0";

let lab: Lab;
let clock: LabClock;
let ofA: LabNat;
let ofB: LabNat;
let a: LabNode;

/** a, whose clock is ours to set, and b, each behind a router that lets in only what answers. */
beforeAll(async () => {
  lab = await Lab.create("sleep", { hosts: ["a", "b", "ra", "rb"] });
  await lab.startRendezvous();
  ofA = new LabNat(lab, "ra", 1);
  ofB = new LabNat(lab, "rb", 2);
  for (const [router, host] of [
    [ofA, "a"],
    [ofB, "b"],
  ] as const) {
    await router.create("port-dependent");
    await router.adopt(host);
  }
  clock = new LabClock(`${lab.folder}/clock`);
  writeFileSync(
    `${lab.folder}/policy`,
    "allow in icmp from trusted\nallow out icmp to trusted\nallow in tcp 7777 from b\nallow in udp 7778 from b\n",
  );
  [a] = await Promise.all([
    lab.startNode("a", { env: clock.env, extraArgs: ["--policy", `${lab.folder}/policy`] }),
    lab.startNode("b"),
  ]);
  await lab.trust("a", "b");
  await waitForDirect();
});

afterAll(() => lab?.close());

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Stops a, whose timers stand still as they do in a sleep, and forgets its router's mappings. Nothing reaches its sockets
 * meanwhile, for that would be answered first thing and open the router. Returns when it went on, in Unix ms.
 */
async function sleepFor(ms: number, beforeWaking: () => void): Promise<number> {
  await ofA.block(EVERYWHERE);
  a.process.kill("SIGSTOP");
  await pause(ms);
  await ofA.block(undefined);
  await ofA.become("symmetric"); // other mappings than before
  beforeWaking();
  a.process.kill("SIGCONT");
  return Date.now();
}

async function waitForDirect(): Promise<void> {
  const pings = lab.spawn("b", "ping", ["-6", "-i", "0.2", lab.overlay("a")]);
  for (const host of ["a", "b"]) {
    await waitUntil(
      `${host} to have a direct path`,
      async () => (await lab.pilot(host, "peers")).peers[0]?.path === "direct",
    );
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

/** Lines both ways over a connection that b opens to a, until `end`; a reset or a hang makes either fail. */
async function talkAlong(everyMs: number): Promise<{ end(): Promise<void> }> {
  const server = lab.spawn("a", "python3", ["-u", "-c", ECHO]);
  await server.waitForLine(/listening/);
  const client = lab.spawn("b", "python3", ["-u", "-c", TALK, lab.overlay("a"), String(everyMs / 1000)]);
  await client.waitForLine(/^0$/m);
  return {
    async end() {
      const seen = Number(client.stdout.trim().split("\n").at(-1));
      await client.waitForLine(new RegExp(`^${seen + 1}$`)); // it still talks
      expect(client.stderr).toBe("");
      await client.stop();
      await server.stop();
    },
  };
}

describe("a machine that slept", () => {
  it("for an hour, by its clock, has traffic again within 2 s, both ways, with the connection that was open", async () => {
    const talk = await talkAlong(5_000);
    await pause(3_000); // silence on a line in use is found out by itself; this one is quiet
    const wokeAt = await sleepFor(300, () => clock.set(HOUR_S));
    const pings = pingAlong("b", "a");
    const tookMs = await pings.firstAfter(wokeAt, 10_000);
    await pings.process.stop();
    console.log(`after an hour's sleep: ${tookMs.toFixed(0)} ms`);
    expect(tookMs).toBeLessThan(2_000);
    const back = pingAlong("a", "b");
    expect(await back.firstAfter(0, 2_000)).toBeGreaterThan(0);
    await back.process.stop();
    await talk.end();
    expect((await lab.pilot("a", "status")).registry.state).toBe("connected");
    await ofA.become("port-dependent");
    await waitForDirect();
  });

  it("for longer than keepalives and mappings last has traffic again within 2 s, though its peer had given it up", async () => {
    const pings = pingAlong("b", "a");
    await pings.firstAfter(0, 5_000);
    const wokeAt = await sleepFor(33_000, () => {});
    const tookMs = await pings.firstAfter(wokeAt, 10_000);
    await pings.process.stop();
    console.log(`after 33 s without a turn: ${tookMs.toFixed(0)} ms`);
    expect(tookMs).toBeLessThan(2_000);
    await ofA.become("port-dependent");
    await waitForDirect();
  });
});

describe("a clock that is set", () => {
  it.each([
    ["a week ahead", 168 * HOUR_S],
    ["two weeks back", -168 * HOUR_S],
    ["right again", 0],
  ])("%s interrupts nothing: no ping is lost, the connection goes on, trust stays", async (_, offsetS) => {
    const trust = await lab.pilot("a", "trust", "ls");
    const [before] = (await lab.pilot("a", "peers")).peers;
    const stream = lab.spawn("b", "python3", ["-u", "-c", SUBSCRIBE, lab.overlay("a")]);
    const source = lab.spawn("a", "python3", ["-u", "-c", PUBLISH]);
    await stream.waitForLine(/^3$/m);
    const talk = await talkAlong(100);
    const pings = lab.spawn("b", "ping", ["-6", "-i", "0.1", "-c", "40", "-W", "1", lab.overlay("a")]);
    await pause(1_000);
    clock.set(offsetS);
    await pings.waitForEnd(10_000);
    expect(Number(/(\d+) received/.exec(pings.stdout)?.[1])).toBeGreaterThanOrEqual(39);
    await talk.end();
    const seen = Number(stream.stdout.trim().split("\n").at(-1));
    await stream.waitForLine(new RegExp(`^${seen + 10}$`)); // nothing but replies of a flow that b began
    await stream.stop();
    await source.stop();
    const states = ({ entries }: Reply) => entries.map(({ node, trust, epoch }: Reply) => ({ node, trust, epoch }));
    expect(states(await lab.pilot("a", "trust", "ls"))).toEqual(states(trust));
    expect((await lab.pilot("a", "peers")).peers[0]).toMatchObject({ path: before.path, trust: "mutual" });
  });
});

const ECHO = `
import socket
s = socket.create_server(("::", 7777), family=socket.AF_INET6)
print("listening", flush=True)
c, _ = s.accept()
while d := c.recv(999): c.sendall(d)
`;
/** A line now and then, each answered within 15 s. */
const TALK = `
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7777), timeout=15)
for i in range(10000):
    s.sendall(b"line")
    assert s.recv(99)
    print(i, flush=True)
    time.sleep(float(sys.argv[2]))
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
