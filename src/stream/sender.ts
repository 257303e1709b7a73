/**
 * The sending half of an open stream: what goes out next, what is sent again, and when (RFC 5681, 6298, 6675, 8985).
 * The far side's window counts segments of any size. Zero does not stop the stream for good: several packets of the
 * reference carry a zero that means nothing, so one segment is sent after a while, and its ACK tells (pilot protocol §4.4).
 * FIN goes only when everything is acknowledged, because the reference delivers nothing that comes after it.
 * Invariant: `unacknowledged` ≤ the queue's segments < `next`.
 */
import { after, type Deadline, earlier, type Instant } from "../base/instant.ts";
import { encodeSack, type SackBlock } from "../wire/stream-sack.ts";
import { RenoCongestion } from "./congestion.ts";
import { maxInFlightToReference, type PeerTraits } from "./peer-traits.ts";
import { RetransmissionQueue, type SentSegment } from "./retransmission-queue.ts";
import { RttEstimator } from "./rtt-estimator.ts";
import { SendBuffer } from "./send-buffer.ts";
import { sequenceAdd, sequenceAfter, sequenceBefore, sequenceDistance } from "./sequence.ts";
import type { StreamShares } from "./shares.ts";
import type { StreamOptions } from "./stream-options.ts";
import { NO_PAYLOAD } from "./stream-packet.ts";

/** Transitions: none → fast or timeout at a loss; fast → timeout; both → none when `until` is acknowledged. */
type Recovery =
  | { readonly kind: "none" }
  | { readonly kind: "fast"; readonly until: number }
  | { readonly kind: "timeout"; readonly until: number };

/** Transitions: none ⇄ armed → due → sent → none; a loss that is known, or a timeout, ends it. */
type TailProbe =
  | { readonly kind: "none" | "due"; readonly at: undefined }
  | { readonly kind: "armed"; readonly at: Instant }
  | {
      readonly kind: "sent";
      readonly at: undefined;
      readonly until: number;
      /** How many resends had been needless before it. */
      readonly needless: number;
      /** Nothing else was out. */
      readonly isAlone: boolean;
    };

/** Transitions: none → allowed → sent → acknowledged. */
type OwnEnd = "none" | "allowed" | "sent" | "acknowledged";

/** What goes out at once: a segment, or a run of new ones with so many bytes each but the last. */
export interface Transmission {
  readonly sequence: number;
  readonly payload: Uint8Array;
  readonly isFin: boolean;
  readonly segmentBytes: number | undefined;
}

export interface SenderContext {
  readonly options: StreamOptions;
  readonly traits: PeerTraits;
  readonly shares: StreamShares;
  /** Called when there is room again at the far node, which other streams had taken. */
  readonly wake: () => void;
}

export class Sender {
  readonly rtt = new RttEstimator();
  readonly #options: StreamOptions;
  readonly #traits: PeerTraits;
  readonly #shares: StreamShares;
  readonly #wake: () => void;
  readonly #congestion: RenoCongestion;
  readonly #buffer: SendBuffer;
  readonly #queue: RetransmissionQueue;
  #unacknowledged: number;
  #next: number;
  #end: OwnEnd = "none";
  #window: number;
  #windowAcknowledgement: number;
  #recovery: Recovery = NO_RECOVERY;
  #duplicateAcks = 0;
  /** What a fast recovery changed, and how many of its retransmissions may still turn out to have been needless. */
  #undo: { readonly windowBytes: number; readonly thresholdBytes: number; resends: number } | undefined;
  #needlessSeen = 0;
  /** A retransmission that goes out whatever the congestion window says (RFC 6675 §5 step 4.3). */
  #mustRetransmit = false;
  #heldByCongestion = false;
  /** When the next look for late segments is due. */
  #lateAt: Instant | undefined;
  #tailProbe: TailProbe = NO_PROBE;
  #consecutiveTimeouts = 0;
  #retransmitAt: Instant | undefined;
  #probeAt: Instant | undefined;
  #probeBackoff = 0;
  #probing = false;
  #nagleAt: Instant | undefined;
  #nagleOver = false;
  #lastSentAt: Instant;
  #retransmissions = 0;
  #fastRecoveries = 0;
  #timeouts = 0;
  #acknowledgedBytes = 0;
  /** What the shares were last told. */
  #sharedBytes = 0;
  #sharedSegments = 0;

