/**
 * How much may be in flight as far as the network is concerned: slow start, congestion avoidance and their answer to loss
 * (RFC 5681) with an initial window of ten segments (RFC 6928) and growth by bytes acknowledged (RFC 3465).
 * What was lost, and when, is the sender's knowledge; this file holds the two numbers and how they move.
 */
export class RenoCongestion {
  readonly #segmentBytes: number;
  #windowBytes: number;
  #thresholdBytes = INITIAL_THRESHOLD_BYTES;

  constructor(segmentBytes: number) {
    this.#segmentBytes = segmentBytes;
    this.#windowBytes = INITIAL_WINDOW_SEGMENTS * segmentBytes;
  }

  get windowBytes(): number {
    return this.#windowBytes;
  }

  get thresholdBytes(): number {
    return this.#thresholdBytes;
  }

  /** New data was acknowledged outside fast recovery while this window was what held the sender back. */
  handleAcknowledged(bytes: number): void {
    const growth =
      this.#windowBytes < this.#thresholdBytes
        ? Math.min(bytes, this.#thresholdBytes - this.#windowBytes)
        : Math.max(1, (this.#segmentBytes * bytes) / this.#windowBytes);
    this.#windowBytes = Math.min(this.#windowBytes + growth, MAX_WINDOW_BYTES);
  }

  /** RFC 5681 §3.2 step 2: half of what was in flight; of which what was reported as received is no part. The window does not inflate: the sender counts what left the net. */
  handleFastLoss(flightBytes: number): void {
    this.#thresholdBytes = this.#halfOf(flightBytes);
    this.#windowBytes = this.#thresholdBytes;
  }

  /** RFC 5681 §3.1 (4): the first timeout of a loss event halves the threshold, each one starts again from one segment. */
  handleTimeout(flightBytes: number, isFirstOfEvent: boolean): void {
    if (isFirstOfEvent) this.#thresholdBytes = this.#halfOf(flightBytes);
    this.#windowBytes = this.#segmentBytes;
  }

  /** RFC 5681 §4.1: after silence the old window says nothing about the path, and a burst of it would be lost. */
  handleIdle(): void {
    this.#windowBytes = Math.min(this.#windowBytes, INITIAL_WINDOW_SEGMENTS * this.#segmentBytes);
  }

  /** The loss was none: back to what was before it, unless the window has grown past that since. */
  undo(windowBytes: number, thresholdBytes: number): void {
    this.#windowBytes = Math.max(this.#windowBytes, windowBytes);
    this.#thresholdBytes = Math.max(this.#thresholdBytes, thresholdBytes);
  }

  #halfOf(flightBytes: number): number {
    return Math.max(Math.min(flightBytes, this.#windowBytes) / 2, 2 * this.#segmentBytes);
  }
}

const INITIAL_WINDOW_SEGMENTS = 10;
const INITIAL_THRESHOLD_BYTES = 1 << 30; // RFC 5681 §3.1: arbitrarily high, so that slow start finds the path's limit
const MAX_WINDOW_BYTES = 4 << 20;
