/**
 * What needs no connection, between local programs and plain agents: UDP becomes a datagram with the same ports (but see
 * answer-ports.ts), an echo request becomes a control ping, and back. Both ends of each are in one network. A packet that
 * the kernel cut is put together first, so that the size of a datagram is bounded by the agent's frames and not by our
 * interface.
 */
import { readU16 } from "../../base/bytes.ts";
import type { DropCounters, DropReason } from "../../base/drop-reason.ts";
import type { Instant } from "../../base/instant.ts";
import type { StagedPacket } from "../../tunnel/data-plane.ts";
import type { Link } from "../../tunnel/link.ts";
import type { LinkTable } from "../../tunnel/link-table.ts";
import { networkAt } from "../../wire/address.ts";
import { RELAY_PREFIX_BYTES } from "../../wire/beacon.ts";
import { BRIDGE_PORT } from "../../wire/bridge.ts";
import { encodeEcho, ICMPV6_TYPE } from "../../wire/icmpv6.ts";
import type { NetworkId, NodeId, PilotAddress } from "../../wire/ids.ts";
import { IPV6, IPV6_HEADER_BYTES, NEXT_HEADER } from "../../wire/ipv6.ts";
import { encodeUdpPacket, UDP, UDP_HEADER_BYTES } from "../../wire/udp.ts";
import {
  encodeVirtualPacket,
  MAX_VIRTUAL_PAYLOAD_BYTES,
  PROTOCOL,
  type VirtualPacket,
} from "../../wire/virtual-packet.ts";
import type { Admission } from "../admission.ts";
import type { EchoAnswer, Pings } from "../pings.ts";
import type { Refusals } from "../refusals.ts";
import { AnswerPorts } from "./answer-ports.ts";
import { LocalFragments } from "./local-fragments.ts";
import type { TranslatedTraffic } from "./translated-traffic.ts";

export interface TranslationParts {
  readonly links: LinkTable;
  readonly local: NodeId;
  readonly pings: Pings;
  readonly refusals: Refusals;
  readonly drops: DropCounters;
  readonly admission: Admission;
  /** 16 bytes. */
  addressOf(address: PilotAddress): Uint8Array;
  /** Writes a whole packet to the TUN. */
  deliver(packet: Uint8Array): void;
  readonly traffic: TranslatedTraffic;
}

export class Translation {
  readonly #parts: TranslationParts;
  readonly #fragments: LocalFragments;
  readonly #answerPorts = new AnswerPorts();

  constructor(parts: TranslationParts) {
    this.#parts = parts;
    this.#fragments = new LocalFragments(parts.drops);
  }

  forget(link: Link): void {
    this.#fragments.forget(link.index);
  }

  // ---- program → agent

  /** An allowed packet that is not TCP; borrowed. */
  send(link: Link, packet: StagedPacket, now: Instant): "taken" | DropReason {
    const { bytes } = packet;
    switch (bytes[IPV6.NEXT_HEADER]) {
      case NEXT_HEADER.UDP:
        return this.#sendDatagrams(link, packet, now);
      case NEXT_HEADER.ICMPV6:
        return this.#sendPing(link, packet, now);
      case NEXT_HEADER.FRAGMENT:
        return this.#sendFragment(link, packet, now);
      default:
        return this.#refuse(bytes, now);
    }
  }