  constructor(next: number, window: number, { options, traits, shares, wake }: SenderContext, now: Instant) {
    this.#unacknowledged = next;
    this.#windowAcknowledgement = next;
    this.#next = next;
    this.#window = window;
    this.#options = options;
    this.#traits = traits;
    this.#shares = shares;
    this.#wake = wake;
    this.#congestion = new RenoCongestion(options.segmentBytes);
    this.#buffer = new SendBuffer(shares.blocks);
    this.#queue = new RetransmissionQueue(shares.blocks);
    this.#lastSentAt = now;
  }

  get unacknowledged(): number {
    return this.#unacknowledged;
  }

  get next(): number {
    return this.#next;
  }

  get end(): OwnEnd {
    return this.#end;
  }

  /** Written and not acknowledged. */
  get heldBytes(): number {
    return this.#buffer.bytes + this.#queue.outstandingBytes;
  }

  get isDrained(): boolean {
    return this.#buffer.bytes === 0 && this.#queue.length === 0;
  }

  get statistics(): SenderStatistics {
    return {
      acknowledgedBytes: this.#acknowledgedBytes,
      retransmissions: this.#retransmissions,
      fastRecoveries: this.#fastRecoveries,
      timeouts: this.#timeouts,
      congestionWindowBytes: this.#congestion.windowBytes,
      inFlightSegments: this.#queue.length,
      smoothedRttMs: this.rtt.smoothedMs,
    };
  }

  /** Takes the chunk over. */
  push(chunk: Uint8Array): void {
    this.#buffer.push(chunk);
    this.#tellShares();
  }

