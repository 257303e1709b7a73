/**
 * What two pilot-tun nodes say to each other on virtual port 41, beside IPv6 packets: hello, revoked, path-MTU
 * probe, fragments, why, keys of the session. Byte layouts and rules stand in docs/bridge-protocol.md, which this file implements.
 * The first half-byte of the payload tells them apart: 6 is an IPv6 packet, 0 a message whose type is the first byte.
 * Bytes after the known fields are ignored, so that later versions can append.
 */
import { readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import { type NodeId, networkId } from "./ids.ts";
import { encodeLeaseField, type LeaseField, parseLeaseField } from "./lease-field.ts";
import { encodeVirtualHeader, encodeVirtualPacket, PORT, PROTOCOL } from "./virtual-packet.ts";

/** 41 is the IP protocol number of "IPv6 inside something" (RFC 4213). */
export const BRIDGE_PORT = PORT.BRIDGE;

/** An inner packet's cost inside a UDP datagram: 36 bytes of PILS and 34 of virtual header. */
export const BRIDGE_OVERHEAD_BYTES = 70;

export const INSTANCE_BYTES = 8;

/** What a fragment costs beyond its bytes. */
export const FRAGMENT_HEADER_BYTES = 8;

export type BridgeMessage =
  | Hello
  | Revocation
  | MtuMessage
  | FragmentMessage
  | WhyQuestion
  | WhyAnswer
  | AgreementMessage;

/** Bits of a hello's `features`. */
export const FEATURE = {
  /** The sender puts fragments together. */
  FRAGMENTS: 0x00000001,
  /** The sender keeps to leases, and this hello tells the limits of its consent. */
  LEASES: 0x00000002,
  /** The sender answers questions why. */
  ANSWERS: 0x00000004,
  /** The sender agrees on keys of the session, and takes both messages of that at any time. */
  AGREES: 0x00000008,
} as const;

export interface Hello {
  /** An ack has the same body and is not answered. */
  readonly kind: "hello" | "hello-ack";
  /** The sender trusts the receiver: packets may pass as far as it is concerned. */
  readonly consents: boolean;
  /** 32 bits, one per optional ability: FEATURE. */
  readonly features: number;
  /** Bytes of the largest inner packet the sender takes. */
  readonly mtu: number;
  /** 8 random bytes, new at each start of the daemon. */
  readonly instance: Uint8Array;
  /** The sender's trust epoch for the receiver; see `trust/`. */
  readonly epoch: number;
  /** There when `features` say so: the limits of the sender's consent. */
  readonly lease?: LeaseField | undefined;
}

export interface Revocation {
  readonly kind: "revoked" | "revoked-ack";
  /** Epoch of the sender's tombstone; the ack repeats it. */
  readonly epoch: number;
  /** Of `revoked`; a reason that is not known means the first. */
  readonly reason: RevocationReason;
}

/** An operator's word, or the time or the bytes of a lease that are used up. */
export const REVOCATION_REASONS = ["revoked", "lease-time", "lease-bytes"] as const;
export type RevocationReason = (typeof REVOCATION_REASONS)[number];

export interface MtuMessage {
  readonly kind: "mtu-probe" | "mtu-answer";
  /** Bytes of the probe's payload, so of the inner packet it stands for. */
  readonly size: number;
  readonly id: number;
}

/** A piece of an inner packet that is longer than the path's frames. */
export interface FragmentMessage {
  readonly kind: "fragment";
  readonly id: number;
  readonly offset: number;
  readonly more: boolean;
  /** Parsed: borrowed from the payload. */
  readonly bytes: Uint8Array;
}

/** May this flow begin, as far as the receiver is concerned? */
export interface WhyQuestion {
  readonly kind: "why-question";
  readonly id: number;
  /** Next-header number. */
  readonly protocol: number;
  /** Of the side that does not begin; 0 without ports. */
  readonly port: number;
  readonly begins: "sender" | "receiver";
}

export interface WhyAnswer {
  readonly kind: "why-answer";
  /** Of the question. */
  readonly id: number;
  readonly isAllowed: boolean;
  /** Whether somebody listens on the port, or answers there; undefined: not looked at, or not told. */
  readonly hasListener: boolean | undefined;
}

/** One of the two messages by which both sides agree on keys inside the session. */
export interface AgreementMessage {
  readonly kind: "agree" | "agreed";
  /** NOISE_BYTES of a Noise handshake; parsed: borrowed from the payload. */
  readonly noise: Uint8Array;
}

/** A type this version does not know: counted and ignored. */
export interface UnknownBridgeMessage {
  readonly kind: "unknown";
  readonly type: number;
}

/** What a payload on port 41 is, by its first half-byte. */
export function classifyBridgePayload(payload: Uint8Array): "packet" | "message" | undefined {
  if (payload.length === 0) return undefined;
  const half = payload[0]! >>> 4;
  if (half === 6) return "packet";
  return half === 0 ? "message" : undefined;
}

export function encodeBridgeMessage(message: BridgeMessage): Uint8Array {
  switch (message.kind) {
    case "hello":
    case "hello-ack":
      return encodeHello(message);
    case "revoked":
    case "revoked-ack":
      return encodeRevocation(message);
    case "mtu-probe":
    case "mtu-answer":
      return encodeMtuMessage(message);
    case "fragment":
      return encodeFragment(message);
    case "why-question":
      return encodeQuestion(message);
    case "why-answer":
      return encodeAnswer(message);
    case "agree":
    case "agreed":
      return encodeAgreement(message);
  }
}

/** Undefined for what is no message, and for a known one that is cut short. */
export function parseBridgeMessage(payload: Uint8Array): BridgeMessage | UnknownBridgeMessage | undefined {
  if (classifyBridgePayload(payload) !== "message") return undefined;
  const type = payload[0]!;
  switch (type) {
    case TYPE.HELLO:
      return parseHello(payload, "hello");
    case TYPE.HELLO_ACK:
      return parseHello(payload, "hello-ack");
    case TYPE.REVOKED:
      return parseRevocation(payload, "revoked");
    case TYPE.REVOKED_ACK:
      return parseRevocation(payload, "revoked-ack");
    case TYPE.MTU_PROBE:
      return parseMtuMessage(payload, "mtu-probe");
    case TYPE.MTU_ANSWER:
      return parseMtuMessage(payload, "mtu-answer");
    case TYPE.FRAGMENT:
      return parseFragment(payload);
    case TYPE.WHY_QUESTION:
      return parseQuestion(payload);
    case TYPE.WHY_ANSWER:
      return parseAnswer(payload);
    case TYPE.AGREE:
      return parseAgreement(payload, "agree");
    case TYPE.AGREED:
      return parseAgreement(payload, "agreed");
    default:
      return { kind: "unknown", type };
  }
}

function encodeHello(hello: Hello): Uint8Array {
  const lease = hello.lease === undefined ? undefined : encodeLeaseField(hello.lease);
  const bytes = new Uint8Array(HELLO_BYTES + (lease?.length ?? 0));
  if (lease !== undefined) bytes.set(lease, HELLO_BYTES);
  bytes[0] = hello.kind === "hello" ? TYPE.HELLO : TYPE.HELLO_ACK;
  bytes[1] = VERSION;
  writeU16(bytes, 2, hello.consents ? CONSENTS : 0);
  writeU32(bytes, 4, lease === undefined ? hello.features : hello.features | FEATURE.LEASES);
  writeU16(bytes, 8, hello.mtu);
  bytes.set(hello.instance.subarray(0, INSTANCE_BYTES), 10);
  writeU32(bytes, 18, hello.epoch);
  return bytes;
}

function parseHello(bytes: Uint8Array, kind: Hello["kind"]): Hello | UnknownBridgeMessage | undefined {
  if (bytes.length < HELLO_BYTES) return undefined;
  // Another version gives these fields another meaning; additions do not change the version.
  if (bytes[1] !== VERSION) return { kind: "unknown", type: bytes[0]! };
  const hasLease = (readU32(bytes, 4) & FEATURE.LEASES) !== 0;
  const lease = hasLease ? parseLeaseField(bytes, HELLO_BYTES) : undefined;
  if (hasLease && lease === undefined) return undefined;
  return {
    kind,
    lease,
    consents: (readU16(bytes, 2) & CONSENTS) !== 0,
    features: readU32(bytes, 4),
    mtu: readU16(bytes, 8),
    instance: bytes.slice(10, 10 + INSTANCE_BYTES),
    epoch: readU32(bytes, 18),
  };
}

function encodeRevocation(message: Revocation): Uint8Array {
  const bytes = new Uint8Array(REVOCATION_BYTES);
  bytes[0] = message.kind === "revoked" ? TYPE.REVOKED : TYPE.REVOKED_ACK;
  bytes[1] = REVOCATION_REASONS.indexOf(message.reason);
  writeU32(bytes, 4, message.epoch);
  return bytes;
}

function parseRevocation(bytes: Uint8Array, kind: Revocation["kind"]): Revocation | undefined {
  if (bytes.length < REVOCATION_BYTES) return undefined;
  return { kind, epoch: readU32(bytes, 4), reason: REVOCATION_REASONS[bytes[1]!] ?? "revoked" };
}

/** A probe is filled with zeros up to the size it asks about. */
function encodeMtuMessage({ kind, size, id }: MtuMessage): Uint8Array {
  const isProbe = kind === "mtu-probe";
  const bytes = new Uint8Array(isProbe ? Math.max(MTU_MESSAGE_BYTES, size) : MTU_MESSAGE_BYTES);
  bytes[0] = isProbe ? TYPE.MTU_PROBE : TYPE.MTU_ANSWER;
  writeU16(bytes, 2, size);
  writeU32(bytes, 4, id);
  return bytes;
}

function parseMtuMessage(bytes: Uint8Array, kind: MtuMessage["kind"]): MtuMessage | undefined {
  if (bytes.length < MTU_MESSAGE_BYTES) return undefined;
  const size = readU16(bytes, 2);
  // A probe that claims more than arrived must not be answered: the answer says that this size gets through.
  if (kind === "mtu-probe" && bytes.length < size) return undefined;
  return { kind, size, id: readU32(bytes, 4) };
}

function encodeFragment({ id, offset, more, bytes }: FragmentMessage): Uint8Array {
  const message = new Uint8Array(FRAGMENT_HEADER_BYTES + bytes.length);
  message[0] = TYPE.FRAGMENT;
  message[1] = more ? MORE_FRAGMENTS : 0;
  writeU16(message, 2, offset);
  writeU32(message, 4, id);
  message.set(bytes, FRAGMENT_HEADER_BYTES);
  return message;
}

/** A fragment of nothing is none, and one that ends behind the longest packet is of no packet. */
function parseFragment(bytes: Uint8Array): FragmentMessage | undefined {
  if (bytes.length <= FRAGMENT_HEADER_BYTES) return undefined;
  const offset = readU16(bytes, 2);
  if (offset + bytes.length - FRAGMENT_HEADER_BYTES > 0xffff) return undefined;
  return {
    kind: "fragment",
    id: readU32(bytes, 4),
    offset,
    more: (bytes[1]! & MORE_FRAGMENTS) !== 0,
    bytes: bytes.subarray(FRAGMENT_HEADER_BYTES),
  };
}

function encodeQuestion({ id, protocol, port, begins }: WhyQuestion): Uint8Array {
  const bytes = new Uint8Array(QUESTION_BYTES);
  bytes[0] = TYPE.WHY_QUESTION;
  bytes[1] = protocol;
  writeU16(bytes, 2, port);
  writeU32(bytes, 4, id);
  bytes[8] = begins === "receiver" ? RECEIVER_BEGINS : 0;
  return bytes;
}

function parseQuestion(bytes: Uint8Array): WhyQuestion | undefined {
  if (bytes.length < QUESTION_BYTES) return undefined;
  const begins = (bytes[8]! & RECEIVER_BEGINS) !== 0 ? "receiver" : "sender";
  return { kind: "why-question", id: readU32(bytes, 4), protocol: bytes[1]!, port: readU16(bytes, 2), begins };
}

function encodeAnswer({ id, isAllowed, hasListener }: WhyAnswer): Uint8Array {
  const bytes = new Uint8Array(ANSWER_BYTES);
  bytes[0] = TYPE.WHY_ANSWER;
  bytes[1] = isAllowed ? 1 : 0;
  bytes[2] = hasListener === undefined ? 0 : hasListener ? 1 : 2;
  writeU32(bytes, 4, id);
  return bytes;
}

function parseAnswer(bytes: Uint8Array): WhyAnswer | undefined {
  if (bytes.length < ANSWER_BYTES) return undefined;
  const hasListener = bytes[2] === 1 ? true : bytes[2] === 2 ? false : undefined;
  return { kind: "why-answer", id: readU32(bytes, 4), isAllowed: bytes[1] === 1, hasListener };
}

function encodeAgreement({ kind, noise }: AgreementMessage): Uint8Array {
  const bytes = new Uint8Array(AGREEMENT_BYTES);
  bytes[0] = kind === "agree" ? TYPE.AGREE : TYPE.AGREED;
  bytes[1] = AGREEMENT_VERSION;
  bytes.set(noise.subarray(0, NOISE_BYTES), AGREEMENT_HEADER_BYTES);
  return bytes;
}

/** Another version is another handshake. */
function parseAgreement(
  bytes: Uint8Array,
  kind: AgreementMessage["kind"],
): AgreementMessage | UnknownBridgeMessage | undefined {
  if (bytes.length < AGREEMENT_BYTES) return undefined;
  if (bytes[1] !== AGREEMENT_VERSION) return { kind: "unknown", type: bytes[0]! };
  return { kind, noise: bytes.subarray(AGREEMENT_HEADER_BYTES, AGREEMENT_BYTES) };
}

/** A bridge message as a whole virtual packet between two nodes. */
export function bridgePacket(source: NodeId, destination: NodeId, message: BridgeMessage): Uint8Array {
  return encodeVirtualPacket({ ...bridgeFields(source, destination), payload: encodeBridgeMessage(message) });
}

/** The 34-byte virtual header of bridge data between two nodes. */
export function bridgeHeader(source: NodeId, destination: NodeId): Uint8Array {
  return encodeVirtualHeader(bridgeFields(source, destination));
}

function bridgeFields(source: NodeId, destination: NodeId) {
  return {
    flags: 0,
    protocol: PROTOCOL.DATAGRAM,
    source: { network: networkId(0), node: source },
    destination: { network: networkId(0), node: destination },
    sourcePort: BRIDGE_PORT,
    destinationPort: BRIDGE_PORT,
    sequence: 0,
    acknowledgement: 0,
    window: 0,
  };
}

const TYPE = {
  HELLO: 1,
  HELLO_ACK: 2,
  REVOKED: 3,
  MTU_PROBE: 5,
  MTU_ANSWER: 6,
  REVOKED_ACK: 7,
  FRAGMENT: 8,
  WHY_QUESTION: 9,
  WHY_ANSWER: 10,
  AGREE: 11,
  AGREED: 12,
} as const;

const VERSION = 1;
const CONSENTS = 0x0001;
const HELLO_BYTES = 22;
const REVOCATION_BYTES = 8;
const MTU_MESSAGE_BYTES = 8;
const MORE_FRAGMENTS = 0x01;
const QUESTION_BYTES = 9;
const ANSWER_BYTES = 8;
const RECEIVER_BEGINS = 0x01;
const AGREEMENT_VERSION = 1;
const AGREEMENT_HEADER_BYTES = 4;
/** An ephemeral key and the tag of an empty payload. */
export const NOISE_BYTES = 48;
const AGREEMENT_BYTES = AGREEMENT_HEADER_BYTES + NOISE_BYTES;
