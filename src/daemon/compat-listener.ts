/**
 * The rendezvous's way around blocked UDP: joins the WebSocket server with the registry's store, which knows every
 * node's key, and with the beacon, to which a WebSocket is one more source of datagrams.
 */
import type { Endpoint } from "../base/endpoint.ts";
import { now } from "../io/clock.ts";
import { type CompatCounters, CompatServer, type CompatServerLimits, type CompatStream } from "../io/compat-server.ts";
import { NodeCrypto } from "../io/node-crypto.ts";
import { type BeaconServer, connectionEndpoint, connectionNumber } from "../rendezvous/beacon.ts";
import { checkCompatReply, speaksFor } from "../rendezvous/compat.ts";
import type { Store } from "../rendezvous/store.ts";
import { BEACON, encodeDiscoverReply } from "../wire/beacon.ts";

export interface CompatListenerOptions {
  readonly listen: Endpoint;
  readonly certificate: { readonly cert: string; readonly key: string };
  readonly limits?: Partial<CompatServerLimits>;
}

export interface CompatListenerParts {
  readonly store: Pick<Store, "keyOf">;
  readonly beacon: BeaconServer;
  /** A datagram for the beacon; what it answers goes where it belongs. */
  handleDatagram(datagram: Uint8Array, source: Endpoint): void;
}

export interface CompatStats extends Readonly<CompatCounters> {
  readonly connections: number;
  /** Datagrams in the name of another node, or that are none. */
  readonly forged: number;
}

export class CompatListener {
  readonly #server: CompatServer;
  #forged = 0;

  constructor(options: CompatListenerOptions, { store, beacon, handleDatagram }: CompatListenerParts) {
    const crypto = new NodeCrypto();
    this.#server = new CompatServer(
      { ...options, randomBytes: (length) => crypto.randomBytes(length) },
      {
        authenticate: (text, nonce) => checkCompatReply(text, nonce, { store, crypto }),
        handleOpen: (stream) => beacon.admitProven(stream.node, sourceOf(stream), now()),
        handleAlive: (stream) => beacon.admitProven(stream.node, sourceOf(stream), now()),
        handleClose: (stream) => beacon.forgetProven(stream.node, sourceOf(stream), now()),
        handleDatagram: (datagram, stream) => {
          if (speaksFor(stream.node, datagram)) handleDatagram(datagram, sourceOf(stream));
          else this.#forged++;
        },
      },
    );
  }

  listen(): Promise<Endpoint> {
    return this.#server.listen();
  }

  /** `to` is one of our connections. A discover reply names where that comes from, not the number we gave it. */
  send(to: Endpoint, datagram: Uint8Array): void {
    const stream = connectionNumber(to);
    const source = datagram[0] === BEACON.DISCOVER_REPLY ? this.#server.endpointOf(stream) : undefined;
    this.#server.send(stream, (source && encodeDiscoverReply(source)) ?? datagram);
  }

  stats(): CompatStats {
    return { ...this.#server.counters, connections: this.#server.connectionCount, forged: this.#forged };
  }

  close(): Promise<void> {
    return this.#server.close();
  }
}

function sourceOf({ address, stream }: CompatStream): Endpoint {
  return connectionEndpoint(address, stream);
}
