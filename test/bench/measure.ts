/**
 * The measurements, each on a candidate that is up. Every program is bounded in time; a measurement that fails throws,
 * because a table with a hole in it would be read as a result.
 */
import { readdirSync, readFileSync } from "node:fs";
import type { ExecResult } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import type { Bed } from "./candidates.ts";
import { type HttpPrograms, httpRate, startHttpServer } from "./http.ts";

/** Null where it does not apply: the kernel has no daemon. */
export interface Figures {
  readonly tcp1Mbps: number;
  readonly tcp4Mbps: number;
  /** Highest rate of 64-byte datagrams with less than 1 % loss. */
  readonly udp64Kpps: number;
  /** Requests of 16 connections that stay open; null without the programs for it. */
  readonly httpRps: number | null;
  readonly rttP50Us: number;
  readonly rttP99Us: number;
  readonly loadedRttP50Us: number;
  readonly loadedRttP99Us: number;
  /** The same while the line carries SLOW_LINE_MBITS and has a deep queue of its own. */
  readonly slowLineRttP50Us: number;
  readonly slowLineRttP99Us: number;
  /** Both daemons, during the one-stream transfer. */
  readonly cpuSecondsPerGb: number | null;
  /** Both daemons, after all the transfers. */
  readonly rssMib: number | null;
  /** Of one core, the busier of the two daemons. */
  readonly idleCpuPercent: number | null;
  /** The first answer after both daemons started. */
  readonly firstPacketMs: number | null;
}

export type Report = (line: string) => void;

export interface Measurement {
  /** Of each transfer. */
  readonly seconds: number;
  readonly http: HttpPrograms | undefined;
}

export async function measure(bed: Bed, { seconds, http }: Measurement, report: Report): Promise<Figures> {
  const firstPacketMs = await firstPacket(bed);
  report(`first packet ${shown(firstPacketMs)} ms`);
  const idleCpuPercent = await idleCpu(bed);
  report(`idle ${shown(idleCpuPercent)} % of a core`);
  await startServer(bed);
  const one = await tcp(bed, 1, seconds);
  report(`tcp 1 stream ${one.mbps.toFixed(0)} Mbit/s, ${shown(one.cpuSecondsPerGb)} CPU s/GB`);
  const four = await tcp(bed, 4, seconds);
  report(`tcp 4 streams ${four.mbps.toFixed(0)} Mbit/s`);
  const loaded = await pingsUnderTcp(bed, seconds);
  report(`round trip under tcp p50 ${loaded.p50Us} us, p99 ${loaded.p99Us} us`);
  const udp64Kpps = (await highestUdpRate(bed)) / 1_000;
  report(`udp 64 bytes ${udp64Kpps.toFixed(1)} kpps`);
  const httpRps = http === undefined ? null : await requestsPerSecond(bed, http, seconds);
  report(`http ${shown(httpRps)} requests/s`);
  const slow = await onSlowLine(bed, () => pingsUnderTcp(bed, seconds));
  report(`round trip under tcp on a slow line p50 ${slow.p50Us} us, p99 ${slow.p99Us} us`);
  // After the transfers: a tunnel that runs for days has its code compiled, its buffers mapped and its sockets grown.
  const rtt = await pings(bed, 0.001, 3_000);
  report(`round trip p50 ${rtt.p50Us} us, p99 ${rtt.p99Us} us`);
  return {
    tcp1Mbps: one.mbps,
    tcp4Mbps: four.mbps,
    udp64Kpps,
    httpRps,
    rttP50Us: rtt.p50Us,
    rttP99Us: rtt.p99Us,
    loadedRttP50Us: loaded.p50Us,
    loadedRttP99Us: loaded.p99Us,
    slowLineRttP50Us: slow.p50Us,
    slowLineRttP99Us: slow.p99Us,
    cpuSecondsPerGb: one.cpuSecondsPerGb,
    rssMib: rssMib(bed.daemons),
    idleCpuPercent,
    firstPacketMs,
  };
}

async function requestsPerSecond(bed: Bed, programs: HttpPrograms, seconds: number): Promise<number> {
  await startHttpServer(bed, programs);
  return (await httpRate(bed, programs, seconds)).requestsPerSecond;
}

function shown(value: number | null): string {
  return value === null ? "-" : value.toFixed(2);
}

// ---- round trips --------------------------------------------------------------------------------------------------

export interface Percentiles {
  readonly p50Us: number;
  readonly p99Us: number;
}

/** Nothing has passed between the two yet: keys must be agreed on first. */
async function firstPacket(bed: Bed): Promise<number | null> {
  if (bed.daemons.length === 0) return null;
  const { stdout, stderr } = await bed.lab.exec("a", "ping", ["-6", "-n", "-c", "1", "-W", "10", bed.target]);
  const [timeUs] = roundTripsUs(stdout);
  if (timeUs === undefined) throw new Error(`b does not answer\n${stdout}${stderr}`);
  return timeUs / 1_000;
}

