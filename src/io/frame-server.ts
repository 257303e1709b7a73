/**
 * A TCP server of `length 4 | payload` requests and replies, built for clients that may be slow, mute or hostile.
 * It bounds connections (in all and per source), the bytes of unfinished frames (per frame and in all), the time a frame
 * may take to arrive, idle time, and unread replies; it takes a few requests per connection and turn, so that a client
 * that sends thousands at once waits behind the others. What it knows of the protocol is the frame and nothing else.
 *
 * Replies of one turn of the event loop leave together, after `settle` said that what they report is durable. When it
 * fails, no reply of that turn is sent and those connections are closed: the clients ask again.
 */
import { createServer, type Server, type Socket } from "node:net";
import { createSecureContext, type SecureContext, TLSSocket } from "node:tls";
import type { Endpoint } from "../base/endpoint.ts";
import { FrameDecoder } from "../wire/frame-decoder.ts";
import { formatIp, parseIp } from "../wire/underlay-address.ts";

/** One client, as the protocol above sees it. */
export interface FrameConversation {
  /** One payload in, one whole reply frame out; undefined ends the connection. */
  handleFrame(payload: Uint8Array): Uint8Array | undefined;
  /** Called once before `handleFrame`; a promise, which never rejects, delays this connection until it is settled. */
  prepareFrame?(payload: Uint8Array): Promise<void> | undefined;
  /** Looks at the first bytes before they are taken for a frame: how many to skip, or undefined to wait for more. */
  skipPreamble(peek: (length: number) => Uint8Array | undefined): number | undefined;
  /** The last request was one too many for its source: let it wait. */
  readonly isThrottled: boolean;
}

export interface FrameServerOptions {
  readonly listen: Endpoint;
  readonly maxFrameBytes: number;
  /** With it connections may be TLS: the first byte tells. */
  readonly tls?: FrameServerTls | undefined;
  openConversation(sourceIp: string): FrameConversation;
  /** Called once per turn in which there were requests, before their replies leave. */
  settle(): void;
  readonly limits?: Partial<FrameServerLimits>;
}

export interface FrameServerTls {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
  /** Connections that are not TLS are refused. */
  readonly only: boolean;
}

export interface FrameServerLimits {
  readonly maxConnections: number;
  readonly maxConnectionsPerSource: number;
  readonly maxUnfinishedBytes: number;
  readonly idleMs: number;
  readonly frameMs: number;
}

export class FrameServer {
  readonly #options: FrameServerOptions;
  readonly #limits: FrameServerLimits;
  readonly #server: Server;
  readonly #secureContext: SecureContext | undefined;
  /** Bounded by maxConnections; a closed socket leaves. */
  readonly #connections = new Set<Connection>();
  /** Connections by source address; an entry leaves with the source's last connection. */
  readonly #perSource = new Map<string, number>();
  /** Replies of this turn, in order; bounded by connections × requests per turn. */
  #outbox: { readonly connection: Connection; readonly reply: Uint8Array }[] = [];
  /** TCP connections, those that have not said yet what they are included. */
  #accepted = 0;
  /** Bounded by maxConnections; the first byte or the end removes. */
  readonly #undecided = new Set<Socket>();
  #isSettling = false;
  #unfinishedBytes = 0;

  constructor(options: FrameServerOptions) {
    this.#options = options;
    const { tls } = options;
    this.#secureContext = tls && createSecureContext({ cert: tls.cert, key: tls.key, minVersion: "TLSv1.2" });
    this.#limits = { ...DEFAULT_FRAME_SERVER_LIMITS, ...options.limits };
    this.#server = createServer({ allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 });
    this.#server.on("connection", (socket) => this.#accept(socket));
  }