  /** How much may be written: a stream that holds nothing always gets a little, so that its own ACKs make it go on. */
  get roomBytes(): number {
    const held = this.heldBytes;
    const shared =
      held === 0 ? Math.max(this.#shares.sendBudget.freeBytes, LEAST_ROOM_BYTES) : this.#shares.sendBudget.freeBytes;
    return Math.max(0, Math.min(this.#options.sendBufferBytes - held, shared));
  }

  /** The FIN may go as soon as everything is acknowledged; nothing may be written any more. */
  allowFin(): void {
    if (this.#end === "none") this.#end = "allowed";
  }

  /** Forgets all that was not acknowledged. */
  abandon(): void {
    this.#buffer.clear();
    this.#queue.clear();
    this.#retransmitAt = undefined;
    this.#lateAt = undefined;
    this.#tailProbe = NO_PROBE;
    this.#probeAt = undefined;
    this.#nagleAt = undefined;
    this.#shares.flight.stopWaiting(this.#wake);
    this.#tellShares();
  }

  /** `isPure`: without payload and without SYN, FIN or RST, so that it can count as a duplicate. */
  handleAck(acknowledgement: number, window: number, isPure: boolean, now: Instant): void {
    const newBytes = sequenceDistance(this.#unacknowledged, acknowledgement);
    if (newBytes < 0 || sequenceAfter(acknowledgement, this.#next)) return;
    if (newBytes > 0) this.#handleNewAck(acknowledgement, now);
    else if (isPure) this.#handleDuplicateAck(window);
    this.#handleWindow(acknowledgement, window, newBytes > 0);
    this.#tellShares();
  }

  /** A FIN's answer: acknowledges, but its window of 0 means nothing. */
  handleAckWithoutWindow(acknowledgement: number, now: Instant): void {
    this.handleAck(acknowledgement, this.#window, false, now);
  }

  /**
   * Whether the blocks can be a report on what we sent; otherwise the payload is data (pilot protocol §11.20). They are held
   * against the packet's own acknowledgement, not against ours: a report that comes late must not be delivered as data.
   */
  isPlausibleSack(acknowledgement: number, payload: Uint8Array, blocks: readonly SackBlock[]): boolean {
    if (payload.length !== encodeSack(blocks)?.length) return false;
    let floor = acknowledgement;
    for (const { left, right } of blocks) {
      if (!sequenceAfter(left, floor) || !sequenceAfter(right, left)) return false;
      if (sequenceAfter(right, this.#next)) return false;
      floor = right;
    }
    return true;
  }

  handleSack(blocks: readonly SackBlock[], now: Instant): void {
    let timedSince: Instant | undefined;
    for (const { left, right } of blocks) timedSince = this.#queue.markSacked(left, right, now) ?? timedSince;
    if (timedSince !== undefined) this.rtt.sample(now - timedSince);
    this.#undoIfNeedless();
    this.#detectLoss(now);
    this.#tellShares();
  }

  /** The next segment or run of new segments to send, entered as sent. Call until it returns undefined. */
  nextTransmission(now: Instant): Transmission | undefined {
    this.#heldByCongestion = false;
    const lost = this.#nextLost(now) ?? this.#nextTailProbe(now);
    if (lost !== undefined || this.#heldByCongestion) return lost;
    return this.#nextNew(now);
  }

  /** "exhausted": the far side has answered nothing for as long as we try. */
  handleTimeout(now: Instant): "exhausted" | undefined {
    if (this.#probeAt !== undefined && this.#probeAt <= now) {
      this.#probeAt = undefined;
      this.#probing = true;
    }
    if (this.#nagleAt !== undefined && this.#nagleAt <= now) {
      this.#nagleAt = undefined;
      this.#nagleOver = true;
    }
    if (this.#lateAt !== undefined && this.#lateAt <= now) this.#detectLoss(now);
    if (this.#tailProbe.kind === "armed" && this.#tailProbe.at <= now) this.#tailProbe = DUE_PROBE;
    if (this.#retransmitAt === undefined || this.#retransmitAt > now) return undefined;
    return this.#handleRetransmissionTimeout();
  }

  deadline(): Deadline | undefined {
    const retransmit = this.#retransmitAt === undefined ? undefined : { at: this.#retransmitAt, reason: "retransmit" };
    const probe = this.#probeAt === undefined ? undefined : { at: this.#probeAt, reason: "zero-window-probe" };
    const nagle = this.#nagleAt === undefined ? undefined : { at: this.#nagleAt, reason: "nagle" };
    const late = this.#lateAt === undefined ? undefined : { at: this.#lateAt, reason: "late-segments" };
    const { at } = this.#tailProbe;
    const tail = at === undefined ? undefined : { at, reason: "tail-probe" };
    return earlier(earlier(retransmit, late), earlier(tail, earlier(probe, nagle)));
  }

  #handleNewAck(acknowledgement: number, now: Instant): void {
    const range = this.#queue.acknowledge(acknowledgement, now);
    this.#unacknowledged = acknowledgement;
    this.#acknowledgedBytes += range.bytes;
    this.#duplicateAcks = 0;
    this.#consecutiveTimeouts = 0;
    this.#probeBackoff = 0;
    if (range.timedSince !== undefined) this.rtt.sample(now - range.timedSince);
    if (this.#end === "sent" && this.#queue.length === 0) this.#end = "acknowledged";
    this.#concludeTailProbe(acknowledgement);
    this.#undoIfNeedless();
    this.#advanceRecovery(acknowledgement, range.bytes);
    this.#detectLoss(now);
    this.#retransmitAt = this.#queue.length === 0 ? undefined : after(now, this.rtt.timeoutMs);
    this.#armTailProbe(now);
    if (this.#queue.length === 0) this.#nagleAt = undefined;
  }

  #advanceRecovery(acknowledgement: number, bytes: number): void {
    const recovery = this.#recovery;
    if (recovery.kind !== "none" && !sequenceBefore(acknowledgement, recovery.until)) this.#recovery = NO_RECOVERY;
    if (this.#recovery.kind === "fast") {
      // RFC 6582: an ACK that ends short of `until` shows that what follows it is lost as well.
      if (this.#queue.markFirstLost()) this.#mustRetransmit = true;
      return;
    }
    if (recovery.kind === "fast" || !this.#heldByCongestion) return;
    this.#congestion.handleAcknowledged(bytes);
  }

  #handleDuplicateAck(window: number): void {
    if (this.#queue.length === 0) return;
    if (window !== this.#window && this.#queue.sackedSegments === 0) return; // a window update, not a duplicate
    this.#duplicateAcks += 1;
    if (this.#duplicateAcks < this.#queue.reorderingThreshold || this.#recovery.kind !== "none") return;
    if (this.#queue.markFirstLost()) this.#enterFastRecovery();
  }

  #detectLoss(now: Instant): void {
    const { news, lookAgainAt } = this.#queue.markLost(this.rtt.smoothedMs ?? 0, now);
    this.#lateAt = lookAgainAt;
    if (news > 0 && this.#recovery.kind === "none") this.#enterFastRecovery();
  }

  #enterFastRecovery(): void {
    this.#recovery = { kind: "fast", until: this.#next };
    this.#tailProbe = NO_PROBE;
    const { windowBytes, thresholdBytes } = this.#congestion;
    this.#undo = { windowBytes, thresholdBytes, resends: 0 };
    this.#congestion.handleFastLoss(this.#queue.outstandingBytes);
    this.#mustRetransmit = true;
    this.#fastRecoveries += 1;
  }

  /** When every retransmission of a fast recovery was needless there was no loss (the idea of RFC 4015). */
  #undoIfNeedless(): void {
    const news = this.#queue.needlessResends - this.#needlessSeen;
    this.#needlessSeen += news;
    const undo = this.#undo;
    if (news === 0 || undo === undefined) return;
    undo.resends -= news;
    if (undo.resends > 0) return;
    this.#undo = undefined;
    this.#congestion.undo(undo.windowBytes, undo.thresholdBytes);
    if (this.#recovery.kind === "fast") this.#recovery = NO_RECOVERY;
  }

  /** The newest statement counts (RFC 9293 §3.10.7.4); one that acknowledges less is older. */
  #handleWindow(acknowledgement: number, window: number, isNews: boolean): void {
    if (sequenceBefore(acknowledgement, this.#windowAcknowledgement)) return;
    // A keep-alive probe of the reference says 0 as well; with nothing in flight it cannot be told from a full receiver.
    if (window === 0 && !isNews && this.#traits.isReference && this.#queue.length === 0) return;
    this.#windowAcknowledgement = acknowledgement;
    const reopened = this.#window === 0 && window > 0;
    this.#window = window;
    if (reopened && this.#queue.markFirstLost(true)) this.#mustRetransmit = true; // what found no room was dropped
    if (window === 0)
      this.#consecutiveTimeouts = 0; // it lives and asks for patience
    else this.#probeAt = undefined;
  }

  #nextLost(now: Instant): Transmission | undefined {
    const segment = this.#queue.firstLost();
    if (segment === undefined) return undefined;
    if (!this.#mustRetransmit && !this.#hasCongestionRoom(segment.payloadBytes)) {
      this.#heldByCongestion = true;
      return undefined;
    }
    this.#mustRetransmit = false;
    if (segment === this.#queue.first() || this.#retransmitAt === undefined) {
      this.#retransmitAt = after(now, this.rtt.timeoutMs);
    }
    const transmission = this.#sendAgain(segment, now);
    this.#armTailProbe(now); // it may be lost as well
    return transmission;
  }

  #sendAgain(segment: SentSegment, now: Instant): Transmission {
    this.#queue.handleResent(segment, now);
    if (this.#undo !== undefined) this.#undo.resends += 1;
    this.#retransmissions += 1;
    this.#lastSentAt = now;
    this.#tellShares();
    return { sequence: segment.sequence, payload: segment.payload, isFin: segment.isFin, segmentBytes: undefined };
  }

  /**
   * Nothing shows a loss at the end of what was sent, or of all of it, but the timeout, which is far longer than a round trip.
   * So the last segment goes again after two of them; what its answer tells starts a fast recovery (RFC 8985 §7).
   */
  #armTailProbe(now: Instant): void {
    const { smoothedMs } = this.rtt;
    if (this.#tailProbe.kind === "sent" && this.#recovery.kind === "none") return;
    this.#tailProbe = NO_PROBE;
    if (smoothedMs === undefined || this.#recovery.kind === "timeout" || this.#queue.length === 0) return;
    const answerMs = this.#traits.isReference ? REFERENCE_ACK_DELAY_MS : OWN_ACK_DELAY_MS;
    const at = after(now, Math.max(2 * smoothedMs, LEAST_PROBE_MS) + answerMs);
    if (this.#retransmitAt === undefined || at < this.#retransmitAt) this.#tailProbe = { kind: "armed", at };
  }

  #nextTailProbe(now: Instant): Transmission | undefined {
    const segment = this.#tailProbe.kind === "due" ? this.#queue.last() : undefined;
    if (segment === undefined) return undefined;
    const needless = this.#queue.needlessResends;
    const isAlone = this.#queue.length === 1;
    this.#tailProbe = { kind: "sent", at: undefined, until: this.#next, needless, isAlone };
    this.#retransmitAt = after(now, this.rtt.timeoutMs);
    return this.#sendAgain(segment, now);
  }

  /**
   * A probe that mended a loss by itself hides it from the congestion control (RFC 8985 §7.4). Where more was out, and its answer
   * acknowledges all, that had arrived: only the acknowledgements were late.
   */
  #concludeTailProbe(acknowledgement: number): void {
    const probe = this.#tailProbe;
    if (probe.kind !== "sent" || sequenceBefore(acknowledgement, probe.until)) return;
    this.#tailProbe = NO_PROBE;
    const wasNeeded = probe.isAlone && this.#queue.needlessResends === probe.needless;
    if (wasNeeded && this.#recovery.kind === "none") this.#congestion.handleFastLoss(this.#congestion.windowBytes);
  }

  #nextNew(now: Instant): Transmission | undefined {
    if (this.#buffer.bytes === 0) return this.#nextFin(now);
    if (this.#isIdle(now)) this.#congestion.handleIdle();
    const length = Math.min(this.#buffer.bytes, this.#options.segmentBytes);
    if (!this.#mayBeSmall(length, now) || !this.#hasWindow(now)) return undefined;
    if (!this.#hasCongestionRoom(length)) {
      this.#heldByCongestion = true;
      return undefined;
    }
    this.#probing = false;
    this.#nagleOver = false;
    return this.#nextRun(now) ?? this.#send(this.#buffer.take(length), false, now);
  }

  /** Several whole segments at once, as many as each of them might go by itself. */
  #nextRun(now: Instant): Transmission | undefined {
    const { segmentBytes, maxRunSegments, maxInFlightSegments } = this.#options;
    if (maxRunSegments < 2) return undefined;
    const windowRoom = Math.min(maxInFlightSegments, this.#window) - this.#queue.length;
    const congestionRoom = Math.floor((this.#congestion.windowBytes - this.#queue.pipeBytes) / segmentBytes);
    const shared = this.#traits.isReference ? this.#shares.flight.room(this.#maxToReference) : maxRunSegments;
    const payload = this.#buffer.takeRun(segmentBytes, Math.min(maxRunSegments, windowRoom, congestionRoom, shared));
    return payload && this.#send(payload, false, now);
  }

  #nextFin(now: Instant): Transmission | undefined {
    if (this.#end !== "allowed" || this.#queue.length > 0) return undefined;
    this.#end = "sent";
    return this.#send(NO_PAYLOAD, true, now);
  }

  #send(payload: Uint8Array, isFin: boolean, now: Instant): Transmission {
    const sequence = this.#next;
    const { segmentBytes } = this.#options;
    this.#queue.append(sequence, payload, segmentBytes, isFin, now);
    this.#next = sequenceAdd(this.#next, isFin ? 1 : payload.length);
    this.#retransmitAt ??= after(now, this.rtt.timeoutMs);
    this.#lastSentAt = now;
    this.#armTailProbe(now);
    this.#tellShares();
    return { sequence, payload, isFin, segmentBytes: payload.length > segmentBytes ? segmentBytes : undefined };
  }

  /** RFC 896, with a limit of 40 ms as in the reference: the far side may be waiting to acknowledge. */
  #mayBeSmall(length: number, now: Instant): boolean {
    const isWhole = length === this.#options.segmentBytes;
    if (isWhole || this.#nagleOver || this.#options.noDelay || this.#queue.length === 0 || this.#end !== "none") {
      this.#nagleAt = undefined;
      return true;
    }
    this.#nagleAt ??= after(now, NAGLE_LIMIT_MS);
    return false;
  }

  #hasWindow(now: Instant): boolean {
    if (this.#queue.length < Math.min(this.#options.maxInFlightSegments, this.#window)) return this.#hasShare();
    if (this.#queue.length > 0) return false;
    if (this.#probing) return true;
    if (this.#probeAt === undefined) {
      this.#probeAt = after(now, Math.min(this.rtt.timeoutMs * 2 ** this.#probeBackoff, MAX_PROBE_MS));
      this.#probeBackoff = Math.min(this.#probeBackoff + 1, 16);
    }
    return false;
  }

  /** All streams to a reference node together stay within what its socket holds. */
  #hasShare(): boolean {
    if (!this.#traits.isReference || this.#queue.length === 0) return true;
    return this.#shares.flight.hasRoom(this.#maxToReference, this.#wake);
  }

  get #maxToReference(): number {
    return maxInFlightToReference(this.rtt.smoothedMs);
  }

  #tellShares(): void {
    const [bytes, segments] = [this.heldBytes, this.#queue.pipeSegments];
    const newBytes = bytes - this.#sharedBytes;
    if (newBytes > 0) this.#shares.sendBudget.reserve(newBytes);
    else if (newBytes < 0) this.#shares.sendBudget.release(-newBytes);
    if (segments !== this.#sharedSegments) this.#shares.flight.change(segments - this.#sharedSegments);
    this.#sharedBytes = bytes;
    this.#sharedSegments = segments;
  }

  #hasCongestionRoom(length: number): boolean {
    const pipeBytes = this.#queue.pipeBytes;
    return pipeBytes === 0 || pipeBytes + length <= this.#congestion.windowBytes;
  }

  #isIdle(now: Instant): boolean {
    return this.#queue.length === 0 && now - this.#lastSentAt > this.rtt.timeoutMs;
  }

  #handleRetransmissionTimeout(): "exhausted" | undefined {
    this.#retransmitAt = undefined;
    if (this.#queue.length === 0) return undefined;
    this.#timeouts += 1;
    this.#consecutiveTimeouts += 1;
    if (this.#consecutiveTimeouts > MAX_CONSECUTIVE_TIMEOUTS) return "exhausted";
    this.rtt.backOff();
    this.#congestion.handleTimeout(this.#queue.outstandingBytes, this.#recovery.kind !== "timeout");
    this.#recovery = { kind: "timeout", until: this.#next };
    this.#undo = undefined;
    this.#lateAt = undefined;
    this.#tailProbe = NO_PROBE;
    this.#queue.markAllLost(this.#consecutiveTimeouts > 1);
    this.#duplicateAcks = 0;
    this.#mustRetransmit = true;
    this.#tellShares();
    return undefined;
  }
}

export interface SenderStatistics {
  readonly acknowledgedBytes: number;
  readonly retransmissions: number;
  readonly fastRecoveries: number;
  readonly timeouts: number;
  readonly congestionWindowBytes: number;
  readonly inFlightSegments: number;
  readonly smoothedRttMs: number | undefined;
}

const NO_RECOVERY: Recovery = { kind: "none" };
const NO_PROBE: TailProbe = { kind: "none", at: undefined };
const DUE_PROBE: TailProbe = { kind: "due", at: undefined };
const LEAST_PROBE_MS = 20;
/** How long the far side may keep an acknowledgement back. */
const REFERENCE_ACK_DELAY_MS = 40;
const OWN_ACK_DELAY_MS = 5;
const LEAST_ROOM_BYTES = 65_536;
const MAX_CONSECUTIVE_TIMEOUTS = 8;
const NAGLE_LIMIT_MS = 40;
const MAX_PROBE_MS = 10_000;
