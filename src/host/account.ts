/** A user of this machine, by the machine's own rules, which may ask a directory service. */
import { spawnSync } from "node:child_process";
import { PilotError } from "../base/pilot-error.ts";

export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  /** All groups, the main one among them. */
  readonly groups: readonly number[];
  readonly home: string;
  readonly shell: string;
}

/** By name or number. Throws PilotError `unknown_user`. */
export function findAccount(user: string): Account {
  const account = lookUpAccount(user);
  if (account !== undefined) return account;
  throw new PilotError(
    "unknown_user",
    `There is no user ${JSON.stringify(user)}`,
    "getent passwd lists those there are.",
  );
}

/** The same; undefined when there is none. */
export function lookUpAccount(user: string): Account | undefined {
  const entry = ask("getent", "passwd", "--", user);
  const [name, , uid, gid, , home, shell] = (entry ?? "").trimEnd().split(":");
  if (shell === undefined) return undefined;
  const groups = (ask("id", "-G", "--", name!) ?? gid!).trim().split(/\s+/).map(Number);
  return { name: name!, uid: Number(uid), gid: Number(gid), groups, home: home!, shell: shell || "/bin/sh" };
}

function ask(program: string, ...words: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync(program, words, { encoding: "utf8", timeout: PATIENCE_MS });
  return status === 0 ? stdout : undefined;
}

const PATIENCE_MS = 10_000;
