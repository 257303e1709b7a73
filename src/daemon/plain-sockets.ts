/** Joins the engine's connections with plain agents to the sockets of the edge: commands down, events up, nothing else. */
import type { Instant } from "../base/instant.ts";
import type { Engine } from "../engine/engine.ts";
import type { SocketEvent } from "../engine/plain/socket-messages.ts";
import { PlainTcp } from "../io/plain-tcp.ts";
import { formatOverlayAddress, parseOverlayAddress } from "../wire/address.ts";
import { networkId } from "../wire/ids.ts";
import type { Prefix48 } from "./up-options.ts";

export class PlainSockets {
  readonly #engine: Engine;
  readonly #prefix: Prefix48;
  readonly #sockets: PlainTcp;

  constructor(engine: Engine, prefix: Prefix48, input: (act: (at: Instant) => void) => void) {
    this.#engine = engine;
    this.#prefix = prefix;
    this.#sockets = new PlainTcp({
      accepted: (address, port) => this.#accepted(address, port),
      handleEvents: (events) => input((at) => this.#handleEvents(events, at)),
    });
  }

  /** The interface must carry the node's address. */
  async listen(): Promise<void> {
    const { node, plain } = this.#engine;
    plain.connections.listenerPort = await this.#sockets.listen(
      formatOverlayAddress(this.#prefix, { network: networkId(0), node }),
    );
  }

  pump(): void {
    const { connections } = this.#engine.plain;
    for (let command = connections.pollCommand(); command !== undefined; command = connections.pollCommand()) {
      this.#sockets.handle(command);
    }
  }

  close(): void {
    this.#sockets.close();
  }

  #accepted(address: string, port: number): number | undefined {
    const from = parseOverlayAddress(this.#prefix, address);
    if (from === undefined || from.network !== 0) return undefined;
    return this.#engine.plain.connections.handleSocketAccepted(from.node, port);
  }

  #handleEvents(events: readonly SocketEvent[], at: Instant): void {
    for (const event of events) this.#engine.plain.connections.handleSocketEvent(event, at);
  }
}
