/** Whether this process may use the processors for a part of the time only, by its control group or one above (cgroup v2). */
import { readFileSync } from "node:fs";
import { unifiedMount } from "./control-groups.ts";

/** False, too, where that cannot be seen. */
export function hasCpuQuota(): boolean {
  const mount = unifiedMount();
  const group = /^0::(\/.*)$/m.exec(textOf("/proc/self/cgroup"))?.[1];
  if (mount === undefined || group === undefined) return false;
  return groupsAbove(group).some((path) => /^\d/.test(textOf(`${mount}${path}/cpu.max`)));
}

/** The group itself and those that it lies in: `/a/b` → `/a/b`, `/a` and "", the root, which in a container is a group like others. */
export function groupsAbove(group: string): string[] {
  const names = group.split("/").filter((name) => name !== "");
  return [...names.keys(), names.length].reverse().map((count) =>
    names
      .slice(0, count)
      .map((name) => `/${name}`)
      .join(""),
  );
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
