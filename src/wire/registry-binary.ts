/**
 * The registry's optional binary protocol (pilot protocol §6.4): after the preamble, frames are
 * `length 4 | type 1 | payload`, and the length counts the type. Each request is translated to the JSON request of the
 * same meaning and each reply back, so that there is one set of rules behind both.
 */
import { fromUtf8, readU32, toBase64, utf8, writeU16, writeU32 } from "../base/bytes.ts";
import { framed, type RegistryMessage, SIGNATURE_BYTES } from "./registry.ts";

/** Sent once by a client that wants the binary protocol: `PILT` and version 1. No JSON frame can start like this. */
export const BINARY_PREAMBLE = Uint8Array.of(0x50, 0x49, 0x4c, 0x54, 0x01);

export const BINARY = { JSON: 0x00, HEARTBEAT: 0x01, LOOKUP: 0x02, RESOLVE: 0x03, REPLY: 0x80, ERROR: 0xff } as const;

export type BinaryRequest =
  | { readonly type: typeof BINARY.JSON; readonly text: string }
  | { readonly type: 1 | 2 | 3; readonly message: RegistryMessage };

/** `payload` is the frame after its length, the type byte included. */
export function parseBinaryRequest(payload: Uint8Array): BinaryRequest | undefined {
  const body = payload.subarray(1);
  switch (payload[0]) {
    case BINARY.JSON: {
      const text = fromUtf8(body);
      return text === undefined ? undefined : { type: BINARY.JSON, text };
    }
    case BINARY.HEARTBEAT:
      if (body.length !== 4 + SIGNATURE_BYTES) return undefined;
      return {
        type: BINARY.HEARTBEAT,
        message: { type: "heartbeat", node_id: readU32(body, 0), signature: toBase64(body.subarray(4)) },
      };
    case BINARY.LOOKUP:
      if (body.length !== 4) return undefined;
      return { type: BINARY.LOOKUP, message: { type: "lookup", node_id: readU32(body, 0) } };
    case BINARY.RESOLVE:
      if (body.length !== 8 + SIGNATURE_BYTES) return undefined;
      return {
        type: BINARY.RESOLVE,
        message: {
          type: "resolve",
          node_id: readU32(body, 0),
          requester_id: readU32(body, 4),
          signature: toBase64(body.subarray(8)),
        },
      };
    default:
      return undefined;
  }
}

export function encodeBinaryJson(text: string): Uint8Array {
  return new BinaryWriter(BINARY.JSON).bytes(utf8(text)).frame();
}

export function encodeBinaryError(text: string): Uint8Array {
  return new BinaryWriter(BINARY.ERROR).longText(text).frame();
}

export function encodeBinaryHeartbeatReply(unixSeconds: number, keyExpiryWarning: boolean): Uint8Array {
  return new BinaryWriter(BINARY.REPLY | BINARY.HEARTBEAT)
    .u32(Math.floor(unixSeconds / 2 ** 32))
    .u32(unixSeconds >>> 0)
    .u8(keyExpiryWarning ? 1 : 0)
    .frame();
}

export interface BinaryLookupReply {
  readonly node: number;
  readonly isPublic: boolean;
  readonly taskExec: boolean;
  readonly poloScore: number;
  readonly networks: readonly number[];
  readonly publicKey: Uint8Array;
  readonly hostname: string;
  readonly tags: readonly string[];
  /** Empty unless the node is public. */
  readonly realAddr: string;
  readonly externalId: string;
}

export function encodeBinaryLookupReply(reply: BinaryLookupReply): Uint8Array {
  const writer = new BinaryWriter(BINARY.REPLY | BINARY.LOOKUP)
    .u32(reply.node)
    .u8((reply.isPublic ? 1 : 0) | (reply.taskExec ? 2 : 0))
    .u32(reply.poloScore)
    .u16(reply.networks.length);
  for (const network of reply.networks) writer.u16(network);
  writer.u8(reply.publicKey.length).bytes(reply.publicKey).shortText(reply.hostname).u8(reply.tags.length);
  for (const tag of reply.tags) writer.shortText(tag);
  return writer.longText(reply.realAddr).shortText(reply.externalId).frame();
}

export interface BinaryResolveReply {
  readonly node: number;
  readonly realAddr: string;
  readonly lanAddrs: readonly string[];
  /** Undefined when it is not known. */
  readonly keyAgeDays: number | undefined;
  readonly publicKey: Uint8Array;
}

export function encodeBinaryResolveReply(reply: BinaryResolveReply): Uint8Array {
  const writer = new BinaryWriter(BINARY.REPLY | BINARY.RESOLVE)
    .u32(reply.node)
    .longText(reply.realAddr)
    .u16(reply.lanAddrs.length);
  for (const address of reply.lanAddrs) writer.longText(address);
  return writer
    .u32(reply.keyAgeDays ?? 0xffffffff)
    .u8(reply.publicKey.length)
    .bytes(reply.publicKey)
    .frame();
}

/** Appends fields; texts longer than their length field can say are cut. */
class BinaryWriter {
  #bytes: number[];

  constructor(type: number) {
    this.#bytes = [type];
  }

  u8(value: number): this {
    this.#bytes.push(value & 0xff);
    return this;
  }

  u16(value: number): this {
    const field = new Uint8Array(2);
    writeU16(field, 0, value);
    return this.bytes(field);
  }

  u32(value: number): this {
    const field = new Uint8Array(4);
    writeU32(field, 0, value);
    return this.bytes(field);
  }

  bytes(field: Uint8Array): this {
    for (const byte of field) this.#bytes.push(byte);
    return this;
  }

  shortText(text: string): this {
    const encoded = utf8(text).subarray(0, 0xff);
    return this.u8(encoded.length).bytes(encoded);
  }

  longText(text: string): this {
    const encoded = utf8(text).subarray(0, 0xffff);
    return this.u16(encoded.length).bytes(encoded);
  }

  frame(): Uint8Array {
    return framed(Uint8Array.from(this.#bytes));
  }
}
