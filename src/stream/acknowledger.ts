/**
 * When the far side is told what arrived (RFC 5681 §4.2, with pilot protocol §4.2 and §4.3).
 * To a reference never in the instant of arrival: it enters a segment in its retransmission list only after its send
 * call returned, and an ACK that overtakes it leaves the entry there for good. Others hear at once when much has come, or
 * on a short path the wait for the ACK, and not the path, would hold them back. An early segment is always answered at
 * once, as it acknowledges nothing new: by a pure duplicate ACK, and a SACK behind it. The order matters, because an ACK with
 * a payload does not count as a duplicate.
 */
import { after, type Deadline, type Instant } from "../base/instant.ts";

export class Acknowledger {
  readonly #mayHurry: boolean;
  #unacknowledgedSegments = 0;
  #dueAt: Instant | undefined;
  #duplicatesDue = 0;
  #sackDue = false;

  /** `mayHurry`: the far side is no reference. */
  constructor(mayHurry: boolean) {
    this.#mayHurry = mayHurry;
  }

  handleInOrder(segments: number, now: Instant): void {
    this.#unacknowledgedSegments += segments;
    if (this.#mayHurry && this.#unacknowledgedSegments >= MANY_SEGMENTS) this.dueAtOnce(now);
    else this.#dueWithin(this.#unacknowledgedSegments >= 2 ? SOON_MS : LONE_SEGMENT_MS, now);
  }

  /** A gap closed, or a segment came that was there already: the far side should know soon. */
  dueSoon(now: Instant): void {
    this.#dueWithin(SOON_MS, now);
  }

  /** For what is not an answer to data: the end of the handshake, a keep-alive, a larger window. */
  dueAtOnce(now: Instant): void {
    this.#dueAt = now;
  }

  handleEarly(): void {
    this.#duplicatesDue += 1;
    this.#sackDue = true;
  }

  /** Any packet that carries the acknowledgement number makes a pending ACK needless. */
  handleSent(): void {
    this.#unacknowledgedSegments = 0;
    this.#dueAt = undefined;
  }

  /** What to send now, one at a time. */
  take(now: Instant): "ack" | "sack" | undefined {
    if (this.#duplicatesDue > 0) {
      this.#duplicatesDue -= 1;
      return "ack";
    }
    if (this.#sackDue) {
      this.#sackDue = false;
      return "sack";
    }
    if (this.#dueAt === undefined || this.#dueAt > now) return undefined;
    return "ack";
  }

  get hasUrgent(): boolean {
    return this.#duplicatesDue > 0 || this.#sackDue;
  }

  deadline(): Deadline | undefined {
    return this.#dueAt === undefined ? undefined : { at: this.#dueAt, reason: "delayed-ack" };
  }

  #dueWithin(ms: number, now: Instant): void {
    const at = after(now, ms);
    if (this.#dueAt === undefined || at < this.#dueAt) this.#dueAt = at;
  }
}

const MANY_SEGMENTS = 32;
const SOON_MS = 2;
const LONE_SEGMENT_MS = 5;
