/** A connection that carries the packets of one guest. Who reads too slowly loses packets, as on any link. */
import type { Socket } from "node:net";
import { writeU32 } from "../base/bytes.ts";
import { FrameDecoder } from "../wire/frame-decoder.ts";
import { type OffloadedPacket, parseVnetFrame, VNET_HEADER_BYTES } from "../wire/vnet-header.ts";

export interface GuestLinkParts {
  /** Bytes are the receiver's until it returns. */
  received(packets: readonly OffloadedPacket[]): void;
  malformed(): void;
  /** Once. */
  ended(): void;
}

export class GuestLink {
  readonly #socket: Socket;
  readonly #parts: GuestLinkParts;
  readonly #decoder = new FrameDecoder(VNET_HEADER_BYTES + MAX_PACKET_BYTES);

  constructor(socket: Socket, parts: GuestLinkParts) {
    this.#socket = socket;
    this.#parts = parts;
    socket.setTimeout(0);
    socket.on("data", (chunk: Buffer) => this.#handle(chunk));
    socket.on("error", () => socket.destroy());
    // A half that is closed carries nothing back.
    socket.on("end", () => socket.destroy());
    socket.once("close", () => parts.ended());
  }

  close(): void {
    this.#socket.destroy();
  }

  /** A packet with nothing left undone. */
  send(packet: Uint8Array): void {
    const frame = new Uint8Array(VNET_HEADER_BYTES + packet.length);
    frame.set(packet, VNET_HEADER_BYTES);
    this.sendFrame(frame);
  }

  /** A packet with its header in front; it is copied. */
  sendFrame(frame: Uint8Array): void {
    if (this.#socket.writableLength > MAX_WAITING_BYTES) return;
    const message = new Uint8Array(4 + frame.length);
    writeU32(message, 0, frame.length);
    message.set(frame, 4);
    this.#socket.write(message);
  }

  #handle(chunk: Buffer): void {
    const packets: OffloadedPacket[] = [];
    this.#decoder.push(chunk);
    for (let frame = this.#decoder.next(); frame !== undefined; frame = this.#decoder.next()) {
      const packet = parseVnetFrame(frame);
      if (packet === undefined) this.#parts.malformed();
      else packets.push(packet);
    }
    if (this.#decoder.isBroken) return void this.#socket.destroy();
    if (packets.length > 0) this.#parts.received(packets);
  }
}

const MAX_PACKET_BYTES = 65_535;
/** Some tens of milliseconds at a gigabit. */
const MAX_WAITING_BYTES = 4 * 1024 * 1024;
