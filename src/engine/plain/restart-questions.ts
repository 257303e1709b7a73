/**
 * Whether a plain agent was started anew. New keys alone do not say so: the reference has one pair for its life, but others
 * renew theirs after an outage, and go on. A daemon that was started anew knows no stream from before and says nothing to it,
 * or resets it; one that was not acknowledges a byte which it has already, in every version. A few streams are asked, and one
 * answer speaks for all: they live in one process.
 */
import { after, type Deadline, type Instant } from "../../base/instant.ts";
import type { Stream } from "../../stream/stream.ts";
import type { NodeId } from "../../wire/ids.ts";

/** Streams that had their answer before `than` are from before the keys. */
export interface Suspicion {
  readonly node: NodeId;
  readonly than: Instant;
}

interface Question extends Suspicion {
  readonly askedAt: Instant;
  readonly asked: number;
  readonly nextAt: Instant;
}

export class RestartQuestions {
  /** Open streams that are from before. */
  readonly #streamsOf: (suspicion: Suspicion) => Stream[];
  /** Key: node. Bound: the nodes with links; an entry goes with the answer, or when there was none. */
  readonly #questions = new Map<NodeId, Question>();

  constructor(streamsOf: (suspicion: Suspicion) => Stream[]) {
    this.#streamsOf = streamsOf;
  }

  ask(suspicion: Suspicion, now: Instant): void {
    this.#ask({ ...suspicion, askedAt: now, asked: 0, nextAt: now }, now);
  }

  pollTimeout(): Deadline | undefined {
    let at: Instant | undefined;
    for (const { nextAt } of this.#questions.values()) if (at === undefined || nextAt < at) at = nextAt;
    return at && { at, reason: "restart-question" };
  }

  /** Those that answered nothing: they were started anew. */
  handleTimeout(now: Instant): Suspicion[] {
    const unanswered: Suspicion[] = [];
    for (const question of [...this.#questions.values()]) {
      if (question.nextAt > now) continue;
      this.#questions.delete(question.node);
      if (question.asked === MAX_ASKS) unanswered.push(question);
      else this.#ask(question, now);
    }
    return unanswered;
  }

  #ask(question: Question, now: Instant): void {
    const streams = this.#streamsOf(question);
    const isAnswer = ({ heardAt }: Stream) => heardAt !== undefined && heardAt > question.askedAt;
    if (streams.length === 0 || streams.some(isAnswer)) return;
    for (const stream of streams.slice(0, MAX_STREAMS)) stream.provoke(now);
    this.#questions.set(question.node, { ...question, asked: question.asked + 1, nextAt: after(now, ASK_GAP_MS) });
  }
}

/** More than a reference's socket holds at once would be lost there. */
const MAX_STREAMS = 8;
const ASK_GAP_MS = 600;
const MAX_ASKS = 6;
