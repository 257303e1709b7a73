/** The audit log as it is on the disk, for whoever may read it; needs no daemon. */
import { readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type ParsedRecord, parseRecord } from "../audit/record.ts";
import { type KnownHash, type Report, Verifier } from "../audit/verify.ts";
import { fromBase64, toBase64 } from "../base/bytes.ts";
import { PilotError } from "../base/pilot-error.ts";
import { auditFileName, listAuditFiles, readAnchor } from "../io/audit-directory.ts";
import { NodeCrypto } from "../io/node-crypto.ts";

export interface AuditReport extends Report {
  readonly directory: string;
  /** Of the keys under whose seals this is so. */
  readonly fingerprints: readonly string[];
}

export interface VerifyOptions {
  readonly known: readonly KnownHash[];
  /** The fingerprint that the newest seal must have; without it that of the identity beside the log, if there is one. */
  readonly fingerprint: string | undefined;
}

/** Throws PilotError `audit_unreadable`. */
export function verifyAuditLog(directory: string, options: VerifyOptions): AuditReport {
  const crypto = new NodeCrypto();
  const fingerprintOf = (key: string) =>
    `SHA256:${toBase64(crypto.sha256(fromBase64(key) ?? new Uint8Array())).replace(/=+$/, "")}`;
  const own = options.fingerprint ?? identityBeside(directory, fingerprintOf);
  return reading(directory, () => {
    const isOwnKey = own === undefined ? {} : { isOwnKey: (key: string) => fingerprintOf(key) === own };
    const verifier = new Verifier({ crypto, anchor: readAnchor(directory), known: options.known, ...isOwnKey });
    const files = listAuditFiles(directory);
    for (const file of files) {
      const name = auditFileName(file.number);
      verifier.addFile(name, file.number, readFileSync(join(directory, name)), file === files.at(-1));
    }
    const report = verifier.finish();
    return { ...report, directory, fingerprints: report.keys.map(fingerprintOf) };
  });
}

/** Every line that is a record, oldest first, with its text as it stands there. */
export function* readAuditLog(directory: string): Generator<{ record: ParsedRecord; line: string }> {
  for (const { number } of reading(directory, () => listAuditFiles(directory))) {
    const text = reading(directory, () => readFileSync(join(directory, auditFileName(number)), "utf8"));
    for (const line of text.split("\n")) {
      const record = parseRecord(line);
      if (record !== undefined) yield { record, line };
    }
  }
}

/** The last records; only the files that hold them are read. */
export function lastOfAuditLog(directory: string, count: number): { record: ParsedRecord; line: string }[] {
  let found: { record: ParsedRecord; line: string }[] = [];
  for (const { number } of reading(directory, () => listAuditFiles(directory)).reverse()) {
    if (found.length >= count) break;
    const text = reading(directory, () => readFileSync(join(directory, auditFileName(number)), "utf8"));
    const here = text.split("\n").flatMap((line) => {
      const record = parseRecord(line);
      return record === undefined ? [] : [{ record, line }];
    });
    found = [...here, ...found];
  }
  return count === 0 ? [] : found.slice(-count);
}

/** Calls for each record that is written after the number `seq`, over new files, until aborted. */
export async function followAuditLog(
  directory: string,
  seq: number,
  onRecord: (record: ParsedRecord, line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  let last = seq;
  let place = { number: listAuditFiles(directory).at(-1)?.number ?? 0, offset: 0, rest: "" };
  while (!signal.aborted) {
    for (const { number } of listAuditFiles(directory)) {
      if (number < place.number) continue;
      if (number > place.number) place = { number, offset: 0, rest: "" };
      const chunk = await readFrom(join(directory, auditFileName(number)), place.offset);
      const lines = (place.rest + chunk.toString("latin1")).split("\n");
      place = { number, offset: place.offset + chunk.length, rest: lines.pop()! };
      for (const bytes of lines) {
        const line = Buffer.from(bytes, "latin1").toString("utf8");
        const record = parseRecord(line);
        if (record === undefined || record.seq <= last) continue;
        last = record.seq;
        onRecord(record, line);
      }
    }
    await sleep(FOLLOW_INTERVAL_MS, undefined, { signal }).catch(() => undefined); // only an abort ends it early
  }
}

async function readFrom(path: string, offset: number): Promise<Buffer> {
  const handle = await open(path, "r");
  try {
    const { size } = await handle.stat();
    const bytes = Buffer.alloc(Math.max(0, size - offset));
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, offset);
    return bytes.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/** The log is in the state folder unless told otherwise, and so is the key that must have signed it. */
function identityBeside(directory: string, fingerprintOf: (key: string) => string): string | undefined {
  try {
    const { public_key } = JSON.parse(readFileSync(join(dirname(directory), "identity.json"), "utf8"));
    return typeof public_key === "string" ? fingerprintOf(public_key) : undefined;
  } catch {
    return undefined; // kept elsewhere, or a copy of the log alone
  }
}

function reading<T>(directory: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    if (code === "EACCES" || code === "EPERM") {
      const hint = "Run it as root, or as the user that runs the daemon.";
      throw new PilotError("not_privileged", `No permission for the audit log in ${directory}`, hint, error);
    }
    const hint = "Name the folder with --dir; pilot-tun up --help says where it is.";
    throw new PilotError("audit_unreadable", `The audit log in ${directory} cannot be read (${code})`, hint, error);
  }
}

const FOLLOW_INTERVAL_MS = 250;
