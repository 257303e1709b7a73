/**
 * The TCP connection under a registry client: connects, reconnects with backoff and jitter, carries frames, and is the
 * one timer the client needs. It decides nothing: what is said is the client's, when to wake is the client's.
 */
import { type Socket, connect as tcpConnect } from "node:net";
import { fromUtf8 } from "../base/bytes.ts";
import type { Instant } from "../base/instant.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { RegistryState } from "../registry/events.ts";
import { FrameDecoder } from "../wire/frame-decoder.ts";
import { encodeRegistryFrame, MAX_FRAME_BYTES } from "../wire/registry.ts";
import { now } from "./clock.ts";

export interface RegistryAddress {
  readonly host: string;
  readonly port: number;
}

export interface RegistryConnectionHooks {
  /** The client was given an input: its events want to be drained. */
  readonly onInput: () => void;
  /** Opens the byte stream; plain TCP when left out. */
  readonly connect?: ((address: RegistryAddress) => OpeningStream) | undefined;
}

export interface OpeningStream {
  readonly socket: Socket;
  /** The event after which bytes may flow. */
  readonly opened: "connect" | "secureConnect" | "verified";
}

export class RegistryConnection {
  readonly #address: RegistryAddress;
  readonly #client: RegistryClient;
  readonly #hooks: RegistryConnectionHooks;
  #socket: Socket | undefined;
  #decoder = new FrameDecoder(MAX_FRAME_BYTES);
  #isConnected = false;
  #isClosed = false;
  #backoffMs = FIRST_BACKOFF_MS;
  #retryTimer: NodeJS.Timeout | undefined;
  #clientTimer: NodeJS.Timeout | undefined;
  #clientArmedFor: Instant | undefined;

  constructor(address: RegistryAddress, client: RegistryClient, hooks: RegistryConnectionHooks) {
    this.#address = address;
    this.#client = client;
    this.#hooks = hooks;
  }

  get state(): RegistryState {
    return this.#client.state;
  }

  /** Why the state is not `ok`, when something said why. */
  get error(): string | undefined {
    return this.#client.stateError;
  }

  get stateSince(): Instant {
    return this.#client.stateSince;
  }

  start(): void {
    this.#connect();
  }

  /** Call after commands to the client: sends what it has to say and sets the timer for what comes next. */
  pump(): void {
    if (this.#isClosed) return;
    if (this.#client.wantsDisconnect) {
      this.#lost("the registry did not answer");
      return;
    }
    this.#sendRequests();
    this.#armClientTimer();
  }

  /** The underlay changed: an old connection may be dead without knowing it, and a waiting retry need not wait. */
  reconnect(): void {
    if (this.#isClosed) return;
    this.#backoffMs = FIRST_BACKOFF_MS;
    this.#drop("reconnecting");
    this.#connect();
  }

  /** Nothing is sent and no hook is called after this. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#clientTimer);
    this.#detach()?.destroy();
  }

  #connect(): void {
    clearTimeout(this.#retryTimer);
    this.#decoder = new FrameDecoder(MAX_FRAME_BYTES);
    this.#client.handleConnecting(now());
    const open = this.#hooks.connect ?? plainTcp;
    const { socket, opened } = open(this.#address);
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEPALIVE_MS);
    const opening = setTimeout(() => socket.destroy(new Error("connecting took too long")), CONNECT_TIMEOUT_MS);
    socket.once(opened, () => {
      clearTimeout(opening);
      this.#connected();
    });
    socket.on("data", (chunk) => this.#received(chunk));
    let reason: string | undefined;
    socket.on("error", (cause) => {
      reason = cause.message;
    });
    socket.on("close", () => {
      clearTimeout(opening);
      if (socket === this.#socket) this.#lost(reason ?? "the registry closed the connection");
    });
    this.#hooks.onInput();
  }

  #connected(): void {
    this.#isConnected = true;
    this.#client.handleConnected(now());
    this.#drain();
  }

  #received(chunk: Uint8Array): void {
    this.#decoder.push(chunk);
    for (let frame = this.#decoder.next(); frame !== undefined; frame = this.#decoder.next()) {
      this.#client.handleReply(fromUtf8(frame) ?? "", now());
      if (this.#client.state === "ok") this.#backoffMs = FIRST_BACKOFF_MS;
      this.#drain();
      if (this.#socket === undefined) return; // the client, or a hook, ended the connection
    }
    if (this.#decoder.isBroken) this.#lost("the registry sent an oversized frame");
  }

  #drain(): void {
    this.#hooks.onInput();
    this.pump();
  }

  #sendRequests(): void {
    if (!this.#isConnected) return;
    const request = this.#client.pollRequest();
    if (request !== undefined) this.#socket?.write(encodeRegistryFrame(request));
  }

  /** Called with every wake-up of the daemon: a timer that already runs for this moment, or an earlier one, stays. */
  #armClientTimer(): void {
    const deadline = this.#client.pollTimeout();
    if (deadline === undefined || (this.#clientArmedFor !== undefined && deadline.at >= this.#clientArmedFor)) return;
    clearTimeout(this.#clientTimer);
    this.#clientArmedFor = deadline.at;
    this.#clientTimer = setTimeout(
      () => {
        this.#clientArmedFor = undefined;
        this.#client.handleTimeout(now());
        this.#drain();
      },
      Math.max(0, Math.ceil(deadline.at - now())),
    );
  }

  /** The connection is over, by whichever side: tell the client, and try again after a while. */
  #lost(reason: string): void {
    if (this.#isClosed) return;
    this.#drop(reason);
    const delayMs = this.#backoffMs * (0.5 + Math.random() / 2);
    this.#backoffMs = Math.min(2 * this.#backoffMs, MAX_BACKOFF_MS);
    this.#retryTimer = setTimeout(() => this.#connect(), delayMs);
    this.#hooks.onInput();
  }

  #drop(reason: string): void {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#clientTimer);
    this.#clientArmedFor = undefined;
    this.#detach()?.destroy();
    this.#client.handleDisconnected(now(), reason);
  }

  #detach(): Socket | undefined {
    const socket = this.#socket;
    this.#socket = undefined;
    this.#isConnected = false;
    return socket;
  }
}

function plainTcp(address: RegistryAddress): OpeningStream {
  return { socket: tcpConnect({ host: address.host, port: address.port }), opened: "connect" };
}

const FIRST_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 10_000;
const CONNECT_TIMEOUT_MS = 5000;
const KEEPALIVE_MS = 30_000;
