/** Which programs hold a socket, and what they are: a look through /proc, in a thread of the shim. */
import { readFileSync } from "node:fs";
import { type NativeShim, nativeShim } from "./native.ts";

export interface Program {
  readonly pid: number;
  /** As the kernel calls it: at most 15 characters. */
  readonly name: string;
  /** Effective and supplementary group numbers. */
  readonly groups: readonly number[];
  /** Path from the root of the hierarchy in which the service manager keeps units. */
  readonly cgroup: string | undefined;
}

/** Key: inode. Sockets that nobody visible holds are missing. */
export async function findHolders(
  inodes: Iterable<number>,
  shim: NativeShim = nativeShim(),
): Promise<Map<number, Program[]>> {
  const wanted = Float64Array.from(new Set(inodes)).sort();
  const pairs = new Int32Array(2 * (wanted.length + EXTRA_PAIRS));
  const count = await shim.socketHolders(wanted, pairs);
  const holders = new Map<number, Program[]>();
  /** Key: process. Bound: those found. */
  const programs = new Map<number, Program | undefined>();
  for (let i = 0; i < count; i++) {
    const inode = wanted[pairs[2 * i]!]!;
    const pid = pairs[2 * i + 1]!;
    if (!programs.has(pid)) programs.set(pid, readProgram(pid));
    const program = programs.get(pid);
    const known = holders.get(inode) ?? [];
    if (program === undefined || known.includes(program) || known.length >= MAX_HOLDERS) continue;
    holders.set(inode, [...known, program]);
  }
  return holders;
}

/** Undefined when it has ended. */
export function readProgram(pid: number): Program | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const cgroup = cgroupOf(readFileSync(`/proc/${pid}/cgroup`, "utf8"));
    return { pid, ...parseStatus(status), cgroup };
  } catch {
    return undefined;
  }
}

/** `Name:`, the second number of `Gid:` (the effective one) and `Groups:` of proc_pid_status(5). */
export function parseStatus(text: string): { readonly name: string; readonly groups: number[] } {
  const name = /^Name:\t(.*)$/m.exec(text)?.[1] ?? "";
  const effective = /^Gid:\t\d+\t(\d+)/m.exec(text)?.[1];
  const supplementary = /^Groups:\t([\d ]*)$/m.exec(text)?.[1]?.split(" ") ?? [];
  const groups = [effective, ...supplementary].filter((group) => group !== undefined && group !== "").map(Number);
  return { name, groups: [...new Set(groups)] };
}

/**
 * Of the lines `hierarchy:controllers:path` the unified one; where that holds everything in its root, as on hosts whose
 * service manager keeps its own hierarchy (name=systemd), that one.
 */
export function cgroupOf(text: string): string | undefined {
  const paths = new Map(
    text.split("\n").flatMap((line): [string, string][] => {
      const match = /^\d+:([^:]*):(\/.*)$/.exec(line);
      return match === null ? [] : [[match[1]!, match[2]!]];
    }),
  );
  const unified = paths.get("");
  return unified === undefined || unified === "/" ? (paths.get("name=systemd") ?? unified) : unified;
}

/** Room for sockets that several programs hold. */
const EXTRA_PAIRS = 4_096;
const MAX_HOLDERS = 64;
