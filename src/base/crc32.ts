/**
 * CRC-32 of IEEE 802.3 (reflected, initial value and final xor all ones): the checksum of a virtual packet.
 * Four bytes per step ("slicing by 4", Kounavis and Berry 2005).
 */

/** The checksum of `bytes`; `previous` continues the checksum of what came before them. */
export function crc32(bytes: Uint8Array, previous = 0): number {
  let crc = ~previous;
  let at = 0;
  for (const end = bytes.length - 3; at < end; at += 4) {
    crc ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    crc =
      TABLE[768 + (crc & 0xff)]! ^
      TABLE[512 + ((crc >>> 8) & 0xff)]! ^
      TABLE[256 + ((crc >>> 16) & 0xff)]! ^
      TABLE[crc >>> 24]!;
  }
  for (; at < bytes.length; at++) crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[at]!) & 0xff]!;
  return ~crc >>> 0;
}

const POLYNOMIAL = 0xedb88320;
const TABLE = sliceTables();

/** Four tables of 256: table k advances a byte that has k more bytes after it. */
function sliceTables(): Int32Array {
  const table = new Int32Array(4 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
    table[byte] = crc;
  }
  for (let index = 256; index < table.length; index++) {
    const shorter = table[index - 256]!;
    table[index] = (shorter >>> 8) ^ table[shorter & 0xff]!;
  }
  return table;
}
