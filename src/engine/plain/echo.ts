/**
 * Pilot's echo service (port 7, pilot protocol §8), for plain agents that find no local program there: every byte goes back
 * to where it came from. Their `ping` opens such a stream.
 */
import type { Instant } from "../../base/instant.ts";
import type { Stream } from "../../stream/stream.ts";
import type { StreamEvent } from "../../stream/stream-event.ts";

export class EchoStreams {
  /** With what the far side has no room for yet. Bound: MAX_STREAMS; an entry goes with its stream. */
  readonly #streams = new Map<Stream, { unsent: Uint8Array | undefined; ended: boolean }>();

  has(stream: Stream): boolean {
    return this.#streams.has(stream);
  }

  take(stream: Stream, now: Instant): void {
    if (this.#streams.size >= MAX_STREAMS) {
      stream.refuse(now);
      return;
    }
    this.#streams.set(stream, { unsent: undefined, ended: false });
    stream.accept(now);
  }

  /** The stream was reset by others. */
  forget(stream: Stream): void {
    this.#streams.delete(stream);
  }

  handleStreamEvent(stream: Stream, event: StreamEvent, now: Instant): void {
    const state = this.#streams.get(stream);
    if (state === undefined) return;
    switch (event.kind) {
      case "established":
      case "readable":
      case "writable":
        return this.#echo(stream, now);
      case "ended":
        state.ended = true;
        return this.#echo(stream, now);
      default:
        this.#streams.delete(stream);
    }
  }

  #echo(stream: Stream, now: Instant): void {
    const state = this.#streams.get(stream)!;
    let bytes = state.unsent ?? stream.read(now);
    for (; bytes !== undefined; bytes = stream.read(now)) {
      const taken = stream.write(bytes, now);
      state.unsent = taken < bytes.length ? bytes.subarray(taken) : undefined;
      if (state.unsent !== undefined) return;
    }
    if (state.ended) stream.closeWrite(now);
  }
}

const MAX_STREAMS = 1_024;
