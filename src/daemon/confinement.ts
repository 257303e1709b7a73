/**
 * What a daemon that root started gives up before it opens anything: its user, and every capability that it does not need
 * while it runs. Credentials belong to threads, and Node has several by now; so one thread gives up, and becomes the program
 * anew. Whoever is not root was given what he has by who started him, a unit for example, and nothing happens.
 *
 * Folders are handed over by descriptor, and only those that root made for this daemon: a name could lead elsewhere by the
 * time that its owner is changed.
 */
import {
  accessSync,
  closeSync,
  constants,
  type Dirent,
  fchmodSync,
  fchownSync,
  fstatSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
} from "node:fs";
import { dirname } from "node:path";
import { PilotError } from "../base/pilot-error.ts";
import { findAccount, lookUpAccount } from "../host/account.ts";
import { nativeShim, nativeShimIfBuilt, SystemError } from "../io/native.ts";
import { type Capability, hasAll, hasOthers, ownPrivileges, reducePrivileges } from "../io/privileges.ts";
import { handOnKept } from "../io/service-manager.ts";

export interface Confinement {
  /** By name or number. Undefined: whose the state folder is, else `ownUser` if this machine has one. */
  readonly user: string | undefined;
  /** Made by the package for this daemon. */
  readonly ownUser: string;
  /** All that is kept. */
  readonly capabilities: readonly Capability[];
  /**
   * Keeps the right to go before ordinary programs: a limit of the process, which is no capability, and where that cannot be raised
   * SYS_NICE, if this process has it.
   */
  readonly mayPreferItself: boolean;
  readonly stateDir: string;
  /** In which the daemon makes files, that of the state among them. */
  readonly folders: readonly OwnFolder[];
  /** Files of the program itself, which the user must be able to read. */
  readonly program: readonly string[];
}

export interface OwnFolder {
  readonly path: string;
  /** When it is made. */
  readonly mode: number;
  /** Whether what lies in one that was there, and is root's, shows that it is this daemon's and nobody else's. */
  isOwn(entries: readonly Dirent[]): boolean;
}

/** Numbers of a user. */
type Somebody = Pick<ReturnType<typeof findAccount>, "name" | "uid" | "gid" | "groups">;

/**
 * True: this thread may do less now, and must become the program anew. Throws a PilotError: `unknown_user`, `not_privileged`.
 */
export function confine(wish: Confinement): boolean {
  const own = ownPrivileges();
  if (own.uid !== 0) {
    if (wish.user !== undefined && findAccount(wish.user).uid !== own.uid) throw notRoot(wish.user);
    return false;
  }
  const to = wish.user === undefined ? userByDefault(wish, own.effective) : findAccount(wish.user);
  const stays = to === undefined || to.uid === 0;
  // A rendezvous does without the C shim where nobody asks for what only that can do.
  if (wish.user === undefined && nativeShimIfBuilt() === undefined) return false;
  const keep = capabilitiesToKeep(wish);
  if (stays && own.hasNoNew && !hasOthers(own.permitted, keep)) return false;
  if (!stays) for (const folder of wish.folders) handOver(folder, to);
  handOnKept(process.env, process.pid);
  reduce(stays ? undefined : to, keep);
  if (!stays) for (const file of [...wish.program, ...credentials()]) checkReadable(file, to);
  return true;
}

/** Raises the limit first, if it is wanted: then no capability is. */
function capabilitiesToKeep({ capabilities, mayPreferItself }: Confinement): readonly Capability[] {
  return mayPreferItself && nativeShim().allowPreferred() < 0 ? [...capabilities, "SYS_NICE"] : capabilities;
}

/** A folder that a service manager fills for whom it started, root, and for nobody else: a key in it must not go unseen. */
const credentials = () => [process.env.CREDENTIALS_DIRECTORY ?? []].flat();

