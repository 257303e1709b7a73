/**
 * Cuts a byte stream into `length 4 | payload` frames. The buffer grows with the bytes that arrived, never with the
 * length that was promised, so a peer that announces 4 MiB and sends nothing costs nothing. A frame above the limit
 * breaks the decoder for good: there is no way to find the next frame boundary, so the connection must end.
 */
import { readU32 } from "../base/bytes.ts";

export class FrameDecoder {
  readonly #maxBytes: number;
  /** Unread bytes are those from #start to #end. Bounded by the caller, which feeds no more while `next` yields. */
  #buffer = new Uint8Array(0);
  #start = 0;
  #end = 0;
  #broken = false;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get isBroken(): boolean {
    return this.#broken;
  }

  get bufferedBytes(): number {
    return this.#end - this.#start;
  }

  /** Copies `chunk`. */
  push(chunk: Uint8Array): void {
    if (this.#broken) return;
    if (this.#end + chunk.length > this.#buffer.length) this.#makeRoom(chunk.length);
    this.#buffer.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /** The payload of the next whole frame; the bytes are the caller's. */
  next(): Uint8Array | undefined {
    if (this.bufferedBytes < 4) return undefined;
    const length = readU32(this.#buffer, this.#start);
    if (length > this.#maxBytes) {
      this.#broken = true;
      this.#release();
      return undefined;
    }
    return this.bufferedBytes < 4 + length ? undefined : this.take(4 + length)!.subarray(4);
  }

  /** The first `length` bytes without taking them; borrowed until the next call. */
  peek(length: number): Uint8Array | undefined {
    return this.bufferedBytes < length ? undefined : this.#buffer.subarray(this.#start, this.#start + length);
  }

  take(length: number): Uint8Array | undefined {
    if (this.bufferedBytes < length) return undefined;
    const taken = this.#buffer.slice(this.#start, this.#start + length);
    this.#start += length;
    if (this.#start === this.#end) this.#release();
    return taken;
  }

  #makeRoom(bytes: number): void {
    const unread = this.#buffer.subarray(this.#start, this.#end);
    const needed = unread.length + bytes;
    // Doubling only when the old buffer was really full keeps a long frame linear and an idle connection small.
    const next = needed <= this.#buffer.length / 2 ? this.#buffer : new Uint8Array(Math.max(needed, 2 * unread.length));
    next.set(unread, 0);
    this.#buffer = next;
    this.#start = 0;
    this.#end = unread.length;
  }

  #release(): void {
    this.#buffer = EMPTY;
    this.#start = 0;
    this.#end = 0;
  }
}

const EMPTY = new Uint8Array(0);
