/** Datagrams that a stranger can make, for floods: each a template of which some bytes are random every time. */
import { concatBytes, utf8 } from "../../src/base/bytes.ts";
import { encodeDiscover, encodeRelayPrefix } from "../../src/wire/beacon.ts";
import { encodePila, encodePilk, encodePilp, encodePilsHeader } from "../../src/wire/frame.ts";
import { type NodeId, nodeId } from "../../src/wire/ids.ts";

export interface FloodDatagram {
  readonly bytes: Uint8Array;
  readonly randomFrom: number;
  readonly randomBytes: number;
}

/** One of them. */
export function randomized(template: FloodDatagram, random: (length: number) => Uint8Array): Uint8Array {
  const bytes = template.bytes.slice();
  bytes.set(random(template.randomBytes), template.randomFrom);
  return bytes;
}

const all = (bytes: Uint8Array, randomFrom: number): FloodDatagram => {
  return { bytes, randomFrom, randomBytes: bytes.length - randomFrom };
};

const zeros = (length: number): Uint8Array => new Uint8Array(length);

/** Signed key exchanges of nodes that nobody knows. */
export function strangeExchanges(): FloodDatagram {
  return all(exchange(nodeId(0), zeros(32)), 4);
}

/** Key exchanges in the name of a peer, with its public key; key, signature and tag are made up. */
export function exchangesAs(peer: NodeId, identityKey: Uint8Array, receiver: NodeId): FloodDatagram[] {
  const frame = exchange(peer, identityKey);
  const trailer = new Uint8Array(18);
  trailer[1] = 1;
  new DataView(trailer.buffer).setUint32(2, receiver);
  const tagged = concatBytes(frame, trailer);
  return [
    { bytes: frame, randomFrom: 8, randomBytes: 32 },
    { bytes: tagged, randomFrom: 8, randomBytes: 32 },
  ];
}

function exchange(sender: NodeId, identityKey: Uint8Array): Uint8Array {
  return encodePila({ sender, exchangeKey: zeros(32), identityKey, signature: zeros(64).fill(7) });
}

/** Key exchanges without a signature. */
export function anonymousExchanges(sender: NodeId): FloodDatagram {
  return all(encodePilk({ sender, exchangeKey: zeros(32) }), 8);
}

/** Sealed frames that no key opens. */
export function sealedFrames(sender: NodeId, length = 200): FloodDatagram {
  return all(concatBytes(encodePilsHeader({ sender, nonce: zeros(12) }), zeros(length)), 8);
}

/** Requests to open a connection, and other packets, in the clear. */
export function plaintext(): FloodDatagram {
  const header = zeros(34);
  header.set([0x10, 0x01]);
  return all(concatBytes(utf8("PILT"), header), 8);
}

export function punches(): FloodDatagram {
  return all(concatBytes(encodePilp(), zeros(4)), 4);
}

/** As a beacon would say that this node is at some other place each time. */
export function observations(): FloodDatagram {
  return { bytes: Uint8Array.from([0x02, 4, 198, 18, 0, 0, 0x10, 0]), randomFrom: 4, randomBytes: 4 };
}

/** Discoveries under made-up numbers, for a beacon. */
export function discoveries(): FloodDatagram {
  return { bytes: encodeDiscover(nodeId(0x7f00_0000), false), randomFrom: 2, randomBytes: 3 };
}

/** Frames to be relayed to a node, in the name of made-up ones. */
export function relayed(to: NodeId): FloodDatagram {
  const bytes = concatBytes(encodeRelayPrefix(nodeId(0x7f00_0000), to), zeros(200));
  return { bytes, randomFrom: 2, randomBytes: 3 };
}
