/**
 * The node's signature under the end of what it has written: a record's number and hash vouch for all before it. Seals
 * stand in the head of each file, for the file before, and in the anchor beside the files, for the newest record that is
 * safe on the disk. Without the node's key nobody can make another log that ends in the same seals.
 */
import { fromBase64, toBase64, utf8 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";

export interface Seal {
  /** Number of the file that holds the record. */
  readonly file: number;
  readonly seq: number;
  readonly hash: string;
  /** Ed25519 public key and signature, base64. */
  readonly key: string;
  readonly signature: string;
}

export interface Signer {
  readonly publicKey: Uint8Array;
  sign(message: Uint8Array): Uint8Array;
}

export function makeSeal(signer: Signer, file: number, seq: number, hash: string): Seal {
  const signature = toBase64(signer.sign(messageOf({ file, seq, hash })));
  return { file, seq, hash, key: toBase64(signer.publicKey), signature };
}

/** True when the key that the seal names has made it. */
export function isGenuine(crypto: Pick<Crypto, "ed25519Verify">, seal: Seal): boolean {
  const key = fromBase64(seal.key);
  const signature = fromBase64(seal.signature);
  if (key === undefined || signature === undefined) return false;
  return crypto.ed25519Verify(key, messageOf(seal), signature);
}

/** Undefined for what is no seal. Never throws. */
export function parseSeal(json: unknown): Seal | undefined {
  if (typeof json !== "object" || json === null) return undefined;
  const { file, seq, hash, key, signature } = json as Record<string, unknown>;
  const isNumber = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;
  if (!isNumber(file) || !isNumber(seq) || typeof hash !== "string" || !/^[0-9a-f]{64}$/.test(hash)) return undefined;
  if (typeof key !== "string" || typeof signature !== "string") return undefined;
  return { file, seq, hash, key, signature };
}

function messageOf({ file, seq, hash }: Pick<Seal, "file" | "seq" | "hash">): Uint8Array {
  return utf8(`pilot-tun audit seal 1\n${file}\n${seq}\n${hash}`);
}
