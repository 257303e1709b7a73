/**
 * What may be tuned on a stream, with the values used when nothing is said. Times are milliseconds.
 */
export interface StreamOptions {
  /** Payload bytes per segment: 1152 fits a path of 1280 bytes through a relay (pilot protocol §4.6). */
  readonly segmentBytes: number;
  /** Written and not yet acknowledged. */
  readonly sendBufferBytes: number;
  /** Received and not yet read. */
  readonly receiveBufferBytes: number;
  /** True sends small segments at once; false waits for acknowledgements (RFC 896). */
  readonly noDelay: boolean;
  /** Whether the far side can go on in one direction after the other has ended; undefined judges by its handshake. */
  readonly halfClose: boolean | undefined;
  /** Segments in flight to a far side that is not the reference; the advertised window and congestion bound it as well. */
  readonly maxInFlightSegments: number;
  /** New segments may be given out together, as a run, up to so many. */
  readonly maxRunSegments: number;
  /** A far side without half-close gets our FIN once it has been quiet for this long, so that its answer is not lost. */
  readonly quietBeforeFinMs: number;
  /**
   * The same where the far side opened the stream. What answers it is a server: it ends when it has said all and seldom reads
   * on, and the far side's program waits for that end.
   */
  readonly quietAfterAnswerMs: number;
  /** Nothing heard for this long although probes were sent: the stream is over. */
  readonly idleLimitMs: number;
}

export const DEFAULT_STREAM_OPTIONS: StreamOptions = {
  segmentBytes: 1152,
  sendBufferBytes: 2 << 20,
  receiveBufferBytes: 2 << 20,
  noDelay: false,
  halfClose: undefined,
  maxInFlightSegments: 1024,
  maxRunSegments: 1,
  quietBeforeFinMs: 10_000,
  quietAfterAnswerMs: 300,
  idleLimitMs: 150_000,
};
