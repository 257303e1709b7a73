/**
 * Virtual packets of authenticated peers that are not inner packets: whom each concerns. Control pings and the bridge's own
 * messages pass without trust (they are how it is agreed on), and so does a stream to the handshake port; every other
 * stream and datagram needs mutual trust, and without it is dropped without a word (pilot protocol §7.5).
 */
import type { DropReason } from "../base/drop-reason.ts";
import type { Instant } from "../base/instant.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { Link } from "../tunnel/link.ts";
import { BRIDGE_PORT } from "../wire/bridge.ts";
import { FLAG, PORT, PROTOCOL, parseVirtualPacket, type VirtualPacket } from "../wire/virtual-packet.ts";
import type { BridgeConversation } from "./bridge-conversation.ts";
import type { Networks } from "./networks.ts";
import type { NodeStreams } from "./node-streams.ts";
import type { Pings } from "./pings.ts";
import type { PlainAgents } from "./plain/plain-agents.ts";

export interface VirtualPacketParts {
  readonly pings: Pings;
  readonly bridge: BridgeConversation;
  readonly streams: NodeStreams;
  readonly plain: PlainAgents;
  readonly trust: TrustBook;
  readonly networks: Pick<Networks, "standing">;
}

export class VirtualPackets {
  readonly #parts: VirtualPacketParts;

  constructor(parts: VirtualPacketParts) {
    this.#parts = parts;
  }

  /** `bytes` are borrowed. `segmentBytes`: as in a row of the data plane, 0 for one packet. */
  handle(link: Link, bytes: Uint8Array, segmentBytes: number, now: Instant): DropReason | undefined {
    const packet = parseVirtualPacket(bytes, true); // by the data plane
    if (packet === undefined) return "bad-virtual-packet";
    if (link.cameByCarrier) return this.#handleCarried(link, packet, now);
    switch (packet.protocol) {
      case PROTOCOL.CONTROL:
        return this.#parts.pings.handle(link, packet, now);
      case PROTOCOL.DATAGRAM:
        return this.#handleDatagram(link, packet, now);
      case PROTOCOL.STREAM:
        return this.#handleStream(link, packet, segmentBytes, now);
      default:
        return "unhandled-virtual-packet";
    }
  }

  /** Nothing is known of who speaks but that he has the keys of the exchange. */
  #handleCarried(link: Link, packet: VirtualPacket, now: Instant): DropReason | undefined {
    if (packet.protocol === PROTOCOL.CONTROL) return this.#parts.pings.handle(link, packet, now);
    const isBridge = packet.protocol === PROTOCOL.DATAGRAM && packet.destinationPort === BRIDGE_PORT;
    return isBridge ? this.#parts.bridge.handleCarried(link, packet.payload, now) : "base-session";
  }

  #handleDatagram(link: Link, packet: VirtualPacket, now: Instant): DropReason | undefined {
    if (packet.destinationPort === BRIDGE_PORT) return this.#parts.bridge.handle(link, packet.payload, now);
    return this.#refusalOf(link, packet, now) ?? this.#parts.plain.handleDatagram(link, packet, now);
  }

  #handleStream(link: Link, packet: VirtualPacket, segmentBytes: number, now: Instant): DropReason | undefined {
    const isHandshake = packet.destinationPort === PORT.HANDSHAKE;
    const isOpening = (packet.flags & (FLAG.SYN | FLAG.ACK)) === FLAG.SYN;
    const refused = isOpening && !isHandshake ? this.#refusalOf(link, packet, now) : undefined;
    if (refused !== undefined) return refused;
    const way = this.#parts.plain.wayOf(link.node, packet.destinationPort, packet.sourcePort);
    if (way !== undefined && link.cameByRelay !== (way === "relay")) return "wrong-path";
    const segments = segmentBytes === 0 ? 1 : Math.ceil(packet.payload.length / segmentBytes);
    if (!isHandshake) this.#parts.plain.traffic.noteReceived(link.node, packet.payload.length, segments);
    const run = segmentBytes === 0 ? packet : { ...packet, segmentBytes };
    return this.#parts.streams.handlePacket(link.node, run, now);
  }

  /** Why the peer may not begin this. As long as nobody knows who is in a network, it is asked and the peer tries again. */
  #refusalOf(link: Link, { source, destination }: VirtualPacket, now: Instant): DropReason | undefined {
    if (this.#parts.trust.stateOf(link.node) !== "mutual") return "not-trusted";
    if (source.network !== destination.network) return "wrong-destination";
    return this.#parts.networks.standing(source.network, link.node, now) === "yes" ? undefined : "not-member";
  }
}
