/**
 * What can befall a host, one noun each: how it comes, what must be seen while it lasts, and how it goes. Bounds are those the
 * documents give; where they give none, generous ones.
 */
import { rmSync, writeFileSync } from "node:fs";
import type { DropReason } from "../../src/base/drop-reason.ts";
import { waitUntil } from "../helpers/lab.ts";
import { NET } from "../helpers/lab-network.ts";
import { kibibytes } from "./leak.ts";
import { pause, SERVICE_HOSTS, type ServiceHost, type SoakWorld } from "./world.ts";

export interface Fault {
  /** With the host it befalls. */
  readonly name: string;
  /** Who must be able to ping whom again, and how soon after it is gone. */
  readonly reach: readonly [from: string, to: string];
  readonly healedWithinMs: number;
  /** The daemon on this host may end by it; no other may. */
  readonly ends?: ServiceHost;
  /** Makes it so, stays for as long as it lasts, and throws unless it shows as it should. */
  inject(): Promise<void>;
  heal(): Promise<void>;
}

export interface Lengths {
  readonly shortPauseMs: number;
  readonly longPauseMs: number;
  /** Faults that can befall either service do befall both; else one of them. */
  readonly everywhere: boolean;
}

/** Each kind. The order is for the caller to choose. */
export function allFaults(world: SoakWorld, { shortPauseMs, longPauseMs, everywhere }: Lengths): Fault[] {
  const on = (host: ServiceHost, make: (host: ServiceHost) => Fault): Fault[] =>
    everywhere ? [make("a"), make("b")] : [make(host)];
  return [
    killedDaemon(world),
    killedRendezvous(world),
    killedPeer(world),
    stopped(world, "a", shortPauseMs),
    stopped(world, "c", longPauseMs),
    ...(everywhere ? [stopped(world, "b", longPauseMs), stopped(world, NET, longPauseMs)] : []),
    ...on("b", (host) => noDescriptors(world, host)),
    ...on("a", (host) => fullDisk(world, host)),
    setClock(world, 168 * 3_600),
    setClock(world, -168 * 3_600),
    ...on("b", (host) => interfaceDown(world, host)),
    cableOut(world, "b"),
    smallInterface(world, "a"),
    smallPath(world),
    littleMemory(world),
  ];
}

const other = (host: ServiceHost): ServiceHost => (host === "a" ? "b" : "a");

function killedDaemon(world: SoakWorld): Fault {
  const service = world.services.a;
  let ready = 0;
  return {
    name: "kill -9 of the daemon on a",
    reach: ["b", "a"],
    healedWithinMs: 3_000,
    ends: "a",
    async inject() {
      ready = service.readyTimes;
      process.kill(service.daemonPid, "SIGKILL");
    },
    // The service's doing.
    heal: () => service.waitUntilReady(ready + 1),
  };
}

function killedRendezvous(world: SoakWorld): Fault {
  return {
    name: "kill -9 of the rendezvous",
    reach: ["a", "b"],
    healedWithinMs: 3_000,
    async inject() {
      world.lab.rendezvous.kill("SIGKILL");
      await world.lab.rendezvous.ended;
      const isShown = async (): Promise<boolean> => (await world.status("a")).registry.state !== "connected";
      await waitUntil("the loss of the registry to show", isShown, 3_000);
      await world.reaches("a", "b", 3_000); // peers that know each other need nobody
    },
    async heal() {
      await world.lab.startRendezvous();
    },
  };
}

function killedPeer(world: SoakWorld): Fault {
  return {
    name: "kill -9 of the plain peer c",
    reach: ["a", "c"],
    healedWithinMs: 10_000,
    inject: () => world.lab.stopNode("c", "SIGKILL"),
    heal: () => world.startPlain(),
  };
}

