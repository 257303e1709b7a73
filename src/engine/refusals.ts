/**
 * What programs on this host are told when a packet of theirs will not arrive, or a flow of theirs was cut: ICMPv6 errors
 * (RFC 4443) and, for TCP connections that were open, resets. Only ever written to the TUN; strangers on the network are told nothing.
 * Bounded by a token bucket: a refusal nobody reads must not cost more than the packet it answers.
 */
import type { Instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import type { Flow } from "../policy/flow-table.ts";
import {
  encodeEcho,
  encodePacketTooBig,
  encodeUnreachable,
  ICMPV6_TYPE,
  mayAnswerWithError,
  UNREACHABLE,
} from "../wire/icmpv6.ts";
import { IPV6_HEADER_BYTES, NEXT_HEADER } from "../wire/ipv6.ts";
import { encodeReset, encodeSyn, MIN_TCP_HEADER_BYTES, TCP, TCP_FLAG } from "../wire/tcp.ts";
import { encodeUdpPacket } from "../wire/udp.ts";

export class Refusals {
  readonly #source: Uint8Array;
  readonly #prefix: Uint8Array;
  readonly #bucket: TokenBucket;
  readonly #packets: Uint8Array[] = [];
  /** Bound: the flow table; emptied after every input. */
  readonly #cut: Flow[] = [];

  /** `localAddress`: 16 bytes; errors come from the node itself. */
  constructor(localAddress: Uint8Array, now: Instant) {
    this.#source = localAddress;
    this.#prefix = localAddress.slice(0, 4);
    this.#bucket = new TokenBucket(RATE_PER_SECOND, BURST, now);
  }

  noRoute(packet: Uint8Array, now: Instant): void {
    this.#unreachable(packet, UNREACHABLE.NO_ROUTE, now);
  }

  /** The peer is trusted but does not answer. */
  unreachable(packet: Uint8Array, now: Instant): void {
    this.#unreachable(packet, UNREACHABLE.ADDRESS, now);
  }

  /** Trust or policy says no. An open TCP connection is reset: an ICMP error alone would leave it hanging. */
  prohibited(packet: Uint8Array, now: Instant): void {
    if (this.#resetOpenConnection(packet, now)) return;
    this.#unreachable(packet, UNREACHABLE.PROHIBITED, now);
  }

  /** It comes from an address that is not this node's. */
  foreignSource(packet: Uint8Array, now: Instant): void {
    this.#unreachable(packet, UNREACHABLE.SOURCE, now);
  }

  /** The lease under which it could go is over. */
  leaseEnded(packet: Uint8Array, now: Instant): void {
    if (this.#resetOpenConnection(packet, now)) return;
    this.#unreachable(packet, UNREACHABLE.REJECT_ROUTE, now);
  }

  /** It may not go now, but may soon: what is open stays open. */
  barred(packet: Uint8Array, now: Instant): void {
    this.#unreachable(packet, UNREACHABLE.PROHIBITED, now);
  }

  packetTooBig(packet: Uint8Array, mtuBytes: number, now: Instant): void {
    if (!mayAnswerWithError(packet) || !this.#bucket.take(now)) return;
    this.#push(encodePacketTooBig({ source: this.#source, offending: packet, mtu: mtuBytes }));
  }

  /** Ends the local side of flows that were cut; programs learn it now, not by their next packet. */
  cut(flows: readonly Flow[], code: number = UNREACHABLE.PROHIBITED): void {
    for (const flow of flows) {
      this.#cut.push(flow);
      if (flow.protocol === NEXT_HEADER.TCP && flow.synSent === undefined) this.#resetFlow(flow);
      else this.#tellOfCut(flow, code);
    }
  }

  /** The flows cut since the last call, for those who hold the other side of some. */
  takeCut(): readonly Flow[] {
    return this.#cut.splice(0);
  }

  pollPacket(): Uint8Array | undefined {
    return this.#packets.shift();
  }

  #unreachable(packet: Uint8Array, code: number, now: Instant): void {
    if (!mayAnswerWithError(packet) || !this.#bucket.take(now)) return;
    this.#push(encodeUnreachable({ source: this.#source, offending: packet, code }));
  }

  /** A reset with the very number the local socket acknowledged last is believed at once (RFC 5961 §3.2). */
  #resetOpenConnection(packet: Uint8Array, now: Instant): boolean {
    if (packet.length < IPV6_HEADER_BYTES + MIN_TCP_HEADER_BYTES || packet[6] !== NEXT_HEADER.TCP) return false;
    const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
    const flags = packet[IPV6_HEADER_BYTES + TCP.FLAGS]!;
    if ((flags & TCP_FLAG.RST) !== 0) return true;
    if ((flags & TCP_FLAG.SYN) !== 0 || (flags & TCP_FLAG.ACK) === 0) return false;
    if (!this.#bucket.take(now)) return true;
    this.#push(
      encodeReset({
        source: packet.subarray(24, 40),
        destination: packet.subarray(8, 24),
        sourcePort: view.getUint16(IPV6_HEADER_BYTES + 2),
        destinationPort: view.getUint16(IPV6_HEADER_BYTES),
        sequence: view.getUint32(IPV6_HEADER_BYTES + TCP.ACKNOWLEDGEMENT),
      }),
    );
    return true;
  }

  /**
   * The socket expects either what it acknowledged last or, when an acknowledgement was still due, what followed the
   * last bytes it was given: one reset for each.
   */
  #resetFlow(flow: Flow): void {
    for (const sequence of new Set([flow.lastAckSent, flow.nextSeqReceived])) {
      if (sequence === undefined) continue;
      this.#push(
        encodeReset({
          source: this.#address(flow.remote),
          destination: this.#address(flow.local),
          sourcePort: flow.remotePort,
          destinationPort: flow.localPort,
          sequence,
        }),
      );
    }
  }

  /** An error about the packet that the program could have sent last: its kernel finds the socket by what is quoted. */
  #tellOfCut(flow: Flow, code: number): void {
    const ends = { source: this.#address(flow.local), destination: this.#address(flow.remote) };
    const ports = { sourcePort: flow.localPort, destinationPort: flow.remotePort };
    const offending = sampleOf(flow, ends, ports);
    if (offending === undefined) return;
    this.#push(encodeUnreachable({ source: this.#source, offending, code }));
  }

  #address(tail: Uint8Array): Uint8Array {
    const address = new Uint8Array(16);
    address.set(this.#prefix);
    address.set(tail, 4);
    return address;
  }

  #push(packet: Uint8Array): void {
    if (this.#packets.length < MAX_QUEUED) this.#packets.push(packet);
  }
}

interface Ends {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
}

/** A packet of the flow's local program; undefined where none would wait for an answer. */
function sampleOf(
  flow: Flow,
  ends: Ends,
  ports: { readonly sourcePort: number; readonly destinationPort: number },
): Uint8Array | undefined {
  switch (flow.protocol) {
    case NEXT_HEADER.TCP:
      return flow.synSent === undefined ? undefined : encodeSyn({ ...ends, ...ports, sequence: flow.synSent });
    case NEXT_HEADER.UDP:
      return encodeUdpPacket({ ...ends, ...ports, payload: NO_PAYLOAD });
    case NEXT_HEADER.ICMPV6: {
      const echo = { type: ICMPV6_TYPE.ECHO_REQUEST, identifier: flow.remotePort, sequence: 0, payload: NO_PAYLOAD };
      return flow.beganRemotely ? undefined : encodeEcho({ ...echo, ...ends });
    }
    default:
      return undefined;
  }
}

const NO_PAYLOAD = new Uint8Array(0);
const RATE_PER_SECOND = 500;
const BURST = 250;
/** What is said of a cut is not rate limited, so the queue has a bound of its own. */
const MAX_QUEUED = 65_536;
