/**
 * Two messages of ours beside the beacon's: a node asks what its NAT does, and a beacon with further ports, of which each
 * names the next, answers from one of them. Other beacons drop the request, so that silence means "cannot tell". A request
 * is never shorter than its answer, which therefore amplifies nothing.
 *
 *   probe         0c | flags 1 | token 8 | zeros up to 48 bytes     flag 1: answer from the port that the asked one names
 *   probe answer  0d | flags 1 | token 8 | observed | other          flag 1: this is the port that the asked one names
 *
 * `observed` and `other` are length 1 (4 or 16), address, port 2. `other` has length 0 when it is the address that was
 * written to, and port 0 when there is no other port.
 */
import { readU16, writeU16 } from "../base/bytes.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { formatIp, parseIp } from "./underlay-address.ts";

export const BEACON_PROBE = 0x0c;
export const BEACON_PROBE_ANSWER = 0x0d;
export const PROBE_TOKEN_BYTES = 8;
const PROBE_BYTES = 48;
const FLAG_OTHER = 1;

export interface ProbeRequest {
  /** Answer from the port that the asked one names, if it names one. */
  readonly fromOther: boolean;
  readonly token: Uint8Array;
}

export interface ProbeAnswer extends ProbeRequest {
  readonly observed: Endpoint;
  /** Undefined without one; its address is undefined when it is the same. */
  readonly other: { readonly address: string | undefined; readonly port: number } | undefined;
}

export function encodeProbe(request: ProbeRequest): Uint8Array {
  const bytes = new Uint8Array(PROBE_BYTES);
  bytes[0] = BEACON_PROBE;
  bytes[1] = request.fromOther ? FLAG_OTHER : 0;
  bytes.set(request.token.subarray(0, PROBE_TOKEN_BYTES), 2);
  return bytes;
}

export function parseProbe(datagram: Uint8Array): ProbeRequest | undefined {
  if (datagram[0] !== BEACON_PROBE || datagram.length < PROBE_BYTES) return undefined;
  return { fromOther: (datagram[1]! & FLAG_OTHER) !== 0, token: datagram.slice(2, HEAD_BYTES) };
}

/** Undefined when an address is not a textual IP address. */
export function encodeProbeAnswer(answer: ProbeAnswer): Uint8Array | undefined {
  const observed = parseIp(answer.observed.address);
  const other = answer.other?.address === undefined ? new Uint8Array(0) : parseIp(answer.other.address);
  if (observed === undefined || other === undefined) return undefined;
  const bytes = new Uint8Array(HEAD_BYTES + 3 + observed.length + 3 + other.length);
  bytes[0] = BEACON_PROBE_ANSWER;
  bytes[1] = answer.fromOther ? FLAG_OTHER : 0;
  bytes.set(answer.token.subarray(0, PROBE_TOKEN_BYTES), 2);
  const next = writeAddress(bytes, HEAD_BYTES, observed, answer.observed.port);
  writeAddress(bytes, next, other, answer.other?.port ?? 0);
  return bytes;
}

export function parseProbeAnswer(datagram: Uint8Array): ProbeAnswer | undefined {
  if (datagram[0] !== BEACON_PROBE_ANSWER || datagram.length < HEAD_BYTES) return undefined;
  const observed = readAddress(datagram, HEAD_BYTES);
  if (observed?.address === undefined || observed.port === 0) return undefined;
  const other = readAddress(datagram, observed.end);
  if (other === undefined) return undefined;
  return {
    fromOther: (datagram[1]! & FLAG_OTHER) !== 0,
    token: datagram.slice(2, HEAD_BYTES),
    observed: { address: observed.address, port: observed.port },
    other: other.port === 0 ? undefined : { address: other.address, port: other.port },
  };
}

function writeAddress(bytes: Uint8Array, offset: number, address: Uint8Array, port: number): number {
  bytes[offset] = address.length;
  bytes.set(address, offset + 1);
  writeU16(bytes, offset + 1 + address.length, port);
  return offset + 3 + address.length;
}

interface ReadAddress {
  readonly address: string | undefined;
  readonly port: number;
  readonly end: number;
}

function readAddress(bytes: Uint8Array, offset: number): ReadAddress | undefined {
  const length = bytes[offset];
  if ((length !== 0 && length !== 4 && length !== 16) || bytes.length < offset + 3 + length) return undefined;
  const address = length === 0 ? undefined : formatIp(bytes.subarray(offset + 1, offset + 1 + length));
  return { address, port: readU16(bytes, offset + 1 + length), end: offset + 3 + length };
}

const HEAD_BYTES = 2 + PROBE_TOKEN_BYTES;