/** `notCounted`: so many answers at the beginning. */
export async function pings(
  bed: Bed,
  intervalS: number,
  count: number,
  notCounted = 0,
): Promise<Percentiles & { readonly lost: number }> {
  const limits = ["-i", String(intervalS), "-c", String(count), "-w", "30"];
  const { stdout, stderr } = await bed.lab.exec("a", "ping", ["-6", "-n", ...limits, bed.target], {
    timeoutMs: 40_000,
  });
  const times = roundTripsUs(stdout)
    .slice(notCounted)
    .sort((left, right) => left - right);
  if (times.length < count / 2) throw new Error(`only ${times.length} of ${count} pings were answered\n${stderr}`);
  return {
    p50Us: percentile(times, 0.5),
    p99Us: percentile(times, 0.99),
    lost: count - Number(/(\d+) received/.exec(stdout)?.[1] ?? 0),
  };
}

async function pingsUnderTcp(bed: Bed, seconds: number): Promise<Percentiles> {
  const transfer = iperf(bed, seconds + 4, []); // longer than the pings, of which the kernel sends one in 4 ms at most
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const settling = Math.round(SETTLING_S / PING_S);
  const result = await pings(bed, PING_S, settling + Math.round(seconds / 2 / PING_S), settling);
  await transfer;
  return result;
}

/** A line that loses nothing and lets everything wait, as many do whose queues nobody looks after. */
async function onSlowLine<T>({ lab }: Bed, act: () => Promise<T>): Promise<T> {
  const tc = async (...words: readonly string[]): Promise<void> => {
    const { code, stderr } = await lab.exec("a", "tc", ["qdisc", ...words]);
    if (code !== 0) throw new Error(`tc ${words.join(" ")}: ${stderr}`);
  };
  const shape = ["rate", `${SLOW_LINE_MBITS}mbit`, "burst", "128k", "limit", "50m"];
  await tc("add", "dev", "eth0", "root", "tbf", ...shape);
  try {
    return await act();
  } finally {
    await tc("del", "dev", "eth0", "root");
  }
}

const SLOW_LINE_MBITS = 100;
const PING_S = 0.002;
/** A tunnel may need some of them to see that somebody waits. */
const SETTLING_S = 0.5;

function roundTripsUs(output: string): number[] {
  return [...output.matchAll(/time=([\d.]+) ms/g)].map((match) => Math.round(Number(match[1]) * 1_000));
}

function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
}

// ---- throughput ---------------------------------------------------------------------------------------------------

export interface Transfer {
  readonly mbps: number;
  readonly cpuSecondsPerGb: number | null;
}

/** From a to b; `reverse` from b to a. */
export async function tcp(bed: Bed, streams: number, seconds: number, reverse = false): Promise<Transfer> {
  const before = cpuSeconds(bed.daemons);
  const { end } = await iperf(bed, seconds, ["-P", String(streams), ...(reverse ? ["-R"] : [])]);
  const cpu = cpuSeconds(bed.daemons) - before;
  const gigabytes = end.sum_received.bytes / 1e9;
  return {
    mbps: end.sum_received.bits_per_second / 1e6,
    cpuSecondsPerGb: bed.daemons.length === 0 ? null : cpu / gigabytes,
  };
}

/** By bisection between what arrives from an unpaced sender and what it sent. Packets a second. */
async function highestUdpRate(bed: Bed): Promise<number> {
  const unpaced = await udpAt(bed, 0);
  if (unpaced.loss < MOST_LOSS) return unpaced.received;
  let good = 0;
  let bad = unpaced.sent;
  let next = unpaced.received;
  for (let step = 0; step < UDP_STEPS && bad - good > bad * 0.05; step++) {
    const tried = await udpAt(bed, next);
    if (tried.loss < MOST_LOSS) {
      good = Math.max(good, tried.received);
      // The sender could not go as fast as it was asked to: this is its limit.
      if (tried.sent < next * 0.95) break;
    } else {
      bad = Math.min(bad, next);
    }
    next = good === 0 ? bad * 0.6 : (good + bad) / 2;
  }
  return good;
}

const MOST_LOSS = 0.01;
const UDP_STEPS = 7;
const UDP_SECONDS = 2;
const UDP_BYTES = 64;

export interface UdpStep {
  /** Packets a second. */
  readonly sent: number;
  readonly received: number;
  readonly loss: number;
}

