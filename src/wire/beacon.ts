/**
 * Messages between a node and a beacon: one UDP datagram each, told apart by the first byte, which is below 0x10 so
 * that a tunnel frame (first byte `P`) is never one of them (pilot protocol §5).
 * Parsers return undefined for anything they do not know; trailing bytes after a fixed part are ignored.
 */
import { concatBytes, readU16, readU32, toHex, writeU16, writeU32 } from "../base/bytes.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { type NodeId, nodeId } from "./ids.ts";
import { formatIp, parseIp } from "./underlay-address.ts";

export const BEACON = {
  /** node → beacon: node 4. */
  DISCOVER: 0x01,
  /** beacon → node: address length 1, address, port 2: the source the beacon saw. */
  DISCOVER_REPLY: 0x02,
  /** node → beacon: requester 4, target 4. */
  PUNCH_REQUEST: 0x03,
  /** beacon → both nodes: address length 1, address, port 2: where the other side is. */
  PUNCH_COMMAND: 0x04,
  /** node → beacon: sender 4, destination 4, frame. */
  RELAY: 0x05,
  /** beacon → node: sender 4, frame. */
  RELAY_DELIVER: 0x06,
  /** beacon → beacon: beacon 4, count 2, count × node 4. */
  SYNC: 0x07,
  /**
   * As DISCOVER, from a node that understands RELAY_DELIVER_TO and NOTIFY. Behind the node may follow its key 32, then
   * a cookie 16 (asks for a challenge, all zero when it has none), then a signature 64 over `beaconProofText`.
   */
  DISCOVER_EXTENDED: 0x08,
  /** beacon → node: sender 4, destination 4, frame. */
  RELAY_DELIVER_TO: 0x09,
  /** beacon → node: kind 1. */
  NOTIFY: 0x0a,
  /** beacon → node, only to one that sent a cookie: state 1; behind state 1 a cookie 16 to sign. */
  PROOF: 0x0b,
} as const;

/** State of a PROOF: the beacon wants the cookie signed, or it has accepted such a signature. */
export const PROOF_WANTED = 1;
export const PROOF_ACCEPTED = 2;

export const PROOF_COOKIE_BYTES = 16;

/**
 * What a node signs to show a beacon that it owns its number. The cookie is worth nothing from another source, and the
 * rendezvous (its id, as the registry told it) makes the signature worth nothing at another's beacon, which could have
 * handed on that beacon's cookie as its own.
 */
export function beaconProofText(node: NodeId, rendezvous: string, cookie: Uint8Array): string {
  return `beacon_proof:${node}:${rendezvous}:${toHex(cookie)}`;
}

/** What stands behind the node of an extended discovery that would prove its number. */
export interface ProofClaim {
  readonly publicKey: Uint8Array;
  readonly cookie: Uint8Array;
  /** Absent while the node asks for a cookie. */
  readonly signature: Uint8Array | undefined;
}

/** Kind of a NOTIFY: handshakes wait at the registry. */
export const NOTIFY_HANDSHAKES = 1;

/** Bytes in front of the frame in RELAY and RELAY_DELIVER_TO; RELAY_DELIVER has four fewer. */
export const RELAY_PREFIX_BYTES = 9;
export const RELAY_DELIVER_PREFIX_BYTES = 5;

/** What a node may receive. `frame` is borrowed from the datagram. */
export type BeaconToNode =
  | { readonly kind: "discover-reply"; readonly endpoint: Endpoint }
  | { readonly kind: "punch-command"; readonly endpoint: Endpoint }
  | { readonly kind: "notify"; readonly notice: number }
  | { readonly kind: "proof-wanted"; readonly cookie: Uint8Array }
  | { readonly kind: "proof-accepted" }
  | {
      readonly kind: "relay-deliver";
      readonly sender: NodeId;
      /** Present in the extended form only. */
      readonly destination: NodeId | undefined;
      readonly frame: Uint8Array;
    };

