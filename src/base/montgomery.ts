/**
 * From a point of edwards25519 to the same point of curve25519 (RFC 7748 §4.1): u = (1 + y) / (1 - y) modulo 2^255 - 19.
 * With it an Ed25519 key, which the network knows a node by, also agrees on secrets. Only public keys come here, so time
 * may depend on them.
 */
import { toHex } from "./bytes.ts";

/** 32 bytes in and out, little endian. The sign of x has no meaning on the other curve; y = 1 becomes 0, which no exchange takes. */
export function montgomeryOf(edwards: Uint8Array): Uint8Array {
  const bytes = edwards.toReversed();
  bytes[0]! &= 0x7f;
  const y = BigInt(`0x${toHex(bytes)}`) % P;
  let u = ((1n + y) * inverse((1n - y + P) % P)) % P;
  const encoded = new Uint8Array(32);
  for (let i = 0; i < 32; i++, u >>= 8n) encoded[i] = Number(u & 0xffn);
  return encoded;
}

/** By Fermat: x to the power p - 2; 0 for 0. */
function inverse(x: bigint): bigint {
  let result = 1n;
  let square = x;
  for (let exponent = P - 2n; exponent > 0n; exponent >>= 1n) {
    if (exponent & 1n) result = (result * square) % P;
    square = (square * square) % P;
  }
  return result;
}

const P = 2n ** 255n - 19n;
