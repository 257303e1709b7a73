/** Whether this process may use the processors for a part of the time only, by its control group or one above (cgroup v2). */
import { unifiedMount } from "./control-groups.ts";
import { textIfThere } from "./text-if-there.ts";

/** False, too, where that cannot be seen. */
export function hasCpuQuota(): boolean {
  const mount = unifiedMount();
  const group = /^0::(\/.*)$/m.exec(textIfThere("/proc/self/cgroup"))?.[1];
  if (mount === undefined || group === undefined) return false;
  return groupsAbove(group).some((path) => /^\d/.test(textIfThere(`${mount}${path}/cpu.max`)));
}

/** The group itself and those that it lies in: `/a/b` → `/a/b`, `/a` and "", the root, which in a container is a group like others. */
export function groupsAbove(group: string): string[] {
  const groups: string[] = [];
  for (let path = group; path.length > 1; path = path.slice(0, path.lastIndexOf("/"))) groups.push(path);
  return [...groups, ""];
}
