/**
 * Bytes in network order, hex, UTF-8 and base64, without a Node import.
 * Readers do not check bounds: a parser checks the length once and then reads.
 */

// Present in every JavaScript runtime, but not in TypeScript's `es2023` library.
declare const TextEncoder: { new (): { encode(text: string): Uint8Array } };
declare const TextDecoder: {
  new (label: string, options: { fatal: boolean }): { decode(bytes: Uint8Array): string };
};

const encoder = new TextEncoder();
const strictDecoder = new TextDecoder("utf-8", { fatal: true });
const lossyDecoder = new TextDecoder("utf-8", { fatal: false });

export function readU16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset]! << 8) | bytes[offset + 1]!;
}

export function readU32(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!) >>> 0;
}

export function writeU16(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 8;
  bytes[offset + 1] = value;
}

export function writeU32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 24;
  bytes[offset + 1] = value >>> 16;
  bytes[offset + 2] = value >>> 8;
  bytes[offset + 3] = value;
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** In a time that depends on the lengths alone: for whatever somebody could find out by guessing, piece by piece. */
export function equalSecrets(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}

export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => HEX_OF_BYTE[byte]).join(""); // joined: added up, it would be kept as a tree of its parts
}

const HEX_OF_BYTE = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** Bytes of an even number of hex digits; undefined for anything else. */
export function fromHex(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0) return undefined;
  const out = new Uint8Array(text.length / 2);
  for (let at = 0; at < out.length; at++) {
    const high = HEX_VALUES[text.charCodeAt(2 * at)] ?? NO_DIGIT;
    const low = HEX_VALUES[text.charCodeAt(2 * at + 1)] ?? NO_DIGIT;
    if (high === NO_DIGIT || low === NO_DIGIT) return undefined;
    out[at] = (high << 4) | low;
  }
  return out;
}

const NO_DIGIT = 16;
/** By character code. */
const HEX_VALUES = Uint8Array.from({ length: 128 }, (_, code) => {
  const value = "0123456789abcdef".indexOf(String.fromCharCode(code).toLowerCase());
  return value === -1 ? NO_DIGIT : value;
});

export function utf8(text: string): Uint8Array {
  return (text.length <= SHORT_TEXT ? shortAscii(text) : undefined) ?? encoder.encode(text);
}

/** An array this short lives with the other objects; a longer one has memory of its own, which costs several times as much. */
function shortAscii(text: string): Uint8Array | undefined {
  const out = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code > 0x7f) return undefined;
    out[at] = code;
  }
  return out;
}

const SHORT_TEXT = 64;

/** Text of valid UTF-8; undefined when the bytes are not. */
export function fromUtf8(bytes: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    return undefined; // a decoding error is the only thing a fatal decoder throws
  }
}

/** Text for a human to read; bytes that are not UTF-8 become replacement characters. */
export function printableUtf8(bytes: Uint8Array): string {
  return lossyDecoder.decode(bytes);
}

/** Standard base64 with padding, as the Pilot registry writes keys and signatures. */
export function toBase64(bytes: Uint8Array): string {
  const codes: number[] = [];
  let text = "";
  for (let at = 0; at < bytes.length; at += 3) {
    const [first, second, third] = [bytes[at]!, bytes[at + 1], bytes[at + 2]];
    const group = (first << 16) | ((second ?? 0) << 8) | (third ?? 0);
    codes.push(BASE64.charCodeAt(group >>> 18), BASE64.charCodeAt((group >>> 12) & 63));
    codes.push(second === undefined ? PADDING : BASE64.charCodeAt((group >>> 6) & 63));
    codes.push(third === undefined ? PADDING : BASE64.charCodeAt(group & 63));
    if (codes.length >= CODES_AT_ONCE) text += String.fromCharCode(...codes.splice(0));
  }
  return text + String.fromCharCode(...codes);
}

/** Bytes of standard base64 with padding (RFC 4648 §4, no blanks); undefined for anything else. */
export function fromBase64(text: string): Uint8Array | undefined {
  if (text.length % 4 !== 0) return undefined;
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const out = new Uint8Array((text.length / 4) * 3 - padding);
  let bits = 0;
  let written = 0;
  for (let at = 0; at < text.length - padding; at++) {
    const value = BASE64_VALUES[text.charCodeAt(at)] ?? NO_VALUE;
    if (value === NO_VALUE) return undefined;
    bits = (bits << 6) | value;
    if (at % 4 !== 0) out[written++] = bits >>> (6 - 2 * (at % 4));
  }
  return out;
}

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PADDING = 0x3d;
const NO_VALUE = 64;
/** By character code. */
const BASE64_VALUES = Uint8Array.from({ length: 128 }, (_, code) => {
  const value = BASE64.indexOf(String.fromCharCode(code));
  return value === -1 ? NO_VALUE : value;
});
/** Arguments of one call are bounded by the stack. */
const CODES_AT_ONCE = 4096;
