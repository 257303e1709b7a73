/**
 * Guests: programs in network namespaces of their own that speak by this node's address. What tells their packets from the
 * host's is the port: each guest has a range of TCP and UDP ports that no program of the host can have, so nothing is
 * translated and no flow is remembered. Echo requests have no port; whose identifier one was is remembered by the identifier.
 */
import { readU16 } from "../base/bytes.ts";
import type { DropReason } from "../base/drop-reason.ts";
import { ICMPV6_TYPE } from "../wire/icmpv6.ts";
import { IPV6, IPV6_HEADER_BYTES, NEXT_HEADER } from "../wire/ipv6.ts";

/** 1 to MAX_GUESTS. */
export type GuestNumber = number;

export interface PortRange {
  readonly first: number;
  readonly count: number;
}

/** `names`: a question for the responder of this host. */
export type GuestVerdict = "forward" | "names" | DropReason;

export class GuestPorts {
  readonly #own: Uint8Array;
  /** Guest by port, 0 for the host. Bound: all ports there are. */
  readonly #byPort = new Uint8Array(PORTS);
  /** Guest by identifier of the echo requests it sent last. Bound: all identifiers there are. */
  readonly #byEcho = new Uint8Array(PORTS);

  /** `own`: this node's address, 16 bytes. In each network it has one that differs in the network alone. */
  constructor(own: Uint8Array) {
    this.#own = own;
  }

  assign(guest: GuestNumber, { first, count }: PortRange): void {
    this.#byPort.fill(guest, first, first + count);
  }

