/** Joins the engine's connections with plain agents to the sockets of the edge: commands down, events up, nothing else. */
import type { Instant } from "../base/instant.ts";
import type { Engine } from "../engine/engine.ts";
import type { SocketEvent } from "../engine/plain/socket-messages.ts";
import { PlainTcp } from "../io/plain-tcp.ts";
import { tcpConnections } from "../io/tcp-connections.ts";
import { formatOverlayAddress } from "../wire/address.ts";
import { networkId } from "../wire/ids.ts";
import type { Prefix48 } from "./up-options.ts";

export class PlainSockets {
  readonly #engine: Engine;
  readonly #prefix: Prefix48;
  readonly #sockets: PlainTcp;
  readonly #input: (act: (at: Instant) => void) => void;

  constructor(engine: Engine, prefix: Prefix48, input: (act: (at: Instant) => void) => void) {
    this.#engine = engine;
    this.#prefix = prefix;
    this.#input = input;
    const { connections } = engine.plain;
    this.#sockets = new PlainTcp(engine.plain.blocks, {
      accepted: (address, port) => this.#accepted(address, port),
      bound: (id, localPort) => connections.handleSocketBound(id, localPort),
      handleEvents: (events) => input((at) => this.#handleEvents(events, at)),
    });
  }

  /** The interface must carry the node's address. Connections with agents from before have nobody who carries them. */
  listen(): void {
    const { node, plain } = this.#engine;
    this.#findOrphans();
    plain.connections.listenerPort = this.#sockets.listen(
      formatOverlayAddress(this.#prefix, { network: networkId(0), node }),
    );
  }

  #findOrphans(): void {
    const { plain, routes } = this.#engine;
    for (const { local, remote, localPort, remotePort } of tcpConnections()) {
      const node = routes.isLocal(local, 0) ? routes.ownerOf(remote, 0) : undefined;
      if (node === undefined) continue;
      const ends = { source: remote, destination: local, sourcePort: remotePort, destinationPort: localPort };
      plain.orphans.add(node, ends);
    }
  }

  pump(): void {
    const { connections } = this.#engine.plain;
    for (let command = connections.pollCommand(); command !== undefined; command = connections.pollCommand()) {
      this.#sockets.handle(command);
    }
  }

  /** Resets all connections, here and there: no other daemon can go on with them. */
  async end(): Promise<void> {
    const { plain } = this.#engine;
    if (plain.connections.size === 0) return;
    this.#input((at) => plain.close(at));
    await new Promise((resolve) => setTimeout(resolve, LAST_WORDS_MS));
  }

  close(): void {
    this.#sockets.close();
  }

  /** The NAT writes addresses in network 0 only. */
  #accepted(address: Uint8Array, port: number): number | undefined {
    const node = this.#engine.routes.ownerOf(address, 0);
    return node === undefined ? undefined : this.#engine.plain.connections.handleSocketAccepted(node, port);
  }

  #handleEvents(events: readonly SocketEvent[], at: Instant): void {
    for (const event of events) this.#engine.plain.connections.handleSocketEvent(event, at);
  }
}

/** The resets of the daemon's sockets pass the interface, and the NAT on it, before programs have them. */
const LAST_WORDS_MS = 50;
