/**
 * Segments sent and not yet acknowledged, in order of sequence, with what is known of each: the scoreboard of RFC 6675.
 * A segment keeps its boundaries for life, because a reference receiver stores by exact sequence number and never trims
 * (pilot protocol §4.2). Each transmission has a number that only rises, so that a lost retransmission shows as well: what
 * was transmitted three or more transmissions before something that arrived is lost (the rule of RFC 9002 §6.1.1), and so is
 * what was transmitted before it and is late by a quarter of a round trip (RFC 8985): a small flight has no three. When an
 * original arrives after all, the path reorders, and both tolerances grow to what was seen.
 * Invariant: `pipeBytes`, `pipeSegments` and `sackedSegments` are sums over the segments held.
 */
import type { BlockPool } from "../base/block-pool.ts";
import { after, type Instant } from "../base/instant.ts";
import { sequenceAdd, sequenceAfter, sequenceBefore } from "./sequence.ts";

export class SentSegment {
  readonly sequence: number;
  readonly payloadBytes: number;
  readonly isFin: boolean;
  sentAt: Instant;
  /** Number of the latest transmission. */
  transmission = 0;
  /** Number of the one before it, if any. */
  earlierTransmission = 0;
  sends = 1;
  sacked = false;
  /** Believed lost and not sent again since. */
  lost = false;
  /** What it was sent in, and where it begins there: few segments are sent again and need a view of their own. */
  readonly run: Uint8Array;
  readonly #offset: number;

  constructor(sequence: number, run: Uint8Array, offset: number, payloadBytes: number, isFin: boolean, now: Instant) {
    this.sequence = sequence;
    this.run = run;
    this.#offset = offset;
    this.payloadBytes = payloadBytes;
    this.isFin = isFin;
    this.sentAt = now;
  }

  /** It is the last of those that it was sent with; they are acknowledged in order. */
  get endsRun(): boolean {
    return this.#offset + this.payloadBytes === this.run.length;
  }

  get payload(): Uint8Array {
    return this.run.subarray(this.#offset, this.#offset + this.payloadBytes);
  }
}

export interface AcknowledgedRange {
  readonly segments: number;
  readonly bytes: number;
  /** When the newest segment that may be timed was sent: none when any was sent twice (Karn) or reported before. */
  readonly timedSince: Instant | undefined;
}

export interface LossReport {
  /** How many segments are lost that were not known to be. */
  readonly news: number;
  /** When others will be, if nothing is heard of them. */
  readonly lookAgainAt: Instant | undefined;
}

export class RetransmissionQueue {
  readonly #blocks: BlockPool;
  #segments: SentSegment[] = NO_SEGMENTS;
  #head = 0;
  #outstandingBytes = 0;
  #pipeBytes = 0;
  #pipeSegments = 0;
  #sackedSegments = 0;
  #lostSegments = 0;
  #resentSegments = 0;
  #nextTransmission = 1;
  #newestDelivered = 0;
  /** How long the newest transmission that arrived took. */
  #newestRttMs = 0;
  /** Of any report, also of those that are too rough for the estimator: a SACK comes without the delay of an ACK. */
  #leastRttMs = Number.POSITIVE_INFINITY;
  #reordering = LEAST_REORDERING;
  #needlessResends = 0;
  /** One, and one more for each needless resend. */
  #needlessRounds = 1;

  constructor(blocks: BlockPool) {
    this.#blocks = blocks;
  }

  get length(): number {
    return this.#segments.length - this.#head;
  }

  /** Bytes sent and not cumulatively acknowledged. */
  get outstandingBytes(): number {
    return this.#outstandingBytes;
  }

  /** Bytes believed to be on their way: outstanding, neither reported as received nor lost (RFC 6675 "pipe"). */
  get pipeBytes(): number {
    return this.#pipeBytes;
  }

  get pipeSegments(): number {
    return this.#pipeSegments;
  }

  get sackedSegments(): number {
    return this.#sackedSegments;
  }

  /** How many retransmissions turned out to have been needless, since the beginning. */
  get needlessResends(): number {
    return this.#needlessResends;
  }

