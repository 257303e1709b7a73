/**
 * Underlay addresses as text and as bytes: the `ip:port` of registry messages, the 4 or 16 bytes of beacon messages.
 * Text is canonical everywhere inside the program (RFC 5952; an IPv4-mapped IPv6 address is written as IPv4), so that
 * two endpoints are equal exactly when their texts are.
 */
import { Address6 } from "ip-address";
import type { Endpoint } from "../base/endpoint.ts";

/** Bytes of a textual address, 4 or 16; undefined for anything else, a zone (`%eth0`) and a prefix length included. */
export function parseIp(text: string): Uint8Array | undefined {
  if (!text.includes(":")) return parseIpv4(text);
  if (text.length > LONGEST_IPV6 || !/^[0-9a-fA-F:.]+$/.test(text)) return undefined;
  return unmapped(parseIpv6(text));
}

/** Canonical text of 4 or 16 bytes; undefined for any other length. */
export function formatIp(bytes: Uint8Array): string | undefined {
  if (bytes.length === 4) return bytes.join(".");
  if (bytes.length !== 16) return undefined;
  const plain = unmapped(bytes)!;
  return plain.length === 4 ? plain.join(".") : Address6.fromByteArray([...plain]).correctForm();
}

/** `192.0.2.1:4000` or `[2001:db8::1]:4000` in canonical form; undefined for host names and port 0. */
export function parseEndpoint(text: string): Endpoint | undefined {
  const split = splitHostPort(text);
  if (split === undefined || split.port === 0) return undefined;
  const bytes = parseIp(split.host);
  return bytes === undefined ? undefined : { address: formatIp(bytes)!, port: split.port };
}

export interface HostPort {
  /** May be empty: `:4000`. */
  readonly host: string;
  readonly port: number;
}

/** Splits at the last colon; an IPv6 host needs brackets. */
export function splitHostPort(text: string): HostPort | undefined {
  if (text.length > LONGEST_HOST_PORT) return undefined;
  const match = /^(?:\[([^[\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  if (match === null) return undefined;
  const port = Number(match[3]);
  return port > 65535 ? undefined : { host: match[1] ?? match[2]!, port };
}

/** What IP and UDP headers cost a datagram to there; those of IPv4 as long as nobody knows where. */
export function underlayHeaderBytes(to: Endpoint | undefined): number {
  return (to?.address.includes(":") ? IPV6_HEADER_BYTES : IPV4_HEADER_BYTES) + UDP_HEADER_BYTES;
}

const IPV4_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;
const UDP_HEADER_BYTES = 8;

/** `global` is what the whole internet can reach; every other scope ends at some border. */
export type IpScope = "global" | "private" | "link-local" | "loopback" | "unspecified" | "multicast";

export function ipScope(bytes: Uint8Array): IpScope {
  return bytes.length === 4 ? ipv4Scope(bytes) : ipv6Scope(bytes);
}

/** True for an endpoint a datagram may sensibly be sent to: one host, not "any" and not many. */
export function isUnicast(endpoint: Endpoint): boolean {
  const bytes = parseIp(endpoint.address);
  if (bytes === undefined || endpoint.port < 1 || endpoint.port > 65535) return false;
  const scope = ipScope(bytes);
  return scope !== "multicast" && scope !== "unspecified";
}

function parseIpv4(text: string): Uint8Array | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return undefined;
  const bytes = new Uint8Array(4);
  for (let i = 0; i < 4; i++) {
    const part = Number(match[i + 1]);
    if (part > 255) return undefined;
    bytes[i] = part;
  }
  return bytes;
}

function parseIpv6(text: string): Uint8Array | undefined {
  try {
    const parsed = new Address6(text).toUnsignedByteArray();
    const bytes = new Uint8Array(16);
    bytes.set(parsed, 16 - parsed.length); // the library leaves leading zero bytes out
    return bytes;
  } catch {
    return undefined; // the library throws on text that is no address
  }
}

function unmapped(bytes: Uint8Array | undefined): Uint8Array | undefined {
  if (bytes === undefined || bytes[10] !== 0xff || bytes[11] !== 0xff) return bytes;
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return bytes;
  return bytes.subarray(12);
}

function ipv4Scope(bytes: Uint8Array): IpScope {
  const a = bytes[0]!;
  const b = bytes[1]!;
  if (a === 0) return "unspecified";
  if (a === 127) return "loopback";
  if (a >= 224) return "multicast"; // with 240/4 and limited broadcast: none of them is one host
  if (a === 169 && b === 254) return "link-local";
  const isPrivate = a === 10 || (a === 172 && b >= 16 && b < 32) || (a === 192 && b === 168);
  return isPrivate || (a === 100 && b >= 64 && b < 128) ? "private" : "global"; // RFC 1918, RFC 6598
}

function ipv6Scope(bytes: Uint8Array): IpScope {
  const a = bytes[0]!;
  if (a === 0xff) return "multicast";
  if (a === 0xfe && (bytes[1]! & 0xc0) === 0x80) return "link-local";
  if ((a & 0xfe) === 0xfc) return "private"; // RFC 4193
  for (let i = 0; i < 15; i++) if (bytes[i] !== 0) return "global";
  if (bytes[15] === 0) return "unspecified";
  return bytes[15] === 1 ? "loopback" : "global";
}

const LONGEST_IPV6 = 45;
const LONGEST_HOST_PORT = 300;
