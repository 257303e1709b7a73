/**
 * What concerns the length of inner packets, behind one door: how much fits each peer's path (path-mtu.ts), and what is
 * done with packets that are longer than its frames (long-packets.ts).
 */
import type { DropCounters, DropReason } from "../base/drop-reason.ts";
import type { Instant } from "../base/instant.ts";
import type { DataPlane } from "../tunnel/data-plane.ts";
import type { Link } from "../tunnel/link.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import type { BridgeMessage, FragmentMessage, Hello, MtuMessage } from "../wire/bridge.ts";
import type { NodeId } from "../wire/ids.ts";
import type { BridgeConversation } from "./bridge-conversation.ts";
import { LongPackets } from "./long-packets.ts";
import { PathMtus } from "./path-mtu.ts";
import type { Paths } from "./paths.ts";
import type { Pings } from "./pings.ts";

export interface PacketSizesParts {
  readonly dataPlane: DataPlane;
  readonly links: LinkTable;
  readonly drops: DropCounters;
  readonly bridge: BridgeConversation;
  readonly pings: Pings;
  readonly paths: Paths;
  /** Of this node's interface. */
  readonly mtuBytes: number;
  /** May a packet of the peer that came in pieces pass? The same question as for one that came whole. */
  readonly decide: (link: Link, packet: Uint8Array, now: Instant) => DropReason | "waits" | undefined;
}

export type SizeMessage = Hello | MtuMessage | FragmentMessage;

export class PacketSizes {
  readonly mtus: PathMtus;
  readonly long: LongPackets;
  readonly #parts: PacketSizesParts;
  /** Packets that came in pieces and may pass. BOUNDED by one batch: taken after each. */
  readonly #packets: Uint8Array[] = [];

  constructor(parts: PacketSizesParts) {
    this.#parts = parts;
    const { mtuBytes, dataPlane, drops, bridge, pings, paths } = parts;
    const send = (link: Link, message: BridgeMessage) => bridge.send(link, message);
    const rttMs = (link: Link) => pings.rttMs(link.node);
    this.mtus = new PathMtus({ mtuBytes, send, rttMs, relay: () => paths.beaconEndpoint });
    this.long = new LongPackets({ mtuBytes, send, dataPlane, drops });
  }

  /** The peer said what it takes, what arrived, or a part of a packet. Answering probes is not done here. */
  handleMessage(link: Link, message: SizeMessage, now: Instant): DropReason | undefined {
    if (message.kind === "fragment") return this.#handleFragment(link, message, now);
    if ("mtu" in message) this.mtus.heardHello(link, message.mtu, message.features, now);
    else if (message.kind === "mtu-answer") this.mtus.handleAnswer(link, message.size, message.id, now);
    return undefined;
  }

  /** A timer of the link that runs for us. */
  handleDue(link: Link, due: "mtu-probe-due" | "mtu-check-due", now: Instant): void {
    if (due === "mtu-probe-due") this.mtus.handleProbeDue(link, now);
    else this.mtus.handleCheckDue(link, now);
  }

  /** The socket refused a datagram to this endpoint slot as longer than the way out carries. */
  handleTooLong(endpointSlot: number, now: Instant): void {
    const link = this.#parts.links.ofEndpointSlot(endpointSlot);
    if (link !== undefined) this.mtus.refusedAsTooLong(link, now);
  }

  /** The session ended. */
  forget(link: Link): void {
    this.mtus.forget(link);
    this.long.forget(link);
  }

  /** The longest inner packet that goes to the peer in one frame; undefined without a link. */
  frameBytesFor(node: NodeId): number | undefined {
    const link = this.#parts.links.get(node);
    return link && this.mtus.frameBytes[link.index];
  }

  /** Somebody found that frames of the size in use get lost. */
  check(node: NodeId, now: Instant): void {
    const link = this.#parts.links.get(node);
    if (link !== undefined) this.mtus.refusedAsTooLong(link, now);
  }

  /** For `status`. */
  facts(link: Link): { readonly mtuBytes: number; readonly pathMtuBytes: number | undefined } {
    return { mtuBytes: this.mtus.peerMtu[link.index]!, pathMtuBytes: this.mtus.underlayBytes(link) };
  }

  /** A packet for the interface. */
  pollPacket(): Uint8Array | undefined {
    return this.#packets.shift();
  }

  #handleFragment(link: Link, fragment: FragmentMessage, now: Instant): DropReason | undefined {
    const packet = this.long.receive(link, fragment, now);
    if (packet === undefined) return undefined;
    const refused = this.#parts.decide(link, packet, now);
    if (refused === undefined) this.#packets.push(packet);
    return refused === "waits" ? undefined : refused;
  }
}
