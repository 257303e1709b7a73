/**
 * What waits to be relayed, so that one sender's bulk does not delay another's ping: round robin over flows (RFC 8290 §4,
 * without its delay control: the senders' own transports see losses). Bounded in bytes, in all and per flow; when all is
 * full, the longest flow loses its oldest.
 *
 * A flow is a proven node, or all unproven senders of one source address together: who cannot say who he is gets no
 * larger share by claiming to be many.
 */
import { RoundRobin, type Turn } from "../base/round-robin.ts";

export interface RelayQueueLimits {
  readonly maxBytes: number;
  readonly maxFlowBytes: number;
}

export const DEFAULT_RELAY_QUEUE_LIMITS: RelayQueueLimits = {
  maxBytes: 12 * 1024 * 1024,
  maxFlowBytes: 4 * 1024 * 1024,
};

export class RelayQueue<Item> {
  readonly #limits: RelayQueueLimits;
  /** By flow key; bounded by the items waiting, a flow leaves when it is empty. */
  readonly #flows = new Map<string, Flow<Item>>();
  readonly #turns = new RoundRobin<Flow<Item>>(QUANTUM_BYTES, {
    firstBytes: (flow) => flow.first?.charge,
    leave: (flow) => this.#flows.delete(flow.key),
  });
  #bytes = 0;
  #items = 0;

  constructor(limits: RelayQueueLimits = DEFAULT_RELAY_QUEUE_LIMITS) {
    this.#limits = limits;
  }

  /** Bytes as charged: a small item counts for what it costs to carry. */
  get bytes(): number {
    return this.#bytes;
  }

  get items(): number {
    return this.#items;
  }

  get flows(): number {
    return this.#flows.size;
  }

  /** Adds an item at the end of its flow and returns what had to make room: nothing, others, or the item itself. */
  push(key: string, item: Item, bytes: number): readonly Item[] {
    const charge = Math.max(bytes, LEAST_CHARGE);
    const flow = this.#flows.get(key);
    if (charge > this.#limits.maxFlowBytes || (flow?.bytes ?? 0) + charge > this.#limits.maxFlowBytes) return [item];
    this.#append(flow ?? this.#open(key), item, charge);
    return this.#bytes <= this.#limits.maxBytes ? NOTHING : this.#shorten();
  }

  pop(): Item | undefined {
    const flow = this.#turns.next();
    return flow === undefined ? undefined : this.#take(flow);
  }

  /** Gives up the oldest item of the longest flow; undefined when nothing waits. */
  dropLongest(): Item | undefined {
    let longest: Flow<Item> | undefined;
    for (const flow of this.#flows.values()) if (flow.bytes > (longest?.bytes ?? 0)) longest = flow;
    return longest === undefined ? undefined : this.#take(longest);
  }

  #shorten(): Item[] {
    const dropped: Item[] = [];
    while (this.#bytes > this.#limits.maxBytes) {
      const item = this.dropLongest();
      if (item === undefined) break;
      dropped.push(item);
    }
    return dropped;
  }

  #open(key: string): Flow<Item> {
    const flow: Flow<Item> = { key, first: undefined, last: undefined, bytes: 0, deficitBytes: 0 };
    this.#flows.set(key, flow);
    this.#turns.add(flow);
    return flow;
  }

  #append(flow: Flow<Item>, item: Item, charge: number): void {
    const entry: Entry<Item> = { item, charge, next: undefined };
    if (flow.last === undefined) flow.first = entry;
    else flow.last.next = entry;
    flow.last = entry;
    flow.bytes += charge;
    this.#bytes += charge;
    this.#items++;
  }

  /** The flow has something waiting. */
  #take(flow: Flow<Item>): Item {
    const { item, charge, next } = flow.first!;
    flow.first = next;
    if (next === undefined) flow.last = undefined;
    flow.bytes -= charge;
    this.#bytes -= charge;
    this.#items--;
    return item;
  }
}

interface Entry<Item> {
  readonly item: Item;
  readonly charge: number;
  next: Entry<Item> | undefined;
}

interface Flow<Item> extends Turn {
  readonly key: string;
  first: Entry<Item> | undefined;
  last: Entry<Item> | undefined;
  bytes: number;
}

const NOTHING: readonly never[] = [];
/** One superdatagram of the kernel's. */
const QUANTUM_BYTES = 65_536;
/** A small datagram costs a large one's system call and buffer. */
const LEAST_CHARGE = 2048;
