/** What `status` shows of a link: how the peer is reached, what it is, and what was moved, also under keys that are gone. */
import type { Endpoint } from "../base/endpoint.ts";
import { KEY_STAT, KEY_STAT_COUNT } from "../tunnel/data-plane.ts";
import type { Link } from "../tunnel/link.ts";
import type { NodeId } from "../wire/ids.ts";
import type { PeerKind } from "./bridge-conversation.ts";

export interface LinkHistoryParts {
  relay(): Endpoint | undefined;
  rttMs(node: NodeId): number | undefined;
  kindOf(node: NodeId): PeerKind;
  /** Adds what was moved past the data plane, since the link was made. */
  addTranslated(node: NodeId, sum: Float64Array): void;
}

export class LinkHistory {
  readonly #parts: LinkHistoryParts;
  /** Key: node. Bound: trust records; what was moved by links that have been closed. */
  readonly #past = new Map<NodeId, Float64Array>();

  constructor(parts: LinkHistoryParts) {
    this.#parts = parts;
  }

  /** The link is about to be closed. */
  keep(link: Link): void {
    this.#past.set(link.node, this.#traffic(link));
  }

  /** All but what only the tunnel knows. */
  facts(link: Link) {
    const traffic = this.#traffic(link);
    return {
      path: link.isUp ? link.path.kind : "none",
      endpoint: link.path.isRelayed ? this.#parts.relay() : link.path.direct,
      rttMs: this.#parts.rttMs(link.node),
      rxBytes: traffic[KEY_STAT.RX_BYTES]!,
      txBytes: traffic[KEY_STAT.TX_BYTES]!,
      rxPackets: traffic[KEY_STAT.RX_PACKETS]!,
      txPackets: traffic[KEY_STAT.TX_PACKETS]!,
      establishedAt: link.establishedAt,
      lastReceivedAt: link.lastReceivedAt,
      isUp: link.isUp,
      kind: this.#parts.kindOf(link.node),
      security: link.security,
    };
  }

  #traffic(link: Link): Float64Array {
    const sum = link.traffic();
    this.#parts.addTranslated(link.node, sum);
    const past = this.#past.get(link.node);
    if (past !== undefined) for (let i = 0; i < KEY_STAT_COUNT; i++) sum[i] = sum[i]! + past[i]!;
    return sum;
  }
}
