/**
 * Paths of control groups by the numbers that the kernel gives them: in the unified hierarchy a group's number is that of
 * its folder. Anybody may look there, so this needs no privilege over other users' programs.
 */
import { readdirSync, statSync } from "node:fs";
import { textIfThere } from "./text-if-there.ts";

export class ControlGroups {
  /** Key: number. Bound: MAX_GROUPS; made anew by each look. */
  #paths = new Map<number, string>();
  #lookedAt = Number.NEGATIVE_INFINITY;

  /** From the root of the hierarchy; undefined when there is no such group, or no such hierarchy. */
  pathOf(id: number, nowMs: number): string | undefined {
    const known = this.#paths.get(id);
    if (known !== undefined || nowMs - this.#lookedAt < LOOK_GAP_MS) return known;
    this.#lookedAt = nowMs;
    this.#paths = groupsBelow(unifiedMount());
    return this.#paths.get(id);
  }
}

function groupsBelow(mount: string | undefined): Map<number, string> {
  const paths = new Map<number, string>();
  const left = mount === undefined ? [] : [""];
  for (let path = left.pop(); path !== undefined && paths.size < MAX_GROUPS; path = left.pop()) {
    try {
      paths.set(statSync(mount + path).ino, path === "" ? "/" : path);
      for (const entry of readdirSync(mount + path, { withFileTypes: true })) {
        if (entry.isDirectory()) left.push(`${path}/${entry.name}`);
      }
    } catch {
      // it has gone meanwhile
    }
  }
  return paths;
}

/** Where the unified hierarchy is mounted. */
export function unifiedMount(): string | undefined {
  return parseUnifiedMount(textIfThere("/proc/self/mounts"));
}

/** `device mountpoint type options …`, proc_pid_mounts(5). */
export function parseUnifiedMount(text: string): string | undefined {
  return text
    .split("\n")
    .map((line) => line.split(" "))
    .find(([, , type]) => type === "cgroup2")?.[1];
}

const MAX_GROUPS = 65_536;
/** A group that was not there a moment ago. */
const LOOK_GAP_MS = 50;
