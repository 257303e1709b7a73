/**
 * The daemon's files: identity, trust, and what it learned (node number, endpoints, names). Written atomically (new file,
 * fsync, rename, fsync of the directory) with mode 0600, for the folder's owner also when root writes. A file that does not
 * read back is set aside under another name
 * and reported; a damaged identity is never replaced by a new one.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { equalBytes, fromBase64, toBase64 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { Problem } from "../base/error-code.ts";
import { PilotError } from "../base/pilot-error.ts";
import { createOwnedFile } from "./folder-owner.ts";

export interface Identity {
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
}

/** Files beside the identity, and the code of the problem when one cannot be read. */
const DAMAGED = {
  "trust.json": "trust_damaged",
  "node.json": "node_damaged",
  "lockdown.json": "lockdown_damaged",
  "flows.json": "flows_damaged",
} as const;

export class StateDirectory {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw unwritable(path, cause);
    }
  }

  /** The node's Ed25519 key: read, or made at the very first start. */
  loadIdentity(crypto: Crypto): Identity {
    const file = join(this.path, IDENTITY);
    const setAside = this.#setAside(IDENTITY);
    if (!existsSync(file)) {
      if (setAside !== undefined) throw damagedIdentity(join(this.path, setAside));
      return this.#createIdentity(crypto);
    }
    const identity = parseIdentity(readFileSync(file, "utf8"), crypto);
    if (identity !== undefined) return identity;
    throw damagedIdentity(this.#moveAside(IDENTITY));
  }

  /**
   * The key that the system's credential store handed to this service, which is never written here; undefined without
   * one. It is the same file as `identity.json`.
   */
  static credentialIdentity(environment: NodeJS.ProcessEnv, crypto: Crypto): Identity | undefined {
    const folder = environment.CREDENTIALS_DIRECTORY;
    const file = folder === undefined ? "" : join(folder, CREDENTIAL);
    if (folder === undefined || !existsSync(file)) return undefined;
    const identity = parseIdentity(readFileSync(file, "utf8"), crypto);
    if (identity !== undefined) return identity;
    throw new PilotError(
      "identity_damaged",
      `The credential ${CREDENTIAL} is no identity`,
      "Store the identity.json of this node under that name again, or remove the credential.",
    );
  }

  /** A new key beside the one in use, on disk before anybody hears of it. */
  prepareIdentity(crypto: Crypto): Identity {
    return this.#createIdentity(crypto, NEXT_IDENTITY);
  }

  /** The key of a rotation that was not finished. */
  preparedIdentity(crypto: Crypto): Identity | undefined {
    const file = join(this.path, NEXT_IDENTITY);
    return existsSync(file) ? parseIdentity(readFileSync(file, "utf8"), crypto) : undefined;
  }

  adoptPreparedIdentity(): void {
    renameSync(join(this.path, NEXT_IDENTITY), join(this.path, IDENTITY));
    syncDirectory(this.path);
  }

  discardPreparedIdentity(): void {
    rmSync(join(this.path, NEXT_IDENTITY));
    syncDirectory(this.path);
  }

  /** A JSON file of ours; undefined when there is none. `parse` says whether it is whole. */
  load<T>(
    name: keyof typeof DAMAGED,
    parse: (json: unknown) => T | undefined,
  ): { value: T | undefined; problem?: Problem } {
    const file = join(this.path, name);
    if (!existsSync(file)) return { value: undefined };
    const value = parseJson(readFileSync(file, "utf8"), parse);
    if (value !== undefined) return { value };
    const aside = this.#moveAside(name);
    return {
      value: undefined,
      problem: {
        code: DAMAGED[name],
        message: `${file} could not be read and was set aside as ${aside}`,
        hint: `Restore ${file} from a backup and restart, or remove ${aside} once you no longer need it.`,
      },
    };
  }

  /** A JSON file as it is, and nothing is moved; undefined when there is none, or none that can be read. */
  peek(name: string): unknown {
    const file = join(this.path, name);
    return existsSync(file) ? parseJson(readFileSync(file, "utf8"), (json) => json) : undefined;
  }

  /** Out of the way, and never lost; its new name, or undefined when there was none. */
  putAside(name: string): string | undefined {
    return existsSync(join(this.path, name)) ? this.#rename(name, REPLACED) : undefined;
  }

  /** A second name for what will be replaced, so that it is not lost; undefined when there is none. */
  keepAside(name: string): string | undefined {
    const file = join(this.path, name);
    if (!existsSync(file)) return undefined;
    const aside = asideName(file, REPLACED);
    linkSync(file, aside);
    return aside;
  }

  /** Gone also over a crash; nothing happens when there is none. */
  remove(name: keyof typeof DAMAGED): void {
    rmSync(join(this.path, name), { force: true });
    syncDirectory(this.path);
  }

  save(name: string, value: unknown): void {
    this.#write(name, `${JSON.stringify(value, undefined, 2)}\n`);
  }

  #createIdentity(crypto: Crypto, name = IDENTITY): Identity {
    const seed = crypto.randomBytes(32);
    const publicKey = crypto.ed25519PublicKey(seed);
    const privateKey = new Uint8Array(64);
    privateKey.set(seed);
    privateKey.set(publicKey, 32);
    this.save(name, { public_key: toBase64(publicKey), private_key: toBase64(privateKey) });
    return { seed, publicKey };
  }

  #write(name: string, text: string): void {
    const file = join(this.path, name);
    const fresh = `${file}.new`;
    try {
      const fd = createOwnedFile(fresh);
      try {
        writeFileSync(fd, text); // all of it: on a full disk a single write may take a part and say nothing
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(fresh, file);
      syncDirectory(this.path);
    } catch (cause) {
      throw unwritable(file, cause);
    }
  }

  #moveAside(name: string): string {
    return this.#rename(name, ASIDE);
  }

  #rename(name: string, mark: string): string {
    const aside = asideName(join(this.path, name), mark);
    renameSync(join(this.path, name), aside);
    syncDirectory(this.path);
    return aside;
  }

  #setAside(name: string): string | undefined {
    return readdirSync(this.path).find((entry) => entry.startsWith(`${name}${ASIDE}`));
  }
}

