/**
 * The node's TCP way to the beacon: opens it when the engine wants it, closes it when not, and tells the engine how it
 * went. The tunnel socket sees a UDP endpoint on this host (io/compat-forwarder.ts) for as long as a connection lives.
 */
import type { Crypto } from "../base/crypto.ts";
import type { Endpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import type { Engine } from "../engine/engine.ts";
import { CompatConnection, type CompatIdentity, type CompatTarget } from "../io/compat-connection.ts";
import { CompatForwarder } from "../io/compat-forwarder.ts";
import type { ProxyEnvironment } from "../io/https-proxy.ts";

export interface CompatLinkParts {
  readonly target: CompatTarget;
  readonly identity: CompatIdentity;
  readonly crypto: Crypto;
  readonly environment: ProxyEnvironment;
  /** Where the tunnel socket is bound. */
  readonly tunnel: Endpoint;
  readonly engine: Engine;
  /** Gives the engine an input. */
  input(act: (at: Instant) => void): void;
}

export class CompatLink {
  readonly #parts: CompatLinkParts;
  #forwarder: CompatForwarder | undefined;
  #connection: CompatConnection | undefined;
  /** Of the attempt under way, or of the open connection. */
  #abort: AbortController | undefined;
  /** Why it is not open; undefined while nothing was tried, or it is. */
  #error: string | undefined;

  constructor(parts: CompatLinkParts) {
    this.#parts = parts;
  }

  get isOpen(): boolean {
    return this.#connection !== undefined;
  }

  get error(): string | undefined {
    return this.#error;
  }

  /** `wss://beacon.example/v1/compat`. */
  get url(): string {
    return compatUrl(this.#parts.target);
  }

  want(wanted: boolean): void {
    if (!wanted) return this.close();
    if (this.#abort === undefined) void this.#open();
  }

  close(): void {
    this.#abort?.abort();
    this.#abort = undefined;
    this.#connection?.close();
    this.#connection = undefined;
    this.#forwarder?.close();
    this.#forwarder = undefined;
  }

  async #open(): Promise<void> {
    const { target, identity, crypto, environment, tunnel, engine } = this.#parts;
    const abort = new AbortController();
    this.#abort = abort;
    const late = setTimeout(() => abort.abort(), OPEN_MS);
    const forwarder = new CompatForwarder(tunnel);
    try {
      const endpoint = await forwarder.listen();
      const hooks = {
        handleDatagram: (datagram: Uint8Array) => forwarder.deliver(datagram),
        handleClose: (reason: string) => this.#ended(abort, reason),
      };
      const connection = await CompatConnection.open(target, identity, crypto, environment, hooks, abort.signal);
      clearTimeout(late);
      if (this.#abort !== abort) {
        connection.close();
        forwarder.close();
        return;
      }
      forwarder.onDatagram = (datagram) => connection.send(datagram);
      this.#forwarder = forwarder;
      this.#connection = connection;
      this.#error = undefined;
      this.#parts.input((at) => engine.beaconWay.handleTcpOpen(endpoint, at));
    } catch (error) {
      clearTimeout(late);
      forwarder.close();
      this.#ended(abort, error instanceof Error ? error.message : String(error));
    }
  }

  #ended(abort: AbortController, reason: string): void {
    if (this.#abort !== abort) return; // closed by us meanwhile
    this.close();
    this.#error = reason;
    this.#parts.input((at) => this.#parts.engine.beaconWay.handleTcpClosed(at));
  }
}

export function compatUrl({ host, port, path }: CompatTarget): string {
  const name = host.includes(":") ? `[${host}]` : host;
  return `wss://${name}${port === 443 ? "" : `:${port}`}${path}`;
}

/** DNS, TCP, perhaps a proxy, TLS, WebSocket and the proof: some six round trips. */
const OPEN_MS = 5_000;
