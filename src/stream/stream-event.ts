/** What a stream tells the program that owns it. */
export type StreamEvent =
  | { readonly kind: "established" }
  /** `read()` has something. */
  | { readonly kind: "readable" }
  /** After a `write()` that was not taken whole: there is room again. */
  | { readonly kind: "writable" }
  /** The far side has ended its direction and every byte of it arrived: after what `read()` still has, nothing comes. */
  | { readonly kind: "ended" }
  /** Both directions are over. Bytes that the far side would not take any more are counted, never silently lost. */
  | { readonly kind: "closed"; readonly undeliveredBytes: number }
  | { readonly kind: StreamFailure };

/**
 * refused: nobody listens there. reset: the far side broke off. timed-out: it does not answer.
 * truncated: it ended its direction, but bytes before the end never came.
 */
export type StreamFailure = "refused" | "reset" | "timed-out" | "truncated";
