/**
 * What two nodes tell each other about why a flow passes or not. A question gets an answer only from a node that trusts the
 * asker, and only what the asker would find out by trying: yes or no, and after a yes whether somebody listens. Nobody
 * else gets any answer, not even a refusal.
 */
import type { DropReason } from "../base/drop-reason.ts";
import type { Instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import type { FlowFacts } from "../policy/rule.ts";
import type { SocketOwner } from "../policy/socket-owner.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { Link } from "../tunnel/link.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import { FEATURE, type MtuMessage, type WhyAnswer, type WhyQuestion } from "../wire/bridge.ts";
import { type NodeId, networkId } from "../wire/ids.ts";
import type { Admission } from "./admission.ts";
import type { BridgeConversation } from "./bridge-conversation.ts";

export interface ExplanationParts {
  readonly links: LinkTable;
  readonly trust: TrustBook;
  readonly bridge: BridgeConversation;
  readonly admission: Admission;
  emit(event: ExplanationEvent): void;
}

export type ExplanationEvent =
  /** A peer may reach this port here, perhaps: does somebody listen, and who? To be answered with `answerFor`. */
  | { readonly kind: "why-asked"; readonly node: NodeId; readonly question: WhyQuestion }
  | { readonly kind: "why-answered"; readonly answer: WhyAnswer }
  /** A probe of this size arrived over there. */
  | { readonly kind: "why-probed"; readonly id: number };

export type FlowInQuestion = Omit<WhyQuestion, "kind" | "id">;

export class Explanations {
  readonly #parts: ExplanationParts;
  /** Key: node. Bound: links; removed with `forget`. */
  readonly #askers = new Map<NodeId, TokenBucket>();
  #lastId = 0;

  constructor(parts: ExplanationParts) {
    this.#parts = parts;
  }

  /** The session with the peer ended. */
  forget(node: NodeId): void {
    this.#askers.delete(node);
  }

  /** Whether the peer's version answers questions; false without a session. */
  isAnsweredBy(node: NodeId): boolean {
    return (this.#parts.bridge.featuresOf(node) & FEATURE.ANSWERS) !== 0;
  }

  /** The number of the question; undefined without a session. */
  ask(node: NodeId, flow: FlowInQuestion): number | undefined {
    const { links, bridge } = this.#parts;
    const link = links.get(node);
    if (link === undefined) return undefined;
    const id = this.#nextId();
    return bridge.send(link, { kind: "why-question", id, ...flow }) ? id : undefined;
  }

  /** Sends a datagram as long as that of an inner packet of `sizeBytes`; the number of the probe. */
  probe(node: NodeId, sizeBytes: number): number | undefined {
    const { links, bridge } = this.#parts;
    const link = links.get(node);
    const id = this.#nextId();
    if (link === undefined || !bridge.send(link, { kind: "mtu-probe", size: sizeBytes, id })) return undefined;
    return id;
  }

  /** True when it answers a probe of ours, and not one of the search for the path's size. */
  takesAnswer({ id }: MtuMessage): boolean {
    if (id < FIRST_ID) return false;
    this.#parts.emit({ kind: "why-probed", id });
    return true;
  }

  handleAnswer(answer: WhyAnswer): void {
    this.#parts.emit({ kind: "why-answered", answer });
  }

  handleQuestion(link: Link, question: WhyQuestion, now: Instant): DropReason | undefined {
    const { node } = link;
    if (this.#parts.trust.stateOf(node) !== "mutual") return "not-trusted";
    let bucket = this.#askers.get(node);
    if (bucket === undefined) {
      bucket = new TokenBucket(QUESTIONS_PER_S, QUESTIONS_AT_ONCE, now);
      this.#askers.set(node, bucket);
    }
    if (!bucket.take(now)) return "questions-limited";
    const { admission } = this.#parts;
    const mayBegin = admission.mayBegin(this.#factsOf(node, question));
    if (mayBegin !== false && question.begins === "sender") this.#parts.emit({ kind: "why-asked", node, question });
    else this.#answer(link, question, mayBegin !== false, undefined);
    return undefined;
  }

  /** `owner`: of the socket that listens, when a rule asks for it. */
  answerFor(
    node: NodeId,
    question: WhyQuestion,
    { hasListener, owner }: { readonly hasListener: boolean | undefined; readonly owner: SocketOwner | undefined },
  ): void {
    const { links, admission, trust } = this.#parts;
    const link = links.get(node);
    if (link === undefined || trust.stateOf(node) !== "mutual") return;
    const isAllowed = admission.mayBegin(this.#factsOf(node, question, owner)) !== false;
    this.#answer(link, question, isAllowed, isAllowed ? hasListener : undefined);
  }

  #factsOf(node: NodeId, { begins, protocol, port }: WhyQuestion, owner?: SocketOwner): FlowFacts {
    return this.#parts.admission.factsOf(node, networkId(0), begins === "sender" ? "in" : "out", protocol, port, owner);
  }

  #answer(link: Link, { id }: WhyQuestion, isAllowed: boolean, hasListener: boolean | undefined): void {
    this.#parts.bridge.send(link, { kind: "why-answer", id, isAllowed, hasListener });
  }

  #nextId(): number {
    this.#lastId = (this.#lastId + 1) % FIRST_ID;
    return FIRST_ID + this.#lastId;
  }
}

const QUESTIONS_PER_S = 2;
const QUESTIONS_AT_ONCE = 10;
/** The search for the path's size numbers its probes from 0. */
const FIRST_ID = 0x80000000;
