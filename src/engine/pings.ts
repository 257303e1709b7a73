/**
 * Pilot's control ping (pilot protocol §2.3): asked by us to prove a key, to measure a round trip, and for
 * `pilot-tun ping`; answered to peers. Two rules keep two nodes from answering each other for ever: a request has a
 * source port that is not 0, and a packet with the ACK flag is never answered.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import type { DropReason } from "../base/drop-reason.ts";
import type { Endpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import type { StagedPacket } from "../tunnel/data-plane.ts";
import type { Link } from "../tunnel/link.ts";
import { BACKBONE, type NetworkId, type NodeId } from "../wire/ids.ts";
import { encodeVirtualPacket, FLAG, PROTOCOL, type VirtualPacket } from "../wire/virtual-packet.ts";

export interface Pong {
  readonly node: NodeId;
  readonly sequence: number;
  readonly rttMs: number;
}

/** An ICMPv6 echo request of a local program that travels as a control ping. */
export interface ProgramEcho {
  /** Of both addresses. */
  readonly network: NetworkId;
  readonly identifier: number;
  readonly sequence: number;
  readonly payload: Uint8Array;
}

export interface EchoAnswer {
  readonly node: NodeId;
  readonly echo: ProgramEcho;
  /** As the far side sent it back. */
  readonly payload: Uint8Array;
  /** It came through the relay. */
  readonly byRelay: boolean;
}

export class Pings {
  readonly #local: NodeId;
  /** Key: sequence number. Bound: MAX_PENDING, the oldest request is given up. */
  readonly #pending = new BoundedMap<number, PendingPing>(MAX_PENDING);
  /** Key: node. Bound: as many as there are links; removed with `forget`. */
  readonly #rttMs = new Map<NodeId, number>();
  readonly #pongs: Pong[] = [];
  readonly #echoAnswers: EchoAnswer[] = [];
  #sequence = 0;

  readonly #answered: (link: Link, sequence: number, now: Instant) => void;

  /** `answered`: a peer answered this request. */
  constructor(local: NodeId, answered: (link: Link, sequence: number, now: Instant) => void) {
    this.#local = local;
    this.#answered = answered;
  }

  /** The last measured round trip. */
  rttMs(node: NodeId): number | undefined {
    return this.#rttMs.get(node);
  }

  forget(node: NodeId): void {
    this.#rttMs.delete(node);
  }

  /** Sends a request; its sequence number, or undefined when the link has no key. */
  send(link: Link, now: Instant): number | undefined {
    const { packet, sequence } = this.#request(link.node, now);
    return link.sendVirtual(packet) ? sequence : undefined;
  }

  /** Asks on behalf of a program; the payload is the caller's to give away. */
  sendEcho(link: Link, echo: ProgramEcho, way: StagedPacket["way"], now: Instant): void {
    link.sendVirtual(this.#request(link.node, now, false, echo).packet, true, way);
  }

  pollEchoAnswer(): EchoAnswer | undefined {
    return this.#echoAnswers.shift();
  }

  /** Sends a request under one particular key, to see whether the peer holds it too. */
  prove(link: Link, keySlot: number, now: Instant): void {
    link.sendProof(keySlot, this.#request(link.node, now).packet);
  }

  /** Sends a request straight to one endpoint, whatever the path is. */
  proveDirect(link: Link, endpoint: Endpoint, now: Instant): void {
    link.sendProofBy(endpoint, this.#request(link.node, now, true).packet);
  }

  /** Sends a request through the relay, whatever the path is. */
  proveRelay(link: Link, now: Instant): void {
    link.sendProofBy(undefined, this.#request(link.node, now).packet);
  }

  /** A control packet of an authenticated peer. */
  handle(link: Link, packet: VirtualPacket, now: Instant): DropReason | undefined {
    if ((packet.flags & FLAG.ACK) !== 0) return this.#handleAnswer(link, packet, now);
    if (packet.destinationPort !== CONTROL_PORT) return "unhandled-virtual-packet";
    // A request from port 0 would have its answer taken for a request by the reference: the loop of §2.3.
    if (packet.sourcePort === CONTROL_PORT) return "unhandled-virtual-packet";
    link.answerVirtual(
      encodeVirtualPacket({
        flags: FLAG.ACK,
        protocol: PROTOCOL.CONTROL,
        source: packet.destination,
        destination: packet.source,
        sourcePort: CONTROL_PORT,
        destinationPort: packet.sourcePort,
        sequence: packet.sequence,
        acknowledgement: (packet.sequence + 1) >>> 0,
        window: 0,
        payload: packet.payload,
      }),
    );
    return undefined;
  }

  pollPong(): Pong | undefined {
    return this.#pongs.shift();
  }

  #handleAnswer(link: Link, packet: VirtualPacket, now: Instant): DropReason | undefined {
    const request = this.#pending.get(packet.sequence);
    if (request?.node !== link.node || packet.destinationPort !== SOURCE_PORT) return undefined; // late: no harm
    this.#pending.delete(packet.sequence);
    const rttMs = now - request.sentAt;
    if (request.direct) link.handleProbeAnswer(request.sentAt, now);
    this.#rttMs.set(link.node, rttMs);
    this.#answered(link, packet.sequence, now);
    if (request.echo !== undefined) {
      const { node, cameByRelay: byRelay } = link;
      this.#echoAnswers.push({ node, echo: request.echo, payload: packet.payload.slice(), byRelay });
      return undefined;
    }
    this.#pongs.push({ node: link.node, sequence: packet.sequence, rttMs });
    if (this.#pongs.length > MAX_PENDING) this.#pongs.shift();
    return undefined;
  }

  #request(node: NodeId, now: Instant, direct = false, echo?: ProgramEcho): { packet: Uint8Array; sequence: number } {
    this.#sequence = (this.#sequence + 1) >>> 0;
    this.#pending.set(this.#sequence, { node, sentAt: now, direct, echo });
    const network = echo?.network ?? BACKBONE;
    const packet = encodeVirtualPacket({
      flags: 0,
      protocol: PROTOCOL.CONTROL,
      source: { network, node: this.#local },
      destination: { network, node },
      sourcePort: SOURCE_PORT,
      destinationPort: CONTROL_PORT,
      sequence: this.#sequence,
      acknowledgement: 0,
      window: 0,
      payload: echo?.payload ?? NO_PAYLOAD,
    });
    return { packet, sequence: this.#sequence };
  }
}

interface PendingPing {
  readonly node: NodeId;
  readonly sentAt: Instant;
  readonly direct: boolean;
  readonly echo: ProgramEcho | undefined;
}

const NO_PAYLOAD = new Uint8Array(0);
const CONTROL_PORT = 0;
const SOURCE_PORT = 49_151; // below the ephemeral range that streams draw from
const MAX_PENDING = 4_096;
