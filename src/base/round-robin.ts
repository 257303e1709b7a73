/**
 * Whose turn it is among flows that wait to be sent: deficit round robin by bytes, where a flow that had nothing waiting
 * goes first for one quantum, so that what sends little never queues behind what sends much (RFC 8290 §4.2).
 */
export interface Turn {
  /** What it may still send before the others have their turn; the round robin's own. */
  deficitBytes: number;
}

export interface Waiting<Flow> {
  /** Bytes of the first that waits; undefined when nothing does. */
  firstBytes(flow: Flow): number | undefined;
  /** It had nothing waiting for a whole round: it is forgotten. */
  leave(flow: Flow): void;
}

export class RoundRobin<Flow extends Turn> {
  readonly #quantumBytes: number;
  readonly #waiting: Waiting<Flow>;
  /** Flows that still have their first quantum, and the others: served in this order. BOUNDED by the caller's flows. */
  readonly #fresh = new Set<Flow>();
  readonly #backlogged = new Set<Flow>();

  constructor(quantumBytes: number, waiting: Waiting<Flow>) {
    this.#quantumBytes = quantumBytes;
    this.#waiting = waiting;
  }

  /** A flow that is not among them has something waiting. */
  add(flow: Flow): void {
    flow.deficitBytes = this.#quantumBytes;
    this.#fresh.add(flow);
  }

  /** The flow whose first goes next; its bytes are taken from its turn. Undefined when nothing waits. */
  next(): Flow | undefined {
    for (;;) {
      const list = this.#fresh.size > 0 ? this.#fresh : this.#backlogged;
      const flow: Flow | undefined = list.values().next().value;
      if (flow === undefined) return undefined;
      const bytes = this.#waiting.firstBytes(flow);
      if (bytes !== undefined && flow.deficitBytes > 0) {
        flow.deficitBytes -= bytes;
        return flow;
      }
      list.delete(flow);
      if (bytes !== undefined) flow.deficitBytes += this.#quantumBytes;
      // An empty flow waits for one round of the others before it may be fresh again.
      if (bytes !== undefined || list === this.#fresh) this.#backlogged.add(flow);
      else this.#waiting.leave(flow);
    }
  }
}