/** On NET it is the rendezvous, without which those that know each other go on. */
function stopped(world: SoakWorld, host: ServiceHost | "c" | typeof NET, ms: number): Fault {
  const pid = (): number => {
    if (host === NET) return world.lab.rendezvous.pid!;
    return host === "c" ? world.lab.node("c").process.pid! : world.services[host].daemonPid;
  };
  return {
    name: `SIGSTOP of ${host === NET ? "the rendezvous" : `the daemon on ${host}`} for ${ms / 1000} s`,
    reach: host === "b" || host === "c" ? ["a", host] : ["b", "a"],
    healedWithinMs: 2_000,
    async inject() {
      process.kill(pid(), "SIGSTOP");
      await pause(ms);
    },
    async heal() {
      process.kill(pid(), "SIGCONT");
    },
  };
}

function noDescriptors(world: SoakWorld, host: ServiceHost): Fault {
  return {
    name: `no descriptors left on ${host}`,
    reach: [other(host), host],
    healedWithinMs: 3_000,
    async inject() {
      // One that was in use just then may be free a moment later: again, until nobody is let in.
      await waitUntil("requests to be turned away", async () => !(await answersAtItsLimit(world, host)), 5_000);
      await pause(FAULT_MS); // some looks of its watches
      await world.reaches(other(host), host, 3_000); // packets take none
    },
    heal: () => world.limit(host, "nofile", `${world.mostDescriptorsOf(host)}:`),
  };
}

/** Sets the limit to what is open now, and asks for something that takes one more. */
async function answersAtItsLimit(world: SoakWorld, host: ServiceHost): Promise<boolean> {
  const taken = new Set(world.descriptorsOf(host));
  let firstFree = 0;
  while (taken.has(firstFree)) firstFree++;
  await world.limit(host, "nofile", `${firstFree}:`);
  return await world.status(host).then(
    () => true,
    () => false,
  );
}

/** A word of the operator while it is full is not called done, and is kept as soon as there is room. */
function fullDisk(world: SoakWorld, host: ServiceHost): Fault {
  const filler = `${world.services[host].stateView}/filler`;
  return {
    name: `full disk on ${host}`,
    reach: [other(host), host],
    healedWithinMs: 3_000,
    ...(host === "a" ? { ends: host } : {}), // by our own hand, see below
    async inject() {
      fill(filler);
      await world.lab.tryPilot(host, "addr", "d"); // a name that is new the first time, and remembered
      const word = (await world.lab.trustOf(host, "d")) === "asked" ? "revoke" : "ask";
      const { reply } = await world.lab.tryPilot(host, "trust", word, String(world.lab.node("d").node));
      if (reply?.error?.code !== "state_unwritable")
        throw new Error(`"${word}" was called done: ${JSON.stringify(reply)}`);
      await world.showsProblem(host, "state_unwritable", 3_000);
      await world.showsProblem(host, "audit_failing", 10_000);
      await world.reaches(other(host), host, 3_000);
    },
    async heal() {
      rmSync(filler);
      await world.isContent(host, 15_000);
      if (host === "b") return;
      // What it promised to write by itself must outlive it.
      const before = await world.lab.trustOf(host, "d");
      const ready = world.services.a.readyTimes;
      process.kill(world.services.a.daemonPid, "SIGKILL");
      await world.services.a.waitUntilReady(ready + 1);
      const after = await world.lab.trustOf(host, "d");
      if (after !== before) throw new Error(`trust in d was ${before}, and after a crash is ${after}`);
    },
  };
}

function fill(file: string): void {
  const blocks = [65_536, 4_096, 512];
  for (const block of blocks) {
    try {
      for (;;) writeFileSync(file, Buffer.alloc(block), { flag: "a" });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    }
  }
}

function setClock(world: SoakWorld, offsetS: number): Fault {
  return {
    name: `clock of c set by ${offsetS / 86_400} days`,
    reach: ["a", "c"],
    healedWithinMs: 2_000,
    async inject() {
      world.clock.set(offsetS);
      await pause(FAULT_MS);
      await world.reaches("a", "c", 2_000);
    },
    async heal() {
      world.clock.set(0);
    },
  };
}

function interfaceDown(world: SoakWorld, host: ServiceHost): Fault {
  return {
    name: `pilot0 of ${host} set down`,
    reach: [other(host), host],
    healedWithinMs: 3_000,
    async inject() {
      await world.ip(host, "link", "set", "dev", "pilot0", "down");
      await world.showsProblem(host, "interface_down", 5_000);
      await counts(world, host, "tun-write-failed", () => world.lab.exec(other(host), "ping", pings(world, host)));
    },
    heal: () => world.ip(host, "link", "set", "dev", "pilot0", "up"),
  };
}

