/**
 * Pilot's own services (pilot protocol §8) that this node has for plain agents on ports where no local program listens:
 * echo on 7, and answers about this node itself on 53. Who may come was asked before; whether he still may is asked again
 * whenever trust, policy or memberships changed.
 */
import type { Instant } from "../../base/instant.ts";
import type { Stream } from "../../stream/stream.ts";
import type { StreamEvent } from "../../stream/stream-event.ts";
import { PORT } from "../../wire/virtual-packet.ts";
import { EchoStream } from "./echo.ts";
import { NameQuery, type NamesOfSelf } from "./name-query.ts";

/** One stream of a service; called until it is over. */
export interface ServiceStream {
  /** There may be something to read, or room to write. */
  pump(now: Instant): void;
  /** The far side ended its direction. */
  handleEnded(now: Instant): void;
}

export class OwnServices {
  readonly #names: NamesOfSelf;
  /** Bound: MAX_STREAMS; an entry goes with its stream. */
  readonly #streams = new Map<Stream, ServiceStream>();

  constructor(names: NamesOfSelf) {
    this.#names = names;
  }

  /** Whether this node has a service of its own on the port. */
  offers(port: number): boolean {
    return port === PORT.ECHO || port === PORT.NAMESERVER;
  }

  has(stream: Stream): boolean {
    return this.#streams.has(stream);
  }

  /** Answers a stream that was requested. */
  take(stream: Stream, now: Instant): void {
    if (this.#streams.size >= MAX_STREAMS) {
      stream.refuse(now);
      return;
    }
    const isEcho = stream.localPort === PORT.ECHO;
    this.#streams.set(stream, isEcho ? new EchoStream(stream) : new NameQuery(stream, this.#names));
    stream.accept(now);
  }

  handleStreamEvent(stream: Stream, event: StreamEvent, now: Instant): void {
    switch (event.kind) {
      case "established":
      case "readable":
      case "writable":
        return this.#streams.get(stream)?.pump(now);
      case "ended":
        return this.#streams.get(stream)?.handleEnded(now);
      default:
        this.#streams.delete(stream);
    }
  }

  /** Resets the streams that may go on no longer. */
  cut(mayGoOn: (stream: Stream) => boolean, now: Instant): void {
    for (const stream of [...this.#streams.keys()]) {
      if (mayGoOn(stream)) continue;
      this.#streams.delete(stream);
      stream.reset(now);
    }
  }
}

const MAX_STREAMS = 1_024;
