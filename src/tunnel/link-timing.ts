/** When a link repeats, waits, gives up, and other numbers of `link.ts`; times are in milliseconds where the name says so. */

/** Delays before the repeats of our first exchange: a lost datagram costs little, a dead peer costs little too. */
export const RETRY_MS = [250, 500, 1000, 2000, 4000];
/** So long after the last of them an answer is still good: where much is going on they come late. */
export const LATE_ANSWER_MS = 10_000;
/** From this repeat on the exchange also goes through the beacon. */
export const RELAY_ATTEMPT = 1;
export const ASK_AGAIN_ATTEMPT = 3;
/** How long a local program waits for a peer that does not answer, before it is told. */
export const REFUSE_MS = 3_000;
/** Silence after sending that means one-way traffic; with PROBE_MS it must mend a restarted peer within 3 s. */
export const REPLY_DUE_MS = 1_500;
export const PROBE_MS = 700;
export const MAX_PROBES = 20;
/** With the second probe every way has been asked and had time to answer: packets wait from then on. */
export const DOZE_PROBES = 2;
/** How soon after the first packet, and how often while packets go, traffic is looked at. */
export const MTU_CHECK_MS = 1_000;
export const KEEPALIVE_MS = 700;
/** A session that opened a frame within this time works. */
export const ALIVE_MS = 1_500;
export const SAME_KEY_ANSWER_MS = 500;
/** A link that is used again looks for a direct way again. */
export const DIRECT_RETRY_MS = 500;
/** A frame from an unexpected endpoint is answered with a probe at most this often. */
export const CONFIRM_GAP_MS = 100;
/** Something was heard so lately that the mapping needs no refreshing before the next look. */
export const QUIET_MS = 10_000;
/** The shortest lifetime of a UDP mapping that is common (RFC 4787 asks for 2 min, conntrack gives 30 s). */
export const MAPPING_LIFE_MS = 30_000;
export const NEXT_LIFETIME_MS = 5_000;
/** Longer than most round trips: the peer says something as soon as it has the key. */
export const HELD_MS = 150;
export const PREVIOUS_LIFETIME_MS = 10_000;
/** Who was asked for keys leaves it to the asking side, which has them later, to begin with the agreement. */
export const AGREE_TURN_MS = 500;
/** Longer than all repeats of a first message: an answer to any of them must still be good for something. */
export const AGREED_LIFETIME_MS = 15_000;
/** A rekey that was not answered is tried again, though the packets of the peer arrive. */
export const REKEY_AGAIN_MS = 5_000;
/** So long keys go on being used that should be replaced; then the peer is asked for everything anew. */
export const REKEY_GRACE_MS = 60_000;
/** A peer that says it agrees on keys, and does not: not a matter of some lost datagrams. */
export const AGREE_AGAIN_MS = 60_000;
/** What a replayed exchange left behind is forgotten. */
export const CARRIER_LIFETIME_MS = 30_000;
/** A datagram that every path of 1,280 bytes carries whole, over IPv6 too (RFC 8200 §5). */
export const UNBROKEN_BYTES = 1_280 - 40 - 8;