function cableOut(world: SoakWorld, host: ServiceHost): Fault {
  return {
    name: `cable of ${host} unplugged`,
    reach: [other(host), host],
    healedWithinMs: 3_000,
    async inject() {
      await world.ip(host, "link", "set", "dev", "eth0", "down");
      await counts(world, host, "send-failed", () => world.lab.exec(host, "ping", pings(world, other(host))));
    },
    async heal() {
      const { network } = world.lab;
      await world.ip(host, "link", "set", "dev", "eth0", "up");
      // The kernel took it away with the link.
      await world.ip(host, "addr", "replace", `${network.address6Of(host)}/64`, "dev", "eth0", "nodad");
    },
  };
}

/** Below what IPv6 needs the kernel takes the addresses away: the daemon brings them back, with the MTU. */
function smallInterface(world: SoakWorld, host: ServiceHost): Fault {
  return {
    name: `MTU of pilot0 on ${host} set to 1280, then to 1000`,
    reach: [other(host), host],
    healedWithinMs: 5_000,
    async inject() {
      await world.ip(host, "link", "set", "dev", "pilot0", "mtu", "1280");
      await world.reaches(other(host), host, 2_000);
      await world.ip(host, "link", "set", "dev", "pilot0", "mtu", "1000");
    },
    heal: () => Promise.resolve(), // the daemon's doing
  };
}

/** At the hosts themselves, where the socket refuses what is too long; what is swallowed on the way is for mtu.test.ts. */
function smallPath(world: SoakWorld): Fault {
  const become = async (mtu: string): Promise<void> => {
    for (const host of SERVICE_HOSTS) {
      await world.ip(host, "link", "set", "dev", "eth0", "mtu", mtu);
      await world.ip(NET, "link", "set", "dev", `to-${host}`, "mtu", mtu);
    }
  };
  return {
    name: "underlay of a and b shrunk to 1300 bytes",
    reach: ["a", "b"],
    healedWithinMs: 3_000,
    async inject() {
      await become("1300");
      const long = ["-6", "-q", "-c", "1", "-W", "1", "-s", "1232", world.lab.overlay("b")];
      const passes = async (): Promise<boolean> => (await world.lab.exec("a", "ping", long)).code === 0;
      await waitUntil("packets of 1280 bytes to pass the smaller path", passes, 15_000);
      await pause(FAULT_MS);
    },
    heal: () => become("1500"),
  };
}

/** No more than it holds now and a little: it goes on or ends and is started again, and nobody loses a connection by it. */
function littleMemory(world: SoakWorld): Fault {
  const service = world.services.a;
  let [ends, ready] = [0, 0];
  return {
    name: "memory of the daemon on a limited to what it has and 1 MiB",
    reach: ["b", "a"],
    healedWithinMs: 3_000,
    ends: "a",
    async inject() {
      [ends, ready] = [service.ends, service.readyTimes];
      await world.limit("a", "data", `${(kibibytes(world.statusOf("a"), "VmData") + 1024) * 1024}:`);
      const ask = (): Promise<unknown> => world.status("a").catch(() => undefined);
      for (let i = 0; i < 200 && service.ends === ends; i++) await Promise.all([ask(), ask(), ask(), ask()]);
      await pause(FAULT_MS);
    },
    async heal() {
      if (service.ends > ends) return service.waitUntilReady(ready + 1);
      await world.limit("a", "data", "unlimited:");
    },
  };
}

const pings = (world: SoakWorld, to: string): string[] => [
  "-6",
  "-c",
  "5",
  "-i",
  "0.1",
  "-W",
  "1",
  world.lab.overlay(to),
];

/** A counter says where packets went. */
async function counts(world: SoakWorld, host: string, reason: DropReason, act: () => Promise<unknown>): Promise<void> {
  const before = await world.drops(host, reason);
  await act();
  if ((await world.drops(host, reason)) === before) throw new Error(`${host} does not count ${reason}`);
}

const FAULT_MS = 1_500;
