/**
 * Whether a process grows: samples of its memory and its descriptors, one at the quiet end of each cycle, early ones against
 * late ones. Medians of thirds, so that one sample that a collection or a transfer happened to disturb decides nothing.
 */
import { readdirSync, readFileSync } from "node:fs";

export interface Sample {
  readonly rssMiB: number;
  readonly descriptors: number;
}

export interface Growth {
  readonly samples: number;
  /** Late minus early, medians. */
  readonly rssMiB: number;
  readonly descriptors: number;
  /** Of the first third and of the last. */
  readonly from: Sample;
  readonly to: Sample;
}

export interface GrowthLimits {
  readonly rssMiB: number;
  readonly descriptors: number;
}

/** Undefined when the process has ended. */
export function sampleOf(pid: number): Sample | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return { rssMiB: kibibytes(status, "VmRSS") / 1024, descriptors: readdirSync(`/proc/${pid}/fd`).length };
  } catch {
    return undefined;
  }
}

/** A field of proc_pid_status(5) in KiB. */
export function kibibytes(status: string, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1]);
}

/** Undefined with fewer samples than thirds can be made of. */
export function growthOf(samples: readonly Sample[]): Growth | undefined {
  const third = Math.floor(samples.length / 3);
  if (third < 2) return undefined;
  const [from, to] = [middle(samples.slice(0, third)), middle(samples.slice(-third))];
  const [rssMiB, descriptors] = [to.rssMiB - from.rssMiB, to.descriptors - from.descriptors];
  return { samples: samples.length, rssMiB, descriptors, from, to };
}

/** What is leaked, in words; undefined when nothing is. */
export function leakIn(growth: Growth, limits: GrowthLimits): string | undefined {
  const { rssMiB, descriptors, from, to } = growth;
  const found: string[] = [];
  if (rssMiB > limits.rssMiB) found.push(`memory grew from ${from.rssMiB.toFixed(1)} to ${to.rssMiB.toFixed(1)} MiB`);
  if (descriptors > limits.descriptors) found.push(`descriptors grew from ${from.descriptors} to ${to.descriptors}`);
  return found.length === 0 ? undefined : found.join("; ");
}

function middle(samples: readonly Sample[]): Sample {
  return { rssMiB: median(samples.map((s) => s.rssMiB)), descriptors: median(samples.map((s) => s.descriptors)) };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