  release(guest: GuestNumber): void {
    for (const table of [this.#byPort, this.#byEcho]) {
      for (let i = 0; i < PORTS; i++) if (table[i] === guest) table[i] = 0;
    }
  }

  /** The guest whose flow has this end at this node; 0: none. */
  ownerOf(protocol: number, port: number): GuestNumber {
    return (protocol === NEXT_HEADER.ICMPV6 ? this.#byEcho : this.#byPort)[port]!;
  }

  /** What becomes of a packet that a guest sent. Never throws, whatever the bytes are. */
  judge(guest: GuestNumber, packet: Uint8Array): GuestVerdict {
    if (packet.length < IPV6_HEADER_BYTES || packet[0]! >>> 4 !== 6) return "not-ipv6";
    if (packet[IPV6.DESTINATION] === MULTICAST) return "multicast";
    if (!this.#isOwn(packet, IPV6.SOURCE)) return "spoofed-source";
    if (!this.#hasPrefix(packet, IPV6.DESTINATION)) return "no-route";
    if (readU16(packet, IPV6.DESTINATION + NETWORK) === SERVICES) {
      return isNameQuestion(packet) && this.#isGuests(guest, readU16(packet, IPV6_HEADER_BYTES)) ? "names" : "guest";
    }
    // Services of the host itself are none of the overlay's.
    if (this.#isOwn(packet, IPV6.DESTINATION)) return "guest";
    return this.#mayLeave(guest, packet) ? "forward" : "guest";
  }

  /**
   * The guest that a packet for this node is for; 0: the host. Reads only bytes from `offset` on, `length` of them.
   */
  ownerOfIncoming(bytes: Uint8Array, offset: number, length: number): GuestNumber {
    const transport = offset + IPV6_HEADER_BYTES;
    if (length < IPV6_HEADER_BYTES + 8) return 0;
    switch (bytes[offset + IPV6.NEXT_HEADER]) {
      case NEXT_HEADER.TCP:
      case NEXT_HEADER.UDP:
        return this.#byPort[readU16(bytes, transport + DESTINATION_PORT)]!;
      case NEXT_HEADER.ICMPV6:
        return this.#ownerOfIcmp(bytes, transport, length - IPV6_HEADER_BYTES);
      default:
        return 0;
    }
  }

  /** An error is for whoever sent the packet that it quotes. */
  #ownerOfIcmp(bytes: Uint8Array, icmp: number, length: number): GuestNumber {
    const type = bytes[icmp]!;
    if (type === ICMPV6_TYPE.ECHO_REPLY) return this.#byEcho[readU16(bytes, icmp + ECHO_IDENTIFIER)]!;
    const quoted = icmp + ICMP_HEADER_BYTES;
    if (type >= FIRST_INFORMATIONAL || length < ICMP_HEADER_BYTES + IPV6_HEADER_BYTES + 8) return 0;
    const protocol = bytes[quoted + IPV6.NEXT_HEADER];
    const transport = quoted + IPV6_HEADER_BYTES;
    if (protocol === NEXT_HEADER.TCP || protocol === NEXT_HEADER.UDP) return this.#byPort[readU16(bytes, transport)]!;
    const isEcho = protocol === NEXT_HEADER.ICMPV6 && bytes[transport] === ICMPV6_TYPE.ECHO_REQUEST;
    return isEcho ? this.#byEcho[readU16(bytes, transport + ECHO_IDENTIFIER)]! : 0;
  }

  #mayLeave(guest: GuestNumber, packet: Uint8Array): boolean {
    if (packet.length < IPV6_HEADER_BYTES + 8) return false;
    switch (packet[IPV6.NEXT_HEADER]) {
      case NEXT_HEADER.TCP:
      case NEXT_HEADER.UDP:
        return this.#isGuests(guest, readU16(packet, IPV6_HEADER_BYTES));
      case NEXT_HEADER.ICMPV6:
        return this.#mayIcmpLeave(guest, packet);
      default:
        return false;
    }
  }

  /** Echo requests, and errors about packets that came to its own ports. */
  #mayIcmpLeave(guest: GuestNumber, packet: Uint8Array): boolean {
    const type = packet[IPV6_HEADER_BYTES]!;
    if (type === ICMPV6_TYPE.ECHO_REQUEST) {
      this.#byEcho[readU16(packet, IPV6_HEADER_BYTES + ECHO_IDENTIFIER)] = guest;
      return true;
    }
    const quoted = IPV6_HEADER_BYTES + ICMP_HEADER_BYTES;
    if (type >= FIRST_INFORMATIONAL || packet.length < quoted + IPV6_HEADER_BYTES + 8) return false;
    const protocol = packet[quoted + IPV6.NEXT_HEADER];
    const hasPorts = protocol === NEXT_HEADER.TCP || protocol === NEXT_HEADER.UDP;
    return hasPorts && this.#isGuests(guest, readU16(packet, quoted + IPV6_HEADER_BYTES + DESTINATION_PORT));
  }

  #isGuests(guest: GuestNumber, port: number): boolean {
    return this.#byPort[port] === guest;
  }

  #hasPrefix(packet: Uint8Array, offset: number): boolean {
    for (let i = 0; i < NETWORK; i++) if (packet[offset + i] !== this.#own[i]) return false;
    return true;
  }

  /** One of this node's addresses; which networks it is in is the engine's to know. */
  #isOwn(packet: Uint8Array, offset: number): boolean {
    if (!this.#hasPrefix(packet, offset)) return false;
    for (let i = SUB_ADDRESS; i < 16; i++) if (packet[offset + i] !== this.#own[i]) return false;
    return true;
  }
}

function isNameQuestion(packet: Uint8Array): boolean {
  if (packet.length < IPV6_HEADER_BYTES + 8 || packet[IPV6.NEXT_HEADER] !== NEXT_HEADER.UDP) return false;
  return readU16(packet, IPV6_HEADER_BYTES + DESTINATION_PORT) === DNS_PORT;
}

export const MAX_GUESTS = 16;
const PORTS = 65_536;
const MULTICAST = 0xff;
/** Offsets inside an address. */
const NETWORK = 6;
const SUB_ADDRESS = 8;
/** Of the addresses that are no node's. */
const SERVICES = 0xffff;
const DNS_PORT = 53;
const DESTINATION_PORT = 2;
const ICMP_HEADER_BYTES = 8;
const ECHO_IDENTIFIER = 4;
/** ICMPv6 types below are errors (RFC 4443 §2.1). */
const FIRST_INFORMATIONAL = 128;
