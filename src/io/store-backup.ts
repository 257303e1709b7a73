/**
 * Backup and restore of a rendezvous's database.
 *
 * A backup is a copy of the database file at a moment when it holds everything committed and nothing else; while it is
 * copied, the registry goes on and its changes go to the write-ahead log, which is not part of the copy. The result is
 * one file, complete or not there. A restore puts such a file in place of the database and keeps the old one beside it;
 * the lock of a running rendezvous stops it.
 */
import { execFile } from "node:child_process";
import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { chmod, open, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setImmediate } from "node:timers/promises";
import { promisify } from "node:util";
import { PilotError } from "../base/pilot-error.ts";
import { createOwnedFile } from "./folder-owner.ts";
import { DATABASE_FILE, SCHEMA_VERSION, SqliteStore } from "./sqlite-store.ts";

export interface BackupFacts {
  readonly file: string;
  readonly bytes: number;
  readonly nodes: number;
}

/** Throws PilotError `backup_failed`. */
export async function backupStore(store: SqliteStore, stateDir: string, file: string): Promise<BackupFacts> {
  const part = join(dirname(file), `.${basename(file)}.part`);
  try {
    if (file === join(stateDir, DATABASE_FILE)) throw new Error("this is the database itself");
    const nodes = await copyFrozen(store, join(stateDir, DATABASE_FILE), part);
    makeSelfContained(part);
    await flush(part);
    await rename(part, file);
    await flush(dirname(file));
    return { file, bytes: (await stat(file)).size, nodes };
  } catch (cause) {
    await rm(part, { force: true });
    throw backupError(file, cause);
  }
}

async function copyFrozen(store: SqliteStore, from: string, to: string): Promise<number> {
  // A turn's requests are committed together at its end; half of one must not get into the copy.
  while (store.isDirty) await setImmediate();
  store.freezeFile();
  try {
    const nodes = store.nodeCount();
    await rm(to, { force: true });
    await (await open(to, "wx", 0o600)).close();
    await copyElsewhere(from, to);
    await chmod(to, 0o600);
    return nodes;
  } finally {
    store.thawFile();
  }
}

/**
 * By another process: when a process closes any descriptor of a file, it loses its locks on it (fcntl(2)), and the lock
 * is what keeps a second rendezvous away from the database.
 */
async function copyElsewhere(from: string, to: string): Promise<void> {
  await promisify(execFile)("cp", ["--reflink=auto", "--", from, to]);
}

/** The copy must not ask for a write-ahead log beside it, which would not travel with it. */
function makeSelfContained(file: string): void {
  const database = new DatabaseSync(file);
  try {
    database.exec("PRAGMA journal_mode = DELETE");
  } finally {
    database.close();
  }
}

async function flush(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export interface RestoreFacts {
  readonly database: string;
  readonly nodes: number;
  /** Where the database that was there is kept; null when there was none. */
  readonly replaced: string | null;
}

/** Throws PilotError `state_in_use`, `backup_damaged`, `database_newer` or `state_unwritable`. */
export function restoreStore(file: string, stateDir: string, label: string): RestoreFacts {
  const nodes = checkBackup(file);
  const database = join(stateDir, DATABASE_FILE);
  const part = `${database}.part`;
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    const settled = settleOld(stateDir, database);
    copyOwned(file, part);
    const replaced = keepAside(database, `${database}.replaced-${label}`, settled);
    renameSync(part, database);
    flushSync(stateDir);
    return { database, nodes, replaced };
  } catch (cause) {
    rmSync(part, { force: true });
    if (cause instanceof PilotError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new PilotError("state_unwritable", `Cannot restore into ${stateDir}: ${reason}`, STATE_HINT, cause);
  }
}

/** Reads every page of the backup before anything is touched; the number of nodes in it. */
export function checkBackup(file: string): number {
  if (!existsSync(file)) {
    throw new PilotError("backup_damaged", `There is no file ${file}`, "Name a file that `rendezvous backup` wrote.");
  }
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(file, { readOnly: true });
    const check = database.prepare("PRAGMA integrity_check(1)").get() as { integrity_check?: string } | undefined;
    if (check?.integrity_check !== "ok") throw new Error(check?.integrity_check ?? "no answer");
    const { user_version } = database.prepare("PRAGMA user_version").get() as { user_version: number };
    if (user_version > SCHEMA_VERSION) throw newer(file, user_version);
    return (database.prepare("SELECT count(*) AS n FROM node").get() as { n: number }).n;
  } catch (cause) {
    if (cause instanceof PilotError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    const hint = "Take another backup; the database was not touched.";
    throw new PilotError("backup_damaged", `${file} is not a sound backup: ${reason}`, hint, cause);
  } finally {
    database?.close();
  }
}

/**
 * Opens and closes the old database, which empties its log into it and fails while a rendezvous holds it. False when it
 * is damaged: then it is kept as it is, log and all.
 */
function settleOld(stateDir: string, database: string): boolean {
  if (!existsSync(database)) return true;
  try {
    SqliteStore.open(stateDir).close();
    return true;
  } catch (cause) {
    if (cause instanceof PilotError && (cause.code === "database_damaged" || cause.code === "database_newer"))
      return false;
    throw cause;
  }
}

function keepAside(database: string, aside: string, settled: boolean): string | null {
  if (!existsSync(database)) return null;
  linkSync(database, aside); // the name stays taken until the rename over it, so that nobody starts an empty one
  if (settled) return aside;
  for (const suffix of ["-wal", "-shm"]) {
    if (existsSync(database + suffix)) renameSync(database + suffix, aside + suffix);
  }
  return aside;
}

/** For the folder's owner, who may be another user than the one who restores; whatever the rights of the backup are. */
function copyOwned(file: string, part: string): void {
  const from = openSync(file, "r");
  try {
    const to = createOwnedFile(part);
    try {
      const block = Buffer.allocUnsafe(COPY_BYTES);
      for (let bytes = readSync(from, block); bytes > 0; bytes = readSync(from, block)) {
        writeFileSync(to, block.subarray(0, bytes));
      }
      fsyncSync(to);
    } finally {
      closeSync(to);
    }
  } finally {
    closeSync(from);
  }
}

function flushSync(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function newer(file: string, version: number): PilotError {
  const message = `The backup ${file} has schema ${version}; this program knows up to ${SCHEMA_VERSION}`;
  return new PilotError("database_newer", message, "Restore it with the newer version of the program that wrote it.");
}

function backupError(file: string, cause: unknown): PilotError {
  if (cause instanceof PilotError) return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  const hint = "Name a file in a folder where the rendezvous may write, on a disk with room for it.";
  return new PilotError("backup_failed", `Cannot write the backup ${file}: ${reason}`, hint, cause);
}

const COPY_BYTES = 1024 * 1024;
const STATE_HINT = "Choose another folder with --state, or give this user the right to write there.";
