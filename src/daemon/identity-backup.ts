/**
 * A node's identity and what it was told to believe, in one file under a passphrase, and back.
 *
 * The sealed text (io/sealed-text.ts) is JSON: `{"version":1,"made":"<UTC>","files":{"identity.json":{…},…}}`, the files as
 * they stand in the state folder. A restore checks all of it first. Then it writes in an order in which a crash at any point
 * leaves either key whole and never a key with the trust of another one: what is in the way of another identity goes aside, the
 * key is put in place, and what belongs to it follows; the same restore again finishes it.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { equalBytes } from "../base/bytes.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { KeyReply } from "../control/key-api.ts";
import { wallNow } from "../io/clock.ts";
import { NodeCrypto } from "../io/node-crypto.ts";
import { openSealedText, sealText } from "../io/sealed-text.ts";
import { type Identity, identityFromJson, StateDirectory } from "../io/state-directory.ts";
import { nodeId } from "../wire/ids.ts";
import { fingerprintOf, keyFacts } from "./identity.ts";
import { parseNodeFile } from "./node-memory.ts";
import { parseLockdown } from "./policy-requests.ts";
import { lockState } from "./state-lock.ts";
import { parseTrustFile } from "./trust-file.ts";

export interface IdentityBackup extends KeyReply {
  readonly file: string;
  readonly bytes: number;
  /** What is in it, by the names of the state folder. */
  readonly files: readonly string[];
  /** When it was made, UTC. */
  readonly made: string;
}

export interface IdentityRestore extends KeyReply {
  readonly made: string;
  readonly restored: readonly string[];
  /** There already, of the same identity: newer than the backup, and left as it is. */
  readonly kept: readonly string[];
  /** What was in the way, under its new name. */
  readonly putAside: readonly string[];
}

/** While the daemon runs or not. `cost`: of each guess, in place of the usual one, for tests. Throws PilotError `no_identity`, `rotation_unsettled`, `backup_failed`. */
export async function backupIdentity(
  stateDir: string,
  file: string,
  passphrase: string,
  cost?: number,
): Promise<IdentityBackup> {
  if (!existsSync(join(stateDir, IDENTITY))) {
    const hint =
      "Name the state folder with --state. A key that the system hands over is backed up where it is stored.";
    throw new PilotError("no_identity", `There is no identity in ${stateDir}`, hint);
  }
  if (existsSync(join(stateDir, NEXT_IDENTITY))) {
    const hint = "Let pilot-tun up, or id rotate, ask the registry first; then back up the key that counts.";
    throw new PilotError("rotation_unsettled", "A key rotation is not finished: there are two keys", hint);
  }
  const state = new StateDirectory(stateDir);
  const files: Record<string, unknown> = {};
  for (const [name, isWhole] of PARTS) {
    if (!existsSync(join(stateDir, name))) continue;
    files[name] = state.peek(name);
    if (!isWhole(files[name])) {
      const hint = "Mend that first: pilot-tun status says how.";
      throw new PilotError("backup_failed", `${join(stateDir, name)} cannot be read`, hint);
    }
  }
  const made = new Date(wallNow()).toISOString();
  const text = await sealText(JSON.stringify({ version: 1, made, files }), passphrase, cost);
  writeWhole(file, text);
  // A backup that does not open would be found out too late.
  const contents = await readBackup(file, passphrase);
  return { ...contents.facts, file, bytes: Buffer.byteLength(text), files: Object.keys(files), made };
}

/**
 * Needs the daemon stopped. `isForced`: also over another identity, and over what there is of the same one; what was there is
 * put aside. Throws PilotError `backup_damaged`, `passphrase_wrong`, `identity_differs`, `state_locked`, `state_unwritable`.
 */
export async function restoreIdentity(
  stateDir: string,
  file: string,
  passphrase: string,
  isForced: boolean,
): Promise<IdentityRestore> {
  const { identity, files, made, facts } = await readBackup(file, passphrase);
  if (!isForced) checkSame(stateDir, identity);
  const state = new StateDirectory(stateDir);
  lockState(stateDir);
  if (!isForced) checkSame(stateDir, identity); // what was put there before the lock was ours
  const isThere = (name: string): boolean => existsSync(join(stateDir, name));
  const isSame = isIdentityOf(state, identity);
  const names = Object.keys(files).filter((name) => name !== IDENTITY);
  const inTheWay = [NEXT_IDENTITY, FLOWS, ...PARTS.keys()].filter((name) => name !== IDENTITY && isThere(name));
  const putAside = isForced ? inTheWay.map((name) => state.putAside(name)!) : [];
  const kept = isForced ? [] : names.filter(isThere);
  if (!isSame) {
    const before = state.keepAside(IDENTITY);
    if (before !== undefined) putAside.push(before);
    state.save(IDENTITY, files[IDENTITY]);
  }
  const restored = names.filter((name) => !kept.includes(name));
  for (const name of restored) state.save(name, files[name]);
  return { ...facts, made, restored: isSame ? restored : [IDENTITY, ...restored], kept, putAside };
}

