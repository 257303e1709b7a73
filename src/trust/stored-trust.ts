/**
 * Trust records as they are kept on disk, and the mark of the clock that their leases end by. Reading is strict: a file with
 * one record that is not whole is no file, for half a book must not be trusted.
 */
import { fromBase64, toBase64 } from "../base/bytes.ts";
import type { WallClock } from "../base/instant.ts";
import type { Terms } from "../wire/ask-text.ts";
import { type NetworkId, nodeId } from "../wire/ids.ts";
import { parseServices, type Services, serviceWords } from "../wire/services.ts";
import type { Lease, LeaseTime, Limits } from "./lease.ts";
import type { OwnAsk, RequestLetter, TrustRecord, TrustRequest, TrustState } from "./trust-record.ts";

export interface StoredTrust {
  readonly version: 1;
  readonly records: readonly unknown[];
}

const STATES: readonly TrustState[] = [
  "none",
  "asked",
  "pending",
  "mutual",
  "revoked",
  "revoked-by-peer",
  "lease-ended",
];

export function recordToJson(record: TrustRecord): object {
  const { request, letter, ask, lease, peerLease } = record;
  return {
    node: record.node,
    state: record.state,
    public_key: record.publicKey === undefined ? null : toBase64(record.publicKey),
    hostname: record.hostname ?? null,
    epoch: record.epoch,
    since: record.since,
    ask_reason: record.askReason,
    request: request === undefined ? null : requestToJson(request),
    ...(letter === undefined ? {} : { letter: { stamp: letter.stamp, heard_at_ms: letter.heardAt } }),
    ...(record.endedLetter === undefined ? {} : { ended_letter: record.endedLetter }),
    revocation_untold: record.revocationUntold,
    ...(record.revocationHeard === undefined ? {} : { revocation_heard: record.revocationHeard }),
    ...(record.consentNetwork === undefined ? {} : { consent_network: record.consentNetwork }),
    ...(ask === undefined ? {} : { ask: { ...termsToJson(ask.terms), serial: ask.serial, answered: ask.isAnswered } }),
    ...(lease === undefined
      ? {}
      : { lease: { ...limitsToJson(lease), max_bytes: lease.maxBytes ?? null, answers: lease.answers } }),
    ...(peerLease === undefined ? {} : { peer_lease: limitsToJson(peerLease) }),
    ...(record.leaseEnd === undefined ? {} : { lease_end: record.leaseEnd }),
    ...(record.agreesOnKeys === true ? { agrees_on_keys: true } : {}),
    ...(record.confirmedSince === undefined ? {} : { confirmed_since: record.confirmedSince }),
  };
}

export function parseRecord(entry: unknown): TrustRecord | undefined {
  const fields = new Fields(entry);
  const publicKey = fields.optional("public_key", isKey);
  const record: TrustRecord = {
    node: nodeId(fields.demand("node", isNode)),
    state: fields.demand("state", isState),
    publicKey: publicKey === undefined ? undefined : fromBase64(publicKey),
    hostname: fields.optional("hostname", isText),
    epoch: fields.demand("epoch", isNumber),
    since: fields.demand("since", isNumber) as WallClock,
    askReason: fields.demand("ask_reason", isText),
    request: fields.part("request", readRequest),
    letter: fields.part("letter", readLetter),
    endedLetter: fields.optional("ended_letter", isNumber) as WallClock | undefined,
    revocationUntold: fields.optional("revocation_untold", isBoolean) ?? false,
    revocationHeard: fields.optional("revocation_heard", isNumber),
    consentNetwork: fields.optional("consent_network", isNetwork) as NetworkId | undefined,
    ask: fields.part("ask", readAsk),
    lease: fields.part("lease", readLease),
    peerLease: fields.part("peer_lease", readLimits),
    leaseEnd: fields.optional("lease_end", isLeaseEnd),
    agreesOnKeys: fields.optional("agrees_on_keys", isBoolean),
    confirmedSince: fields.optional("confirmed_since", isNumber) as WallClock | undefined,
  };
  return fields.isWhole ? record : undefined;
}

function requestToJson({ reason, at, terms, serial }: TrustRequest): object {
  return { reason, at, ...(terms === undefined ? {} : { terms: termsToJson(terms), serial }) };
}

