/**
 * The users and groups of this host, for rules that name some. Read from the files each time that a policy is read; names
 * that are not there (directories, users that the service manager makes up) are asked of the host's name service.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import type { Accounts } from "../policy/parse-selector.ts";

export function readAccounts(): Accounts {
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
  };
}

/** Both files have name, password and number in front (passwd(5), group(5)). */
export function parseNumbers(text: string): Map<string, number> {
  const fields = text.split("\n").map((line) => line.split(":"));
  return new Map(
    fields.filter(([name, , id]) => name && /^\d{1,10}$/.test(id ?? "")).map(([name, , id]) => [name!, Number(id)]),
  );
}

function numbersIn(file: string): Map<string, number> {
  try {
    return parseNumbers(readFileSync(file, "utf8"));
  } catch {
    return new Map(); // a host without the file has only what its name service knows
  }
}

/** Undefined also where there is no getent. Names that look like options or numbers are not asked about. */
function askNameService(database: "passwd" | "group", name: string): number | undefined {
  if (!/^[A-Za-z_][\w.@-]{0,255}$/.test(name)) return undefined;
  const { status, stdout } = spawnSync("getent", [database, name], { encoding: "utf8", timeout: PATIENCE_MS });
  return status === 0 ? parseNumbers(stdout).get(name) : undefined;
}

const PATIENCE_MS = 500;
const MAX_ASKED = 32;
