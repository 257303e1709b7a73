/** A network that takes less than programs send, and whose own queue is deep: what waits must not make others wait. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab } from "../helpers/lab.ts";

const MBITS = 100;
let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("slow-network", { hosts: ["a", "b", "c", "p"] });
  await lab.startRendezvous();
  await Promise.all(["a", "b", "c"].map((host) => lab.startNode(host)));
  await lab.trust("a", "b");
  await lab.startNode("p", { extraArgs: ["--plain-only"] });
  for (const host of ["c", "p"]) await lab.trust("a", host);
  for (const host of ["b", "p"])
    await lab.spawn(host, "iperf3", ["-s", "--forceflush"]).waitForLine(/Server listening/);
  // A second and more of what the link carries: nothing is lost, everything waits.
  const shape = ["qdisc", "add", "dev", "eth0", "root", "tbf", "rate", `${MBITS}mbit`, "burst", "128k", "limit", "20m"];
  expect((await lab.exec("a", "tc", shape)).stderr).toBe("");
});

afterAll(() => lab?.close());

/** Milliseconds, in rising order. */
async function roundTrips(host: string, count: number): Promise<number[]> {
  const words = ["-6", "-n", "-i", "0.02", "-c", String(count), lab.overlay(host)];
  const { stdout } = await lab.exec("a", "ping", words, { timeoutMs: 30_000 });
  return [...stdout.matchAll(/time=([\d.]+)/g)].map((match) => Number(match[1])).sort((x, y) => x - y);
}

const transfer = (host: string, seconds: number, ...more: readonly string[]) =>
  lab.exec("a", "iperf3", ["-6", "-c", lab.overlay(host), "-t", String(seconds), "-J", ...more], { timeoutMs: 30_000 });
const median = (sorted: readonly number[]): number => sorted[sorted.length >> 1]!;
const drops = async (): Promise<Record<string, number>> => (await lab.pilot("a", "status")).drops;

describe("bulk over a slow network", () => {
  it("fills it, and neither its own peer's pings nor another's wait behind it", async () => {
    const bulk = transfer("b", 8, "-P", "4");
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    const [same, other] = await Promise.all([roundTrips("b", 200), roundTrips("c", 200)]);
    const { end } = JSON.parse((await bulk).stdout);
    expect(end.sum_received.bits_per_second / 1e6).toBeGreaterThan(0.6 * MBITS);
    expect([same.length, other.length].every((answered) => answered > 190)).toBe(true);
    // What the four keep in flight takes the link half a second: without queues of their own pings wait for all of it.
    expect(median(same)).toBeLessThan(100);
    expect(median(other)).toBeLessThan(100);
    expect((await drops())["egress-delay"]).toBeGreaterThan(0);
  });

  it("takes turns with others when it goes to a plain agent, too", async () => {
    expect((await roundTrips("p", 20)).length).toBeGreaterThan(0);
    const bulk = transfer("p", 6, "-P", "4");
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    const trips = await roundTrips("c", 100);
    const { end } = JSON.parse((await bulk).stdout);
    expect(end.sum_received.bits_per_second / 1e6).toBeGreaterThan(0.6 * MBITS);
    expect(trips.length).toBeGreaterThan(90);
    expect(median(trips)).toBeLessThan(100);
  });

  it("slows a program down that minds no losses, and counts what it sends in vain", async () => {
    const before = (await drops())["egress-full"] ?? 0;
    const flood = transfer("b", 4, "-u", "-b", "400M", "-l", "1200");
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    const trips = await roundTrips("c", 80);
    const { end } = JSON.parse((await flood).stdout);
    expect(trips.length).toBeGreaterThan(60);
    expect(median(trips)).toBeLessThan(100);
    const seconds = end.sum_received.seconds;
    expect((end.sum_received.bytes * 8) / 1e6 / seconds).toBeGreaterThan(0.5 * MBITS);
    const after = await drops();
    expect((after["egress-full"] ?? 0) + (after["egress-delay"] ?? 0)).toBeGreaterThan(before);
  });
});