function readRequest(fields: Fields): TrustRequest {
  const request = { reason: fields.demand("reason", isText), at: fields.demand("at", isNumber) as WallClock };
  const terms = fields.part("terms", readTerms);
  return terms === undefined ? request : { ...request, terms, serial: fields.demand("serial", isNumber) };
}

function readLetter(fields: Fields): RequestLetter {
  const stamp = fields.demand("stamp", isNumber) as WallClock;
  return { stamp, heardAt: fields.demand("heard_at_ms", isNumber) as LeaseTime };
}

function termsToJson({ services, durationMs, maxBytes }: Terms): object {
  return { services: servicesToJson(services), duration_ms: durationMs ?? null, max_bytes: maxBytes ?? null };
}

function readTerms(fields: Fields): Terms {
  return {
    services: readServices(fields, "services"),
    durationMs: fields.optional("duration_ms", isNumber),
    maxBytes: fields.optional("max_bytes", isNumber),
  };
}

function readAsk(fields: Fields): OwnAsk {
  const serial = fields.demand("serial", isNumber);
  return { terms: readTerms(fields), serial, isAnswered: fields.demand("answered", isBoolean) };
}

function limitsToJson({ inward, outward, endsAt, leftBytes }: Limits): object {
  return {
    inward: servicesToJson(inward),
    outward: servicesToJson(outward),
    ends_at_ms: endsAt ?? null,
    left_bytes: leftBytes ?? null,
  };
}

function readLimits(fields: Fields): Limits {
  return {
    inward: readServices(fields, "inward"),
    outward: readServices(fields, "outward"),
    endsAt: fields.optional("ends_at_ms", isNumber) as LeaseTime | undefined,
    leftBytes: fields.optional("left_bytes", isNumber),
  };
}

function readLease(fields: Fields): Lease {
  const maxBytes = fields.optional("max_bytes", isNumber);
  return { ...readLimits(fields), maxBytes, answers: fields.demand("answers", isNumber) };
}

function servicesToJson(services: Services | undefined): readonly string[] | null {
  return services === undefined ? null : serviceWords(services);
}

function readServices(fields: Fields, key: string): Services | undefined {
  const words = fields.optional(key, isServiceWords);
  return words === undefined || words.length === 0 ? words && [] : parseServices(words.join(","));
}

/** An object out of a file; `isWhole` says whether all that was asked of it was there and right. */
class Fields {
  readonly #values: Readonly<Record<string, unknown>>;
  isWhole: boolean;

  constructor(value: unknown) {
    this.isWhole = isObject(value);
    this.#values = isObject(value) ? value : {};
  }

  demand<T>(key: string, is: (value: unknown) => value is T): T {
    const value = this.#values[key];
    if (is(value)) return value;
    this.isWhole = false;
    return undefined as T; // nobody gets to see a record that is not whole
  }

  /** Undefined when it is null or not there. */
  optional<T>(key: string, is: (value: unknown) => value is T): T | undefined {
    return this.#values[key] === undefined || this.#values[key] === null ? undefined : this.demand(key, is);
  }

  part<T>(key: string, read: (fields: Fields) => T): T | undefined {
    if (this.optional(key, isObject) === undefined) return undefined;
    const fields = new Fields(this.#values[key]);
    const value = read(fields);
    if (!fields.isWhole) this.isWhole = false;
    return value;
  }
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const isText = (value: unknown): value is string => typeof value === "string";
const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);
const isBoolean = (value: unknown): value is boolean => typeof value === "boolean";
const isKey = (value: unknown): value is string => isText(value) && fromBase64(value)?.length === PUBLIC_KEY_BYTES;
const isServiceWords = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every(isText) && (value.length === 0 || parseServices(value.join(",")) !== undefined);
const isState = (value: unknown): value is TrustState => STATES.includes(value as TrustState);
const isLeaseEnd = (value: unknown): value is "time" | "bytes" => value === "time" || value === "bytes";
const isNode = (value: unknown): value is number => isWholeUpTo(value, 0xffffffff);
const isNetwork = (value: unknown): value is number => isWholeUpTo(value, 0xffff);

function isWholeUpTo(value: unknown, most: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value > 0 && value <= most;
}

const PUBLIC_KEY_BYTES = 32;
