/**
 * Who may use the local API: the daemon's own user and root everything; members of one group what changes nothing, of
 * another everything. Judged by what the kernel says of the connection's other end, not by what a request says.
 */
import { PilotError } from "../base/pilot-error.ts";
import type { ControlMethod } from "./api.ts";
import type { Caller } from "./caller.ts";

export interface AccessRules {
  readonly ownUid: number;
  /** Group whose members may look; undefined: this machine has none. */
  readonly readers: number | undefined;
  /** Group whose members may change. */
  readonly changers: number | undefined;
}

/** What of a caller decides. */
export type Member = Pick<Caller, "uid" | "gids">;

export const READER_GROUP = "pilot";
export const CHANGER_GROUP = "pilot-admin";

/** Throws PilotError `not_permitted`. */
export function checkAccess(method: ControlMethod, caller: Member | undefined, rules: AccessRules): void {
  const needed = CHANGES_NOTHING.has(method) ? "read" : "change";
  if (caller !== undefined && mayCall(needed, caller, rules)) return;
  const groups = needed === "read" ? `${READER_GROUP} or ${CHANGER_GROUP}` : CHANGER_GROUP;
  throw new PilotError(
    "not_permitted",
    `User ${caller?.uid ?? "unknown"} may not ${needed === "read" ? "look at" : "change"} this daemon (${method})`,
    `Run it as root, or as a member of the group ${groups}: usermod -aG ${CHANGER_GROUP} USER, then log in anew.`,
  );
}

function mayCall(needed: "read" | "change", { uid, gids }: Member, rules: AccessRules): boolean {
  if (uid === 0 || uid === rules.ownUid) return true;
  if (rules.changers !== undefined && gids.includes(rules.changers)) return true;
  return needed === "read" && rules.readers !== undefined && gids.includes(rules.readers);
}

/** Methods that leave the daemon, its peers and the network's state as they are; any other, also a new one, changes. */
const CHANGES_NOTHING: ReadonlySet<ControlMethod> = new Set<ControlMethod>([
  "status",
  "metrics",
  "peers",
  "addr",
  "ping",
  "netcheck",
  "trace",
  "whois",
  "why",
  "flows",
  "events",
  "audit/flush",
  "config/show",
  "policy/show",
  "trust/ls",
  "trust/pending",
  "network/ls",
  "network/members",
  "network/invites",
]);
