/**
 * DNS over UDP and TCP at one address of this host, for programs of this host: messages in, a zone's answers out. Says
 * nothing to who has no address here, to answers, and to what is too short to be a question.
 * Source: RFC 1035 §4, 7766 (TCP).
 */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, isIPv6, type Server, type Socket } from "node:net";
import type { ZoneAnswer } from "../names/zone.ts";
import { type DnsCounters, DnsResponder } from "./dns-responder.ts";

export interface DnsServerOptions {
  /** IPv6 address, which the host must have. */
  readonly address: string;
  /** 53, or 0 for any. */
  readonly port: number;
  answer(name: string, type: string): ZoneAnswer;
  /** Whether this is an address of this host. */
  isLocal(address: string): boolean;
}

export class DnsServer {
  readonly #options: DnsServerOptions;
  readonly #responder: DnsResponder;
  readonly #udp: UdpSocket = createSocket({ type: "udp6", ipv6Only: true });
  readonly #tcp: Server;
  /** Bound: MAX_CONNECTIONS. */
  readonly #connections = new Set<Socket>();

  constructor(options: DnsServerOptions) {
    this.#options = options;
    this.#responder = new DnsResponder((name, type) => options.answer(name, type));
    this.#udp.on("message", (message, from) => this.#handleDatagram(message, from));
    this.#udp.on("error", () => {}); // one answer that could not be sent
    this.#tcp = createServer((socket) => this.#converse(socket));
    this.#tcp.maxConnections = MAX_CONNECTIONS;
  }

  get counters(): DnsCounters {
    return this.#responder.counters;
  }

  /** The answer to a message that came by another way; undefined: nothing is to be said. */
  respond(message: Buffer): Buffer | undefined {
    return this.#responder.respond(message, "udp");
  }

  /** Returns the port. Rejects with the system's error when the address or the port cannot be had. */
  async listen(): Promise<number> {
    const { address } = this.#options;
    this.#udp.bind(this.#options.port, address);
    await once(this.#udp, "listening");
    const { port } = this.#udp.address();
    this.#tcp.listen(port, address);
    await once(this.#tcp, "listening");
    return port;
  }

  close(): void {
    for (const socket of this.#connections) socket.destroy();
    for (const part of [this.#udp, this.#tcp]) {
      try {
        part.close();
      } catch {
        // It was never opened.
      }
    }
  }

  #handleDatagram(message: Buffer, from: RemoteInfo): void {
    if (!this.#options.isLocal(from.address.replace(/%.*$/, ""))) return void this.counters.refused++;
    const reply = this.#responder.respond(message, "udp");
    if (reply !== undefined) this.#udp.send(reply, from.port, from.address);
  }

  #converse(socket: Socket): void {
    const remote = socket.remoteAddress ?? "";
    if (!isIPv6(remote) || !this.#options.isLocal(remote)) {
      this.counters.refused++;
      socket.destroy();
      return;
    }
    this.#connections.add(socket);
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#connections.delete(socket));
    let waiting: Buffer = Buffer.alloc(0);
    socket.on("data", (bytes: Buffer) => {
      waiting = waiting.length === 0 ? bytes : Buffer.concat([waiting, bytes]);
      while (waiting.length >= 2 && waiting.length >= 2 + waiting.readUInt16BE(0)) {
        const length = waiting.readUInt16BE(0);
        this.#answerOverTcp(socket, waiting.subarray(2, 2 + length));
        waiting = waiting.subarray(2 + length);
      }
    });
  }

  #answerOverTcp(socket: Socket, message: Buffer): void {
    const reply = this.#responder.respond(message, "tcp");
    if (reply === undefined) return void socket.destroy();
    const length = Buffer.alloc(2);
    length.writeUInt16BE(reply.length);
    // A reader that does not read gets no more of our memory.
    if (!socket.write(Buffer.concat([length, reply])) && socket.writableLength > MAX_UNREAD_BYTES) socket.destroy();
  }
}

const MAX_CONNECTIONS = 64;
const MAX_UNREAD_BYTES = 256 * 1024;
const IDLE_MS = 5_000;
