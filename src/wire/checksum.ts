/**
 * The Internet checksum (RFC 1071), the IPv6 pseudo-header it covers (RFC 8200 §8.1) and its incremental update
 * (RFC 1624). Sums stay unfolded until `finishChecksum`: the words of the longest packet fit in a number many times over.
 */
import { readU16 } from "../base/bytes.ts";

/** Sum of the 16-bit words of bytes[start, end); an odd last byte counts as if a zero followed. */
export function sumWords(bytes: Uint8Array, start: number, end: number, initial = 0): number {
  let sum = initial;
  let at = start;
  for (; at + 1 < end; at += 2) sum += readU16(bytes, at);
  return at < end ? sum + (bytes[at]! << 8) : sum;
}

/** Carries folded in, not complemented: what a partial checksum holds for its pseudo-header. */
export function foldSum(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded % 0x10000) + Math.floor(folded / 0x10000);
  return folded;
}

/** The checksum to store: carries folded in, then complemented. */
export function finishChecksum(sum: number): number {
  return ~foldSum(sum) & 0xffff;
}

/** The pseudo-header's part of the sum, addresses taken from the IPv6 header at `ipOffset`. */
export function pseudoHeaderSum(
  bytes: Uint8Array,
  ipOffset: number,
  upperLayerLength: number,
  nextHeader: number,
): number {
  return sumWords(bytes, ipOffset + 8, ipOffset + 40, upperLayerLength + nextHeader);
}

/**
 * The checksum over pseudo-header and bytes[transportOffset, end) of an IPv6 packet at offset 0. With zero in the
 * checksum field it is the value to store; with the stored value in it, it is 0 when that value is right.
 */
export function transportChecksum(
  packet: Uint8Array,
  transportOffset: number,
  nextHeader: number,
  end = packet.length,
): number {
  const pseudo = pseudoHeaderSum(packet, 0, end - transportOffset, nextHeader);
  return finishChecksum(sumWords(packet, transportOffset, end, pseudo));
}

/** The checksum after a 16-bit word changed (RFC 1624 §3, equation 3). */
export function updateChecksum(checksum: number, oldWord: number, newWord: number): number {
  return finishChecksum((~checksum & 0xffff) + (~oldWord & 0xffff) + newWord);
}

/** The checksum after an aligned 32-bit word changed. */
export function updateChecksum32(checksum: number, oldWord: number, newWord: number): number {
  const high = updateChecksum(checksum, oldWord >>> 16, newWord >>> 16);
  return updateChecksum(high, oldWord & 0xffff, newWord & 0xffff);
}
