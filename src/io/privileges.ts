/** What this process may do, by capabilities(7), and how it gives that up before it becomes another program. */
import { readFileSync } from "node:fs";
import { checked, nativeShim } from "./native.ts";

/** Numbers of the kernel's. */
export const CAPABILITY = {
  CHOWN: 0,
  DAC_READ_SEARCH: 2,
  SETGID: 6,
  SETUID: 7,
  NET_BIND_SERVICE: 10,
  NET_ADMIN: 12,
  SYS_PTRACE: 19,
  SYS_NICE: 23,
} as const;

export type Capability = keyof typeof CAPABILITY;

export interface Privileges {
  readonly uid: number;
  readonly permitted: bigint;
  readonly effective: bigint;
  /** Nothing it runs gets more than it has itself. */
  readonly hasNoNew: boolean;
}

/** Of proc_pid_status(5); what is not there counts as nothing. */
export function parsePrivileges(status: string): Privileges {
  const field = (name: string, pattern: string) => new RegExp(`^${name}:\\t(${pattern})`, "m").exec(status)?.[1];
  const set = (name: string) => BigInt(`0x${field(name, "[0-9a-f]{1,16}") ?? "0"}`);
  return {
    uid: Number(/^Uid:\t\d+\t(\d+)/m.exec(status)?.[1] ?? 0),
    permitted: set("CapPrm"),
    effective: set("CapEff"),
    hasNoNew: field("NoNewPrivs", "\\d") === "1",
  };
}

export function ownPrivileges(): Privileges {
  return parsePrivileges(readFileSync("/proc/thread-self/status", "utf8"));
}

export function hasAll(set: bigint, capabilities: readonly Capability[]): boolean {
  return capabilities.every((name) => ((set >> BigInt(CAPABILITY[name])) & 1n) === 1n);
}

export function hasOthers(set: bigint, capabilities: readonly Capability[]): boolean {
  return (set & ~BigInt(bits(capabilities))) !== 0n;
}

/**
 * Makes this thread somebody else (undefined: who it is) with these capabilities at most, for good. Nothing may follow but to
 * become another program, whose threads then have all of this. Throws a SystemError, after which the process must end.
 */
export function reducePrivileges(
  to: { readonly uid: number; readonly gid: number; readonly groups: readonly number[] } | undefined,
  keep: readonly Capability[],
): void {
  const { uid, gid, groups } = to ?? { uid: 0, gid: 0, groups: [] };
  const result = nativeShim().reducePrivileges(to !== undefined, uid, gid, Uint32Array.from(groups), bits(keep));
  checked(result, "give up privileges");
}

function bits(capabilities: readonly Capability[]): number {
  return capabilities.reduce((sum, name) => sum + 2 ** CAPABILITY[name], 0);
}
