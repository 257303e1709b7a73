/**
 * Looks at the daemon over its control socket and tells every reader of the page the same: often while somebody looks,
 * seldom while nobody does, so that a page that is opened has its curves. A daemon that is slow to answer is asked less.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { PilotError } from "../base/pilot-error.ts";
import type { ControlMethod, PeerStatus, Problem, ReplyOf, RequestOf, StatusReply } from "../control/api.ts";
import type { ControlClient } from "../control/client.ts";
import type { EventsReply, EventsRequest, LiveEvent } from "../control/events-api.ts";
import type { FlowsReply } from "../control/policy-api.ts";
import type { TrustPendingReply } from "../control/trust-api.ts";
import { PeerHistory } from "./peer-history.ts";
import {
  LOOK_INTERVAL_MS,
  MAX_EVENTS,
  MAX_FLOWS,
  MAX_PEERS,
  MAX_REQUESTS,
  type PeerView,
  type RttPoint,
  type State,
  type View,
} from "./view.ts";

export type Listener = (view: View) => void;

export class DaemonWatch {
  readonly #client: Pick<ControlClient, "call">;
  /** Bound: streams of the server. */
  readonly #listeners = new Set<Listener>();
  readonly #history = new PeerHistory();
  readonly #ended = new AbortController();
  /** Newest first. Bound: MAX_EVENTS of each. */
  #denials: readonly LiveEvent[] = [];
  #events: readonly LiveEvent[] = [];
  /** Where in the daemon's events this one is. */
  #place: EventsRequest = FROM_THE_OLDEST;
  #view: View | undefined;
  #wake = new AbortController();

  constructor(client: Pick<ControlClient, "call">) {
    this.#client = client;
  }

  /** Goes on until `close`. Never rejects. */
  async run(): Promise<void> {
    while (!this.#ended.signal.aborted) {
      this.#wake = new AbortController();
      const started = performance.now();
      this.#view = await this.#look();
      for (const listener of [...this.#listeners]) listener(this.#view);
      const tookMs = performance.now() - started;
      // Not sooner by a wake either: whoever comes and goes quickly must not make the daemon work.
      await this.#pause(Math.max(LEAST_INTERVAL_MS, tookMs));
      const leastMs = this.#listeners.size > 0 ? LOOK_INTERVAL_MS : IDLE_INTERVAL_MS;
      await this.#pause(Math.max(leastMs, tookMs * REST_FACTOR), this.#wake.signal);
    }
  }

  close(): void {
    this.#ended.abort();
  }

  /** Told of every view from now on, and of the last at once; returns how to stop that. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    if (this.#view !== undefined) listener(this.#view);
    this.lookSoon();
    return () => void this.#listeners.delete(listener);
  }

  /** Something was changed, or somebody has come. */
  lookSoon(): void {
    this.#wake.abort();
  }

  history(): (readonly [number, readonly RttPoint[]])[] {
    return this.#history.points();
  }

  async #look(): Promise<View> {
    try {
      const [status, pending, flows, events] = await Promise.all([
        this.#call("status", {}),
        this.#call("trust/pending", {}),
        this.#call("flows", {}),
        this.#call("events", this.#place),
      ]);
      this.#addEvents(events);
      const atMs = Date.now();
      return { atMs, failure: null, state: this.#stateOf(status, pending, flows, atMs) };
    } catch (error) {
      this.#history.interrupt();
      return { atMs: Date.now(), failure: problemOf(error), state: null };
    }
  }

  #call<M extends ControlMethod>(method: M, request: RequestOf<M>): Promise<ReplyOf<M>> {
    return this.#client.call(method, request, { timeoutMs: CALL_TIMEOUT_MS, signal: this.#ended.signal });
  }

  #addEvents({ run, next, events }: EventsReply): void {
    const newest = [...events].reverse();
    const isDenial = ({ event }: LiveEvent): boolean => event === "denial";
    this.#denials = [...newest.filter(isDenial), ...this.#denials].slice(0, MAX_EVENTS);
    this.#events = [...newest.filter((one) => !isDenial(one)), ...this.#events].slice(0, MAX_EVENTS);
    this.#place = { run, after: next };
  }

  #stateOf(status: StatusReply, pending: TrustPendingReply, flows: FlowsReply, atMs: number): State {
    const { peers, drops, problems, ...node } = status;
    const shown = this.#history.add([...peers].sort(byImportance).slice(0, MAX_PEERS), atMs);
    const requests = [...pending.requests].sort((a, b) => b.askedAgoS - a.askedAgoS || a.node - b.node);
    return {
      ...{ node, drops, problems, peers: shown, peersInAll: peers.length },
      rxRate: sum(shown, ({ rxRate }) => rxRate),
      txRate: sum(shown, ({ txRate }) => txRate),
      requests: requests.slice(0, MAX_REQUESTS),
      requestsInAll: requests.length,
      flows: flows.flows.slice(0, MAX_FLOWS),
      flowsInAll: flows.total,
      denials: this.#denials,
      events: this.#events,
    };
  }

  async #pause(ms: number, ...sooner: readonly AbortSignal[]): Promise<void> {
    const signal = AbortSignal.any([this.#ended.signal, ...sooner]);
    await sleep(ms, undefined, { signal }).catch(() => undefined); // only an abort ends it early
  }
}

/** What is trusted and reached first, what is over last; then by name. */
function byImportance(a: PeerStatus, b: PeerStatus): number {
  return rankOf(a) - rankOf(b) || (a.hostname ?? a.pilot).localeCompare(b.hostname ?? b.pilot) || a.node - b.node;
}

function rankOf({ trust, path }: PeerStatus): number {
  if (trust === "mutual") return path === "none" ? 1 : 0;
  return trust === "pending" || trust === "asked" ? 2 : 3;
}

function sum(peers: readonly PeerView[], rateOf: (peer: PeerView) => number | null): number | null {
  const rates = peers.map(rateOf).filter((rate) => rate !== null);
  return rates.length === 0 ? null : rates.reduce((all, rate) => all + rate, 0);
}

function problemOf(error: unknown): Problem {
  if (error instanceof PilotError) return { code: error.code, message: error.message, hint: error.hint };
  return { code: "internal", message: String(error), hint: "This is a bug of pilot-tun: report it." };
}

/** A run that no daemon has: all that it remembers. */
const FROM_THE_OLDEST: EventsRequest = { run: "none", after: 0 };
const CALL_TIMEOUT_MS = 5_000;
const LEAST_INTERVAL_MS = 100;
const IDLE_INTERVAL_MS = 10_000;
/** A look takes at most this part of the daemon's time. */
const REST_FACTOR = 10;
