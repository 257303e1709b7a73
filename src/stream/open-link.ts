/**
 * An open stream: what happens between the handshake and the end of both directions (pilot protocol §4.2 to §4.8).
 * It joins a sender, a receiver and the keep-alive, and decides when each direction ends. Most references cannot half-close:
 * what they hear after a FIN of either side they do not deliver. Towards them our FIN waits for their answer, and theirs
 * ends our direction too. Each input returns an outcome once the stream is over; then only `nextPacket` may follow.
 */
import { after, type Deadline, earlier, type Instant } from "../base/instant.ts";
import { encodeSack, parseSack } from "../wire/stream-sack.ts";
import { FLAG } from "../wire/virtual-packet.ts";
import type { Fifo } from "./fifo.ts";
import { Keepalive } from "./keepalive.ts";
import { judgePeer, type PeerTraits } from "./peer-traits.ts";
import { Receiver } from "./receiver.ts";
import { Sender, type Transmission } from "./sender.ts";
import { sequenceAdd, sequenceAfter } from "./sequence.ts";
import type { StreamShares } from "./shares.ts";
import type { StreamEvent, StreamFailure } from "./stream-event.ts";
import type { StreamOptions } from "./stream-options.ts";
import { hasFlag, type PacketForm, type StreamPacket } from "./stream-packet.ts";

export type LinkOutcome =
  /** Both directions ended. */
  | { readonly kind: "finished" }
  /** The far side is to be told by RST. */
  | { readonly kind: "failed"; readonly failure: StreamFailure };

export interface LinkNumbers {
  /** Our SYN's sequence number, and the far side's. */
  readonly ownSequence: number;
  readonly peerSequence: number;
  /** The window of the far side's SYN, in segments. */
  readonly peerWindow: number;
  /** Who opened the stream. */
  readonly isPeers: boolean;
}

export interface LinkSurroundings {
  readonly outbox: Fifo<StreamPacket>;
  readonly events: Fifo<StreamEvent>;
  readonly shares: StreamShares;
  /** Called when the link may have packets to send without an input of its own. */
  readonly wake: () => void;
}

export class OpenLink {
  readonly traits: PeerTraits;
  readonly #numbers: LinkNumbers;
  readonly #options: StreamOptions;
  readonly #form: PacketForm;
  readonly #outbox: Fifo<StreamPacket>;
  readonly #events: Fifo<StreamEvent>;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #keepalive: Keepalive;
  #saidReadable = false;
  #saidEnded = false;
  #awaitsRoom = false;
  #undeliveredBytes = 0;
  #ownEnd: "none" | "half" | "whole" = "none";
  /** When a FIN goes that waits for the far side to say its say. */
  #finAt: Instant | undefined;
  /** When the far side last said or took something; what merely keeps the stream alive does not count. */
  #activeAt: Instant;
  /** How long an acknowledged FIN waits for the far side's. */
  #finWaitUntil: Instant | undefined;