  /** Rejects with the system's error (EADDRINUSE, EACCES, …). */
  listen(): Promise<Endpoint> {
    const { address, port } = this.#options.listen;
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen({ host: address, port, backlog: 1024 }, () => {
        this.#server.off("error", reject);
        // After listening, an error is one failed accept (out of descriptors): the server goes on.
        this.#server.on("error", () => {});
        const bound = this.#server.address();
        resolve({ address, port: typeof bound === "object" && bound !== null ? bound.port : port });
      });
    });
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      for (const tcp of this.#undecided) tcp.destroy();
      for (const connection of this.#connections) connection.socket.destroy();
    });
  }

  /** The limits count TCP connections, so that unfinished handshakes stand in them too. */
  #accept(tcp: Socket): void {
    const source = canonicalIp(tcp.remoteAddress);
    const sameSource = source === undefined ? 0 : (this.#perSource.get(source) ?? 0);
    const { maxConnections, maxConnectionsPerSource } = this.#limits;
    if (source === undefined || this.#accepted >= maxConnections || sameSource >= maxConnectionsPerSource) {
      tcp.destroy();
      return;
    }
    this.#accepted++;
    this.#perSource.set(source, sameSource + 1);
    tcp.on("close", () => this.#released(source));
    if (this.#secureContext === undefined) this.#open(tcp, source);
    else this.#openByFirstByte(tcp, source, this.#secureContext);
  }

  /** TLS begins with a handshake record (RFC 8446 §5.1); no frame that fits the limit begins with that byte. */
  #openByFirstByte(tcp: Socket, source: string, secureContext: SecureContext): void {
    const patience = setTimeout(() => tcp.destroy(), this.#limits.idleMs);
    tcp.on("error", () => tcp.destroy());
    const decided = (): void => {
      clearTimeout(patience);
      this.#undecided.delete(tcp);
    };
    this.#undecided.add(tcp);
    tcp.once("close", decided);
    tcp.once("data", (first) => {
      decided();
      tcp.pause();
      tcp.unshift(first);
      if (first[0] === TLS_HANDSHAKE) this.#open(new TLSSocket(tcp, { isServer: true, secureContext }), source);
      else if (this.#options.tls?.only) tcp.destroy();
      else {
        this.#open(tcp, source);
        tcp.resume();
      }
    });
  }

  #released(source: string): void {
    this.#accepted--;
    const left = (this.#perSource.get(source) ?? 1) - 1;
    if (left === 0) this.#perSource.delete(source);
    else this.#perSource.set(source, left);
  }

  #open(socket: Socket, source: string): void {
    const connection: Connection = {
      socket,
      source,
      conversation: this.#options.openConversation(source),
      decoder: new FrameDecoder(this.#options.maxFrameBytes),
      isPreamblePast: false,
      waitsFor: "nothing",
      prepared: undefined,
      countedBytes: 0,
      deadline: "idle",
      timer: setTimeout(() => socket.destroy(), this.#limits.idleMs),
    };
    this.#connections.add(connection);
    socket.on("data", (chunk) => this.#received(connection, chunk));
    socket.on("drain", () => this.#drained(connection));
    // The settling of this turn was scheduled before this is, so a client that asks and closes gets its reply.
    socket.on("end", () => setImmediate(() => socket.end()));
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#closed(connection));
  }

  #received(connection: Connection, chunk: Uint8Array): void {
    connection.decoder.push(chunk);
    this.#serve(connection);
  }

  /** Handles what is complete, up to what one connection may have in one turn. */
  #serve(connection: Connection): void {
    if (connection.waitsFor !== "nothing" || connection.socket.destroyed) return;
    const served = this.#serveSome(connection);
    this.#count(connection);
    if (connection.decoder.isBroken || this.#unfinishedBytes > this.#limits.maxUnfinishedBytes) {
      connection.socket.destroy();
      return;
    }
    this.#rearm(connection, served);
    if (connection.conversation.isThrottled) this.#waitForTurn(connection, THROTTLE_MS);
    else if (served === REQUESTS_PER_TURN) this.#waitForTurn(connection, 0);
  }

  #serveSome(connection: Connection): number {
    if (!this.#skipPreamble(connection)) return 0;
    for (let served = 0; served < REQUESTS_PER_TURN; served++) {
      const payload = this.#nextPrepared(connection);
      if (payload === undefined) return served;
      const reply = connection.conversation.handleFrame(payload);
      if (reply === undefined) {
        connection.socket.destroy();
        return served;
      }
      this.#outbox.push({ connection, reply });
      this.#settleSoon();
      if (connection.conversation.isThrottled) return served + 1;
    }
    return REQUESTS_PER_TURN;
  }

  /** The next request, unless there is none or it must be prepared first. */
  #nextPrepared(connection: Connection): Uint8Array | undefined {
    const prepared = connection.prepared;
    connection.prepared = undefined;
    if (prepared !== undefined) return prepared;
    const payload = connection.decoder.next();
    const preparation = payload === undefined ? undefined : connection.conversation.prepareFrame?.(payload);
    if (preparation === undefined) return payload;
    connection.prepared = payload;
    connection.waitsFor = "preparation";
    connection.socket.pause();
    void preparation.then(() => this.#resume(connection));
    return undefined;
  }

  #skipPreamble(connection: Connection): boolean {
    if (connection.isPreamblePast) return true;
    const length = connection.conversation.skipPreamble((count) => connection.decoder.peek(count));
    if (length === undefined) return false;
    connection.decoder.take(length);
    connection.isPreamblePast = true;
    return true;
  }

  #settleSoon(): void {
    if (this.#isSettling) return;
    this.#isSettling = true;
    setImmediate(() => this.#settle());
  }

  #settle(): void {
    this.#isSettling = false;
    const outbox = this.#outbox;
    this.#outbox = [];
    try {
      this.#options.settle();
    } catch {
      // Not durable, so not true: no reply may say it. The owner of `settle` knows why and reports it.
      for (const { connection } of outbox) connection.socket.destroy();
      return;
    }
    for (const { connection, reply } of outbox) {
      if (!connection.socket.writable) continue;
      const fits = connection.socket.write(reply);
      if (!fits && connection.waitsFor === "nothing") this.#waitForDrain(connection);
    }
  }

  /** Reads nothing more until the replies are read; a client that never does is cut when the time for a frame is up. */
  #waitForDrain(connection: Connection): void {
    connection.waitsFor = "drain";
    connection.socket.pause();
    this.#arm(connection, "frame");
  }

  #waitForTurn(connection: Connection, ms: number): void {
    connection.waitsFor = "turn";
    connection.socket.pause();
    setTimeout(() => this.#resume(connection), ms);
  }

  #drained(connection: Connection): void {
    if (connection.waitsFor === "drain") this.#resume(connection);
  }

  #resume(connection: Connection): void {
    if (connection.socket.destroyed) return;
    if (connection.socket.writableNeedDrain) {
      this.#waitForDrain(connection);
      return;
    }
    connection.waitsFor = "nothing";
    connection.socket.resume();
    this.#serve(connection);
  }

  /** The clock of a frame starts with its first byte and is not set back by the bytes that trickle in after it. */
  #rearm(connection: Connection, served: number): void {
    const isUnfinished = connection.decoder.bufferedBytes > 0;
    if (isUnfinished && (served > 0 || connection.deadline === "idle")) this.#arm(connection, "frame");
    if (!isUnfinished && served > 0) this.#arm(connection, "idle");
  }

  #arm(connection: Connection, deadline: Connection["deadline"]): void {
    clearTimeout(connection.timer);
    connection.deadline = deadline;
    const ms = deadline === "idle" ? this.#limits.idleMs : this.#limits.frameMs;
    connection.timer = setTimeout(() => connection.socket.destroy(), ms);
  }

  #count(connection: Connection): void {
    this.#unfinishedBytes += connection.decoder.bufferedBytes - connection.countedBytes;
    connection.countedBytes = connection.decoder.bufferedBytes;
  }

  #closed(connection: Connection): void {
    clearTimeout(connection.timer);
    this.#connections.delete(connection);
    this.#unfinishedBytes -= connection.countedBytes;
  }
}

interface Connection {
  readonly socket: Socket;
  readonly source: string;
  readonly conversation: FrameConversation;
  readonly decoder: FrameDecoder;
  isPreamblePast: boolean;
  /** Why its requests are not looked at just now. */
  waitsFor: "nothing" | "turn" | "drain" | "preparation";
  /** Taken out of the decoder and being prepared, or ready. */
  prepared: Uint8Array | undefined;
  /** What of its buffer stands in #unfinishedBytes. */
  countedBytes: number;
  deadline: "idle" | "frame";
  timer: NodeJS.Timeout;
}

export const DEFAULT_FRAME_SERVER_LIMITS: FrameServerLimits = {
  maxConnections: 16_384,
  maxConnectionsPerSource: 2048,
  maxUnfinishedBytes: 64 * 1024 * 1024,
  idleMs: 5 * 60_000,
  frameMs: 30_000,
};

function canonicalIp(text: string | undefined): string | undefined {
  const bytes = text === undefined ? undefined : parseIp(text.replace(/%.*$/, ""));
  return bytes === undefined ? undefined : formatIp(bytes);
}

const REQUESTS_PER_TURN = 32;
const TLS_HANDSHAKE = 0x16;
const THROTTLE_MS = 200;