/** A rate of 0 is as fast as it goes. */
export async function udpAt(bed: Bed, packetsPerSecond: number): Promise<UdpStep> {
  const bitsPerSecond = Math.round(packetsPerSecond * UDP_BYTES * 8);
  const pace = ["-u", "-l", String(UDP_BYTES), "-b", String(bitsPerSecond), "-w", "2M", "--pacing-timer", "250"];
  const { end } = await iperf(bed, UDP_SECONDS, pace);
  const sent = end.sum_sent.packets / end.sum_sent.seconds;
  // From bytes: the receiver's own count of losses knows nothing of those at the end.
  const received = end.sum_received.bytes / UDP_BYTES / end.sum_sent.seconds;
  return { sent, received, loss: sent > 0 ? Math.max(0, 1 - received / sent) : 1 };
}

interface IperfEnd {
  readonly sum_sent: { readonly packets: number; readonly seconds: number };
  readonly sum_received: { readonly bytes: number; readonly bits_per_second: number };
}

/** A client run on a; the one kind of failure that is tried again is a server that is still busy with the last. */
async function iperf(bed: Bed, seconds: number, args: readonly string[]): Promise<{ readonly end: IperfEnd }> {
  const congestion = args.includes("-u") ? [] : await cubicIfThere(bed);
  const words = ["-6", "-c", bed.target, "-t", String(seconds), "-J", ...congestion, ...args];
  let last: ExecResult | undefined;
  for (let attempt = 0; attempt < 3; attempt++) {
    last = await bed.lab.exec("a", "iperf3", words, { timeoutMs: (seconds + 15) * 1_000 });
    if (last.code === 0) return JSON.parse(last.stdout);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  throw new Error(`iperf3 failed: ${last?.stdout.slice(-500)}${last?.stderr}`);
}

export async function startServer(bed: Bed): Promise<void> {
  const server = bed.lab.spawn("b", "iperf3", ["-s", "--forceflush"]);
  await server.waitForLine(/Server listening/, 5_000);
}

/** So that runs compare whatever the machine's default is. */
async function cubicIfThere(bed: Bed): Promise<string[]> {
  const { stdout } = await bed.lab.exec("a", "sysctl", ["-n", "net.ipv4.tcp_available_congestion_control"]);
  return stdout.split(/\s+/).includes("cubic") ? ["-C", "cubic"] : [];
}

// ---- what the daemons cost ------------------------------------------------------------------------------------------

async function idleCpu(bed: Bed): Promise<number | null> {
  if (bed.daemons.length === 0) return null;
  // What the start and the first packet set off; the collectors of both candidates clear that away some ten seconds later.
  await new Promise((resolve) => setTimeout(resolve, IDLE_AFTER_MS));
  const before = bed.daemons.map((daemon) => exactCpuSeconds(daemon));
  await new Promise((resolve) => setTimeout(resolve, IDLE_SECONDS * 1_000));
  const shares = bed.daemons.map((daemon, index) => (exactCpuSeconds(daemon) - before[index]!) / IDLE_SECONDS);
  return Math.max(...shares) * 100;
}

const IDLE_SECONDS = 10;
const IDLE_AFTER_MS = 15_000;

/** User and system time of the process groups, proc_pid_stat(5) fields 14 and 15. */
export function cpuSeconds(daemons: readonly LabProcess[]): number {
  return groupMembers(daemons).reduce((sum, { fields }) => sum + Number(fields[11]) + Number(fields[12]), 0) / CLOCK_HZ;
}

/** USER_HZ, the same on every Linux that runs Node. */
const CLOCK_HZ = 100;

/** To the nanosecond, of the threads that run now: ticks of a hundredth of a second say little of an idle daemon. */
export function exactCpuSeconds(daemon: LabProcess): number {
  const threads = groupMembers([daemon]).flatMap(({ pid }) =>
    threadsOf(pid).map((thread) => readIfThere(`/proc/${pid}/task/${thread}/schedstat`)),
  );
  return threads.reduce((sum, text) => sum + Number(text.split(" ")[0]), 0) / 1e9;
}

function threadsOf(pid: string): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return []; // it has just ended
  }
}

export function rssMib(daemons: readonly LabProcess[]): number | null {
  if (daemons.length === 0) return null;
  const kib = groupMembers(daemons).map(({ pid }) => {
    const [, size] = /^VmRSS:\s+(\d+) kB/m.exec(readIfThere(`/proc/${pid}/status`)) ?? [];
    return Number(size ?? 0);
  });
  return kib.reduce((sum, size) => sum + size, 0) / 1_024;
}

/** `fields` begin after the name, with the state. */
function groupMembers(daemons: readonly LabProcess[]): { pid: string; fields: string[] }[] {
  const groups = new Set(daemons.map((daemon) => String(daemon.pid)));
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      const text = readIfThere(`/proc/${pid}/stat`);
      return { pid, fields: text.slice(text.lastIndexOf(")") + 2).split(" ") };
    })
    .filter(({ fields }) => groups.has(fields[2] ?? ""));
}

/** Empty for a process that has just ended. */
function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