function parseIdentity(text: string, crypto: Crypto): Identity | undefined {
  return parseJson(text, (json) => identityFromJson(json, crypto));
}

/** What `identity.json` holds; undefined when it is no key, or not the one that belongs to its public key. */
export function identityFromJson(json: unknown, crypto: Crypto): Identity | undefined {
  const { public_key, private_key } = (json ?? {}) as { public_key?: unknown; private_key?: unknown };
  if (typeof public_key !== "string" || typeof private_key !== "string") return undefined;
  const publicKey = fromBase64(public_key);
  const privateKey = fromBase64(private_key);
  if (publicKey?.length !== 32 || privateKey?.length !== 64) return undefined;
  const seed = privateKey.slice(0, 32);
  return equalBytes(crypto.ed25519PublicKey(seed), publicKey) ? { seed, publicKey } : undefined;
}

function parseJson<T>(text: string, parse: (json: unknown) => T | undefined): T | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined; // a file that is cut short
  }
  return typeof json === "object" && json !== null ? parse(json) : undefined;
}

function asideName(file: string, mark: string): string {
  return `${file}${mark}${new Date().toISOString().replace(/[:.]/g, "-")}`;
}

function syncDirectory(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function damagedIdentity(aside: string): PilotError {
  return new PilotError(
    "identity_damaged",
    `The identity file is damaged and was set aside as ${aside}; no new identity was made`,
    `Restore ${IDENTITY} from a backup beside it, or remove ${aside} to start as a new node with a new address.`,
  );
}

/** The PilotError `state_unwritable`. */
export function unwritable(path: string, cause: unknown): PilotError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PilotError(
    "state_unwritable",
    `Cannot write ${path}: ${reason}`,
    "Choose another folder with --state, or give the daemon's user the right to write there.",
    cause,
  );
}

const IDENTITY = "identity.json";
const CREDENTIAL = "pilot-tun.identity";
const NEXT_IDENTITY = "identity-next.json";
const ASIDE = ".damaged-";
const REPLACED = ".replaced-";
