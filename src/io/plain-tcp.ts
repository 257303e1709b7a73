/**
 * The daemon's TCP sockets on the overlay interface, at which the kernel ends the connections between local programs and
 * plain agents. They carry bytes and decide nothing: commands come from the engine, events go back in one batch per turn of
 * the event loop. Nobody but the engine's NAT can reach the listener; a connection that the engine does not know is closed.
 * Bound: the engine's connections, and what each may hold is the engine's to say ("write" and "pause").
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import type { SocketCommand, SocketEvent } from "../engine/plain/socket-messages.ts";

export interface PlainTcpHooks {
  /** The id of the connection that comes from here; undefined: nobody knows it. */
  accepted(remoteAddress: string, remotePort: number): number | undefined;
  handleEvents(events: readonly SocketEvent[]): void;
}

export class PlainTcp {
  readonly #hooks: PlainTcpHooks;
  readonly #server: Server;
  /** Key: the engine's id. Bound: the engine's; an entry goes when its socket has closed. */
  readonly #sockets = new Map<number, Socket>();
  #events: SocketEvent[] = [];
  #address = "::1";
  #flush: NodeJS.Immediate | undefined;

  constructor(hooks: PlainTcpHooks) {
    this.#hooks = hooks;
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#handleConnection(socket));
    // Out of descriptors, for one: that connection is lost, the others go on.
    this.#server.on("error", () => undefined);
  }

  /** Listens at the node's overlay address; returns the port. */
  listen(address: string): Promise<number> {
    this.#address = address;
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.#server.once("error", reject);
    this.#server.listen({ host: address, port: 0, backlog: BACKLOG, ipv6Only: true }, () => {
      this.#server.off("error", reject);
      const bound = this.#server.address();
      if (bound === null || typeof bound === "string") reject(new Error("no port was bound"));
      else resolve(bound.port);
    });
    return promise;
  }

  handle(command: SocketCommand): void {
    if (command.kind === "connect") return this.#connect(command);
    const socket = this.#sockets.get(command.id);
    if (socket === undefined) return;
    switch (command.kind) {
      case "write":
        return this.#write(socket, command.id, command.bytes);
      case "end":
        socket.end();
        return;
      case "pause":
        socket.pause();
        return;
      case "resume":
        socket.resume();
        return;
      case "reset":
        socket.resetAndDestroy();
        return;
    }
  }

  /** Breaks off all connections: the programs learn at once that nobody carries them any more. */
  close(): void {
    clearImmediate(this.#flush);
    this.#server.close();
    for (const socket of this.#sockets.values()) socket.resetAndDestroy();
    this.#sockets.clear();
  }

  #handleConnection(socket: Socket): void {
    const { remoteAddress, remotePort } = socket;
    const isGone = remoteAddress === undefined || remotePort === undefined;
    const id = isGone ? undefined : this.#hooks.accepted(remoteAddress, remotePort);
    if (id !== undefined) {
      this.#adopt(id, socket);
      this.#tell({ kind: "connected", id });
      return;
    }
    socket.on("error", () => undefined);
    socket.resetAndDestroy();
  }

  #connect(command: Extract<SocketCommand, { kind: "connect" }>): void {
    const { id, localPort, remoteAddress, remotePort } = command;
    const socket = connect({
      host: textOf(remoteAddress),
      port: remotePort,
      localAddress: this.#address,
      localPort,
      allowHalfOpen: true,
      noDelay: true,
    });
    let isConnected = false;
    socket.once("connect", () => {
      isConnected = true;
      this.#tell({ kind: "connected", id });
    });
    this.#adopt(id, socket, () => isConnected);
  }

  #adopt(id: number, socket: Socket, isConnected: () => boolean = () => true): void {
    this.#sockets.set(id, socket);
    socket.on("data", (bytes: Uint8Array) => this.#tell({ kind: "data", id, bytes }));
    socket.on("end", () => this.#tell({ kind: "ended", id }));
    socket.on("error", () => undefined); // "close" follows and says that there was one
    socket.on("close", (hadError) => {
      this.#sockets.delete(id);
      if (isConnected()) this.#tell({ kind: "closed", id, inOrder: !hadError });
      else this.#tell({ kind: "refused", id });
    });
  }

  #write(socket: Socket, id: number, bytes: Uint8Array): void {
    socket.write(bytes, (error) => {
      if (!error) this.#tell({ kind: "written", id, byteCount: bytes.length });
    });
  }

  /** All of one turn at once: each batch costs the engine a round of settling. */
  #tell(event: SocketEvent): void {
    this.#events.push(event);
    this.#flush ??= setImmediate(() => {
      this.#flush = undefined;
      const events = this.#events;
      this.#events = [];
      this.#hooks.handleEvents(events);
    });
  }
}

function textOf(address: Uint8Array): string {
  const groups: string[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((address[i]! << 8) | address[i + 1]!).toString(16));
  return groups.join(":");
}

/** The kernel's limit (somaxconn) may be lower; a SYN that finds no room is repeated by its program. */
const BACKLOG = 4_096;
