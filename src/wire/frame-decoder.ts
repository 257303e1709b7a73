/**
 * Cuts a byte stream into `length 4 | payload` frames. The buffer grows with the bytes that arrived, never with the
 * length that was promised, so a peer that announces 4 MiB and sends nothing costs nothing. A frame above the limit
 * breaks the decoder for good: there is no way to find the next frame boundary, so the connection must end.
 */
import { readU32 } from "../base/bytes.ts";

const EMPTY = new Uint8Array(0);

export class FrameDecoder {
  readonly #maxBytes: number;
  /** Unread bytes are those from #start to #end. Bounded by the caller, which feeds no more while `next` yields. */
  #buffer: Uint8Array = EMPTY;
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

  /** Keeps `chunk` and hands out parts of it: the caller must not write to it any more. */
  push(chunk: Uint8Array): void {
    if (this.#broken) return;
    if (this.#start === this.#end) {
      this.#buffer = chunk;
      this.#start = 0;
      this.#end = chunk.length;
      return;
    }
    if (this.#end + chunk.length > this.#buffer.length) this.#makeRoom(chunk.length);
    this.#buffer.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /** The payload of the next whole frame; it is never written to again. */
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
    const taken = this.#buffer.subarray(this.#start, this.#start + length);
    this.#start += length;
    if (this.#start === this.#end) this.#release();
    return taken;
  }

  /** Into a new buffer, always: parts of the old one were handed out. Doubling keeps a long frame linear. */
  #makeRoom(bytes: number): void {
    const unread = this.#buffer.subarray(this.#start, this.#end);
    const next = new Uint8Array(Math.max(unread.length + bytes, 2 * unread.length));
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
