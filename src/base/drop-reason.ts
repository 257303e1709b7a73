/**
 * Why a packet went no further: a closed set that is also the label in `status` and in metrics.
 * A drop is counted, never thrown and never a log line of its own.
 */
export const DROP_REASONS = [
  // Underlay datagrams (UDP → TUN).
  "datagram-too-short",
  "unknown-magic",
  "unknown-sender",
  "no-session",
  "bad-tag",
  "replayed",
  "bad-virtual-packet",
  "inner-mismatch",
  "plaintext-refused",
  "anonymous-exchange-refused",
  "bad-key-exchange",
  "wrong-key",
  "stale-key-exchange",
  "key-exchange-limited",
  /** The peer is known to agree on keys inside the session, and this came under those of the exchange alone. */
  "base-session",
  "beacon-spoofed",
  /** In the beacon's name this node was said to be somewhere else, more often than that happens. */
  "beacon-limited",
  /** Came straight to a node that is to be reached through the relay only. */
  "direct-refused",
  "unknown-bridge-message",
  "questions-limited",
  "unhandled-virtual-packet",
  "bad-fragment",
  "fragments-lost",
  // Inner packets, both directions.
  "malformed-packet",
  "not-ipv6",
  "multicast",
  "spoofed-source",
  "wrong-destination",
  "no-route",
  "not-trusted",
  "revoked",
  /** The lease has no such port. */
  "lease",
  /** The time or the bytes of the lease are used up. */
  "lease-ended",
  /** An address in a network that this node, or the peer, is not a member of. */
  "not-member",
  "policy",
  /** The peer holds so many flows that its next would push out those of others. */
  "flow-limit",
  /** So many flows wait to hear whose socket theirs is that no other can. */
  "owner-queue-full",
  /** Beyond the rate that its rule grants. */
  "over-limit",
  /** The bytes that its rule grants in a time are used up. */
  "over-budget",
  /** As many flows have begun as its rule grants in a time. */
  "over-flows",
  /** Its rule names another way than the packet came, or would have to go. */
  "wrong-path",
  "too-big",
  "no-path",
  "staging-full",
  "peer-kind",
  /** From a program in a namespace of its own: not from its ports, of another protocol, or for this host itself. */
  "guest",
  // Device and socket.
  "tun-write-failed",
  /** The network takes less than programs send, and the longest of the queues of those that wait had to make room. */
  "egress-full",
  /** The same, and its flow's queue had been too long for too long. */
  "egress-delay",
  "send-failed",
  /** Sealed or relayed frames came faster than they were read. */
  "socket-full",
  /** The same of all else, which has a small buffer so that a flood of it takes nothing from frames. */
  "second-socket-full",
] as const;

export type DropReason = (typeof DROP_REASONS)[number];

/** One counter per reason. */
export class DropCounters {
  readonly #counts = new Float64Array(DROP_REASONS.length);

  count(reason: DropReason, packets = 1): void {
    const index = INDEX.get(reason)!;
    this.#counts[index] = this.#counts[index]! + packets;
  }

  of(reason: DropReason): number {
    return this.#counts[INDEX.get(reason)!]!;
  }

  /** Only what was counted, in the order of the list. */
  nonZero(): Partial<Record<DropReason, number>> {
    const seen: Partial<Record<DropReason, number>> = {};
    DROP_REASONS.forEach((reason, index) => {
      if (this.#counts[index] !== 0) seen[reason] = this.#counts[index]!;
    });
    return seen;
  }
}

const INDEX = new Map<DropReason, number>(DROP_REASONS.map((reason, index) => [reason, index]));