interface Contents {
  readonly made: string;
  readonly identity: Identity;
  readonly files: Readonly<Record<string, unknown>>;
  readonly facts: KeyReply;
}

/** All of it is checked. */
async function readBackup(file: string, passphrase: string): Promise<Contents> {
  const text = await openSealedText(readBounded(file), passphrase);
  const crypto = new NodeCrypto();
  const bundle = parseBundle(text);
  const identity = identityFromJson(bundle?.files[IDENTITY], crypto);
  const unsound = Object.entries(bundle?.files ?? {}).find(([name, json]) => PARTS.get(name)?.(json) !== true)?.[0];
  if (bundle === undefined || identity === undefined || unsound !== undefined) {
    const what = unsound === undefined ? "it holds no identity" : `${unsound} in it is not what it should be`;
    throw new PilotError("backup_damaged", `${file}: ${what}`, "Use another backup, or a newer pilot-tun.");
  }
  const node = parseNodeFile(bundle.files["node.json"] ?? {})?.node ?? null;
  return { ...bundle, identity, facts: keyFacts(identity, node === null ? undefined : nodeId(node), crypto) };
}

function parseBundle(text: string): Pick<Contents, "made" | "files"> | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined; // a syntax error is all that parsing throws
  }
  if (!isObject(json)) return undefined;
  const { version, made, files } = json;
  return version === 1 && typeof made === "string" && isObject(files) ? { made, files } : undefined;
}

function isObject(json: unknown): json is Readonly<Record<string, unknown>> {
  return typeof json === "object" && json !== null;
}

function checkSame(stateDir: string, identity: Identity): void {
  if (!existsSync(join(stateDir, IDENTITY)) || isIdentityOf(new StateDirectory(stateDir), identity)) return;
  const there = identityFromJson(new StateDirectory(stateDir).peek(IDENTITY), new NodeCrypto());
  const whose = there === undefined ? "one that cannot be read" : fingerprintOf(there.publicKey, new NodeCrypto());
  throw new PilotError(
    "identity_differs",
    `There is another identity in ${stateDir}: ${whose}`,
    "Name another folder with --state; or give --force, which puts that one aside and keeps it.",
  );
}

function isIdentityOf(state: StateDirectory, { publicKey }: Identity): boolean {
  const there = identityFromJson(state.peek(IDENTITY), new NodeCrypto());
  return there !== undefined && equalBytes(there.publicKey, publicKey);
}

function readBounded(file: string): string {
  try {
    const { size } = statSync(file);
    if (size <= MAX_FILE_BYTES) return readFileSync(file, "utf8");
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new PilotError("backup_damaged", `Cannot read the backup: ${reason}`, "Name a file of id backup.", cause);
  }
  throw new PilotError("backup_damaged", `${file} is too large to be a backup`, "Name a file of id backup.");
}

/** Complete or not there, and for its owner's eyes only. */
function writeWhole(file: string, text: string): void {
  const part = join(dirname(file), `.${basename(file)}.part`);
  try {
    rmSync(part, { force: true });
    const fd = openSync(part, "wx", 0o600);
    try {
      writeFileSync(fd, text);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(part, file);
  } catch (cause) {
    rmSync(part, { force: true });
    const reason = cause instanceof Error ? cause.message : String(cause);
    const hint = "Choose a folder with room that this user may write to.";
    throw new PilotError("backup_failed", `Cannot write the backup: ${reason}`, hint, cause);
  }
}

const IDENTITY = "identity.json";
const NEXT_IDENTITY = "identity-next.json";
/** Of the last run, for the next one within minutes: in no backup. */
const FLOWS = "flows.json";
/** Files of the state folder that a backup may hold, and whether one is whole. */
const PARTS: ReadonlyMap<string, (json: unknown) => boolean> = new Map([
  [IDENTITY, (json: unknown) => identityFromJson(json, new NodeCrypto()) !== undefined],
  ["trust.json", (json: unknown) => isObject(json) && parseTrustFile(json) !== undefined],
  ["node.json", (json: unknown) => isObject(json) && parseNodeFile(json) !== undefined],
  ["lockdown.json", (json: unknown) => isObject(json) && parseLockdown(json) !== undefined],
]);
/** A trust book that is full, twice. */
const MAX_FILE_BYTES = 64 * 1024 * 1024;
