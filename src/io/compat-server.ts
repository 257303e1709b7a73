/**
 * The beacon over WebSockets on TLS, for nodes whose network blocks UDP (pilot protocol §5, compat transport). It owns
 * connections: who may open one, how long each step may take, how much may wait to be sent. Who a node is and what a
 * datagram means is asked of its hooks.
 *
 * Every queue is bounded: what a slow reader leaves unread beyond MAX_UNSENT_BYTES is dropped and counted, as a full UDP
 * path would do it.
 */
import { createServer, type Server } from "node:https";
import type { Duplex } from "node:stream";
import { type RawData, type WebSocket, WebSocketServer } from "ws";
import { fromUtf8, toHex } from "../base/bytes.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import {
  COMPAT_NONCE_BYTES,
  COMPAT_PATH,
  encodeCompatChallenge,
  encodeCompatOk,
  MAX_COMPAT_DATAGRAM_BYTES,
  MAX_COMPAT_TEXT_BYTES,
} from "../wire/compat.ts";
import type { NodeId } from "../wire/ids.ts";
import { formatIp, parseIp } from "../wire/underlay-address.ts";
import { now } from "./clock.ts";

/** One connection of a node that has proved itself. */
export interface CompatStream extends Endpoint {
  readonly stream: number;
  readonly node: NodeId;
}

export interface CompatServerHooks {
  /** `text` answers the challenge `nonce`. */
  authenticate(text: string, nonce: string): { readonly node: NodeId } | { readonly refused: string };
  handleOpen(stream: CompatStream): void;
  /** The datagram is the hook's to keep. */
  handleDatagram(datagram: Uint8Array, stream: CompatStream): void;
  /** The node at the other end answered a ping. */
  handleAlive(stream: CompatStream): void;
  handleClose(stream: CompatStream): void;
}

export interface CompatServerOptions {
  readonly listen: Endpoint;
  readonly certificate: { readonly cert: string; readonly key: string };
  randomBytes(length: number): Uint8Array;
  readonly limits?: Partial<CompatServerLimits>;
}

export interface CompatServerLimits {
  readonly maxConnections: number;
  readonly maxConnectionsPerSource: number;
  /** Between the TCP connection and a proved key. */
  readonly authMs: number;
  readonly pingMs: number;
  /** Datagrams per second of one connection. */
  readonly datagramsPerSecond: number;
}

export interface CompatCounters {
  accepted: number;
  /** Connections refused: too many, or no proof. */
  refused: number;
  received: number;
  sent: number;
  /** Datagrams of one connection beyond its rate. */
  limited: number;
  /** Datagrams not sent because the reader is too slow, or gone. */
  dropped: number;
}

export class CompatServer {
  readonly counters: CompatCounters = { accepted: 0, refused: 0, received: 0, sent: 0, limited: 0, dropped: 0 };
  readonly #options: CompatServerOptions;
  readonly #hooks: CompatServerHooks;
  readonly #limits: CompatServerLimits;
  readonly #https: Server;
  readonly #upgrades: WebSocketServer;
  /** Key: stream number. Bound: maxConnections; a closed connection leaves. */
  readonly #streams = new Map<number, Connection>();
  /** Key: source address. Bound: maxConnections; an entry leaves with the source's last connection. */
  readonly #perSource = new Map<string, number>();
  #connections = 0;
  #lastStream = 0;

