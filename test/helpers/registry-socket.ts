/** A registry client on a real socket that says whatever a test wants: one request, one reply, in order. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { fromUtf8 } from "../../src/base/bytes.ts";
import { FrameDecoder } from "../../src/wire/frame-decoder.ts";
import { encodeRegistryFrame, MAX_FRAME_BYTES } from "../../src/wire/registry.ts";
import type { Reply } from "./registry-caller.ts";

export class RegistrySocket {
  readonly socket: Socket;
  readonly closed: Promise<void>;
  readonly #decoder = new FrameDecoder(MAX_FRAME_BYTES);
  readonly #waiting: ((frame: Uint8Array | undefined) => void)[] = [];

  private constructor(socket: Socket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      this.#decoder.push(chunk);
      for (let frame = this.#decoder.next(); frame !== undefined; frame = this.#decoder.next()) {
        this.#waiting.shift()?.(frame);
      }
    });
    socket.on("close", () => {
      for (const answer of this.#waiting.splice(0)) answer(undefined);
    });
  }

  static async open(port: number, host = "127.0.0.1"): Promise<RegistrySocket> {
    const socket = connect({ host, port, noDelay: true });
    const opened = new RegistrySocket(socket);
    await once(socket, "connect");
    return opened;
  }

  /** Undefined when the connection ended without a reply. */
  async ask(request: object): Promise<Reply | undefined> {
    const frame = await this.askFrame(encodeRegistryFrame(JSON.stringify(request)));
    return frame === undefined ? undefined : (JSON.parse(fromUtf8(frame)!) as Reply);
  }

  askFrame(frame: Uint8Array): Promise<Uint8Array | undefined> {
    if (this.socket.destroyed) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.socket.write(frame);
    });
  }

  close(): void {
    this.socket.destroy();
  }
}
