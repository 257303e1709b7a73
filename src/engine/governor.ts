/**
 * Keeps flows to the terms of the rule that allows them: the rate, the bytes and new flows in a time, the way they may
 * take. Only flows whose rule has terms come here, and those of which the peer's packets come through the relay though it
 * could be reached directly (the peer has a rule about ways); the flow table marks both, so all others cost one test.
 *
 * Beyond a rate packets are lost, as in a narrow wire: TCP slows down. A spent budget ends the flow, as if a rule had
 * ended; the program is told. A way that is not there now ends nothing: packets are refused until it is.
 */
import type { DropReason } from "../base/drop-reason.ts";
import { after, type Instant } from "../base/instant.ts";
import type { FlowTable } from "../policy/flow-table.ts";
import { Meters } from "../policy/meters.ts";
import type { Policy } from "../policy/policy.ts";
import type { Rule, Way } from "../policy/rule.ts";
import type { Link } from "../tunnel/link.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import type { NodeId } from "../wire/ids.ts";
import type { Refusals } from "./refusals.ts";

export interface GovernorParts {
  readonly flows: FlowTable;
  readonly links: LinkTable;
  readonly policy: Policy;
  readonly refusals: Refusals;
}

export class Governor {
  readonly #parts: GovernorParts;
  readonly #meters = new Meters();

  constructor(parts: GovernorParts) {
    this.#parts = parts;
  }

  replaceRules(rules: readonly Rule[] | undefined): void {
    this.#meters.replace(rules ?? []);
  }

  /** Whether the rule behind a verdict has terms. */
  governs(verdict: number): boolean {
    return this.#parts.policy.ruleOf(verdict)?.terms !== undefined;
  }

  /** Why no further flow of the peer may begin under this rule, or undefined. */
  mayBegin(verdict: number, node: NodeId, now: Instant): DropReason | undefined {
    return this.#meters.of(verdict, node, now)?.mayBegin(now);
  }

  noteBegun(verdict: number, node: NodeId, now: Instant): void {
    this.#meters.of(verdict, node, now)?.noteBegun(now);
  }

  /** Why a packet (or superpacket) of a program may not go out now; the program has been told what it must be told. */
  passOut(flow: number, packet: Uint8Array, bytes: number, now: Instant): DropReason | undefined {
    const { flows, links, policy, refusals } = this.#parts;
    const link = links.at(flows.linkOf(flow));
    const verdict = flows.verdictOf(flow);
    const terms = policy.ruleOf(verdict)?.terms;
    if (terms === undefined || link === undefined) return undefined;
    policy.refusedBy = verdict;
    if (terms.via === "direct" && link.path.isRelayed) {
      this.refuseDetour(link, packet, now);
      return "wrong-path";
    }
    const spent = this.#meters.of(verdict, link.node, now)?.pass("out", bytes, now);
    if (spent === "over-budget") {
      refusals.cut([flows.cutEntry(flow, "over-budget")]);
      refusals.prohibited(packet, now);
    }
    return spent;
  }

  /** Why a packet (or a run of them) of a peer may not come in. `link` is the one it came by. */
  passIn(flow: number, link: Link, byRelay: boolean, bytes: number, now: Instant): DropReason | undefined {
    const { flows, policy } = this.#parts;
    flows.setAnswersByRelay(flow, byRelay && !link.path.isRelayed);
    const verdict = flows.verdictOf(flow);
    const terms = policy.ruleOf(verdict)?.terms;
    if (terms === undefined) return undefined;
    policy.refusedBy = verdict;
    if (terms.via !== undefined && byRelay !== (terms.via === "relay")) return "wrong-path";
    return this.passTranslated(flow, bytes, now);
  }

  /** The same for bytes that came in a plain agent's stream, whose way was looked at with the stream's packets. */
  passTranslated(flow: number, bytes: number, now: Instant): DropReason | undefined {
    const { flows, links, refusals } = this.#parts;
    const link = links.at(flows.linkOf(flow));
    const spent = link && this.#meters.of(flows.verdictOf(flow), link.node, now)?.pass("in", bytes, now);
    if (spent === "over-budget") refusals.cut([flows.cutEntry(flow, "over-budget")]);
    return spent;
  }

  /** The way that packets of a flow must take to the peer; undefined: the link's own. */
  wayOf(flow: number): Way | undefined {
    const { flows, policy } = this.#parts;
    const { via } = policy.ruleOf(flows.verdictOf(flow))?.terms ?? {};
    return via ?? (flows.answersByRelay(flow) ? "relay" : undefined);
  }

  /**
   * Tells a program that its packet would have to go a way that its rule forbids; not at once, because a link that has just
   * come up, or lost its direct way for a moment, soon has it.
   */
  refuseDetour(link: Link, packet: Uint8Array, now: Instant): void {
    const last = link.path.history.at(-1);
    if (last === undefined || after(last.at, SETTLING_MS) <= now) this.#parts.refusals.barred(packet, now);
  }
}

/** As long as packets wait for a session before the program is told. */
const SETTLING_MS = 3_000;
