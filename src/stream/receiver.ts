/**
 * The receiving half of an open stream: reassembly, acknowledgements, the window we advertise, and the far side's end.
 * The first FIN's sequence number is the end. When data before it is missing the stream waits for it some seconds, and
 * then says "truncated": the reference sends FIN with data unacknowledged and forgets the data (pilot protocol §4.7).
 */
import { after, type Deadline, earlier, type Instant } from "../base/instant.ts";
import type { SackBlock } from "../wire/stream-sack.ts";
import { Acknowledger } from "./acknowledger.ts";
import type { PeerTraits } from "./peer-traits.ts";
import { type Placement, Reassembly } from "./reassembly.ts";
import { sequenceAdd, sequenceAfter, sequenceBefore, sequenceDistance } from "./sequence.ts";
import type { StreamShares } from "./shares.ts";

/**
 * Transitions: open → waiting → ended or truncated, where "waiting" may take no time; waiting → doubtful → ended or truncated.
 *
 * Doubtful: a G2 reference repeats an unacknowledged data segment as a FIN with the segment's number and no payload. When
 * the true FIN was lost too, that looks like an end in order. It can only come a retransmission timeout after the last
 * data, and it comes again, because our ACK covers one byte of the segment and no more.
 */
export type RemoteEnd =
  | { readonly kind: "open" }
  | { readonly kind: "waiting"; readonly end: number; readonly until: Instant }
  | { readonly kind: "doubtful"; readonly end: number; readonly repeats: number; readonly until: Instant }
  | { readonly kind: "ended" }
  | { readonly kind: "truncated" };

export class Receiver {
  readonly acknowledger: Acknowledger;
  readonly #traits: PeerTraits;
  readonly #limitBytes: number;
  readonly #reassembly: Reassembly;
  #remoteEnd: RemoteEnd = NO_END;
  #discards = false;
  readonly #maxWindow: number;
  #advertised: number;
  #largestSegmentBytes = LEAST_SEGMENT_BYTES;
  /** How often the segment that is next found no room. */
  #refusals = 0;
  #dataAt: Instant;
  #receivedBytes = 0;
  #droppedSegments = 0;

  constructor(next: number, limitBytes: number, shares: StreamShares, traits: PeerTraits, now: Instant) {
    this.#dataAt = now;
    this.#limitBytes = limitBytes;
    this.#reassembly = new Reassembly(next, limitBytes, shares.receiveBudget, shares.blocks);
    this.#traits = traits;
    this.acknowledger = new Acknowledger(!traits.isReference);
    this.#maxWindow = traits.isReference ? REFERENCE_WINDOW : OWN_KIND_WINDOW;
    this.#advertised = initialWindow(limitBytes);
  }

  get next(): number {
    return this.#reassembly.next;
  }

  get remoteEnd(): RemoteEnd {
    return this.#remoteEnd;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  get droppedSegments(): number {
    return this.#droppedSegments;
  }

  /** True when something became readable. A run of segments counts as its segments, of `segmentBytes` each but the last. */
  handleData(sequence: number, payload: Uint8Array, segmentBytes: number, now: Instant): boolean {
    if (payload.length <= segmentBytes || this.#takesWhole(sequence, payload.length)) {
      return this.#handleInOne(sequence, payload, segmentBytes, now);
    }
    let isReadable = false;
    for (let at = 0; at < payload.length; at += segmentBytes) {
      const segment = payload.subarray(at, at + segmentBytes);
      isReadable = this.#handleInOne(sequenceAdd(sequence, at), segment, segmentBytes, now) || isReadable;
    }
    return isReadable;
  }

