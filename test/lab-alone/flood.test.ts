/**
 * Real floods at a real daemon and a real beacon, tens of thousands of datagrams a second from made-up sources: who is
 * connected loses nothing, who is trusted gets through, memory stays, and the counters say why.
 */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fromBase64 } from "../../src/base/bytes.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { allowDirect, blockDirect, usePath } from "../helpers/direct-block.ts";
import { Flooder, type FloodPlan, type FloodTarget, sentBy } from "../helpers/flood.ts";
import * as floods from "../helpers/flood-datagrams.ts";
import { LAUNCHER, Lab, waitUntil } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import { lateness } from "../helpers/lateness.ts";

let lab: Lab;
let flooder: Flooder;

beforeAll(async () => {
  lab = await Lab.create("flood", { hosts: ["a", "b", "c", "x"] });
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b")]);
  await lab.trust("a", "b");
  flooder = await Flooder.create(lab, "x");
});

afterAll(() => lab?.close());

const portOf = async (host: string): Promise<number> => Number((await lab.status(host)).listen.split(":").at(-1));

const daemonAt = async (host: string): Promise<FloodTarget> => {
  return { address: lab.network.addressOf(host), port: await portOf(host) };
};

/** What anybody can know of a node: its key goes over the network with every key exchange. */
const identityOf = (host: string): Uint8Array => {
  const { public_key } = JSON.parse(readFileSync(`${lab.node(host).stateDir}/identity.json`, "utf8"));
  return fromBase64(public_key)!;
};

const exchangesOfB = (): floods.FloodDatagram[] =>
  floods.exchangesAs(nodeId(lab.node("b").node), identityOf("b"), nodeId(lab.node("a").node));

const strangers = (): floods.FloodDatagram[] => [
  floods.strangeExchanges(),
  floods.anonymousExchanges(nodeId(7)),
  floods.sealedFrames(nodeId(0x7f00_0001)),
  floods.plaintext(),
  floods.punches(),
  floods.observations(),
];

const beacon = (): FloodTarget => {
  return { address: lab.network.addressOf(lab.rendezvousHost), port: Number(lab.beacon.split(":").at(-1)) };
};

/** Fifty a second while the flood goes on; how many of `count` were lost. */
async function lostPings(count: number): Promise<number> {
  const args = ["-6", "-n", "-q", "-i", "0.02", "-c", String(count), "-W", "2", lab.overlay("b")];
  const { stdout } = await lab.exec("a", "ping", args);
  return count - Number(/(\d+) received/.exec(stdout)?.[1]);
}

const dropsAt = async (host: string): Promise<Record<string, number>> => (await lab.status(host)).drops;

const grown = (before: Record<string, number>, after: Record<string, number>, reasons: readonly string[]): number =>
  reasons.reduce((sum, reason) => sum + (after[reason] ?? 0) - (before[reason] ?? 0), 0);

