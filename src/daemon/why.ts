/**
 * Why a flow to or from a peer passes or not: one stage after the other, until the first that fails, with the command
 * that mends it. What this side cannot know is asked of the far side, which tells a peer that it trusts what that would find
 * out by trying; nobody else is told anything, so of a stranger nothing is said that is not true of a node that does not
 * exist.
 */
import type { Instant } from "../base/instant.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { PeerIdentity } from "../control/api.ts";
import {
  WHY_STAGES,
  type WhyBackend,
  type WhyReply,
  type WhyRequest,
  type WhyStage,
  type WhyStageName,
} from "../control/why-api.ts";
import type { Engine, EngineEvent } from "../engine/engine.ts";
import { protocolNumber } from "../policy/rule.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { type NodeId, networkId } from "../wire/ids.ts";
import { nodeInText } from "./peer-text.ts";
import type { SocketOwners } from "./socket-owners.ts";
import type { UpOptions } from "./up-options.ts";
import type { Case, Failure, Outcome } from "./why-case.ts";
import { WhyFarSide } from "./why-far-side.ts";
import * as near from "./why-near-side.ts";
import { mtu, path } from "./why-path.ts";

export interface WhyParts {
  readonly options: Pick<UpOptions, "prefix" | "tun">;
  readonly engine: Engine;
  readonly book: TrustBook;
  readonly connection: { readonly state: string };
  readonly owners: Pick<SocketOwners, "find" | "hasListener">;
  input<T>(act: (at: Instant) => T): T;
  /** Another node than this one. */
  find(text: string, signal: AbortSignal): Promise<NodeId>;
  /** Also this one. */
  findAny(text: string, signal: AbortSignal): Promise<NodeId>;
  identity(node: NodeId): PeerIdentity;
}

export class WhyRequests implements WhyBackend {
  readonly #parts: WhyParts;
  readonly #farSide: WhyFarSide;

  constructor(parts: WhyParts) {
    this.#parts = parts;
    this.#farSide = new WhyFarSide(parts);
  }

  /** True when the event was about an explanation. */
  handleEvent(event: EngineEvent): boolean {
    return this.#farSide.handleEvent(event);
  }

  async explain(request: WhyRequest, signal: AbortSignal): Promise<WhyReply> {
    const direction = request.from === undefined ? "out" : "in";
    const found = await this.#findPeer(request, signal);
    if (typeof found !== "number") return summary(null, direction, [["name", found]]);
    const asked = await this.#caseOf(request, found);
    const { engine, book, options } = this.#parts;
    const outcomes: [WhyStageName, Outcome][] = [["name", near.name(asked)]];
    const looks: Readonly<Record<Exclude<WhyStageName, "name">, () => Outcome | Promise<Outcome>>> = {
      address: () => near.address(asked, engine, options.tun),
      "local-rule": () => near.localRule(asked, engine),
      consent: () => near.consent(asked, book),
      lease: () => near.lease(asked, engine, book),
      budget: () => near.budget(asked, engine),
      path: () => path(asked, this.#parts, signal),
      mtu: () => mtu(asked, this.#parts, this.#farSide, signal),
      "remote-rule": () => this.#farSide.rule(asked, signal),
      listener: () => this.#farSide.listener(asked),
    };
    for (const stage of WHY_STAGES) {
      if (stage === "name") continue;
      const outcome = await looks[stage]();
      outcomes.push([stage, outcome]);
      if ("code" in outcome) break;
    }
    return summary(asked.peer, direction, outcomes);
  }

  async #caseOf({ peer: to, from, protocol, port = 0 }: WhyRequest, node: NodeId): Promise<Case> {
    const { engine, options, identity } = this.#parts;
    const peer = identity(node);
    // Of an address that was written out; a name means the one in network 0.
    const network = nodeInText(from ?? to ?? "", options.prefix)?.network ?? networkId(0);
    const direction = from === undefined ? "out" : "in";
    const flow = protocol && { name: protocol, protocol: protocolNumber(protocol), port };
    const facts = engine.admission.factsOf(node, network, direction, flow?.protocol ?? 0, flow?.port ?? 0);
    const owner = await this.#farSide.ownerOf(facts);
    return {
      ...{ node, network, peer, direction, flow },
      name: peer.hostname ?? peer.pilot,
      facts: owner === undefined ? facts : { ...facts, owner },
      self: engine.node,
      prefix: options.prefix,
    };
  }

  /** The far end of the flow. Throws PilotError `not_this_node` when neither end is here. */
  async #findPeer({ peer, from }: WhyRequest, signal: AbortSignal): Promise<NodeId | Failure> {
    try {
      if (from === undefined) return await this.#parts.find(peer!, signal);
      const begins = await this.#parts.find(from, signal);
      const ends = peer === undefined ? begins : await this.#parts.findAny(peer, signal);
      if (ends === begins || ends === this.#parts.engine.node) return begins;
    } catch (error) {
      if (!(error instanceof PilotError)) throw error;
      return { side: "local", code: error.code, detail: error.message, fix: error.hint };
    }
    throw new PilotError(
      "not_this_node",
      `A flow from ${from} to ${peer} does not come by here`,
      `Ask there: pilot-tun why ${peer}, on ${from}.`,
    );
  }
}

function summary(
  peer: PeerIdentity | null,
  direction: WhyReply["direction"],
  outcomes: readonly (readonly [WhyStageName, Outcome])[],
): WhyReply {
  const [stage, last] = outcomes.at(-1)!;
  const failure = "code" in last ? last : undefined;
  const rule = outcomes.map(([, outcome]) => outcome.rule).find((one) => one !== undefined);
  return {
    peer,
    direction,
    verdict: failure === undefined ? "allow" : "deny",
    stage: failure === undefined ? null : stage,
    side: failure?.side ?? null,
    code: failure?.code ?? "allowed",
    rule: rule ?? null,
    fix: failure?.fix ?? null,
    stages: WHY_STAGES.map((name): WhyStage => {
      const outcome = outcomes.find(([looked]) => looked === name)?.[1];
      if (outcome === undefined) return { stage: name, state: "unknown", detail: "" };
      if ("code" in outcome) return { stage: name, state: "failed", detail: outcome.detail };
      return { stage: name, state: outcome.state, detail: outcome.detail };
    }),
  };
}
