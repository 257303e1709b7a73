/**
 * A Pilot address in its four forms: text `N:NNNN.HHHH.LLLL` and the same with a port (pilot protocol §1), six bytes on
 * the wire, and an IPv6 address under a unique local /48 (RFC 4193):
 *
 *     | prefix 48 | network 16 | sub-address 32 | node 32 |
 *
 * The mapping is a bijection: there is nothing to hand out or to store. Sub-address 0 is the node itself.
 * The functions that end in `At` read 16 bytes at an offset without allocating; the caller knows that they are there.
 */
import { readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import { type NetworkId, type NodeId, networkId, nodeId, type PilotAddress } from "./ids.ts";
import { formatIp, parseIp } from "./underlay-address.ts";

export const PILOT_ADDRESS_BYTES = 6;
export const IPV6_ADDRESS_BYTES = 16;

/** Addresses every node of a network; only datagrams may go there. */
export const BROADCAST_NODE = nodeId(0xffffffff);

export interface Invalid {
  readonly kind: "invalid";
  /** For a person: what is wrong, without the text itself. */
  readonly reason: string;
}

export function isBroadcast(address: PilotAddress): boolean {
  return address.node === BROADCAST_NODE;
}

/** The source of a node that has no address yet. */
export function isUnspecified(address: PilotAddress): boolean {
  return address.network === 0 && address.node === 0;
}

export function samePilotAddress(a: PilotAddress, b: PilotAddress): boolean {
  return a.node === b.node && a.network === b.network;
}

// Text.

export function formatPilotAddress({ network, node }: PilotAddress): string {
  return `${network}:${hexGroup(network)}.${hexGroup(node >>> 16)}.${hexGroup(node & 0xffff)}`;
}

/** Accepts exactly what the reference does: both writings of the network must agree, hex digits in either case. */
export function parsePilotAddress(
  text: string,
): { readonly kind: "address"; readonly address: PilotAddress } | Invalid {
  const colon = text.indexOf(":");
  if (colon < 0) return invalid(`it has no ":"; ${FORM}`);
  const network = parseDecimal16(text.slice(0, colon));
  if (network === undefined) return invalid(`the network before ":" is not a decimal number up to 65535; ${FORM}`);

  const groups = text.slice(colon + 1).split(".");
  if (groups.length !== 3) return invalid(`three groups joined by "." must follow the ":"; ${FORM}`);
  const [repeated, high, low] = groups.map(parseHexGroup);
  if (repeated === undefined || high === undefined || low === undefined) {
    return invalid(`each group must be four hex digits; ${FORM}`);
  }
  if (repeated !== network) {
    return invalid(
      `the first group repeats the network: ${network} is ${hexGroup(network)}, not ${hexGroup(repeated)}`,
    );
  }
  return { kind: "address", address: { network: networkId(network), node: nodeId(((high << 16) | low) >>> 0) } };
}

export interface SocketAddress {
  readonly address: PilotAddress;
  readonly port: number;
}

export function formatSocketAddress({ address, port }: SocketAddress): string {
  return `${formatPilotAddress(address)}:${port}`;
}

/** An address and a port, split at the last colon. */
export function parseSocketAddress(text: string): ({ readonly kind: "socket-address" } & SocketAddress) | Invalid {
  const colon = text.lastIndexOf(":");
  if (colon < 0) return invalid(`it has no ":"; ${FORM}`);
  const parsed = parsePilotAddress(text.slice(0, colon));
  if (parsed.kind === "invalid") return parsed;
  const port = parseDecimal16(text.slice(colon + 1));
  if (port === undefined) return invalid('the port after the last ":" is not a decimal number up to 65535');
  return { kind: "socket-address", address: parsed.address, port };
}

// Six bytes.

export function writePilotAddress(bytes: Uint8Array, offset: number, { network, node }: PilotAddress): void {
  writeU16(bytes, offset, network);
  writeU32(bytes, offset + 2, node);
}

export function readPilotAddress(bytes: Uint8Array, offset: number): PilotAddress {
  return { network: networkId(readU16(bytes, offset)), node: nodeId(readU32(bytes, offset + 2)) };
}

// IPv6 under the overlay's prefix.

/** A unique local /48. */
export interface OverlayPrefix {
  /** Its six bytes. */
  readonly bytes: Uint8Array;
  /** Canonical, as in `fd50:494c:4f54::/48`. */
  readonly text: string;
}

/** A Pilot address and which of the node's own addresses is meant. */
export interface OverlayAddress extends PilotAddress {
  /** 32 bits; 0 is the node itself. */
  readonly subAddress: number;
}

/** `fd`, then "PILOT" as the 40-bit global ID. */
export const DEFAULT_OVERLAY_PREFIX: OverlayPrefix = overlayPrefix(
  new Uint8Array([0xfd, 0x50, 0x49, 0x4c, 0x4f, 0x54]),
);

/** Only a locally assigned unique local /48 (`fd00::/8`) without host bits. */
export function parseOverlayPrefix(
  text: string,
): { readonly kind: "prefix"; readonly prefix: OverlayPrefix } | Invalid {
  const slash = text.lastIndexOf("/");
  if (slash < 0 || text.slice(slash) !== "/48") return invalid('it must end in "/48"');
  const bytes = parseIp(text.slice(0, slash));
  if (bytes?.length !== IPV6_ADDRESS_BYTES) return invalid('what stands before "/48" is not an IPv6 address');
  if (bytes[0] !== 0xfd) return invalid("it is not a unique local prefix: those begin with fd (RFC 4193)");
  if (bytes.subarray(PREFIX_BYTES).some((byte) => byte !== 0)) return invalid("it has bits set after the first 48");
  return { kind: "prefix", prefix: overlayPrefix(bytes.slice(0, PREFIX_BYTES)) };
}

export function hasPrefix(prefix: OverlayPrefix, bytes: Uint8Array, offset: number): boolean {
  for (let i = 0; i < PREFIX_BYTES; i++) if (bytes[offset + i] !== prefix.bytes[i]) return false;
  return true;
}

export function networkAt(bytes: Uint8Array, offset: number): NetworkId {
  return networkId(readU16(bytes, offset + NETWORK_OFFSET));
}

export function writeNetwork(bytes: Uint8Array, offset: number, network: NetworkId): void {
  writeU16(bytes, offset + NETWORK_OFFSET, network);
}

export function subAddressAt(bytes: Uint8Array, offset: number): number {
  return readU32(bytes, offset + SUB_ADDRESS_OFFSET);
}

export function nodeAt(bytes: Uint8Array, offset: number): NodeId {
  return nodeId(readU32(bytes, offset + NODE_OFFSET));
}

export function writeOverlayAddress(
  prefix: OverlayPrefix,
  address: PilotAddress & { readonly subAddress?: number },
  bytes: Uint8Array,
  offset: number,
): void {
  for (let i = 0; i < PREFIX_BYTES; i++) bytes[offset + i] = prefix.bytes[i]!;
  writeU16(bytes, offset + NETWORK_OFFSET, address.network);
  writeU32(bytes, offset + SUB_ADDRESS_OFFSET, address.subAddress ?? 0);
  writeU32(bytes, offset + NODE_OFFSET, address.node);
}

/** The 16 bytes of an address in the overlay; without a sub-address, of the node itself. */
export function encodeAddressBytes(
  prefix: OverlayPrefix,
  address: PilotAddress & { readonly subAddress?: number },
): Uint8Array {
  const bytes = new Uint8Array(IPV6_ADDRESS_BYTES);
  writeOverlayAddress(prefix, address, bytes, 0);
  return bytes;
}

/** The address whose 16 bytes stand at `offset`; undefined outside the prefix and when bytes are missing. */
export function parseAddressBytes(prefix: OverlayPrefix, bytes: Uint8Array, offset = 0): OverlayAddress | undefined {
  if (offset < 0 || offset + IPV6_ADDRESS_BYTES > bytes.length || !hasPrefix(prefix, bytes, offset)) return undefined;
  return {
    network: networkAt(bytes, offset),
    subAddress: subAddressAt(bytes, offset),
    node: nodeAt(bytes, offset),
  };
}

/** RFC 5952 text, as in `fd50:494c:4f54::5`. */
export function formatOverlayAddress(
  prefix: OverlayPrefix,
  address: PilotAddress & { readonly subAddress?: number },
): string {
  return formatIp(encodeAddressBytes(prefix, address))!;
}

/** The address behind any writing of an IPv6 address; undefined for other text and outside the prefix. */
export function parseOverlayAddress(prefix: OverlayPrefix, text: string): OverlayAddress | undefined {
  const bytes = parseIp(text);
  return bytes === undefined ? undefined : parseAddressBytes(prefix, bytes);
}

function overlayPrefix(bytes: Uint8Array): OverlayPrefix {
  const whole = new Uint8Array(IPV6_ADDRESS_BYTES);
  whole.set(bytes);
  return { bytes, text: `${formatIp(whole)!}/48` };
}

function invalid(reason: string): Invalid {
  return { kind: "invalid", reason };
}

function hexGroup(value: number): string {
  return value.toString(16).toUpperCase().padStart(4, "0");
}

function parseHexGroup(text: string): number | undefined {
  return /^[0-9A-Fa-f]{4}$/.test(text) ? Number.parseInt(text, 16) : undefined;
}

/** Digits only; leading zeros are allowed, as in the reference. */
function parseDecimal16(text: string): number | undefined {
  if (!/^[0-9]+$/.test(text)) return undefined;
  const value = Number(text);
  return value > 0xffff ? undefined : value;
}

const FORM = "an address reads N:NNNN.HHHH.LLLL, as in 0:0000.0000.0005";
const PREFIX_BYTES = 6;
const NETWORK_OFFSET = 6;
const SUB_ADDRESS_OFFSET = 8;
const NODE_OFFSET = 12;