export function parseBeaconToNode(datagram: Uint8Array): BeaconToNode | undefined {
  switch (datagram[0]) {
    case BEACON.DISCOVER_REPLY:
      return withEndpoint("discover-reply", datagram);
    case BEACON.PUNCH_COMMAND:
      return withEndpoint("punch-command", datagram);
    case BEACON.RELAY_DELIVER:
      if (datagram.length < RELAY_DELIVER_PREFIX_BYTES) return undefined;
      return {
        kind: "relay-deliver",
        sender: nodeAt(datagram, 1),
        destination: undefined,
        frame: datagram.subarray(5),
      };
    case BEACON.RELAY_DELIVER_TO:
      if (datagram.length < RELAY_PREFIX_BYTES) return undefined;
      return {
        kind: "relay-deliver",
        sender: nodeAt(datagram, 1),
        destination: nodeAt(datagram, 5),
        frame: datagram.subarray(RELAY_PREFIX_BYTES),
      };
    case BEACON.NOTIFY:
      return datagram.length < 2 ? undefined : { kind: "notify", notice: datagram[1]! };
    case BEACON.PROOF:
      return parseProof(datagram);
    default:
      return undefined;
  }
}

/** What a beacon may receive. A relay message is recognised only: the beacon forwards its bytes as they are. */
export type NodeToBeacon =
  | {
      readonly kind: "discover";
      readonly node: NodeId;
      readonly extended: boolean;
      readonly claim?: ProofClaim;
    }
  | { readonly kind: "punch-request"; readonly requester: NodeId; readonly target: NodeId }
  | { readonly kind: "relay"; readonly sender: NodeId; readonly destination: NodeId };

export function parseNodeToBeacon(datagram: Uint8Array): NodeToBeacon | undefined {
  const type = datagram[0];
  if (type === BEACON.RELAY) {
    if (datagram.length < RELAY_PREFIX_BYTES) return undefined;
    return { kind: "relay", sender: nodeAt(datagram, 1), destination: nodeAt(datagram, 5) };
  }
  if (type === BEACON.DISCOVER || type === BEACON.DISCOVER_EXTENDED) {
    if (datagram.length < 5) return undefined;
    const node = nodeAt(datagram, 1);
    if (type === BEACON.DISCOVER) return { kind: "discover", node, extended: false };
    const claim = parseClaim(datagram);
    return { kind: "discover", node, extended: true, ...(claim === undefined ? {} : { claim }) };
  }
  if (type === BEACON.PUNCH_REQUEST) {
    if (datagram.length < 9) return undefined;
    return { kind: "punch-request", requester: nodeAt(datagram, 1), target: nodeAt(datagram, 5) };
  }
  return undefined;
}

/** `local` is 0 for a node that has no number yet. */
export function encodeDiscover(local: NodeId, extended: boolean): Uint8Array {
  const bytes = new Uint8Array(5);
  bytes[0] = extended ? BEACON.DISCOVER_EXTENDED : BEACON.DISCOVER;
  writeU32(bytes, 1, local);
  return bytes;
}

/** An extended discovery that asks for a cookie to sign, or carries the signature over one. */
export function encodeProvenDiscover(local: NodeId, claim: ProofClaim): Uint8Array {
  const parts = [encodeDiscover(local, true), claim.publicKey, claim.cookie];
  return concatBytes(...parts, ...(claim.signature === undefined ? [] : [claim.signature]));
}

export function encodeProofWanted(cookie: Uint8Array): Uint8Array {
  return concatBytes(Uint8Array.of(BEACON.PROOF, PROOF_WANTED), cookie);
}

export function encodeProofAccepted(): Uint8Array {
  return Uint8Array.of(BEACON.PROOF, PROOF_ACCEPTED);
}

export function encodePunchRequest(requester: NodeId, target: NodeId): Uint8Array {
  return withTwoNodes(BEACON.PUNCH_REQUEST, requester, target);
}

