/**
 * A TCP server of `length 4 | payload` requests and replies, built for clients that may be slow, mute or hostile.
 * It bounds connections (in all and per source), the bytes of unfinished frames (per frame and in all), the time a frame
 * may take to arrive, idle time, and unread replies; it takes a few requests per connection and turn of the event loop, so
 * that a client that sends thousands at once waits behind the others, and not many more in all, so that what else lives on
 * this loop has its turn within about a millisecond. What it knows of the protocol is the frame and nothing else.
 *
 * A reply leaves at once, unless something it may rest on is not durable yet. Then it waits, and all replies behind it,
 * for the end of this turn of the event loop and for `settle`, which makes durable what the turn did. When that fails,
 * no reply of the turn is sent and those connections are closed: the clients ask again.
 */
import { createServer, type Server, type Socket } from "node:net";
import { createSecureContext, type SecureContext, TLSSocket } from "node:tls";
import type { Endpoint } from "../base/endpoint.ts";
import { FrameDecoder } from "../wire/frame-decoder.ts";
import { formatIp, parseIp } from "../wire/underlay-address.ts";

/** One client, as the protocol above sees it. */
export interface FrameConversation {
  /** The reply to a request: a text that is the payload of a frame, or a whole frame; undefined ends the connection. */
  answer(payload: Uint8Array): string | Uint8Array | undefined;
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
  /** Whether a reply must wait for `settle`. */
  mustSettle(): boolean;
  /** Called at most once per turn, before replies leave that wait for it. */
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
  /** Requests that may still be handled in this turn. */
  #turnsLeft = REQUESTS_PER_TURN;
  /** Connections that have more requests than fitted, in their order; each stands here once. */
  #backlog: Connection[] = [];
  /** Replies of this turn, in order; bounded by the requests of a turn. */
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

  get isListening(): boolean {
    return this.#server.listening;
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
      hasEnded: false,
      waitsFor: "nothing",
      countedBytes: 0,
      deadline: "idle",
      timer: setTimeout(() => socket.destroy(), this.#limits.idleMs),
    };
    this.#connections.add(connection);
    socket.on("data", (chunk) => this.#received(connection, chunk));
    socket.on("drain", () => this.#drained(connection));
    socket.on("end", () => {
      connection.hasEnded = true;
      this.#endIfServed(connection);
    });
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#closed(connection));
  }

  #received(connection: Connection, chunk: Uint8Array): void {
    connection.decoder.push(chunk);
    if (connection.waitsFor === "nothing") this.#serve(connection);
    else this.#hold(connection);
  }

  /** A client that sends more while it is not served is read no further. */
  #hold(connection: Connection): void {
    connection.socket.pause();
    this.#count(connection);
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
    if (connection.waitsFor !== "nothing") return;
    if (connection.conversation.isThrottled) this.#throttle(connection);
    else if (connection.decoder.bufferedBytes > 0 && (served === REQUESTS_PER_CONNECTION || this.#turnsLeft === 0)) {
      this.#waitForTurn(connection);
    } else this.#endIfServed(connection);
  }

  /** A client that asks and closes gets its replies; the settling of this turn was scheduled before this is. */
  #endIfServed({ socket, hasEnded, waitsFor }: Connection): void {
    if (hasEnded && waitsFor === "nothing") setImmediate(() => socket.end());
  }

  #serveSome(connection: Connection): number {
    if (!this.#skipPreamble(connection)) return 0;
    for (let served = 0; served < REQUESTS_PER_CONNECTION; served++) {
      const request = this.#turnsLeft === 0 ? undefined : connection.decoder.next();
      if (request === undefined) return served;
      this.#countTurn();
      const reply = connection.conversation.answer(request);
      if (reply === undefined) connection.socket.destroy();
      else this.#reply(connection, typeof reply === "string" ? frameOf(reply) : reply);
      if (this.#options.mustSettle()) this.#settleSoon();
      if (reply === undefined) return served;
      if (connection.conversation.isThrottled || connection.waitsFor !== "nothing") return served + 1;
    }
    return REQUESTS_PER_CONNECTION;
  }

  #countTurn(): void {
    if (this.#turnsLeft-- === REQUESTS_PER_TURN) setImmediate(() => this.#nextTurn());
  }

  #nextTurn(): void {
    this.#turnsLeft = REQUESTS_PER_TURN;
    const backlog = this.#backlog;
    this.#backlog = [];
    let resumed = 0;
    while (this.#turnsLeft > 0 && resumed < backlog.length) this.#resume(backlog[resumed++]!);
    if (resumed < backlog.length) this.#backlog = [...backlog.slice(resumed), ...this.#backlog];
  }

  #reply(connection: Connection, reply: Uint8Array): void {
    if (this.#isSettling || this.#options.mustSettle()) this.#outbox.push({ connection, reply });
    else this.#send(connection, reply);
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
    for (const { connection, reply } of outbox) this.#send(connection, reply);
  }

  #send(connection: Connection, reply: Uint8Array): void {
    if (!connection.socket.writable) return;
    const fits = connection.socket.write(reply);
    if (!fits && connection.waitsFor === "nothing") this.#waitForDrain(connection);
  }

  /** Reads nothing more until the replies are read; a client that never does is cut when the time for a frame is up. */
  #waitForDrain(connection: Connection): void {
    connection.waitsFor = "drain";
    connection.socket.pause();
    this.#arm(connection, "frame");
  }

  #waitForTurn(connection: Connection): void {
    connection.waitsFor = "turn";
    connection.socket.pause();
    this.#backlog.push(connection);
  }

  #throttle(connection: Connection): void {
    connection.waitsFor = "turn";
    connection.socket.pause();
    setTimeout(() => this.#resume(connection), THROTTLE_MS);
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
    if (connection.socket.isPaused()) connection.socket.resume();
    this.#serve(connection);
  }

  /** The clock of a frame starts with its first byte and is not set back by the bytes that trickle in after it. */
  #rearm(connection: Connection, served: number): void {
    const isUnfinished = connection.decoder.bufferedBytes > 0;
    if (isUnfinished && (served > 0 || connection.deadline === "idle")) this.#arm(connection, "frame");
    if (!isUnfinished && served > 0) this.#arm(connection, "idle");
  }

  #arm(connection: Connection, deadline: Connection["deadline"]): void {
    if (connection.deadline === deadline) {
      connection.timer.refresh();
      return;
    }
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
  /** The client asks nothing more. */
  hasEnded: boolean;
  /** Why its requests are not looked at just now. */
  waitsFor: "nothing" | "turn" | "drain";
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

/** From Node's pool: a buffer with memory of its own for each reply would be most of what the collector has to do. */
function frameOf(text: string): Uint8Array {
  const length = Buffer.byteLength(text);
  const frame = Buffer.allocUnsafe(4 + length);
  frame.writeUInt32BE(length, 0);
  frame.write(text, 4);
  return frame;
}

function canonicalIp(text: string | undefined): string | undefined {
  const bytes = text === undefined ? undefined : parseIp(text.replace(/%.*$/, ""));
  return bytes === undefined ? undefined : formatIp(bytes);
}

/** A request takes some 50 µs. */
const REQUESTS_PER_TURN = 16;
const REQUESTS_PER_CONNECTION = 8;
const TLS_HANDSHAKE = 0x16;
const THROTTLE_MS = 200;
