/**
 * Every trust record of this node, by node number; the only owner of that state. The local record is final: nothing a
 * registry says widens it. `epoch` rises with every change of any record, so that verdicts cached under an older one
 * are made anew at the next packet.
 */
import type { WallClock } from "../base/instant.ts";
import type { NodeId } from "../wire/ids.ts";
import { isObject, parseRecord, recordToJson, type StoredTrust } from "./stored-trust.ts";
import { allowsTheSame, differInHintsOnly, emptyRecord, type TrustRecord, type TrustState } from "./trust-record.ts";

/** `soon`: nothing is lost that the peer does not say again, so that many such changes may be one write. */
export type TrustChange = "now" | "soon";

export class TrustBook {
  /** Key: node. Bound: MAX_RECORDS; a full book refuses new strangers and forgets nothing (tombstones must stay). */
  readonly #records = new Map<NodeId, TrustRecord>();
  #epoch = 1;
  #changed: TrustChange | undefined;
  #revision = 0;

  /** Rises with every change of who is trusted and within which limits. */
  get revision(): number {
    return this.#revision;
  }
  /** Told of every change of a record, as it happens. */
  watch: ((before: TrustRecord | undefined, after: TrustRecord) => void) | undefined;

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

  get size(): number {
    return this.#records.size;
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
    const isKept = before !== undefined && before.state === record.state;
    if (!isKept || !allowsTheSame(before, record)) this.#epoch++;
    if (!isKept || before.lease !== record.lease || before.peerLease !== record.peerLease) this.#revision++;
    this.#changed = !isKept || !differInHintsOnly(before, record) ? "now" : (this.#changed ?? "soon");
    this.watch?.(before, record);
    return true;
  }

  /** Once after each change: the caller writes the book to disk. */
  takeChanged(): TrustChange | undefined {
    const changed = this.#changed;
    this.#changed = undefined;
    return changed;
  }

  toJson(): StoredTrust {
    return { version: 1, records: [...this.#records.values()].map(recordToJson) };
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

const MAX_RECORDS = 65_536;