/** Undefined: root stays. Root of a container may be without the right to become somebody, or that user may not be there. */
function userByDefault({ stateDir, ownUser }: Confinement, effective: bigint): Somebody | undefined {
  if (!hasAll(effective, ["SETUID", "SETGID", "CHOWN"]) || credentials().length > 0) return undefined;
  const stats = statSync(stateDir, { throwIfNoEntry: false });
  const found = stats === undefined || stats.uid === 0 ? lookUpAccount(ownUser) : ownerOf(stats);
  return found !== undefined && isInNamespace(found) ? found : undefined;
}

function ownerOf({ uid, gid }: { readonly uid: number; readonly gid: number }): Somebody {
  return lookUpAccount(String(uid)) ?? { name: String(uid), uid, gid, groups: [gid] };
}

/** Of user_namespaces(7): without subordinate numbers nobody but root is in that of a container, and groups cannot be set. */
function isInNamespace({ uid, gid }: Somebody): boolean {
  const text = (name: string) => readFileSync(`/proc/self/${name}`, "utf8");
  return isMapped(text("uid_map"), uid) && isMapped(text("gid_map"), gid) && text("setgroups").trim() === "allow";
}

/** Lines of a first number inside, one outside, and how many. */
export function isMapped(map: string, id: number): boolean {
  return map.split("\n").some((line) => {
    const [first, , count] = line.trim().split(/\s+/).map(Number);
    return first !== undefined && count !== undefined && id >= first && id < first + count;
  });
}

function reduce(to: Somebody | undefined, keep: readonly Capability[]): void {
  try {
    reducePrivileges(to, keep);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    const what = to === undefined ? "give up capabilities" : `become the user ${to.name}`;
    const hint = "To become another user takes CAP_SETUID and CAP_SETGID; --user root stays root.";
    throw new PilotError("not_privileged", `The kernel does not let this process ${what}: ${error.code}`, hint, error);
  }
}

function checkReadable(file: string, { name }: Somebody): void {
  try {
    accessSync(file, constants.R_OK);
  } catch (cause) {
    const hint = "Install the program where every user can read it, or stay root with --user root.";
    throw new PilotError("not_privileged", `The user ${name} may not read ${file}`, hint, cause);
  }
}

function notRoot(user: string): PilotError {
  return new PilotError("not_privileged", `Only root may become ${user}`, "Run it with sudo, or without --user.");
}

// ---- folders --------------------------------------------------------------------------------------------------------

/** A folder of somebody else, of root for another purpose, or behind a link stays whose it is: the daemon reports what it cannot do there. */
function handOver({ path, mode, isOwn }: OwnFolder, to: Somebody): void {
  const isNew = make(path, mode);
  const fd = openFolder(path);
  if (fd === undefined) return;
  try {
    const stats = fstatSync(fd);
    const entries = readdirSync(byDescriptor(fd), { withFileTypes: true });
    if (stats.uid !== 0 || (stats.mode & OTHERS_MAY_WRITE) !== 0) return;
    if (!isNew && !isOwn(entries)) return;
    giveEntries(byDescriptor(fd), entries, to);
    if (isNew) fchmodSync(fd, mode);
    fchownSync(fd, to.uid, to.gid);
  } finally {
    closeSync(fd);
  }
}

/** What root left here when it ran the daemon itself; where others could write, nothing is given. */
function giveEntries(folder: string, entries: readonly Dirent[], to: Somebody): void {
  for (const entry of entries) {
    const path = `${folder}/${entry.name}`;
    const { uid, mode } = lstatSync(path);
    if (uid !== 0 || (entry.isDirectory() && (mode & OTHERS_MAY_WRITE) !== 0)) continue;
    if (entry.isDirectory()) giveEntries(path, readdirSync(path, { withFileTypes: true }), to);
    lchownSync(path, to.uid, to.gid);
  }
}

/** False when it was there. Those above it are everybody's to pass. */
function make(path: string, mode: number): boolean {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    mkdirSync(path, { mode });
    return true;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST") return false;
    throw new PilotError("state_unwritable", `Cannot make ${path}: ${code}`, "Choose another folder.", cause);
  }
}

function openFolder(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  } catch {
    return undefined; // no folder, or a link to one
  }
}

const byDescriptor = (fd: number) => `/proc/self/fd/${fd}`;

const OTHERS_MAY_WRITE = 0o022;
