/**
 * The beacon's socket by node:dgram. A datagram that cannot be sent is lost, as any datagram may be; relayed frames wait
 * for their turn in a fair queue, everything else is sent at once.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { isIPv6 } from "node:net";
import type { Endpoint } from "../base/endpoint.ts";
import { now } from "../io/clock.ts";
import { numericLookup } from "../io/numeric-lookup.ts";
import { type BeaconDatagram, type BeaconServer, isConnection } from "../rendezvous/beacon.ts";
import { RelayQueue } from "../rendezvous/relay-queue.ts";
import { NOTIFY_HANDSHAKES } from "../wire/beacon.ts";
import type { NodeId } from "../wire/ids.ts";
import { formatIp, parseIp } from "../wire/underlay-address.ts";
import { bindError } from "./bind-error.ts";

export interface BeaconSocketCounters {
  /** What waits to be relayed at this moment. */
  readonly queuedBytes: number;
  readonly queuedFrames: number;
  readonly queuedFlows: number;
  /** Frames dropped because the fair queue was full. */
  readonly queueFull: number;
  /** Datagrams that the system had no room for, as far as it tells: of known sources, and of all others. */
  readonly overflowKnown: number;
  readonly overflowStrangers: number;
}

/** The beacon on a UDP port, and on the connections of nodes that have no UDP. */
export interface BeaconPort {
  readonly server: BeaconServer;
  readonly endpoint: Endpoint;
  /** The socket has its port; asked of the system. */
  readonly isBound: boolean;
  /** Where datagrams for endpoints that stand for connections go. */
  sendToConnection: (to: Endpoint, datagram: Uint8Array) => void;
  bind(): Promise<void>;
  notify(node: NodeId): void;
  /** Somebody asked the registry from this address, in canonical text and as `sourceKey` has it: nobody made it up. */
  notePresence(address: string, key: string): void;
  /** A datagram that came over a connection; it is the beacon's to keep. */
  handleDatagram(datagram: Uint8Array, source: Endpoint): void;
  stats(): BeaconSocketCounters;
  close(): Promise<void>;
}

export class BeaconSocket implements BeaconPort {
  readonly server: BeaconServer;
  sendToConnection: (to: Endpoint, datagram: Uint8Array) => void = () => {};
  readonly #asked: Endpoint;
  readonly #socket: Socket;
  readonly #queue = new RelayQueue<BeaconDatagram>();
  #queueFull = 0;
  #isFlushing = false;
  #isClosed = false;

  constructor(asked: Endpoint, server: BeaconServer) {
    this.#asked = asked;
    this.server = server;
    this.#socket = createSocket({ type: isIPv6(asked.address) ? "udp6" : "udp4", lookup: numericLookup });
    this.#socket.on("message", (datagram, from) => this.#received(datagram, from));
  }

  get endpoint(): Endpoint {
    return { address: this.#asked.address, port: this.#socket.address().port };
  }

  get isBound(): boolean {
    try {
      return !this.#isClosed && this.#socket.address().port > 0;
    } catch {
      return false; // a socket that was closed, or never bound, has no address
    }
  }

  bind(): Promise<void> {
    const { address, port } = this.#asked;
    return new Promise((resolve, reject) => {
      this.#socket.once("error", (cause) => {
        this.#socket.close();
        reject(bindError("beacon", "UDP", this.#asked, cause));
      });
      this.#socket.bind({ address, port, exclusive: true }, () => {
        this.#socket.removeAllListeners("error");
        this.#socket.on("error", () => {}); // an ICMP error for a datagram of ours
        this.#enlargeBuffers();
        resolve();
      });
    });
  }

  notify(node: NodeId): void {
    const datagram = this.server.notify(node, NOTIFY_HANDSHAKES, now());
    if (datagram !== undefined) this.#send(datagram);
  }

  notePresence(address: string, key: string): void {
    this.server.sources.noteConnection(address, now(), key);
  }

  close(): Promise<void> {
    this.#isClosed = true;
    return new Promise((resolve) => this.#socket.close(() => resolve()));
  }

  stats(): BeaconSocketCounters {
    const { bytes, items, flows } = this.#queue;
    const queue = { queuedBytes: bytes, queuedFrames: items, queuedFlows: flows, queueFull: this.#queueFull };
    return { ...queue, overflowKnown: 0, overflowStrangers: 0 };
  }

  /** Also for datagrams that came over a connection. */
  handleDatagram(datagram: Uint8Array, source: Endpoint): void {
    for (const reply of this.server.handleDatagram(datagram, source, now())) this.#dispatch(reply);
  }

  #received(datagram: Uint8Array, from: RemoteInfo): void {
    const source = parseIp(from.address.replace(/%.*$/, ""));
    if (source === undefined) return;
    this.handleDatagram(datagram, { address: formatIp(source)!, port: from.port });
  }

  /** Relayed frames wait until all that arrived in this turn is known, so that their order can be fair. */
  #dispatch(reply: BeaconDatagram): void {
    if (reply.flow === undefined) return this.#send(reply);
    this.#queueFull += this.#queue.push(reply.flow, reply, reply.bytes.length).length;
    this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#isFlushing = false;
    if (this.#isClosed) return;
    while (this.#socket.getSendQueueSize() < UNSENT_BYTES) {
      const datagram = this.#queue.pop();
      if (datagram === undefined) return;
      this.#send(datagram);
    }
    this.#flushSoon(); // the system's buffer is full; what waits, waits in the fair queue
  }

  #send({ to, bytes }: BeaconDatagram): void {
    if (isConnection(to)) return this.sendToConnection(to, bytes);
    const isMapped = isIPv6(this.#asked.address) && !to.address.includes(":");
    this.#socket.send(bytes, to.port, isMapped ? `::ffff:${to.address}` : to.address, () => {});
  }

  /** Relayed bursts are long; the system caps what it grants. */
  #enlargeBuffers(): void {
    this.#socket.setRecvBufferSize(SOCKET_BUFFER_BYTES);
    this.#socket.setSendBufferSize(SOCKET_BUFFER_BYTES);
  }
}

const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;
/** What libuv may hold back: more would be a queue in which all wait behind all. */
const UNSENT_BYTES = 256 * 1024;
