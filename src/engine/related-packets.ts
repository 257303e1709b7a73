/**
 * Packets that belong to a flow without saying so in their own header: ICMPv6 errors go with the flow they speak of, later
 * fragments with the first of their packet.
 */
import { asOwnFlow, type FlowKey, fragmentId, SHAPE, type Shape, type Side } from "../policy/flow-key.ts";
import type { FlowTable } from "../policy/flow-table.ts";
import { Fragments } from "../policy/fragments.ts";
import type { Routes } from "../routing/routes.ts";
import type { Link } from "../tunnel/link.ts";
import type { LinkTable } from "../tunnel/link-table.ts";

export interface RelatedPacketsParts {
  readonly flows: FlowTable;
  readonly links: LinkTable;
  readonly routes: Routes;
}

export class RelatedPackets {
  readonly #parts: RelatedPacketsParts;
  readonly #fragments = new Fragments();

  constructor(parts: RelatedPacketsParts) {
    this.#parts = parts;
  }

  /** For a packet whose shape is not simply FLOW: the flow that it goes with, or -1. May rewrite the key. */
  find(
    shape: Shape,
    bytes: Uint8Array,
    offset: number,
    length: number,
    side: Side,
    key: FlowKey,
    nowS: number,
  ): number {
    const { flows } = this.#parts;
    switch (shape) {
      case SHAPE.ICMP_ERROR:
        return this.#findQuoted(bytes, offset, side, key);
      case SHAPE.LATER_FRAGMENT: {
        const id = fragmentId(bytes, offset, length);
        const link = this.#remoteLink(bytes, offset, side);
        const isOutbound = side === "source-is-local";
        const flow =
          id === undefined || link === undefined ? -1 : this.#fragments.find(link.index, key, isOutbound, id, nowS);
        return flow >= 0 && flows.linkOf(flow) === link?.index ? flow : flows.find(key);
      }
      default:
        return flows.find(key);
    }
  }

  /** The first fragment of a packet goes through with `flow`. */
  noteFirstFragment(
    bytes: Uint8Array,
    offset: number,
    length: number,
    side: Side,
    key: FlowKey,
    flow: number,
    nowS: number,
  ): void {
    const id = fragmentId(bytes, offset, length);
    const link = this.#parts.flows.linkOf(flow);
    if (id !== undefined) this.#fragments.note(link, key, side === "source-is-local", id, flow, nowS);
  }

  #findQuoted(bytes: Uint8Array, offset: number, side: Side, key: FlowKey): number {
    const { flows } = this.#parts;
    const isOurs = this.#inPrefix(key);
    const flow = isOurs ? flows.find(key) : -1;
    const link = this.#remoteLink(bytes, offset, side);
    if (flow >= 0 && link !== undefined && flows.linkOf(flow) === link.index) return flow;
    asOwnFlow(offset, side, key);
    return flows.find(key);
  }

  #inPrefix(key: FlowKey): boolean {
    const word = this.#parts.routes.prefixWord;
    return key.view.getInt32(key.localOffset) === word && key.view.getInt32(key.remoteOffset) === word;
  }

  /** The link of the packet's far end, when the near end is ours. */
  #remoteLink(bytes: Uint8Array, offset: number, side: Side): Link | undefined {
    const isOutbound = side === "source-is-local";
    const { routes, links } = this.#parts;
    if (!routes.isLocal(bytes, offset + (isOutbound ? 8 : 24))) return undefined;
    const node = routes.ownerOf(bytes, offset + (isOutbound ? 24 : 8));
    return node === undefined ? undefined : links.get(node);
  }
}
