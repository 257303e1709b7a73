/**
 * Lists of services, as leases name them: `tcp/443,udp/53,tcp/8000-8099,icmp`. As text for people and for what an ask
 * carries, as bytes for a hello. A service belongs to the side that does not begin.
 *
 *   byte 0: protocol (6 tcp, 17 udp, 58 icmp) | 1-2 first port | 3-4 last port, included; icmp has ports 0 to 65535
 */
import { readU16, writeU16 } from "../base/bytes.ts";
import { NEXT_HEADER } from "./ipv6.ts";

export interface Service {
  /** Next-header number of the transport: tcp, udp or ICMPv6. */
  readonly protocol: number;
  readonly first: number;
  /** Included. */
  readonly last: number;
}

/** Sorted, without overlaps. Empty: none. Bound: MAX_SERVICES. */
export type Services = readonly Service[];

/** More fit no ask. */
export const MAX_SERVICES = 16;
export const SERVICE_BYTES = 5;

/** Undefined for what is no list of services, and for more than MAX_SERVICES. */
export function parseServices(text: string): Services | undefined {
  const services: Service[] = [];
  for (const word of text.split(",")) {
    const service = parseService(word);
    if (service === undefined || services.length > MAX_WORDS) return undefined;
    services.push(service);
  }
  const joined = join(services);
  return joined.length <= MAX_SERVICES ? joined : undefined;
}

/** `tcp/443`, `tcp/8000-8099`, `tcp`, `icmp`: one word for each. */
export function serviceWords(services: Services): string[] {
  return services.map(({ protocol, first, last }) => {
    const name = NAMES.get(protocol)!;
    if (first === 0 && last === MAX_PORT) return name;
    return first === last ? `${name}/${first}` : `${name}/${first}-${last}`;
  });
}

/** `port` is 0 where the transport has none. */
export function covers(services: Services, protocol: number, port: number): boolean {
  return services.some((one) => one.protocol === protocol && one.first <= port && port <= one.last);
}

/** What is in both; undefined stands for everything. */
export function intersectServices(a: Services | undefined, b: Services | undefined): Services | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  const both: Service[] = [];
  for (const one of a) {
    for (const other of b) {
      const first = Math.max(one.first, other.first);
      const last = Math.min(one.last, other.last);
      if (one.protocol === other.protocol && first <= last) both.push({ protocol: one.protocol, first, last });
    }
  }
  return join(both);
}

export function sameServices(a: Services | undefined, b: Services | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return serviceWords(a).join() === serviceWords(b).join();
}

/** Writes `services.length * SERVICE_BYTES` bytes. */
export function writeServices(bytes: Uint8Array, offset: number, services: Services): void {
  services.forEach(({ protocol, first, last }, index) => {
    const at = offset + index * SERVICE_BYTES;
    bytes[at] = protocol;
    writeU16(bytes, at + 1, first);
    writeU16(bytes, at + 3, last);
  });
}

/** Undefined when they are not all there, or one makes no sense. */
export function readServices(bytes: Uint8Array, offset: number, count: number): Services | undefined {
  if (count > MAX_SERVICES || offset + count * SERVICE_BYTES > bytes.length) return undefined;
  const services: Service[] = [];
  for (let at = offset; at < offset + count * SERVICE_BYTES; at += SERVICE_BYTES) {
    const service = { protocol: bytes[at]!, first: readU16(bytes, at + 1), last: readU16(bytes, at + 3) };
    if (!NAMES.has(service.protocol) || service.first > service.last) return undefined;
    services.push(service);
  }
  return join(services);
}

function parseService(word: string): Service | undefined {
  const match = /^(tcp|udp|icmp)(?:\/(\d{1,5})(?:-(\d{1,5}))?)?$/.exec(word);
  if (match === null) return undefined;
  const protocol = NUMBERS[match[1] as keyof typeof NUMBERS];
  if (match[2] === undefined) return { protocol, first: 0, last: MAX_PORT };
  const first = Number(match[2]);
  const last = Number(match[3] ?? match[2]);
  if (protocol === NEXT_HEADER.ICMPV6 || first < 1 || first > last || last > MAX_PORT) return undefined;
  return { protocol, first, last };
}

/** Sorted, with neighbours and overlaps made one. */
function join(services: readonly Service[]): Service[] {
  const sorted = [...services].sort((a, b) => a.protocol - b.protocol || a.first - b.first);
  const joined: Service[] = [];
  for (const service of sorted) {
    const before = joined.at(-1);
    if (before?.protocol === service.protocol && service.first <= before.last + 1) {
      joined[joined.length - 1] = { ...before, last: Math.max(before.last, service.last) };
    } else {
      joined.push(service);
    }
  }
  return joined;
}

const NUMBERS = { tcp: NEXT_HEADER.TCP, udp: NEXT_HEADER.UDP, icmp: NEXT_HEADER.ICMPV6 } as const;
const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(NUMBERS).map(([name, number]) => [number, name]));
const MAX_PORT = 0xffff;
/** Before overlaps are joined. */
const MAX_WORDS = 64;
