/**
 * A text under a passphrase, as a file of two lines. The first says how it was sealed and is authenticated with the rest:
 *
 *   {"format":"pilot-tun-sealed/1","kdf":"scrypt","n":131072,"r":8,"p":1,"salt":"…","cipher":"aes-256-gcm","nonce":"…"}
 *
 * The second is base64 of the ciphertext and its tag of 16 bytes. The key is scrypt (RFC 7914) of the passphrase in Unicode
 * NFC as UTF-8, 32 bytes; AES-256-GCM (NIST SP 800-38D) has the first line without its line feed as additional data. Salt and
 * nonce are drawn anew for each file.
 */
import { createCipheriv, createDecipheriv, randomBytes, scrypt } from "node:crypto";
import { promisify } from "node:util";
import { PilotError } from "../base/pilot-error.ts";

interface Header {
  readonly format: typeof FORMAT;
  readonly kdf: "scrypt";
  readonly n: number;
  readonly r: number;
  readonly p: number;
  /** Base64, as the nonce is. */
  readonly salt: string;
  readonly cipher: typeof CIPHER;
  readonly nonce: string;
}

/** `n`: in place of the usual cost, for tests. */
export async function sealText(text: string, passphrase: string, n: number = COST.n): Promise<string> {
  const [salt, nonce] = [randomBytes(SALT_BYTES), randomBytes(NONCE_BYTES)];
  const header: Header = {
    ...{ format: FORMAT, kdf: "scrypt", ...COST, n },
    ...{ salt: salt.toString("base64"), cipher: CIPHER, nonce: nonce.toString("base64") },
  };
  const line = JSON.stringify(header);
  const cipher = createCipheriv(CIPHER, await keyOf(passphrase, header), nonce).setAAD(Buffer.from(line));
  const sealed = [cipher.update(text, "utf8"), cipher.final(), cipher.getAuthTag()];
  return `${line}\n${Buffer.concat(sealed).toString("base64")}\n`;
}

/** Throws PilotError `backup_damaged` for what is no such file, `passphrase_wrong` for what does not open. */
export async function openSealedText(file: string, passphrase: string): Promise<string> {
  const [, line, body] = /^(\{[^\n]{1,1024}\})\n([A-Za-z0-9+/]+={0,2})\n?$/.exec(file) ?? [];
  const header = parseHeader(line);
  const sealed = Buffer.from(body ?? "", "base64");
  if (header === undefined || sealed.length < TAG_BYTES) {
    const hint = "Use the file that pilot-tun id backup wrote; a newer one needs a newer pilot-tun.";
    throw new PilotError("backup_damaged", "This is no backup of an identity that this version can read", hint);
  }
  const decipher = createDecipheriv(CIPHER, await keyOf(passphrase, header), Buffer.from(header.nonce, "base64"))
    .setAAD(Buffer.from(line!))
    .setAuthTag(sealed.subarray(-TAG_BYTES));
  try {
    return Buffer.concat([decipher.update(sealed.subarray(0, -TAG_BYTES)), decipher.final()]).toString("utf8");
  } catch (cause) {
    throw new PilotError(
      "passphrase_wrong",
      "The backup does not open: another passphrase, or the file was changed",
      "Try again with the passphrase that was given to pilot-tun id backup, or use another copy of the file.",
      cause,
    );
  }
}

/** Costs beyond what this machine should spend on a file from elsewhere are refused. */
function parseHeader(line: string | undefined): Header | undefined {
  let json: unknown;
  try {
    json = JSON.parse(line ?? "");
  } catch {
    return undefined; // a syntax error is all that parsing throws
  }
  const { format, kdf, n, r, p, salt, cipher, nonce } = json as Partial<Record<keyof Header, unknown>>;
  const isKnown = format === FORMAT && kdf === "scrypt" && cipher === CIPHER;
  const isPayable = COSTS.has(n) && r === COST.r && (p === 1 || p === 2 || p === 4);
  const isWhole = bytesIn(salt) >= SALT_BYTES && bytesIn(nonce) === NONCE_BYTES;
  return isKnown && isPayable && isWhole ? (json as Header) : undefined;
}

function bytesIn(text: unknown): number {
  return typeof text === "string" ? Buffer.from(text, "base64").length : 0;
}

async function keyOf(passphrase: string, { n, r, p, salt }: Header): Promise<Buffer> {
  const secret = Buffer.from(passphrase.normalize("NFC"), "utf8");
  const limits = { N: n, r, p, maxmem: 128 * n * r + 1024 * 1024 * p };
  return await derive(secret, Buffer.from(salt, "base64"), KEY_BYTES, limits);
}

const derive: (secret: Buffer, salt: Buffer, length: number, options: object) => Promise<Buffer> = promisify(scrypt);

const FORMAT = "pilot-tun-sealed/1";
const CIPHER = "aes-256-gcm";
/** 128 MiB and a few tenths of a second for each guess. */
const COST = { n: 131_072, r: 8, p: 1 } as const;
const COSTS: ReadonlySet<unknown> = new Set([32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576]);
const SALT_BYTES = 16;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
