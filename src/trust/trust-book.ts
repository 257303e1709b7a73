/**
 * Every trust record of this node, by node number; the only owner of that state. The local record is final: nothing a
 * registry says widens it. `epoch` rises with every change of any record, so that verdicts cached under an older one
 * are made anew at the next packet.
 */
import { fromBase64, toBase64 } from "../base/bytes.ts";
import type { WallClock } from "../base/instant.ts";
import { type NodeId, networkId, nodeId } from "../wire/ids.ts";
import { emptyRecord, type TrustRecord, type TrustState } from "./trust-record.ts";

export class TrustBook {
  /** Key: node. Bound: MAX_RECORDS; a full book refuses new strangers and forgets nothing (tombstones must stay). */
  readonly #records = new Map<NodeId, TrustRecord>();
  #epoch = 1;
  #changed = false;

  /** Rises with every change that could alter a verdict. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Something else that verdicts depend on has changed: the networks that nodes are in. */
  bumpEpoch(): void {
    this.#epoch++;
  }

  get(node: NodeId): TrustRecord | undefined {
    return this.#records.get(node);
  }

  stateOf(node: NodeId): TrustState {
    return this.#records.get(node)?.state ?? "none";
  }

  *nodesIn(state: TrustState): Generator<NodeId> {
    for (const record of this.#records.values()) if (record.state === state) yield record.node;
  }

  records(): IterableIterator<TrustRecord> {
    return this.#records.values();
  }

  /** The record to apply a statement to, an empty one for a node not met before; undefined when the book is full. */
  recordFor(node: NodeId, now: WallClock): TrustRecord | undefined {
    const known = this.#records.get(node);
    if (known !== undefined) return known;
    return this.#records.size < MAX_RECORDS ? emptyRecord(node, now) : undefined;
  }

  /** Stores the outcome of a statement; true when anything changed. */
  put(record: TrustRecord): boolean {
    const before = this.#records.get(record.node);
    if (before === record) return false;
    this.#records.set(record.node, record);
    if (before?.state !== record.state) this.#epoch++;
    this.#changed = true;
    return true;
  }

  /** True once after each change: the caller writes the book to disk. */
  takeChanged(): boolean {
    const changed = this.#changed;
    this.#changed = false;
    return changed;
  }

  toJson(): StoredTrust {
    return {
      version: 1,
      records: [...this.#records.values()].map((record) => ({
        node: record.node,
        state: record.state,
        public_key: record.publicKey === undefined ? null : toBase64(record.publicKey),
        hostname: record.hostname ?? null,
        epoch: record.epoch,
        since: record.since,
        ask_reason: record.askReason,
        request: record.request === undefined ? null : { reason: record.request.reason, at: record.request.at },
        revocation_untold: record.revocationUntold,
        ...(record.consentNetwork === undefined ? {} : { consent_network: record.consentNetwork }),
      })),
    };
  }

  /** Reads a stored book; undefined when any record is not what `toJson` writes: half a book must not be trusted. */
  static fromJson(stored: unknown): TrustBook | undefined {
    if (!isObject(stored) || stored["version"] !== 1 || !Array.isArray(stored["records"])) return undefined;
    const book = new TrustBook();
    for (const entry of stored["records"]) {
      const record = parseRecord(entry);
      if (record === undefined) return undefined;
      book.#records.set(record.node, record);
    }
    return book;
  }
}

export interface StoredTrust {
  readonly version: 1;
  readonly records: readonly unknown[];
}

const STATES: readonly TrustState[] = ["none", "asked", "pending", "mutual", "revoked", "revoked-by-peer"];
const MAX_RECORDS = 65_536;

function parseRecord(entry: unknown): TrustRecord | undefined {
  if (!isObject(entry)) return undefined;
  const { node, state, public_key, hostname, epoch, since, ask_reason, request, revocation_untold } = entry as Record<
    string,
    unknown
  >;
  if (typeof node !== "number" || !Number.isInteger(node) || node <= 0 || node > 0xffffffff) return undefined;
  if (!STATES.includes(state as TrustState)) return undefined;
  if (typeof epoch !== "number" || typeof since !== "number" || typeof ask_reason !== "string") return undefined;
  if (hostname !== null && typeof hostname !== "string") return undefined;
  const publicKey = typeof public_key === "string" ? fromBase64(public_key) : undefined;
  if (public_key !== null && publicKey?.length !== 32) return undefined;
  if (request !== null && !isRequest(request)) return undefined;
  const consent_network = (entry as { consent_network?: unknown }).consent_network;
  if (consent_network !== undefined && !isNetworkNumber(consent_network)) return undefined;
  return {
    node: nodeId(node),
    state: state as TrustState,
    publicKey,
    hostname: hostname ?? undefined,
    epoch,
    since: since as WallClock,
    askReason: ask_reason,
    request: request === null ? undefined : { reason: request.reason, at: request.at as WallClock },
    revocationUntold: revocation_untold === true,
    ...(consent_network === undefined ? {} : { consentNetwork: networkId(consent_network) }),
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isNetworkNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value > 0 && value <= 0xffff;
}

function isRequest(value: unknown): value is { reason: string; at: number } {
  return isObject(value) && typeof value["reason"] === "string" && typeof value["at"] === "number";
}
