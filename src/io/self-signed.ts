/**
 * A certificate that a server signs for itself (RFC 5280), for clients that pin its fingerprint: ECDSA with P-256, ten
 * years, names in subjectAltName. Node can read certificates but not make them; the few DER forms needed are here.
 */
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { concatBytes, fromHex, utf8 } from "../base/bytes.ts";
import type { WallClock } from "../base/instant.ts";
import { parseIp } from "../wire/underlay-address.ts";

export interface SelfSigned {
  /** PEM. */
  readonly certificate: string;
  /** PEM, PKCS #8. */
  readonly key: string;
}

/** `names`: host names and IP addresses the server is reached by. */
export function makeSelfSigned(names: readonly string[], now: WallClock): SelfSigned {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const certified = toBeSigned(names, publicKey, now);
  const signature = sign("sha256", certified, privateKey);
  const der = sequence(certified, ECDSA_WITH_SHA256, bitString(signature));
  return { certificate: pem("CERTIFICATE", der), key: privateKey.export({ type: "pkcs8", format: "pem" }).toString() };
}

function toBeSigned(names: readonly string[], publicKey: KeyObject, now: WallClock): Uint8Array {
  const serial = randomBytes(16);
  serial[0] = (serial[0]! & 0x3f) | 0x40; // positive, and of one length
  const name = sequence(tlv(0x31, sequence(COMMON_NAME, tlv(0x0c, utf8("pilot-tun rendezvous")))));
  const validity = sequence(time(now - DAY_MS), time(now + YEARS * 365 * DAY_MS));
  return sequence(
    tlv(0xa0, tlv(0x02, Uint8Array.of(2))), // version 3
    tlv(0x02, serial),
    ECDSA_WITH_SHA256,
    name,
    validity,
    name,
    new Uint8Array(publicKey.export({ type: "spki", format: "der" })),
    tlv(0xa3, sequence(subjectAltName(names))),
  );
}

function subjectAltName(names: readonly string[]): Uint8Array {
  const entries = names.map((name) => {
    const ip = parseIp(name);
    return ip === undefined ? tlv(0x82, utf8(name)) : tlv(0x87, ip);
  });
  return sequence(SUBJECT_ALT_NAME, tlv(0x04, sequence(...entries)));
}

/** UTCTime before 2050, GeneralizedTime from then on (RFC 5280 §4.1.2.5). */
function time(unixMs: number): Uint8Array {
  const digits = new Date(unixMs).toISOString().replaceAll(/[-:T]|\.\d+/g, "");
  return digits < "2050" ? tlv(0x17, utf8(digits.slice(2))) : tlv(0x18, utf8(digits));
}

function sequence(...parts: readonly Uint8Array[]): Uint8Array {
  return tlv(0x30, concatBytes(...parts));
}

function bitString(bytes: Uint8Array): Uint8Array {
  return tlv(0x03, concatBytes(Uint8Array.of(0), bytes));
}

function tlv(tag: number, value: Uint8Array): Uint8Array {
  const { length } = value;
  if (length < 0x80) return concatBytes(Uint8Array.of(tag, length), value);
  if (length < 0x100) return concatBytes(Uint8Array.of(tag, 0x81, length), value);
  return concatBytes(Uint8Array.of(tag, 0x82, length >> 8, length), value);
}

function pem(label: string, der: Uint8Array): string {
  const lines = Buffer.from(der)
    .toString("base64")
    .match(/.{1,64}/g)!;
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

const ECDSA_WITH_SHA256 = sequence(fromHex("06082a8648ce3d040302")!);
const COMMON_NAME = fromHex("0603550403")!;
const SUBJECT_ALT_NAME = fromHex("0603551d11")!;
const DAY_MS = 24 * 3600 * 1000;
const YEARS = 10;
