/**
 * Round-trip time and retransmission timeout (RFC 6298), with the limits of pilot protocol §4.5: at first 1 s, then
 * between 200 ms and 10 s. Only segments sent exactly once may be sampled (Karn); that is the caller's duty.
 */
export class RttEstimator {
  #smoothedMs: number | undefined;
  #varianceMs = 0;
  #timeoutMs = INITIAL_TIMEOUT_MS;

  /** Undefined until the first sample. */
  get smoothedMs(): number | undefined {
    return this.#smoothedMs;
  }

  get timeoutMs(): number {
    return this.#timeoutMs;
  }

  /** RFC 6298 (2.2) and (2.3). A sample also ends a backoff. */
  sample(rttMs: number): void {
    if (this.#smoothedMs === undefined) {
      this.#smoothedMs = rttMs;
      this.#varianceMs = rttMs / 2;
    } else {
      this.#varianceMs = (1 - BETA) * this.#varianceMs + BETA * Math.abs(this.#smoothedMs - rttMs);
      this.#smoothedMs = (1 - ALPHA) * this.#smoothedMs + ALPHA * rttMs;
    }
    const timeoutMs = this.#smoothedMs + Math.max(CLOCK_GRANULARITY_MS, K * this.#varianceMs);
    this.#timeoutMs = Math.min(Math.max(timeoutMs, MIN_TIMEOUT_MS), MAX_TIMEOUT_MS);
  }

  /** RFC 6298 (5.5). */
  backOff(): void {
    this.#timeoutMs = Math.min(this.#timeoutMs * 2, MAX_TIMEOUT_MS);
  }
}

const INITIAL_TIMEOUT_MS = 1_000;
const MIN_TIMEOUT_MS = 200;
const MAX_TIMEOUT_MS = 10_000;
const CLOCK_GRANULARITY_MS = 1;
const ALPHA = 1 / 8;
const BETA = 1 / 4;
const K = 4;