  constructor(
    numbers: LinkNumbers,
    options: StreamOptions,
    form: PacketForm,
    surroundings: LinkSurroundings,
    now: Instant,
  ) {
    const { outbox, events, shares, wake } = surroundings;
    this.traits = judgePeer(numbers.peerSequence, options.halfClose);
    this.#numbers = numbers;
    this.#options = options;
    this.#form = form;
    this.#outbox = outbox;
    this.#events = events;
    const context = { options, traits: this.traits, shares, wake };
    this.#sender = new Sender(sequenceAdd(numbers.ownSequence, 1), numbers.peerWindow, context, now);
    this.#receiver = new Receiver(
      sequenceAdd(numbers.peerSequence, 1),
      options.receiveBufferBytes,
      shares,
      this.traits,
      now,
    );
    this.#keepalive = new Keepalive(options.idleLimitMs, now);
    this.#activeAt = now;
  }

  get statistics(): LinkStatistics {
    const { receivedBytes, droppedSegments } = this.#receiver;
    return { ...this.#sender.statistics, receivedBytes, droppedSegments, undeliveredBytes: this.#undeliveredBytes };
  }

  get undeliveredBytes(): number {
    return this.#undeliveredBytes;
  }

  /** True until the first byte went either way. */
  get isUnused(): boolean {
    const { ownSequence, peerSequence } = this.#numbers;
    return this.#receiver.next === sequenceAdd(peerSequence, 1) && this.#sender.next === sequenceAdd(ownSequence, 1);
  }

  get receiveNext(): number {
    return this.#receiver.next;
  }

  get sendNext(): number {
    return this.#sender.next;
  }

  get heardAt(): Instant {
    return this.#keepalive.heardAt;
  }

  /** Takes over as much as there is room for. */
  write(bytes: Uint8Array): number {
    if (this.#ownEnd !== "none") return 0;
    const taken = Math.min(bytes.length, this.#sender.roomBytes);
    if (taken < bytes.length) this.#awaitsRoom = true;
    if (taken > 0) this.#sender.push(taken === bytes.length ? bytes : bytes.subarray(0, taken));
    return taken;
  }

  read(now: Instant): Uint8Array | undefined {
    const chunk = this.#receiver.read(now);
    if (chunk === undefined) this.#saidReadable = false;
    return chunk;
  }

  /** "half": reading goes on. "whole": nobody reads any more. */
  end(extent: "half" | "whole", now: Instant): void {
    if (extent === "whole") this.#receiver.discard();
    if (this.#ownEnd !== "whole") this.#ownEnd = extent;
    if (this.#ownEnd === "whole" || this.traits.halfClose) {
      this.#finAt = undefined;
      this.#sender.allowFin();
      this.#finWaitUntil = undefined;
      if (this.#sender.end === "acknowledged") this.#startFinWait(now);
    } else if (this.#sender.end === "none") {
      this.#finAt ??= after(now, this.#quietMs);
    }
  }

  /** The stream broke: gives up what was not sent and what was not read. */
  abandon(): void {
    this.#sender.abandon();
    this.#receiver.clear();
  }

  /** The stream is over: what was not read may be read still. */
  retire(): void {
    this.#sender.abandon();
    this.#receiver.leaveBudget();
  }

  acknowledgeSoon(now: Instant): void {
    this.#receiver.acknowledger.dueSoon(now);
  }

  /** Sends a byte that the far side has already: every version acknowledges it. */
  provoke(): void {
    this.#outbox.push(this.#ackPacket(sequenceAdd(this.#sender.next, -1), ONE_BYTE));
  }

  acknowledgeAtOnce(now: Instant): void {
    this.#receiver.acknowledger.dueAtOnce(now);
  }

  /** RFC 5961 §3.2; but a reference may fill in no number at all. That it is the far side's own is the tunnel's promise. */
  acceptsReset(packet: StreamPacket): boolean {
    if (this.#receiver.isInWindow(packet.sequence)) return true;
    return this.traits.isReference && packet.sequence === 0 && packet.acknowledgement === 0;
  }

  /** Anything but SYN and RST. */
  handlePacket(packet: StreamPacket, now: Instant): LinkOutcome | undefined {
    const isAck = hasFlag(packet, FLAG.ACK);
    const isFin = hasFlag(packet, FLAG.FIN);
    if (!isAck && !isFin) return undefined;
    if (isAck && sequenceAfter(packet.acknowledgement, this.#sender.next)) return undefined; // RFC 5961 §5.2
    this.#keepalive.handleHeard(now);
    if (isFin) this.#handleFin(packet, isAck, now);
    else this.#handleSegment(packet, now);
    return this.#advance(now);
  }

  handleTimeout(now: Instant): LinkOutcome | undefined {
    if (this.#sender.handleTimeout(now) === "exhausted") {
      // An unanswered FIN loses nothing: all data was acknowledged before it left.
      return this.#sender.end === "sent" ? { kind: "finished" } : { kind: "failed", failure: "timed-out" };
    }
    if (this.#finWaitUntil !== undefined && this.#finWaitUntil <= now) {
      return this.traits.halfClose ? { kind: "failed", failure: "timed-out" } : { kind: "finished" };
    }
    if (this.#finAt !== undefined && this.#finAt <= now) this.#handleFinDue(now);
    this.#receiver.handleTimeout(now);
    return this.#advance(now) ?? this.#keepAlive(now);
  }

  /** `mayBegin` is false once the stream is over: then only what is owed is acknowledged. */
  nextPacket(mayBegin: boolean, now: Instant): StreamPacket | undefined {
    const acknowledger = this.#receiver.acknowledger;
    if (acknowledger.hasUrgent || !mayBegin) return this.#nextAcknowledgement(now);
    const segment = this.#sender.nextTransmission(now);
    if (segment === undefined) return this.#nextAcknowledgement(now);
    if (!segment.isFin) return this.#ackPacket(segment.sequence, segment.payload, segment.segmentBytes);
    return this.#finPacket(segment);
  }

  handleSent(now: Instant): void {
    this.#keepalive.handleSent(now);
  }

  deadline(): Deadline | undefined {
    let deadline = earlier(this.#sender.deadline(), this.#receiver.deadline());
    deadline = earlier(deadline, this.#keepalive.deadline());
    if (this.#finAt !== undefined) deadline = earlier(deadline, { at: this.#finAt, reason: "quiet-before-fin" });
    if (this.#finWaitUntil !== undefined) deadline = earlier(deadline, { at: this.#finWaitUntil, reason: "fin-wait" });
    return deadline;
  }

  acknowledgementDeadline(): Deadline | undefined {
    return this.#receiver.acknowledger.deadline();
  }

  #handleSegment(packet: StreamPacket, now: Instant): void {
    const { payload, acknowledgement, window, segmentBytes = payload.length } = packet;
    const sack = payload.length > segmentBytes ? undefined : parseSack(payload);
    if (sack !== undefined && this.#sender.isPlausibleSack(acknowledgement, payload, sack)) {
      this.#sender.handleAck(acknowledgement, window, false, now);
      this.#sender.handleSack(sack, now);
      return;
    }
    const isNews = acknowledgement !== this.#sender.unacknowledged;
    if (isNews || payload.length > 0) this.#activeAt = now;
    this.#sender.handleAck(acknowledgement, window, payload.length === 0, now);
    if (payload.length > 0) {
      if (this.#receiver.handleData(packet.sequence, payload, segmentBytes, now)) this.#sayReadable();
    } else if (!isNews && this.#sender.isDrained && this.#keepalive.shouldAnswer(now)) {
      this.#receiver.acknowledger.dueSoon(now);
    }
  }

  #handleFin(packet: StreamPacket, isAck: boolean, now: Instant): void {
    if (isAck) this.#sender.handleAckWithoutWindow(packet.acknowledgement, now);
    this.#receiver.handleFin(packet.sequence, isAck, now);
  }

  #advance(now: Instant): LinkOutcome | undefined {
    this.#sayWritable();
    const remote = this.#receiver.remoteEnd.kind;
    if (remote === "truncated") return { kind: "failed", failure: "truncated" };
    if (remote === "ended") return this.#handleRemoteEnded();
    if (this.#sender.end === "acknowledged" && this.#finWaitUntil === undefined) this.#startFinWait(now);
    return undefined;
  }

  #handleRemoteEnded(): LinkOutcome | undefined {
    if (!this.#saidEnded) this.#events.push({ kind: "ended" });
    this.#saidEnded = true;
    this.#finWaitUntil = undefined;
    if (this.#sender.end === "acknowledged") return { kind: "finished" };
    if (this.traits.halfClose || this.#sender.end === "sent") return undefined;
    this.#undeliveredBytes = this.#sender.heldBytes;
    this.#sender.abandon();
    const numbers = { sequence: this.#sender.next, acknowledgement: this.#receiver.next, window: 0 };
    this.#outbox.push(this.#form.packet(FLAG.FIN | FLAG.ACK, numbers));
    this.#receiver.acknowledger.handleSent();
    return { kind: "finished" };
  }

  /** A far side with half-close may go on as long as it likes, but not when nobody reads it. */
  #startFinWait(now: Instant): void {
    if (!this.traits.halfClose) this.#finWaitUntil = after(now, FIN_WAIT_LIMIT_MS);
    else if (this.#ownEnd === "whole") this.#finWaitUntil = after(now, ORPHAN_LIMIT_MS);
  }

  get #quietMs(): number {
    return this.#numbers.isPeers ? this.#options.quietAfterAnswerMs : this.#options.quietBeforeFinMs;
  }

  #handleFinDue(now: Instant): void {
    const quietAt = after(this.#activeAt, this.#quietMs);
    if (quietAt > now) this.#finAt = quietAt;
    else if (!this.#sender.isDrained) this.#finAt = after(now, FIN_RETRY_MS);
    else {
      this.#finAt = undefined;
      this.#sender.allowFin();
    }
  }

  #keepAlive(now: Instant): LinkOutcome | undefined {
    const action = this.#keepalive.handleTimeout(now);
    if (action === "dead") return { kind: "failed", failure: "timed-out" };
    if (action === "announce") this.#receiver.acknowledger.dueAtOnce(now);
    if (action === "provoke") this.provoke();
    return undefined;
  }

  #nextAcknowledgement(now: Instant): StreamPacket | undefined {
    const form = this.#receiver.acknowledger.take(now);
    if (form === undefined) return undefined;
    if (form === "ack") return this.#ackPacket(this.#sender.next);
    const sack = encodeSack(this.#receiver.sackBlocks());
    return sack === undefined ? this.#nextAcknowledgement(now) : this.#ackPacket(this.#sender.next, sack);
  }

  /** A FIN carries no acknowledgement: what is owed goes before it. */
  #finPacket(segment: Transmission): StreamPacket {
    const fin = this.#form.packet(FLAG.FIN, { sequence: segment.sequence, acknowledgement: 0, window: 0 });
    if (this.#receiver.acknowledger.deadline() === undefined) return fin;
    this.#outbox.push(fin);
    return this.#ackPacket(segment.sequence);
  }

  #ackPacket(sequence: number, payload?: Uint8Array, segmentBytes?: number | undefined): StreamPacket {
    this.#receiver.acknowledger.handleSent();
    const numbers = { sequence, acknowledgement: this.#receiver.next, window: this.#receiver.advertise() };
    return this.#form.packet(FLAG.ACK, numbers, payload, segmentBytes);
  }

  #sayReadable(): void {
    if (this.#saidReadable) return;
    this.#saidReadable = true;
    this.#events.push({ kind: "readable" });
  }

  #sayWritable(): void {
    if (!this.#awaitsRoom || this.#ownEnd !== "none") return;
    if (this.#sender.heldBytes * 2 > this.#options.sendBufferBytes) return;
    this.#awaitsRoom = false;
    this.#events.push({ kind: "writable" });
  }
}

export interface LinkStatistics {
  readonly acknowledgedBytes: number;
  readonly retransmissions: number;
  readonly fastRecoveries: number;
  readonly timeouts: number;
  readonly congestionWindowBytes: number;
  readonly inFlightSegments: number;
  /** Undefined until the first sample. */
  readonly smoothedRttMs: number | undefined;
  readonly receivedBytes: number;
  /** Segments that found no room. */
  readonly droppedSegments: number;
  /** Written, but the far side had ended both directions. */
  readonly undeliveredBytes: number;
}

const ONE_BYTE = new Uint8Array(1);
const FIN_WAIT_LIMIT_MS = 10_000;
const ORPHAN_LIMIT_MS = 60_000;
const FIN_RETRY_MS = 200;