  #takesWhole(sequence: number, bytes: number): boolean {
    return sequence === this.next && this.#remoteEnd.kind === "open" && this.#reassembly.freeBytes >= bytes;
  }

  #handleInOne(sequence: number, payload: Uint8Array, segmentBytes: number, now: Instant): boolean {
    const end = this.#remoteEnd;
    if (end.kind === "doubtful" || end.kind === "ended" || end.kind === "truncated") {
      this.acknowledger.dueSoon(now);
      return false;
    }
    if (end.kind === "waiting" && !sequenceBefore(sequence, end.end)) return false;
    this.#dataAt = now;
    this.#largestSegmentBytes = Math.max(this.#largestSegmentBytes, Math.min(payload.length, segmentBytes));
    const before = this.next;
    this.#acknowledge(this.#place(sequence, payload), Math.ceil(payload.length / segmentBytes), now);
    const deliveredBytes = sequenceDistance(before, this.next);
    this.#receivedBytes += deliveredBytes;
    if (this.#discards) this.#reassembly.discardReadable();
    if (deliveredBytes > 0) this.#advanceEnd(now);
    return deliveredBytes > 0 && !this.#discards;
  }

  /** Takes note of the far side's end. Only its first statement counts. `isAnswer`: it came with an ACK (of our FIN). */
  handleFin(sequence: number, isAnswer: boolean, now: Instant): void {
    this.acknowledger.dueSoon(now);
    if (this.#remoteEnd.kind === "doubtful") this.#handleRepeatedFin(this.#remoteEnd, sequence, now);
    if (this.#remoteEnd.kind !== "open" || sequenceBefore(sequence, this.next)) return;
    const isDoubtful = this.#traits.isReference && !isAnswer && now - this.#dataAt >= PROMPT_FIN_MS;
    this.#remoteEnd = { kind: "waiting", end: sequence, until: after(now, MISSING_DATA_WAIT_MS) };
    this.#reassembly.dropFrom(sequence);
    this.#advanceEnd(now);
    if (isDoubtful && this.remoteEnd.kind === "ended") this.#doubt(sequence, 0, now);
  }

  handleTimeout(now: Instant): void {
    const end = this.#remoteEnd;
    if (end.kind === "waiting" && end.until <= now) this.#remoteEnd = { kind: "truncated" };
    if (end.kind === "doubtful" && end.until <= now) this.#remoteEnd = { kind: "ended" };
  }

  /** True when the sequence number lies where the far side may be sending now. */
  isInWindow(sequence: number): boolean {
    const ahead = sequenceDistance(this.next, sequence);
    return ahead >= 0 && ahead <= this.#limitBytes;
  }

  read(now: Instant): Uint8Array | undefined {
    const chunk = this.#reassembly.read();
    if (chunk !== undefined && this.#windowOpened()) this.acknowledger.dueAtOnce(now);
    return chunk;
  }

  /** Gives all memory back: nobody will read any more. */
  clear(): void {
    this.#reassembly.clear();
  }

  leaveBudget(): void {
    this.#reassembly.leaveBudget();
  }

  /** From now on what arrives is acknowledged and thrown away. */
  discard(): void {
    this.#discards = true;
    this.#reassembly.discardReadable();
  }

  /** The window to put in a packet that is being sent. */
  advertise(): number {
    this.#advertised = this.#freeSegments();
    return this.#advertised;
  }

  sackBlocks(): SackBlock[] {
    return this.#reassembly.sackBlocks();
  }

  deadline(): Deadline | undefined {
    const end = this.#remoteEnd;
    if (end.kind !== "waiting" && end.kind !== "doubtful") return this.acknowledger.deadline();
    const reason = end.kind === "waiting" ? "missing-data" : "doubtful-end";
    return earlier(this.acknowledger.deadline(), { at: end.until, reason });
  }

  /**
   * A segment that is next but finds no room is dropped, and comes again. A reference sender gives up after eight times
   * whatever window it sees, so from the fourth copy on one is let in: a program that stalls is fed very slowly, not cut.
   */
  #place(sequence: number, payload: Uint8Array): Placement {
    const patient =
      this.#refusals >= REFUSALS_BEFORE_EXCEPTION && this.#reassembly.readableBytes < 2 * this.#limitBytes;
    const placement = this.#reassembly.place(sequence, payload, patient);
    if (placement === "in-order" || placement === "filled") this.#refusals = 0;
    else if (placement === "no-room" && sequence === this.next) this.#refusals += 1;
    return placement;
  }

  #acknowledge(placement: Placement, segments: number, now: Instant): void {
    if (placement === "in-order") this.acknowledger.handleInOrder(segments, now);
    else if (placement === "early") this.acknowledger.handleEarly();
    else this.acknowledger.dueSoon(now);
    if (placement === "no-room") this.#droppedSegments += 1;
  }

  /** One repetition may mean that our ACK was lost, the second is believed. */
  #handleRepeatedFin(end: RemoteEnd & { kind: "doubtful" }, sequence: number, now: Instant): void {
    if (sequenceAfter(sequence, end.end) || end.repeats > 0) this.#remoteEnd = { kind: "truncated" };
    else this.#doubt(end.end, end.repeats + 1, now);
  }

  #doubt(end: number, repeats: number, now: Instant): void {
    this.#remoteEnd = { kind: "doubtful", end, repeats, until: after(now, DOUBT_MS) };
  }

  #advanceEnd(now: Instant): void {
    const end = this.#remoteEnd;
    if (end.kind !== "waiting") return;
    if (sequenceAfter(end.end, this.next)) {
      this.#remoteEnd = { ...end, until: after(now, MISSING_DATA_WAIT_MS) };
      return;
    }
    this.#reassembly.passFin();
    this.#remoteEnd = { kind: "ended" };
  }

  /** Free slots, each as large as the largest segment seen. The reference takes 0 for "unknown" and sends on, so it gets 1. */
  #freeSegments(): number {
    const free = Math.floor(this.#reassembly.freeBytes / this.#largestSegmentBytes);
    return Math.min(this.#maxWindow, Math.max(free, this.#traits.isReference ? 1 : 0));
  }

  /** RFC 9293 §3.8.6.2.2: tell of a larger window only when it is larger by much. */
  #windowOpened(): boolean {
    const free = this.#freeSegments();
    const whole = Math.min(this.#maxWindow, Math.floor(this.#limitBytes / this.#largestSegmentBytes));
    return this.#advertised < whole / 2 && free - this.#advertised >= Math.max(1, whole / 4);
  }
}

export function initialWindow(receiveBufferBytes: number): number {
  return Math.max(1, Math.min(REFERENCE_WINDOW, Math.floor(receiveBufferBytes / LEAST_SEGMENT_BYTES)));
}

const NO_END: RemoteEnd = { kind: "open" };
/** What the reference starts with; nobody knows yet who it is that gets a SYN. */
const REFERENCE_WINDOW = 512;
/** Ours have room for a long path: 190 Mbit/s at a round trip of 50 ms. */
const OWN_KIND_WINDOW = 1_024;
const LEAST_SEGMENT_BYTES = 1152;
const MISSING_DATA_WAIT_MS = 5_000;
/** Less than the shortest retransmission timeout of the reference, 200 ms. */
const PROMPT_FIN_MS = 150;
const DOUBT_MS = 1_000;
const REFUSALS_BEFORE_EXCEPTION = 3;