describe("floods at a daemon", () => {
  const kinds: [string, () => Promise<{ from?: string; datagrams: floods.FloodDatagram[] }>, string[]][] = [
    [
      "everything that strangers can send",
      async () => ({ datagrams: strangers() }),
      ["unknown-sender", "anonymous-exchange-refused", "plaintext-refused", "beacon-spoofed"],
    ],
    [
      "key exchanges and frames in a peer's name, from anywhere",
      async () => ({ datagrams: [...exchangesOfB(), floods.sealedFrames(nodeId(lab.node("b").node))] }),
      ["key-exchange-limited", "bad-key-exchange", "bad-tag"],
    ],
    [
      "key exchanges in a peer's name, from its own address",
      async () => ({
        datagrams: exchangesOfB(),
        from: `${lab.network.addressOf("b")}:${await portOf("b")}`,
      }),
      ["key-exchange-limited", "bad-key-exchange"],
    ],
    [
      "words in the beacon's name",
      async () => ({ datagrams: [floods.observations()], from: lab.beacon }),
      ["beacon-limited"],
    ],
  ];

  it.each(kinds)(
    "%s: a connected peer loses no packet, memory stays, and the drops have names",
    async (_, make, reasons) => {
      await lostPings(5);
      const { from, datagrams } = await make();
      const plan: FloodPlan = { rate: RATE, seconds: 4, ...(from === undefined ? {} : { from }) };
      const before = { drops: await dropsAt("a"), rss: rssMib("a") };
      const flood = await flooder.start(await daemonAt("a"), datagrams, plan);
      expect(await lostPings(175)).toBe(0);
      const sent = await sentBy(flood);
      const counted = grown(before.drops, await dropsAt("a"), reasons);
      console.log(`sent ${sent}, counted ${counted}, RSS ${before.rss.toFixed(0)} to ${rssMib("a").toFixed(0)} MiB`);
      expect(counted).toBeGreaterThan(1_000);
      expect(rssMib("a")).toBeLessThan(before.rss + 80);
    },
  );

  it("a peer that is killed and comes back is reached within 3 s of that, while others speak in its name", async () => {
    const target = await daemonAt("a");
    const flood = await flooder.start(target, exchangesOfB(), { rate: RATE, seconds: 20 });
    await lab.stopNode("b", "SIGKILL");
    await lab.startNode("b");
    const readyAt = performance.now();
    const lateMs = lateness(lab, "a", "b");
    await waitUntil("b to be reached", async () => {
      const { stdout } = await lab.exec("b", "ping", ["-6", "-c", "1", "-W", "1", lab.overlay("a")]);
      return stdout.includes("1 received");
    });
    const tookMs = performance.now() - readyAt;
    console.log(`reached after ${tookMs.toFixed(0)} ms`);
    expect(flood.isRunning).toBe(true);
    await flood.stop();
    expect(tookMs).toBeLessThan(3_000 + lateMs());
  });

  it("a node that is new is registered, trusted and reached while daemon and beacon are flooded", async () => {
    const all = [
      await flooder.start(await daemonAt("a"), [...strangers(), ...exchangesOfB()], { rate: RATE / 6, seconds: 60 }),
      await flooder.start(beacon(), [floods.discoveries(), floods.relayed(nodeId(lab.node("a").node))], {
        rate: RATE / 6,
        seconds: 60,
      }),
    ];
    const startedAt = performance.now();
    await lab.startNode("c");
    await lab.trust("c", "a");
    const { code, stdout } = await lab.exec("c", "ping", ["-6", "-c", "3", "-i", "0.2", "-W", "2", lab.overlay("a")]);
    const tookMs = performance.now() - startedAt;
    console.log(`from nothing to three answers in ${tookMs.toFixed(0)} ms`);
    expect(all.every((flood) => flood.isRunning)).toBe(true);
    await Promise.all(all.map((flood) => flood.stop()));
    expect(code, stdout).toBe(0);
    expect(tookMs).toBeLessThan(45_000);
  });
});

describe("floods at a rendezvous", () => {
  beforeAll(async () => {
    await blockDirect(lab, ["a", "b"]);
    await usePath(lab, ["a", "b"], "relay");
  });

  afterAll(() => allowDirect(lab, ["a", "b"]));

  const kinds: [string, number, () => floods.FloodDatagram[], string][] = [
    [
      "discoveries from made-up sources",
      50_000,
      () => [floods.discoveries()],
      'beacon_limited_total{limit="strangers"}',
    ],
    [
      "frames for a relayed peer, from made-up senders",
      30_000,
      () => [floods.relayed(nodeId(lab.node("a").node)), floods.relayed(nodeId(lab.node("b").node))],
      "relay_frames_total",
    ],
  ];

  it.each(kinds)(
    "%s, %i a second: relayed peers lose no packet, and memory stays",
    async (_, rate, datagrams, counter) => {
      await lostPings(5);
      const before = { metrics: await metrics(), rss: rssMibOf(lab.rendezvous) };
      const flood = await flooder.start(beacon(), datagrams(), { rate, seconds: 5 });
      const lost = await lostPings(175);
      const sent = await sentBy(flood);
      const after = { metrics: await metrics(), rss: rssMibOf(lab.rendezvous) };
      const since = (name: string): number => metricIn(after.metrics, name) - metricIn(before.metrics, name);
      const [overflow, shed] = [since(drops("socket-full")), since(drops("socket-full-of-strangers"))];
      console.log(
        `sent ${sent}, counted ${since(counter)}, lost ${lost}, no room for ${overflow} of known sources and ${shed} of others, ` +
          `RSS ${before.rss.toFixed(0)} to ${after.rss.toFixed(0)} MiB`,
      );
      expect(since(counter)).toBeGreaterThan(1_000);
      expect([lost, overflow]).toEqual([0, 0]);
      expect(after.rss).toBeLessThan(before.rss + 80);
    },
  );

  const drops = (reason: string): string => `beacon_drops_total{reason="${reason}"}`;

  async function metrics(): Promise<string> {
    const admin = `${lab.folder}/rendezvous/admin.sock`;
    return (await lab.exec(lab.rendezvousHost, LAUNCHER, ["rendezvous", "metrics", "--admin", admin])).stdout;
  }

  function metricIn(metrics: string, name: string): number {
    const line = metrics.split("\n").find((each) => each.startsWith(`pilot_rendezvous_${name} `));
    if (line === undefined) throw new Error(`no ${name} in ${metrics}`);
    return Number(line.split(" ").at(-1));
  }
});

const rssMib = (host: string): number => rssMibOf(lab.node(host).process);

function rssMibOf({ pid }: LabProcess): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kib) / 1_024;
}

/** Datagrams a second. */
const RATE = 30_000;
