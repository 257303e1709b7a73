/** The kernel's clock since boot: it counts sleep, and nobody sets it. */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

export interface BootTime {
  /** Names one boot of the machine. Where the kernel does not tell, each start of this process counts as one. */
  readonly boot: string;
  readonly sinceBootMs: number;
}

export function bootNow(): BootTime {
  const seconds = Number(readSome("/proc/uptime").split(" ")[0]);
  const boot = readSome("/proc/sys/kernel/random/boot_id").trim();
  if (boot === "" || !(seconds > 0)) return { boot: NO_BOOT, sinceBootMs: performance.now() };
  return { boot, sinceBootMs: seconds * 1000 };
}

function readSome(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

const NO_BOOT = randomUUID();
