/**
 * The stages of an explanation that the far side decides, and its questions to us. Both ends look for listeners on their own
 * host; each is told of the other's only after a yes.
 */
import { readFile } from "node:fs/promises";
import type { EngineEvent } from "../engine/engine.ts";
import type { FlowFacts } from "../policy/rule.ts";
import type { SocketOwner } from "../policy/socket-owner.ts";
import { encodeAddressBytes } from "../wire/address.ts";
import type { WhyAnswer, WhyQuestion } from "../wire/bridge.ts";
import { type NetworkId, type NodeId, networkId } from "../wire/ids.ts";
import { NEXT_HEADER } from "../wire/ipv6.ts";
import type { FlowPlace } from "./socket-owners.ts";
import { Waiters } from "./waiters.ts";
import type { WhyParts } from "./why.ts";
import { type Case, type Failure, flowWord, NO_FLOW, type Outcome, ok, type Passed } from "./why-case.ts";

export class WhyFarSide {
  readonly #parts: WhyParts;
  readonly #answers = new Waiters<number, WhyAnswer>();
  readonly #probes = new Waiters<number, true>();
  /** Of the case whose rule was asked about last. Key: case. Bound: explanations under way. */
  readonly #known = new WeakMap<Case, WhyAnswer>();

  constructor(parts: WhyParts) {
    this.#parts = parts;
  }

  handleEvent(event: EngineEvent): boolean {
    switch (event.kind) {
      case "why-answered":
        this.#answers.settle(event.answer.id, event.answer);
        return true;
      case "why-probed":
        this.#probes.settle(event.id, true);
        return true;
      case "why-asked":
        void this.#answerFor(event.node, event.question);
        return true;
      default:
        return false;
    }
  }

  async rule(asked: Case, signal: AbortSignal): Promise<Outcome> {
    if (asked.flow === undefined) return NO_FLOW;
    const { engine } = this.#parts;
    if (engine.linkFacts(asked.node)?.kind !== "pilot-tun")
      return unknowable("what a plain agent lets in, it does not tell");
    if (!engine.gate.explanations.isAnsweredBy(asked.node)) return unknowable("its version answers no such questions");
    const answer = await this.#ask(asked, signal);
    if (answer === undefined) return unknowable("it did not answer the question");
    this.#known.set(asked, answer);
    return answer.isAllowed ? ok("it allows this") : refusedThere(asked);
  }

  /** Where the flow ends: over there for one that begins here, here for one that begins there. */
  async listener(asked: Case): Promise<Outcome> {
    const { flow, direction } = asked;
    if (flow === undefined) return NO_FLOW;
    const known = this.#known.get(asked);
    const isThere =
      direction === "in" ? await this.#listensHere(asked.node, flow.protocol, flow.port) : known?.hasListener;
    if (isThere === undefined) {
      const isPlain = direction === "out" && known === undefined;
      return unknowable(isPlain ? "it does not tell" : "the kernel does not tell");
    }
    if (isThere) return ok(flow.name === "icmp" ? "pings are answered" : `a program listens on ${flowWord(flow)}`);
    const where = direction === "in" ? "here" : "over there";
    const program = flow.name === "icmp" ? "pings are not answered" : `no program listens on ${flowWord(flow)}`;
    return {
      side: direction === "in" ? "local" : "remote",
      code: "no_listener",
      detail: `${program} ${where}, on its overlay address or on all addresses`,
      fix:
        direction === "in"
          ? "Start the server, bound to :: or this node's address."
          : "Over there: start the server, bound to :: or its overlay address.",
    };
  }

  /** Whether a frame for an inner packet of this size arrives. */
  async carries(node: NodeId, sizeBytes: number, signal: AbortSignal): Promise<boolean> {
    for (let tries = 0; tries < PROBE_TRIES && !signal.aborted; tries++) {
      const id = this.#parts.input(() => this.#parts.engine.gate.explanations.probe(node, sizeBytes));
      if (id !== undefined && (await this.#probes.wait(id, ANSWER_MS, signal)) === true) return true;
    }
    return false;
  }

  async #ask(asked: Case, signal: AbortSignal): Promise<WhyAnswer | undefined> {
    const { protocol, port } = asked.flow!;
    const begins = asked.direction === "out" ? ("sender" as const) : ("receiver" as const);
    const { engine, input } = this.#parts;
    for (let tries = 0; tries < ASK_TRIES && !signal.aborted; tries++) {
      const id = input(() => engine.gate.explanations.ask(asked.node, { protocol, port, begins }));
      const answer = id === undefined ? undefined : await this.#answers.wait(id, ANSWER_MS, signal);
      if (answer !== undefined) return answer;
    }
    return undefined;
  }

  async #answerFor(node: NodeId, question: WhyQuestion): Promise<void> {
    const { engine, input } = this.#parts;
    const { protocol, port } = question;
    const hasListener = await this.#listensHere(node, protocol, port);
    const owner = await this.ownerOf(engine.admission.factsOf(node, networkId(0), "in", protocol, port));
    input(() => engine.gate.explanations.answerFor(node, question, { hasListener, owner }));
  }

  /** Whose socket a peer would reach, when a rule asks for it. */
  async ownerOf(facts: FlowFacts): Promise<SocketOwner | undefined> {
    const { engine, owners } = this.#parts;
    if (facts.direction !== "in" || !engine.admission.policy.ownerMatters(facts)) return undefined;
    return (await owners.find([this.#placeOf(facts.node, facts.network, facts.protocol, facts.port)]))[0];
  }

  async #listensHere(node: NodeId, protocol: number, port: number): Promise<boolean | undefined> {
    if (protocol === NEXT_HEADER.ICMPV6) return await answersPings();
    if (protocol !== NEXT_HEADER.TCP && protocol !== NEXT_HEADER.UDP) return undefined;
    return this.#parts.owners.hasListener(this.#placeOf(node, networkId(0), protocol, port));
  }

  #placeOf(node: NodeId, network: NetworkId, protocol: number, localPort: number): FlowPlace {
    const { engine, options } = this.#parts;
    return {
      ...{ protocol, localPort, remotePort: NO_PORT, direction: "in" },
      local: encodeAddressBytes(options.prefix, { network, node: engine.node }),
      remote: encodeAddressBytes(options.prefix, { network, node }),
    };
  }
}

async function answersPings(): Promise<boolean | undefined> {
  const setting = await readFile("/proc/sys/net/ipv6/icmp/echo_ignore_all", "latin1").catch(() => undefined);
  return setting === undefined ? undefined : setting.trim() !== "1";
}

function refusedThere({ name, direction, flow }: Case): Failure {
  const words = flowWord(flow!);
  const command = direction === "out" ? `pilot-tun why ${words} --from THIS_NODE` : `pilot-tun why THIS_NODE ${words}`;
  return {
    side: "remote",
    code: "remote_refused",
    detail: `${name} does not allow this`,
    fix: `Over there, where the rule may be seen: ${command}`,
  };
}

function unknowable(detail: string): Passed {
  return { state: "unknowable", detail };
}

/** No connection has it: what is found is the socket that listens. */
const NO_PORT = 0;
const ANSWER_MS = 700;
const ASK_TRIES = 3;
const PROBE_TRIES = 3;
