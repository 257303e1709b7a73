/**
 * The users and groups of this host, for rules that name some. Read from the files each time that a policy is read; names
 * that are not there (directories, users that the service manager makes up) are asked of the host's name service.
 */
import { spawnSync } from "node:child_process";
import { hasAll, parsePrivileges } from "../io/privileges.ts";
import { textIfThere } from "../io/text-if-there.ts";
import type { Accounts, BadWord } from "../policy/parse-selector.ts";

/** `sees`: what the process that keeps the policy can know of programs; nothing is held against one that only reads it. */
export function readAccounts(sees: ProgramSight = EVERYTHING): Accounts {
  const users = numbersIn("/etc/passwd");
  const groups = numbersIn("/etc/group");
  /** Key: database and name. Bound: MAX_ASKED, further names count as unknown; one reading of a policy. */
  const asked = new Map<string, number | undefined>();
  const ask = (database: "passwd" | "group", name: string) => {
    const key = `${database} ${name}`;
    if (!asked.has(key) && asked.size < MAX_ASKED) asked.set(key, askNameService(database, name));
    return asked.get(key);
  };
  return {
    userId: (name) => users.get(name) ?? ask("passwd", name),
    groupId: (name) => groups.get(name) ?? ask("group", name),
    userNames: [...users.keys()],
    groupNames: [...groups.keys()],
    obstacleTo: (kind) => (sees[kind] ? undefined : obstacleTo(kind)),
  };
}

/** Whether the groups, and the units, of other users' programs can be known. */
export interface ProgramSight {
  readonly group: boolean;
  readonly unit: boolean;
}

const EVERYTHING: ProgramSight = { group: true, unit: true };

/**
 * Which program holds a socket only a process may see that may trace it (ptrace(2)); the control group in which a socket
 * was made the kernel tells everybody, if programs are in the unified hierarchy.
 */
export function programSight(): ProgramSight {
  const mayTrace = mayTraceIn(textIfThere("/proc/self/status"));
  return { group: mayTrace, unit: mayTrace || isInUnified(textIfThere("/proc/self/cgroup")) };
}

/** To read what links in /proc/PID/fd stand for takes the one, to open that folder of another user the other. */
export function mayTraceIn(status: string): boolean {
  return hasAll(parsePrivileges(status).effective, ["SYS_PTRACE", "DAC_READ_SEARCH"]);
}

/** A process outside the root of the unified hierarchy shows that the service manager uses it. */
export function isInUnified(cgroup: string): boolean {
  return /^0::\/./m.test(cgroup);
}

function obstacleTo(kind: "group" | "unit"): BadWord {
  const other = kind === "group" ? "write user: or unit:" : "write user:";
  return {
    message: `This daemon may not look at other users' programs, so it cannot know their ${kind}`,
    hint: `Start it with --see-programs (docs/service.md), or ${other}.`,
  };
}

/** Both files have name, password and number in front (passwd(5), group(5)). */
export function parseNumbers(text: string): Map<string, number> {
  const fields = text.split("\n").map((line) => line.split(":"));
  return new Map(
    fields.filter(([name, , id]) => name && /^\d{1,10}$/.test(id ?? "")).map(([name, , id]) => [name!, Number(id)]),
  );
}

/** None when it is not there: such a host has only what its name service knows. */
function numbersIn(file: string): Map<string, number> {
  return parseNumbers(textIfThere(file));
}

/** Undefined also where there is no getent. Names that look like options or numbers are not asked about. */
function askNameService(database: "passwd" | "group", name: string): number | undefined {
  if (!/^[A-Za-z_][\w.@-]{0,255}$/.test(name)) return undefined;
  const { status, stdout } = spawnSync("getent", [database, name], { encoding: "utf8", timeout: PATIENCE_MS });
  return status === 0 ? parseNumbers(stdout).get(name) : undefined;
}

const PATIENCE_MS = 500;
const MAX_ASKED = 32;
