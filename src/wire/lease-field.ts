/**
 * The limits of a side's consent, behind the fixed fields of a hello whose features say that they are there:
 *
 *   0  flags: 1 the receiver may begin only what is listed, 2 the sender wants to begin only what is listed,
 *      4 the time is limited, 8 the bytes are limited; 0: no limits at all
 *   1  how many services the receiver may begin to reach, 2 how many the sender wants to
 *   3  reserved
 *   4  number of the receiver's ask that this answers, 0 none
 *   8  milliseconds left (8 bytes), 0 without flag 4
 *   16 bytes left (8 bytes), 0 without flag 8
 *   24 the services, 5 bytes each (services.ts): first those for the receiver, then those for the sender
 *
 * Source: docs/bridge-protocol.md.
 */
import { readU32, writeU32 } from "../base/bytes.ts";
import { readServices, SERVICE_BYTES, type Services, writeServices } from "./services.ts";

export interface LeaseField {
  /** What the receiver may begin to reach at the sender; undefined: everything. */
  readonly forReceiver: Services | undefined;
  /** What the sender wants to begin to reach at the receiver; undefined: everything. */
  readonly forSender: Services | undefined;
  readonly leftMs: number | undefined;
  readonly leftBytes: number | undefined;
  /** Number of the receiver's ask that this answers; 0: none. */
  readonly answers: number;
}

export const NO_LIMITS: LeaseField = {
  forReceiver: undefined,
  forSender: undefined,
  leftMs: undefined,
  leftBytes: undefined,
  answers: 0,
};

export function encodeLeaseField({ forReceiver, forSender, leftMs, leftBytes, answers }: LeaseField): Uint8Array {
  const services = [...(forReceiver ?? []), ...(forSender ?? [])];
  const bytes = new Uint8Array(FIXED_BYTES + services.length * SERVICE_BYTES);
  const flags = [forReceiver, forSender, leftMs, leftBytes].map((limit, bit) => (limit === undefined ? 0 : 1 << bit));
  bytes[0] = flags.reduce((sum, flag) => sum | flag);
  bytes[1] = forReceiver?.length ?? 0;
  bytes[2] = forSender?.length ?? 0;
  writeU32(bytes, 4, answers);
  writeU64(bytes, 8, leftMs ?? 0);
  writeU64(bytes, 16, leftBytes ?? 0);
  writeServices(bytes, FIXED_BYTES, services);
  return bytes;
}

/** From `offset` to the end; undefined when something is missing or makes no sense. */
export function parseLeaseField(bytes: Uint8Array, offset: number): LeaseField | undefined {
  if (offset + FIXED_BYTES > bytes.length) return undefined;
  const flags = bytes[offset]!;
  const [receivers, senders] = [bytes[offset + 1]!, bytes[offset + 2]!];
  const forReceiver = readServices(bytes, offset + FIXED_BYTES, receivers);
  const forSender = readServices(bytes, offset + FIXED_BYTES + receivers * SERVICE_BYTES, senders);
  if (forReceiver === undefined || forSender === undefined) return undefined;
  return {
    forReceiver: flags & LIMIT.RECEIVER ? forReceiver : undefined,
    forSender: flags & LIMIT.SENDER ? forSender : undefined,
    leftMs: flags & LIMIT.TIME ? readU64(bytes, offset + 8) : undefined,
    leftBytes: flags & LIMIT.BYTES ? readU64(bytes, offset + 16) : undefined,
    answers: readU32(bytes, offset + 4),
  };
}

/** Of at most 2^53: what is counted here stays far below. */
function writeU64(bytes: Uint8Array, offset: number, value: number): void {
  const whole = Math.max(0, Math.ceil(value));
  writeU32(bytes, offset, Math.floor(whole / WORD));
  writeU32(bytes, offset + 4, whole % WORD);
}

function readU64(bytes: Uint8Array, offset: number): number {
  return readU32(bytes, offset) * WORD + readU32(bytes, offset + 4);
}

const LIMIT = { RECEIVER: 1, SENDER: 2, TIME: 4, BYTES: 8 } as const;
const FIXED_BYTES = 24;
const WORD = 2 ** 32;
