/**
 * What happens, for whoever looks on: remembers the newest events, passes on to the audit log those that are to be kept, and
 * wakes who waits for the next. Problems are compared with those of the last look, and only while somebody looks.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { AuditEvent, AuditSink } from "../audit/record.ts";
import { isoUtc } from "../base/utc.ts";
import type { Problem } from "../control/api.ts";
import type { EventsBackend, EventsReply, EventsRequest } from "../control/events-api.ts";
import { wallNow } from "../io/clock.ts";
import { type AuditLog, withCaller } from "./audit-log.ts";

export class LiveEvents implements AuditSink, EventsBackend {
  readonly #run = randomUUID();
  /** Undefined when none is kept. */
  readonly #log: AuditLog | undefined;
  /** By number, modulo REMEMBERED. */
  readonly #ring: AuditEvent[] = [];
  /** Of the next event. */
  #number = 0;
  /** Who waits. Bound: connections of the control socket. */
  #wake = Promise.withResolvers<void>();
  /** Key: code and message. Bound: problems at a time. */
  #problems = new Map<string, Problem>();
  /** What is wrong now. */
  problems: () => readonly Problem[] = () => [];

  constructor(log: AuditLog | undefined) {
    this.#log = log;
  }

  add(happened: AuditEvent): void {
    const event = happened.byOperator === true ? withCaller(happened) : happened;
    if (event.isFleeting !== true) this.#log?.add(event);
    this.#ring[this.#number++ % REMEMBERED] = event;
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  async next({ run, after, waitMs = 0 }: EventsRequest, signal: AbortSignal): Promise<EventsReply> {
    this.#lookForProblems();
    const isKnown = run === this.#run && after !== undefined && after <= this.#number;
    const from = isKnown ? after : Math.max(0, this.#number - (run === undefined ? FIRST_SHOWN : REMEMBERED));
    if (from === this.#number) await this.#wait(waitMs, signal);
    const oldest = Math.max(from, this.#number - REMEMBERED);
    const events = [];
    for (let number = oldest; number < this.#number; number++) {
      const { at, event, fields } = this.#ring[number % REMEMBERED]!;
      events.push({ at: isoUtc(at), event, facts: fields() });
    }
    return { run: this.#run, next: this.#number, missed: oldest - from, events };
  }

  /** For the first event, and then a moment more: few come alone, and of a flow the program is soon known. */
  async #wait(waitMs: number, signal: AbortSignal): Promise<void> {
    const deadline = Date.now() + waitMs;
    const before = this.#number;
    while (this.#number === before && Date.now() < deadline && !signal.aborted) {
      const restMs = Math.min(PROBLEM_INTERVAL_MS, deadline - Date.now());
      await Promise.race([this.#wake.promise, pause(restMs, signal)]);
      this.#lookForProblems();
    }
    if (this.#number !== before) await pause(LINGER_MS, signal);
  }

  #lookForProblems(): void {
    const now = new Map(this.problems().map((problem) => [`${problem.code} ${problem.message}`, problem]));
    for (const [key, problem] of now) if (!this.#problems.has(key)) this.#addProblem("appeared", problem);
    for (const [key, problem] of this.#problems) if (!now.has(key)) this.#addProblem("gone", problem);
    this.#problems = now;
  }

  #addProblem(state: "appeared" | "gone", problem: Problem): void {
    this.add({ event: "problem", at: wallNow(), isFleeting: true, fields: () => ({ state, ...problem }) });
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined); // only an abort ends it early
}

const REMEMBERED = 1_024;
const FIRST_SHOWN = 20;
const LINGER_MS = 200;
const PROBLEM_INTERVAL_MS = 1_000;
