/**
 * The terms of an ask, in the one text that a trust request can carry (the handshake's `justification`, at most 300 bytes,
 * and the registry's). They stand in front, so that shortening the text does not lose them:
 *
 *   [lease 12: tcp/443,udp/53 for 2h max 50MB] invoice check
 *
 * 12 numbers the asks of one node to one peer, so that a request that comes twice is not taken for a new one. Every part
 * behind the colon may be missing. A node that does not know leases shows the whole text to its operator.
 */
import { parseServices, type Services, serviceWords } from "./services.ts";

/** What one side asks for or grants; what is undefined is not limited. */
export interface Terms {
  readonly services: Services | undefined;
  readonly durationMs: number | undefined;
  readonly maxBytes: number | undefined;
}

export interface AskText {
  /** Undefined: an ask without terms, for everything and for good. */
  readonly terms: Terms | undefined;
  /** 0 without terms. */
  readonly serial: number;
  readonly purpose: string;
}

export const NO_TERMS: Terms = { services: undefined, durationMs: undefined, maxBytes: undefined };

/** A year; longer is for good. */
export const MAX_LEASE_MS = 366 * 86_400_000;
/** A petabyte: far below where sums lose bytes. */
export const MAX_LEASE_BYTES = 1e15;

export function isLimited({ services, durationMs, maxBytes }: Terms): boolean {
  return services !== undefined || durationMs !== undefined || maxBytes !== undefined;
}

export function formatAskText({ terms, serial, purpose }: AskText): string {
  return terms === undefined
    ? purpose
    : `[lease ${serial}:${termWords(terms)
        .map((word) => ` ${word}`)
        .join("")}] ${purpose}`;
}

/** Text that is not of this form is the purpose of an ask without terms. */
export function parseAskText(text: string): AskText {
  const match = FORM.exec(text);
  const plain = { terms: undefined, serial: 0, purpose: text };
  if (match === null) return plain;
  const [head, serial, names, time, timeUnit, size, sizeUnit] = match;
  const services = names === undefined ? undefined : parseServices(names);
  const durationMs = time === undefined ? undefined : Number(time) * TIME_UNITS[timeUnit as keyof typeof TIME_UNITS];
  const maxBytes = size === undefined ? undefined : Number(size) * SIZE_UNITS[sizeUnit as keyof typeof SIZE_UNITS];
  if (names !== undefined && services === undefined) return plain;
  if (durationMs !== undefined && (durationMs < 1 || durationMs > MAX_LEASE_MS)) return plain;
  if (maxBytes !== undefined && (maxBytes < 1 || maxBytes > MAX_LEASE_BYTES)) return plain;
  return { terms: { services, durationMs, maxBytes }, serial: Number(serial), purpose: text.slice(head.length) };
}

/** `tcp/443,udp/53`, `for 2h`, `max 50MB`: what of it there is. */
function termWords({ services, durationMs, maxBytes }: Terms): string[] {
  const names = services === undefined ? [] : [serviceWords(services).join(",")];
  const time = durationMs === undefined ? [] : [`for ${inUnits(Math.ceil(durationMs / 1000) * 1000, TIME_UNITS)}`];
  const size = maxBytes === undefined ? [] : [`max ${inUnits(maxBytes, SIZE_UNITS)}`];
  return [...names, ...time, ...size];
}

/** In the largest unit of which it is a multiple. */
function inUnits(value: number, units: Readonly<Record<string, number>>): string {
  const [name, size] = Object.entries(units).findLast(([, unit]) => value % unit === 0)!;
  return `${value / size}${name}`;
}

const FORM = /^\[lease (\d{1,9}):(?: ([a-z0-9/,-]+))?(?: for (\d{1,9})(s|m|h|d))?(?: max (\d{1,15})(B|KB|MB|GB))?\] ?/;
/** Rising. */
const TIME_UNITS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const SIZE_UNITS = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9 } as const;
