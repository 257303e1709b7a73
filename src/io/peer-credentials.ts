/** Who is at the other end of a unix socket: the kernel's word at the time of connecting, and what /proc adds to it. */
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { SystemError, unixPeerOf } from "./native.ts";

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  /** All groups, the main one first. */
  readonly gids: readonly number[];
  /** Of that user; null when the system does not say. */
  readonly user: string | null;
  /** Name of the program; null when it is gone. */
  readonly program: string | null;
  /** Who logged in before becoming that user (sudo, su); null when nobody did. */
  readonly login: { readonly uid: number; readonly user: string | null } | null;
}

/** Undefined for a socket that is closed already. */
export function peerCredentials(socket: Socket): PeerCredentials | undefined {
  const fd = descriptorOf(socket);
  if (fd === undefined) return undefined;
  try {
    const { pid, uid, gids } = unixPeerOf(fd);
    const loginUid = Number(procFile(pid, "loginuid") ?? NOBODY_LOGGED_IN);
    const login = loginUid === NOBODY_LOGGED_IN ? null : { uid: loginUid, user: userName(loginUid) };
    return { pid, uid, gids, user: userName(uid), program: procFile(pid, "comm") ?? null, login };
  } catch (error) {
    if (error instanceof SystemError) return undefined;
    throw error;
  }
}

/** Node keeps the descriptor in the handle, and has no better way to ask for it. */
function descriptorOf(socket: Socket): number | undefined {
  const fd = (socket as { _handle?: { fd?: unknown } })._handle?.fd;
  return typeof fd === "number" && fd >= 0 ? fd : undefined;
}

/** The process may be another by now only if the caller ended without waiting for his answer. */
function procFile(pid: number, name: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "utf8").trim();
  } catch {
    return undefined; // it ended, or /proc hides it
  }
}

/** From the local file alone: asking a directory service would make the daemon wait. */
function userName(uid: number): string | null {
  try {
    const users = readFileSync("/etc/passwd", "utf8");
    return new RegExp(`^([^:\\n]+):[^:\\n]*:${uid}:`, "m").exec(users)?.[1] ?? null;
  } catch {
    return null;
  }
}

const NOBODY_LOGGED_IN = 0xffffffff;
