/** Pilot's echo service (pilot protocol §8): every byte goes back to where it came from. The reference's `ping` uses it. */
import type { Instant } from "../../base/instant.ts";
import type { Stream } from "../../stream/stream.ts";
import type { ServiceStream } from "./own-services.ts";

export class EchoStream implements ServiceStream {
  readonly #stream: Stream;
  /** What the far side has no room for yet: at most one piece that was read. */
  #unsent: Uint8Array | undefined;
  #hasEnded = false;

  constructor(stream: Stream) {
    this.#stream = stream;
  }

  pump(now: Instant): void {
    let bytes = this.#unsent ?? this.#stream.read(now);
    for (; bytes !== undefined; bytes = this.#stream.read(now)) {
      const taken = this.#stream.write(bytes, now);
      this.#unsent = taken < bytes.length ? bytes.subarray(taken) : undefined;
      if (this.#unsent !== undefined) return;
    }
    if (this.#hasEnded) this.#stream.closeWrite(now);
  }

  handleEnded(now: Instant): void {
    this.#hasEnded = true;
    this.pump(now);
  }
}