/** What stands in front of a frame that travels through the beacon. */
export function encodeRelayPrefix(local: NodeId, peer: NodeId): Uint8Array {
  return withTwoNodes(BEACON.RELAY, local, peer);
}

/** Undefined when the endpoint's address is not a textual IP address. */
export function encodeDiscoverReply(observed: Endpoint): Uint8Array | undefined {
  return encodeWithEndpoint(BEACON.DISCOVER_REPLY, observed);
}

export function encodePunchCommand(other: Endpoint): Uint8Array | undefined {
  return encodeWithEndpoint(BEACON.PUNCH_COMMAND, other);
}

export function encodeNotify(notice: number): Uint8Array {
  return Uint8Array.of(BEACON.NOTIFY, notice);
}

/**
 * Turns a relay message into what its destination receives, in place: the returned bytes are a part of `datagram`,
 * which must not be used afterwards. The frame is not copied, because this is the beacon's hot path.
 */
export function relayToDelivery(datagram: Uint8Array, extended: boolean): Uint8Array {
  if (extended) {
    datagram[0] = BEACON.RELAY_DELIVER_TO;
    return datagram;
  }
  datagram.copyWithin(5, 1, 5); // the sender moves to where the destination stood
  datagram[4] = BEACON.RELAY_DELIVER;
  return datagram.subarray(4);
}

function parseProof(datagram: Uint8Array): BeaconToNode | undefined {
  if (datagram[1] === PROOF_ACCEPTED) return { kind: "proof-accepted" };
  if (datagram[1] !== PROOF_WANTED || datagram.length < 2 + PROOF_COOKIE_BYTES) return undefined;
  return { kind: "proof-wanted", cookie: datagram.slice(2, 2 + PROOF_COOKIE_BYTES) };
}

/** A key alone, as the newest reference sends it, asks for nothing. */
function parseClaim(datagram: Uint8Array): ProofClaim | undefined {
  if (datagram.length < SIGNATURE_AT) return undefined;
  const isSigned = datagram.length >= SIGNATURE_AT + SIGNATURE_BYTES;
  return {
    publicKey: datagram.slice(KEY_AT, COOKIE_AT),
    cookie: datagram.slice(COOKIE_AT, SIGNATURE_AT),
    signature: isSigned ? datagram.slice(SIGNATURE_AT, SIGNATURE_AT + SIGNATURE_BYTES) : undefined,
  };
}

const KEY_AT = 5;
const COOKIE_AT = KEY_AT + 32;
const SIGNATURE_AT = COOKIE_AT + PROOF_COOKIE_BYTES;
const SIGNATURE_BYTES = 64;

function withEndpoint(kind: "discover-reply" | "punch-command", datagram: Uint8Array): BeaconToNode | undefined {
  const length = datagram[1];
  if ((length !== 4 && length !== 16) || datagram.length < 4 + length) return undefined;
  const address = formatIp(datagram.subarray(2, 2 + length))!;
  const port = readU16(datagram, 2 + length);
  return port === 0 ? undefined : { kind, endpoint: { address, port } };
}

function encodeWithEndpoint(type: number, endpoint: Endpoint): Uint8Array | undefined {
  const address = parseIp(endpoint.address);
  if (address === undefined) return undefined;
  const bytes = new Uint8Array(4 + address.length);
  bytes[0] = type;
  bytes[1] = address.length;
  bytes.set(address, 2);
  writeU16(bytes, 2 + address.length, endpoint.port);
  return bytes;
}

function withTwoNodes(type: number, first: NodeId, second: NodeId): Uint8Array {
  const bytes = new Uint8Array(9);
  bytes[0] = type;
  writeU32(bytes, 1, first);
  writeU32(bytes, 5, second);
  return bytes;
}

function nodeAt(datagram: Uint8Array, offset: number): NodeId {
  return nodeId(readU32(datagram, offset));
}
