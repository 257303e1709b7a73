/**
 * The audit log on the disk: numbered files that are only appended to, and the anchor beside them. What may take long
 * (writing, fsync) happens on libuv's threads, one thing at a time; a disk that hangs makes nobody wait but the log.
 */
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
} from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Write } from "../audit/journal.ts";
import { MAX_RECORD_BYTES } from "../audit/record.ts";
import type { Found, FoundFile } from "../audit/resume.ts";
import { parseSeal, type Seal } from "../audit/seal.ts";

/** What became of the file that is written to. */
export type Disturbance = "removed" | "shortened" | "grown";

export class AuditDirectory {
  readonly path: string;
  #active: { readonly file: number; readonly handle: FileHandle } | undefined;
  /** How much of an unfinished write is in its file. */
  #progress: { readonly write: Write; bytes: number } | undefined;

  constructor(path: string) {
    this.path = path;
  }

  /** Makes the folder if need be, and looks what an earlier run left. Throws Node's system errors. */
  find(): Found {
    mkdirSync(this.path, { recursive: true, mode: 0o700 });
    const tailOf = ({ number, bytes }: FoundFile) => readEnd(join(this.path, auditFileName(number)), bytes);
    return { files: listAuditFiles(this.path), anchor: readAnchor(this.path), tailOf };
  }

  /** To no bytes: the file goes. */
  cut(file: number, toBytes: number): void {
    const path = join(this.path, auditFileName(file));
    if (toBytes === 0) return rmSync(path);
    const fd = openSync(path, "r+");
    try {
      ftruncateSync(fd, toBytes);
    } finally {
      closeSync(fd);
    }
  }

  /** Appends all of it, or throws and goes on where it stopped when it is called with the same write again. */
  async append(write: Write): Promise<void> {
    const handle = await this.#handleFor(write);
    if (this.#progress?.write !== write) this.#progress = { write, bytes: 0 };
    const progress = this.#progress;
    while (progress.bytes < write.bytes.length) {
      const { bytesWritten } = await handle.write(write.bytes, progress.bytes);
      progress.bytes += bytesWritten;
    }
    if (write.opensFile) {
      await syncFolder(this.path);
      await this.#removeUpTo(write.removeUpTo);
    }
    this.#progress = undefined; // not before all is done: what failed until here is not appended a second time
  }

  /** Everything that was appended is on the disk when this returns. */
  async sync(): Promise<void> {
    await this.#active?.handle.datasync();
  }

  /** Only after `sync`: the anchor must not know of records that the disk does not have. */
  async saveAnchor(seal: Seal): Promise<void> {
    const path = join(this.path, ANCHOR);
    const fresh = await open(`${path}.new`, "w", 0o600);
    try {
      await fresh.writeFile(`${JSON.stringify({ format: ANCHOR_FORMAT, ...seal })}\n`);
      await fresh.sync();
    } finally {
      await fresh.close();
    }
    await rename(`${path}.new`, path);
  }

  /** Whether the file is still there, as long as we made it; undefined when it is. */
  async disturbance(expectedBytes: number): Promise<Disturbance | undefined> {
    if (this.#active === undefined) return undefined;
    const own = await this.#active.handle.stat();
    const there = await stat(join(this.path, auditFileName(this.#active.file))).catch(() => undefined);
    if (own.nlink === 0 || there?.ino !== own.ino) return "removed";
    if (own.size === expectedBytes) return undefined;
    return own.size < expectedBytes ? "shortened" : "grown";
  }

  async close(): Promise<void> {
    const active = this.#active;
    this.#active = undefined;
    await active?.handle.close();
  }

  async #handleFor(write: Write): Promise<FileHandle> {
    if (this.#active?.file === write.file) return this.#active.handle;
    if (this.#active !== undefined) {
      await this.sync();
      await this.close();
    }
    const path = join(this.path, auditFileName(write.file));
    const handle = await open(path, write.opensFile ? "ax" : "a", 0o600);
    this.#active = { file: write.file, handle };
    return handle;
  }

  async #removeUpTo(last: number): Promise<void> {
    for (const { number } of listAuditFiles(this.path)) {
      if (number <= last) await rm(join(this.path, auditFileName(number)), { force: true });
    }
  }
}

export function auditFileName(number: number): string {
  return `audit-${String(number).padStart(8, "0")}.jsonl`;
}

/** Oldest first. */
export function listAuditFiles(path: string): FoundFile[] {
  return readdirSync(path)
    .flatMap((name) => {
      const match = /^audit-(\d{8,15})\.jsonl$/.exec(name);
      return match === null ? [] : [{ number: Number(match[1]), bytes: statSync(join(path, name)).size }];
    })
    .sort((a, b) => a.number - b.number);
}

export function readAnchor(path: string): Found["anchor"] {
  try {
    return parseSeal(JSON.parse(readFileSync(join(path, ANCHOR), "utf8"))) ?? "damaged";
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "missing";
    if (error instanceof SyntaxError) return "damaged";
    throw error;
  }
}

function readEnd(path: string, bytes: number): Uint8Array {
  const fd = openSync(path, "r");
  try {
    const size = Math.max(bytes, fstatSync(fd).size);
    const tail = new Uint8Array(Math.min(size, END_BYTES));
    return tail.subarray(0, readSync(fd, tail, 0, tail.length, size - tail.length));
  } finally {
    closeSync(fd);
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

const ANCHOR = "anchor.json";
const ANCHOR_FORMAT = "pilot-tun-audit-anchor/1";
/** A whole record and an unfinished one. */
const END_BYTES = 2 * MAX_RECORD_BYTES;
