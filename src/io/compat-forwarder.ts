/**
 * Plays the beacon for the tunnel socket: a UDP socket on this host's loopback, behind which a WebSocket goes on to the
 * real one. The packet path stays as it is; to it this is one more beacon endpoint. It takes datagrams from the tunnel
 * socket alone, so that no other program on this host can speak for the node.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { isIPv6 } from "node:net";
import type { Endpoint } from "../base/endpoint.ts";
import { numericLookup } from "./numeric-lookup.ts";

export class CompatForwarder {
  readonly #tunnel: Endpoint;
  readonly #socket: Socket;
  readonly #loopback: string;
  /** What the tunnel socket sends to the beacon; the bytes are the hook's. */
  onDatagram: (datagram: Uint8Array) => void = () => {};
  /** Datagrams from others, or that the tunnel socket could not take. */
  dropped = 0;

  /** `tunnel` is where the tunnel socket is bound. */
  constructor(tunnel: Endpoint) {
    const isWildcard = tunnel.address === "::" || tunnel.address === "0.0.0.0";
    const family6 = !isWildcard && isIPv6(tunnel.address);
    this.#loopback = family6 ? "::1" : "127.0.0.1";
    this.#tunnel = { address: isWildcard ? this.#loopback : tunnel.address, port: tunnel.port };
    this.#socket = createSocket({ type: family6 ? "udp6" : "udp4", lookup: numericLookup });
    this.#socket.on("message", (datagram, from) => this.#received(datagram, from));
  }

  /** The endpoint that stands for the beacon. */
  listen(): Promise<Endpoint> {
    return new Promise((resolve, reject) => {
      this.#socket.once("error", reject);
      this.#socket.bind({ address: this.#loopback, port: 0, exclusive: true }, () => {
        this.#socket.off("error", reject);
        this.#socket.on("error", () => {}); // an ICMP error: the tunnel socket is being closed
        this.#socket.setRecvBufferSize(BUFFER_BYTES);
        this.#socket.setSendBufferSize(BUFFER_BYTES);
        resolve({ address: this.#loopback, port: this.#socket.address().port });
      });
    });
  }

  /** A datagram of the beacon, for the tunnel socket. */
  deliver(datagram: Uint8Array): void {
    if (this.#socket.getSendQueueSize() > BUFFER_BYTES) this.dropped++;
    else this.#socket.send(datagram, this.#tunnel.port, this.#tunnel.address, () => {});
  }

  close(): void {
    this.#socket.close();
  }

  #received(datagram: Uint8Array, from: RemoteInfo): void {
    if (from.port === this.#tunnel.port && from.address === this.#tunnel.address) this.onDatagram(datagram);
    else this.dropped++;
  }
}

const BUFFER_BYTES = 4 * 1024 * 1024;
