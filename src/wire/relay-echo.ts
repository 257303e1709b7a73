/**
 * What a node sends to itself through a beacon, to see which sizes get there: a punch frame with more behind it, which
 * any other receiver takes for a punch and ignores.
 *
 *   PILP | token 8 | size 2 | zeros
 *
 * `size` is what the whole datagram towards the beacon is on the underlay, with the IP header.
 */
import { concatBytes, equalSecrets, readU16, writeU16 } from "../base/bytes.ts";
import { encodeRelayPrefix, RELAY_PREFIX_BYTES } from "./beacon.ts";
import { encodePilp } from "./frame.ts";
import type { NodeId } from "./ids.ts";

export const ECHO_TOKEN_BYTES = 8;

/** A datagram to the beacon of `size` bytes on the underlay, of which `headerBytes` are IP and UDP. */
export function encodeRelayEcho(local: NodeId, token: Uint8Array, size: number, headerBytes: number): Uint8Array {
  const frame = new Uint8Array(Math.max(FRAME_BYTES, size - headerBytes - RELAY_PREFIX_BYTES));
  frame.set(encodePilp());
  frame.set(token.subarray(0, ECHO_TOKEN_BYTES), TOKEN);
  writeU16(frame, SIZE, size);
  return concatBytes(encodeRelayPrefix(local, local), frame);
}

/** The size of an echo of this token that came back; undefined for any other frame. */
export function parseRelayEcho(frame: Uint8Array, token: Uint8Array): number | undefined {
  if (frame.length < FRAME_BYTES || !equalSecrets(frame.subarray(TOKEN, SIZE), token)) return undefined;
  return readU16(frame, SIZE);
}

const TOKEN = 4;
const SIZE = TOKEN + ECHO_TOKEN_BYTES;
const FRAME_BYTES = SIZE + 2;
