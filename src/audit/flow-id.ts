/**
 * One name for a flow at both of its ends, made from what both see and nobody has to tell: the addresses and ports of both
 * sides, who asks (echo), and for TCP the sequence number of the SYN that opened it, which the asking host draws anew for
 * each connection (RFC 9293 §3.4.1). Order does not matter, so the two sides need not agree on who began.
 *
 * Without a SYN (UDP, echo, TCP that was under way when the daemon started) it names the conversation between two sockets:
 * when that falls silent and goes on later, the name is the same again.
 *
 * 96 bits of SHA-256: among a billion flows two share a name with a chance of 1 in 10^11. It hides nothing from whoever
 * knows or guesses the addresses and ports, which stand beside it in every record anyway.
 */
import { concatBytes, toHex, utf8 } from "../base/bytes.ts";
import type { Hasher } from "./record.ts";

export interface FlowEnds {
  /** Next-header number. */
  readonly protocol: number;
  /** Addresses, or the part of them that tells nodes apart; the same length on both sides. */
  readonly local: Uint8Array;
  readonly remote: Uint8Array;
  readonly localPort: number;
  readonly remotePort: number;
  /** Who sends the requests, where a protocol knows such a thing. */
  readonly asker: "local" | "remote" | undefined;
  /** Of the SYN; undefined where none was seen. */
  readonly openingSequence: number | undefined;
}

/** 24 hex digits. */
export function flowIdOf(crypto: Hasher, ends: FlowEnds): string {
  const local = endpointBytes(ends.local, ends.localPort, ends.asker === "local");
  const remote = endpointBytes(ends.remote, ends.remotePort, ends.asker === "remote");
  const [first, second] = isBefore(local, remote) ? [local, remote] : [remote, local];
  const opening = new Uint8Array(5);
  if (ends.openingSequence !== undefined) {
    opening[0] = 1;
    new DataView(opening.buffer).setUint32(1, ends.openingSequence);
  }
  const whole = concatBytes(DOMAIN, Uint8Array.of(ends.protocol), first, second, opening);
  return toHex(crypto.sha256(whole).subarray(0, 12));
}

function endpointBytes(address: Uint8Array, port: number, asks: boolean): Uint8Array {
  return concatBytes(address, Uint8Array.of(port >>> 8, port & 0xff, asks ? 1 : 0));
}

function isBefore(a: Uint8Array, b: Uint8Array): boolean {
  const at = a.findIndex((byte, index) => byte !== b[index]);
  return at >= 0 && a[at]! < b[at]!;
}

const DOMAIN = utf8("pilot-tun flow 1\n");