  #refuse(packet: Uint8Array, now: Instant): DropReason {
    this.#parts.refusals.unreachable(packet, now);
    return "peer-kind";
  }

  #sendFragment(link: Link, { bytes, way }: StagedPacket, now: Instant): "taken" | DropReason {
    const packet = this.#fragments.add(link.index, bytes, now);
    if (packet === undefined) return "taken";
    if (typeof packet === "string") return packet;
    const isFragment = packet[IPV6.NEXT_HEADER] === NEXT_HEADER.FRAGMENT; // within a fragment: no kernel does that
    return isFragment ? "malformed-packet" : this.send(link, { ...AS_IT_IS, bytes: packet, way }, now);
  }

  /** A superpacket of the TUN is several datagrams of `gsoSize` bytes. */
  #sendDatagrams(link: Link, { bytes, gsoType, gsoSize, way }: StagedPacket, now: Instant): "taken" | DropReason {
    if (bytes.length < UDP_PAYLOAD_AT) return "malformed-packet";
    const sourcePort = readU16(bytes, IPV6_HEADER_BYTES + UDP.SOURCE_PORT);
    const destinationPort = readU16(bytes, IPV6_HEADER_BYTES + UDP.DESTINATION_PORT);
    if (destinationPort === BRIDGE_PORT) return this.#refuse(bytes, now);
    const size = gsoType === 0 ? bytes.length - UDP_PAYLOAD_AT : gsoSize;
    if (!this.#fitsFrame(link, bytes, size, now)) return "too-big";
    if (size === 0) return "peer-kind"; // an empty datagram is dropped by every daemon
    const ports = { network: networkAt(bytes, IPV6.DESTINATION), sourcePort, destinationPort };
    this.#answerPorts.noteSent(ports.network, link.node, sourcePort, destinationPort, now);
    for (let at = UDP_PAYLOAD_AT; at < bytes.length; at += size) {
      const payload = bytes.subarray(at, Math.min(at + size, bytes.length));
      link.sendVirtual(this.#datagram(link.node, ports, payload), true, way);
      this.#parts.traffic.noteSent(link.node, payload.length);
    }
    link.noteSent(now);
    return "taken";
  }

  #datagram(node: NodeId, { network, ...ports }: Ports, payload: Uint8Array): Uint8Array {
    return encodeVirtualPacket({
      ...ports,
      flags: 0,
      protocol: PROTOCOL.DATAGRAM,
      source: { network, node: this.#parts.local },
      destination: { network, node },
      sequence: 0,
      acknowledgement: 0,
      window: 0,
      payload,
    });
  }

  #sendPing(link: Link, { bytes, way }: StagedPacket, now: Instant): "taken" | DropReason {
    if (bytes.length < ECHO_PAYLOAD_AT) return "malformed-packet";
    // An error about a packet of the agent's has no place in its protocol.
    if (bytes[IPV6_HEADER_BYTES] !== ICMPV6_TYPE.ECHO_REQUEST) return "peer-kind";
    const size = bytes.length - ECHO_PAYLOAD_AT;
    if (!this.#fitsFrame(link, bytes, size, now)) return "too-big";
    const identifier = readU16(bytes, IPV6_HEADER_BYTES + 4);
    const sequence = readU16(bytes, IPV6_HEADER_BYTES + 6);
    const network = networkAt(bytes, IPV6.DESTINATION);
    const echo = { network, identifier, sequence, payload: bytes.slice(ECHO_PAYLOAD_AT) };
    this.#parts.pings.sendEcho(link, echo, way, now);
    this.#parts.traffic.noteSent(link.node, size);
    link.noteSent(now);
    return "taken";
  }

  /** False for more than any frame carries, of which the program is told. */
  #fitsFrame(link: Link, packet: Uint8Array, payloadBytes: number, now: Instant): boolean {
    const largest = MAX_VIRTUAL_PAYLOAD_BYTES - (link.path.isRelayed ? RELAY_PREFIX_BYTES : 0);
    if (payloadBytes <= largest) return true;
    this.#parts.refusals.packetTooBig(packet, largest + UDP_PAYLOAD_AT, now);
    return false;
  }

  // ---- agent → program

  /** A datagram of a peer that may talk to us; its bytes are borrowed. */
  handleDatagram(link: Link, packet: VirtualPacket, now: Instant): DropReason | undefined {
    if (packet.payload.length === 0 || packet.destinationPort === 0) return "unhandled-virtual-packet";
    const { network } = packet.source;
    const { sourcePort, destinationPort } = packet;
    const translated = encodeUdpPacket({
      ...this.#between(network, link.node),
      sourcePort: this.#answerPorts.shown(network, link.node, destinationPort, sourcePort, now),
      destinationPort,
      payload: packet.payload,
    });
    return this.decideTranslated(link, translated, now);
  }

  /** A packet for the interface that was made out of what the peer sent: now, or after it waited. */
  decideTranslated(
    link: Link,
    translated: Uint8Array,
    now: Instant,
    byRelay = link.cameByRelay,
  ): DropReason | undefined {
    const refused = this.#parts.admission.admitTranslated(translated, link, byRelay, now);
    if (refused === "waits") return undefined;
    if (refused !== undefined) return refused;
    this.#parts.traffic.noteReceived(link.node, translated.length - IPV6_HEADER_BYTES - UDP_HEADER_BYTES);
    this.#parts.deliver(translated);
    return undefined;
  }

  /** Goes to the program that asked, as part of its flow. */
  answerEcho({ node, echo, payload, byRelay }: EchoAnswer, now: Instant): DropReason | undefined {
    const link = this.#parts.links.get(node);
    if (link === undefined) return "no-session";
    const { identifier, sequence, network } = echo;
    const reply = { type: ICMPV6_TYPE.ECHO_REPLY, identifier, sequence, payload };
    const packet = encodeEcho({ ...reply, ...this.#between(network, node) });
    return this.decideTranslated(link, packet, now, byRelay);
  }

  #between(network: NetworkId, node: NodeId): { readonly source: Uint8Array; readonly destination: Uint8Array } {
    const { addressOf, local } = this.#parts;
    return { source: addressOf({ network, node }), destination: addressOf({ network, node: local }) };
  }
}

interface Ports {
  readonly network: NetworkId;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

const UDP_PAYLOAD_AT = IPV6_HEADER_BYTES + UDP_HEADER_BYTES;
/** The same number: an echo's header has eight bytes too. */
const ECHO_PAYLOAD_AT = IPV6_HEADER_BYTES + 8;
/** No superpacket, and its checksum is complete. */
const AS_IT_IS = { gsoType: 0, gsoSize: 0, csumStart: 0, csumOffset: 0, headerLength: 0 };
