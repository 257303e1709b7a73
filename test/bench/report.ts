/** Rounds of figures → medians, ratios taken within each round, and how both are printed. */
import type { Figures } from "./measure.ts";

/** Of one round: candidate → figures. */
export type Round = Readonly<Record<string, Figures>>;

export const OURS = "pilot-tun";
export const BASELINE = "wireguard-go";

export interface Ratios {
  readonly tcp1: number | null;
  readonly tcp4: number | null;
  readonly udp64: number | null;
  readonly http: number | null;
  readonly rttP50: number | null;
  readonly cpuPerGb: number | null;
}

export interface BenchReport {
  /** Ours to the baseline: the median of the rounds' ratios; null when one of them was not measured. */
  readonly ratios: Ratios;
  readonly medians: Readonly<Record<string, Figures>>;
  readonly roundRatios: readonly Ratios[];
  readonly rounds: readonly Round[];
}

export function summarise(rounds: readonly Round[]): BenchReport {
  const roundRatios = rounds.map((round) => ratiosOf(round));
  const names = Object.keys(rounds[0] ?? {});
  return {
    ratios: mapValues(RATIO_FIGURES, (_, key) => median(roundRatios.map((ratios) => ratios[key]))),
    medians: Object.fromEntries(names.map((name) => [name, mediansOf(rounds.map((round) => round[name]!))])),
    roundRatios,
    rounds,
  };
}

const RATIO_FIGURES = {
  tcp1: "tcp1Mbps",
  tcp4: "tcp4Mbps",
  udp64: "udp64Kpps",
  http: "httpRps",
  rttP50: "rttP50Us",
  cpuPerGb: "cpuSecondsPerGb",
} as const satisfies Record<keyof Ratios, keyof Figures>;

function ratiosOf(round: Round): Ratios {
  return mapValues(RATIO_FIGURES, (figure) => ratio(round[OURS]?.[figure], round[BASELINE]?.[figure]));
}

function ratio(ours: number | null | undefined, theirs: number | null | undefined): number | null {
  if (ours === null || ours === undefined || !theirs) return null;
  return ours / theirs;
}

function mediansOf(figures: readonly Figures[]): Figures {
  return mapValues(figures[0]!, (_, key) => median(figures.map((each) => each[key]))) as Figures;
}

export function median(values: readonly (number | null)[]): number | null {
  const sorted = values.filter((value) => value !== null).sort((left, right) => left - right);
  if (sorted.length === 0) return null;
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function mapValues<K extends string, V, W>(record: Readonly<Record<K, V>>, map: (value: V, key: K) => W): Record<K, W> {
  const entries = Object.entries(record) as [K, V][];
  return Object.fromEntries(entries.map(([key, value]) => [key, map(value, key)])) as Record<K, W>;
}

// ---- for people -----------------------------------------------------------------------------------------------------

const ROWS: readonly (readonly [string, keyof Figures, number])[] = [
  ["TCP, 1 stream, Mbit/s", "tcp1Mbps", 0],
  ["TCP, 4 streams, Mbit/s", "tcp4Mbps", 0],
  ["UDP, 64 bytes, < 1 % loss, kpps", "udp64Kpps", 1],
  ["HTTP, 16 connections, requests/s", "httpRps", 0],
  ["round trip, idle, p50, us", "rttP50Us", 0],
  ["round trip, idle, p99, us", "rttP99Us", 0],
  ["round trip under TCP, p50, us", "loadedRttP50Us", 0],
  ["round trip under TCP, p99, us", "loadedRttP99Us", 0],
  ["the same on a line of 100 Mbit/s, p50, us", "slowLineRttP50Us", 0],
  ["the same on a line of 100 Mbit/s, p99, us", "slowLineRttP99Us", 0],
  ["both daemons, CPU s/GB", "cpuSecondsPerGb", 2],
  ["both daemons, RSS, MiB", "rssMib", 0],
  ["idle daemon, % of a core", "idleCpuPercent", 2],
  ["first packet after the start, ms", "firstPacketMs", 1],
];

export function tableOf(report: BenchReport): string {
  const names = Object.keys(report.medians);
  const compared = names.includes(OURS) && names.includes(BASELINE);
  const head = ["", ...names, ...(compared ? [`${OURS} / ${BASELINE}`, "rounds"] : [])];
  const rows = ROWS.map(([title, figure, digits]) => [
    title,
    ...names.map((name) => fixed(report.medians[name]![figure], digits)),
    ...(compared ? ratioCells(report, figure) : []),
  ]);
  return aligned([head, ...rows]);
}

function ratioCells(report: BenchReport, figure: keyof Figures): string[] {
  const each = report.rounds.map((round) => ratio(round[OURS]?.[figure], round[BASELINE]?.[figure]));
  return [fixed(median(each), 2), each.map((value) => fixed(value, 2)).join(" ")];
}

export function fixed(value: number | null, digits: number): string {
  return value === null ? "-" : value.toFixed(digits);
}

export function aligned(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) => row.map((cell, at) => (at === 0 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!))).join("  "))
    .map((line) => line.trimEnd())
    .join("\n");
}
