/** The end of a link, and of trust: flows cut, the peer told, everything known of the link given up. */
import type { Instant } from "../base/instant.ts";
import type { Flow, FlowTable } from "../policy/flow-table.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import { UNREACHABLE } from "../wire/icmpv6.ts";
import type { NodeId } from "../wire/ids.ts";
import type { BridgeConversation } from "./bridge-conversation.ts";
import type { DirectHandshakes } from "./direct-handshakes.ts";
import type { Explanations } from "./explanations.ts";
import type { Leases } from "./leases.ts";
import type { LinkHistory } from "./link-history.ts";
import type { NodeStreams } from "./node-streams.ts";
import type { PacketSizes } from "./packet-sizes.ts";
import type { Pings } from "./pings.ts";
import type { PlainAgents } from "./plain/plain-agents.ts";
import type { Refusals } from "./refusals.ts";
import type { RevocationNotices } from "./revocation-notices.ts";

export interface PartingParts {
  readonly links: LinkTable;
  readonly flows: FlowTable;
  readonly leases: Leases;
  readonly explanations: Explanations;
  readonly history: LinkHistory;
  readonly bridge: BridgeConversation;
  readonly pings: Pings;
  readonly direct: DirectHandshakes;
  readonly notices: RevocationNotices;
  readonly sizes: PacketSizes;
  readonly plain: PlainAgents;
  readonly streams: NodeStreams;
  readonly refusals: Refusals;
}

export class Parting {
  readonly #parts: PartingParts;

  constructor(parts: PartingParts) {
    this.#parts = parts;
  }

  /** The peer shall hear that it was revoked, now or when it can be reached. */
  notifyRevoked(node: NodeId, now: Instant): void {
    const link = this.#parts.links.get(node);
    if (this.#parts.bridge.kindOf(node) !== "pilot-tun")
      this.#parts.direct.say(node, "revoke", link?.isUp ?? false, now);
    this.#parts.notices.reset(node);
    if (link !== undefined) this.#parts.notices.send(link, now);
  }

  closeLink(node: NodeId, now: Instant): void {
    const link = this.#parts.links.get(node);
    if (link === undefined) return;
    this.#parts.leases.release(node);
    this.#parts.history.keep(link);
    this.#parts.sizes.forget(link);
    this.#parts.plain.linkClosed(link);
    this.#parts.links.close(node);
    this.#parts.bridge.forget(node);
    this.#parts.explanations.forget(node);
    this.#parts.pings.forget(node);
    this.#parts.notices.reset(node);
    this.#parts.direct.forget(node);
    this.#parts.streams.resetNode(node, now);
  }

  /** Ends what is open with the peer, and tells the local programs; the flows that were. `nowS`: the time of flows. */
  cutFlows(node: NodeId, why: "no-consent" | "lease-ended", nowS: number, now: Instant): Flow[] {
    const link = this.#parts.links.get(node);
    if (link === undefined) return [];
    const flows = this.#parts.flows.cut(link.index, nowS);
    this.#parts.refusals.cut(flows, why === "lease-ended" ? UNREACHABLE.REJECT_ROUTE : UNREACHABLE.PROHIBITED);
    this.#parts.plain.cut(node, now);
    return flows;
  }
}