  /** After how many later arrivals a segment is lost. Never more than half of what is out, or nothing would show it. */
  get reorderingThreshold(): number {
    return Math.max(LEAST_REORDERING, Math.min(this.#reordering, this.length >> 1));
  }

  first(): SentSegment | undefined {
    return this.#segments[this.#head];
  }

  /** The last segment that is not known to have arrived. */
  last(): SentSegment | undefined {
    for (let i = this.#segments.length - 1; i >= this.#head; i--) {
      if (!this.#segments[i]!.sacked) return this.#segments[i];
    }
    return undefined;
  }

  /** Enters segments that are being sent for the first time: of `segmentBytes` each but the last. */
  append(sequence: number, run: Uint8Array, segmentBytes: number, isFin: boolean, now: Instant): void {
    if (this.#segments === NO_SEGMENTS) this.#segments = [];
    let at = 0;
    do {
      const payloadBytes = Math.min(segmentBytes, run.length - at);
      const segment = new SentSegment(sequenceAdd(sequence, at), run, at, payloadBytes, isFin, now);
      segment.transmission = this.#nextTransmission++;
      this.#segments.push(segment);
      this.#outstandingBytes += lengthOf(segment);
      this.#enterPipe(segment);
      at += payloadBytes;
    } while (at < run.length);
  }

  /** The lost segment to send next: the lowest. */
  firstLost(): SentSegment | undefined {
    if (this.#lostSegments === 0) return undefined;
    for (let i = this.#head; i < this.#segments.length; i++) {
      const segment = this.#segments[i]!;
      if (segment.lost) return segment;
    }
    return undefined;
  }

  handleResent(segment: SentSegment, now: Instant): void {
    if (segment.lost) {
      segment.lost = false;
      this.#lostSegments -= 1;
      this.#enterPipe(segment);
    }
    if (segment.sends === 1) this.#resentSegments += 1;
    segment.sends += 1;
    segment.sentAt = now;
    segment.earlierTransmission = segment.transmission;
    segment.transmission = this.#nextTransmission++;
  }

  /** Removes what `acknowledgement` covers whole. */
  acknowledge(acknowledgement: number, now: Instant): AcknowledgedRange {
    let segments = 0;
    let bytes = 0;
    let timedSince: Instant | undefined;
    let timed = true;
    for (let segment = this.first(); segment !== undefined; segment = this.first()) {
      if (sequenceAfter(endOf(segment), acknowledgement)) break;
      if (segment.sends > 1) timed = false;
      if (!segment.sacked) timedSince = segment.sentAt;
      if (!segment.sacked) this.#noteDelivered(segment, now);
      this.#forget(segment);
      segments += 1;
      bytes += lengthOf(segment);
    }
    return { segments, bytes, timedSince: timed ? timedSince : undefined };
  }

  /** Marks segments that lie wholly inside [left, right). Returns when the newest that may be timed was sent. */
  markSacked(left: number, right: number, now: Instant): Instant | undefined {
    let timedSince: Instant | undefined;
    for (let i = this.#indexFrom(left); i < this.#segments.length; i++) {
      const segment = this.#segments[i]!;
      if (sequenceAfter(endOf(segment), right)) break;
      if (segment.sacked) continue;
      if (segment.sends === 1) timedSince = segment.sentAt;
      this.#noteDelivered(segment, now);
      this.#leavePipe(segment);
      segment.sacked = true;
      this.#sackedSegments += 1;
    }
    return timedSince;
  }

  /** Marks as lost what was transmitted well before something that arrived. */
  markLost(smoothedRttMs: number, now: Instant): LossReport {
    if (this.#sackedSegments === 0 && this.#resentSegments === 0) return NO_LOSS;
    const lostUpTo = this.#newestDelivered - this.reorderingThreshold;
    const toleranceMs = Math.min(this.#needlessRounds * this.#leastRttMs * REORDERING_SHARE, smoothedRttMs);
    const lostSentBy = now - this.#newestRttMs - Math.max(toleranceMs, LEAST_TOLERANCE_MS);
    let news = 0;
    let lookAgainMs = Number.POSITIVE_INFINITY;
    for (let i = this.#head; i < this.#segments.length; i++) {
      const segment = this.#segments[i]!;
      if (segment.sacked || segment.lost || segment.transmission >= this.#newestDelivered) continue;
      if (segment.transmission > lostUpTo && segment.sentAt > lostSentBy) {
        lookAgainMs = Math.min(lookAgainMs, Math.max(segment.sentAt - lostSentBy, CLOCK_STEP_MS));
        continue;
      }
      this.#markLost(segment);
      news += 1;
    }
    return { news, lookAgainAt: lookAgainMs === Number.POSITIVE_INFINITY ? undefined : after(now, lookAgainMs) };
  }

  /** Marks the first segment as lost, unless it is already, or has arrived, or (by default) was sent again. */
  markFirstLost(evenIfResent = false): boolean {
    const segment = this.first();
    if (segment === undefined || segment.sacked || segment.lost) return false;
    if (segment.sends > 1 && !evenIfResent) return false;
    this.#markLost(segment);
    return true;
  }

  /**
   * After a timeout nothing is believed to be on its way. `forgetReports`: those of what was received, too, which may have
   * been withdrawn (RFC 2018 §8).
   */
  markAllLost(forgetReports: boolean): void {
    for (let i = this.#head; i < this.#segments.length; i++) {
      const segment = this.#segments[i]!;
      if (segment.sacked && !forgetReports) continue;
      if (segment.sacked) {
        segment.sacked = false;
        this.#sackedSegments -= 1;
        segment.lost = true;
        this.#lostSegments += 1;
      } else if (!segment.lost) {
        this.#markLost(segment);
      }
    }
  }

  clear(): void {
    this.#segments = NO_SEGMENTS;
    this.#head = 0;
    this.#outstandingBytes = 0;
    this.#pipeBytes = 0;
    this.#pipeSegments = 0;
    this.#sackedSegments = 0;
    this.#lostSegments = 0;
    this.#resentSegments = 0;
  }

  #markLost(segment: SentSegment): void {
    this.#leavePipe(segment);
    segment.lost = true;
    this.#lostSegments += 1;
  }

  /** For a segment that is neither sacked nor forgotten. */
  #leavePipe(segment: SentSegment): void {
    if (segment.lost) {
      segment.lost = false;
      this.#lostSegments -= 1;
      return;
    }
    this.#pipeBytes -= lengthOf(segment);
    this.#pipeSegments -= 1;
  }

  #enterPipe(segment: SentSegment): void {
    this.#pipeBytes += lengthOf(segment);
    this.#pipeSegments += 1;
  }

  /** A segment sent more than once arrived by its latest transmission only if that is about a round trip ago. */
  #noteDelivered(segment: SentSegment, now: Instant): void {
    const sinceMs = now - segment.sentAt;
    if (segment.sends === 1) this.#leastRttMs = Math.min(this.#leastRttMs, sinceMs);
    else if (!segment.lost && sinceMs < this.#leastRttMs * SHORTER_THAN_ANY) {
      this.#noteNeedlessResend(segment);
      return;
    }
    if (segment.transmission <= this.#newestDelivered) return;
    this.#newestDelivered = segment.transmission;
    this.#newestRttMs = sinceMs;
  }

  #noteNeedlessResend(segment: SentSegment): void {
    this.#needlessResends += 1;
    this.#needlessRounds = Math.min(this.#needlessRounds + 1, MOST_NEEDLESS_ROUNDS);
    const distance = this.#newestDelivered - segment.earlierTransmission + 1;
    this.#reordering = Math.min(Math.max(this.#reordering, distance), MOST_REORDERING);
  }

  #forget(segment: SentSegment): void {
    if (segment.sacked) this.#sackedSegments -= 1;
    else this.#leavePipe(segment);
    if (segment.sends > 1) this.#resentSegments -= 1;
    this.#outstandingBytes -= lengthOf(segment);
    if (segment.endsRun) this.#blocks.giveBack(segment.run.buffer, segment.run.length);
    this.#segments[this.#head] = undefined as unknown as SentSegment;
    this.#head += 1;
    if (this.#head === this.#segments.length) {
      this.#segments = NO_SEGMENTS;
      this.#head = 0;
    } else if (this.#head >= COMPACT_AT && this.#head * 2 >= this.#segments.length) {
      this.#segments = this.#segments.slice(this.#head);
      this.#head = 0;
    }
  }

  /** Index of the first segment whose sequence is not before `sequence`. */
  #indexFrom(sequence: number): number {
    let low = this.#head;
    let high = this.#segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sequenceBefore(this.#segments[middle]!.sequence, sequence)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** In sequence numbers: a FIN takes one. */
function lengthOf(segment: SentSegment): number {
  return segment.isFin ? 1 : segment.payloadBytes;
}

function endOf(segment: SentSegment): number {
  return sequenceAdd(segment.sequence, lengthOf(segment));
}

/** Of an idle stream; never changed. */
const NO_SEGMENTS: SentSegment[] = [];
const LEAST_REORDERING = 3;
const MOST_REORDERING = 100;
const SHORTER_THAN_ANY = 0.8;
const REORDERING_SHARE = 1 / 4;
const LEAST_TOLERANCE_MS = 2;
/** No look is due at once, or it would be due for ever. */
const CLOCK_STEP_MS = 0.5;
const MOST_NEEDLESS_ROUNDS = 64;
const NO_LOSS: LossReport = { news: 0, lookAgainAt: undefined };
const COMPACT_AT = 256;