  constructor(options: CompatServerOptions, hooks: CompatServerHooks) {
    this.#options = options;
    this.#hooks = hooks;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#upgrades = new WebSocketServer({
      noServer: true,
      clientTracking: true,
      maxPayload: MAX_COMPAT_DATAGRAM_BYTES,
      maxFragments: 64,
      perMessageDeflate: false, // sealed frames do not compress
    });
    this.#https = createServer({
      ...options.certificate,
      handshakeTimeout: this.#limits.authMs,
      headersTimeout: this.#limits.authMs,
      requestTimeout: this.#limits.authMs,
      maxHeaderSize: 8 * 1024,
    });
    this.#https.maxConnections = 2 * this.#limits.maxConnections;
    this.#https.on("request", (_request, response) => response.writeHead(404, CLOSE).end("not found\n"));
    this.#https.on("upgrade", (request, socket, head) => {
      if (request.url?.split("?")[0] !== COMPAT_PATH) return refuse(socket, "404 Not Found");
      const source = canonical(request.socket.remoteAddress);
      if (source === undefined || !this.#admit(source)) {
        this.counters.refused++;
        return refuse(socket, "503 Service Unavailable");
      }
      socket.once("close", () => this.#leave(source));
      const endpoint = { address: source, port: request.socket.remotePort ?? 0 };
      this.#upgrades.handleUpgrade(request, socket, head, (webSocket) => this.#open(webSocket, endpoint));
    });
  }

  get connectionCount(): number {
    return this.#connections;
  }

  /** Rejects with the system's error (EADDRINUSE, EACCES, …). */
  listen(): Promise<Endpoint> {
    const { address, port } = this.#options.listen;
    return new Promise((resolve, reject) => {
      this.#https.once("error", reject);
      this.#https.listen({ host: address, port }, () => {
        this.#https.off("error", reject);
        this.#https.on("error", () => {}); // one failed accept; the server goes on
        const bound = this.#https.address();
        resolve({ address, port: typeof bound === "object" && bound !== null ? bound.port : port });
      });
    });
  }

  /** Where the connection comes from; undefined once it has ended. */
  endpointOf(stream: number): Endpoint | undefined {
    return this.#streams.get(stream)?.stream;
  }

  send(stream: number, datagram: Uint8Array): void {
    const connection = this.#streams.get(stream);
    if (connection === undefined || connection.webSocket.bufferedAmount > MAX_UNSENT_BYTES) {
      this.counters.dropped++;
      return;
    }
    this.counters.sent++;
    connection.webSocket.send(datagram, { binary: true });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#https.close(() => resolve());
      for (const webSocket of this.#upgrades.clients) webSocket.terminate();
      this.#https.closeAllConnections();
    });
  }

  #admit(source: string): boolean {
    const { maxConnections, maxConnectionsPerSource } = this.#limits;
    const ofSource = this.#perSource.get(source) ?? 0;
    if (this.#connections >= maxConnections || ofSource >= maxConnectionsPerSource) return false;
    this.#connections++;
    this.#perSource.set(source, ofSource + 1);
    return true;
  }

  #leave(source: string): void {
    this.#connections--;
    const ofSource = this.#perSource.get(source)! - 1;
    if (ofSource === 0) this.#perSource.delete(source);
    else this.#perSource.set(source, ofSource);
  }

  #open(webSocket: WebSocket, source: Endpoint): void {
    const nonce = this.#options.randomBytes(COMPAT_NONCE_BYTES);
    const late = setTimeout(() => webSocket.terminate(), this.#limits.authMs);
    webSocket.on("error", () => webSocket.terminate());
    webSocket.once("close", () => clearTimeout(late));
    webSocket.once("message", (data, isBinary) => {
      clearTimeout(late);
      this.#prove(webSocket, source, isBinary ? undefined : textOf(data), toHex(nonce));
    });
    webSocket.send(encodeCompatChallenge(nonce));
  }

  #prove(webSocket: WebSocket, source: Endpoint, text: string | undefined, nonce: string): void {
    const verdict = text === undefined ? { refused: "malformed" } : this.#hooks.authenticate(text, nonce);
    if ("refused" in verdict) {
      this.counters.refused++;
      webSocket.close(POLICY_VIOLATION, verdict.refused);
      setTimeout(() => webSocket.terminate(), CLOSE_MS).unref();
      return;
    }
    this.counters.accepted++;
    const stream: CompatStream = { ...source, stream: ++this.#lastStream, node: verdict.node };
    const limit = new TokenBucket(this.#limits.datagramsPerSecond, this.#limits.datagramsPerSecond, now());
    const connection: Connection = { webSocket, stream, limit, isAlive: true };
    this.#streams.set(stream.stream, connection);
    const pings = setInterval(() => this.#ping(connection), this.#limits.pingMs);
    webSocket.once("close", () => {
      clearInterval(pings);
      this.#streams.delete(stream.stream);
      this.#hooks.handleClose(stream);
    });
    webSocket.on("message", (data, isBinary) => this.#received(connection, data, isBinary));
    webSocket.on("pong", () => {
      connection.isAlive = true;
      this.#hooks.handleAlive(stream);
    });
    webSocket.send(encodeCompatOk());
    this.#hooks.handleOpen(stream);
  }

  #received(connection: Connection, data: RawData, isBinary: boolean): void {
    connection.isAlive = true;
    if (!isBinary) return; // later versions may say more in text
    this.counters.received++;
    if (connection.limit.take(now())) this.#hooks.handleDatagram(bytesOf(data), connection.stream);
    else this.counters.limited++;
  }

  #ping(connection: Connection): void {
    if (!connection.isAlive) return connection.webSocket.terminate();
    connection.isAlive = false;
    connection.webSocket.ping();
  }
}

interface Connection {
  readonly webSocket: WebSocket;
  readonly stream: CompatStream;
  readonly limit: TokenBucket;
  /** Something was heard since the last ping. */
  isAlive: boolean;
}

function refuse(socket: Duplex, status: string): void {
  socket.on("error", () => socket.destroy());
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

function textOf(data: RawData): string | undefined {
  const bytes = bytesOf(data);
  return bytes.length > MAX_COMPAT_TEXT_BYTES ? undefined : fromUtf8(bytes);
}

/** With the default binary type of `ws` a message is one Buffer. */
function bytesOf(data: RawData): Uint8Array {
  return data instanceof Uint8Array ? data : new Uint8Array(0);
}

function canonical(address: string | undefined): string | undefined {
  const bytes = parseIp((address ?? "").replace(/%.*$/, ""));
  return bytes === undefined ? undefined : formatIp(bytes);
}

const DEFAULT_LIMITS: CompatServerLimits = {
  maxConnections: 8192,
  maxConnectionsPerSource: 64,
  authMs: 10_000,
  pingMs: 30_000,
  datagramsPerSecond: 100_000,
};
const CLOSE = { Connection: "close" };
/** RFC 6455 §7.4.1. */
const POLICY_VIOLATION = 1008;
const CLOSE_MS = 2_000;
/** A tenth of a second at 80 Mbit/s; more would only make the path slow. */
const MAX_UNSENT_BYTES = 1024 * 1024;
