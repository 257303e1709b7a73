/**
 * The daemon's TCP sockets on the overlay interface, at which the kernel ends the connections between local programs and
 * plain agents. They carry bytes and decide nothing: commands come from the engine, events go back in batches. Nobody but
 * the engine's NAT can reach the listener; a connection that the engine does not know is closed.
 * Bound: the engine's connections, and what each may hold is the engine's to say ("write" and "pause").
 *
 * The sockets are the shim's, which tells of a change once: a socket that is not read to its end stays marked as readable.
 */
import { constants } from "node:os";
import { BLOCK_BYTES, type BlockPool } from "../base/block-pool.ts";
import type { SocketCommand, SocketEvent } from "../engine/plain/socket-messages.ts";
import {
  checked,
  checkedValue,
  type NativeShim,
  nativeShim,
  TCP_READY,
  TCP_ROW_WORDS,
  TCP_ROWS,
  type TcpHandle,
} from "./native.ts";

export interface PlainTcpHooks {
  /** The id of the connection that comes from here (16 bytes); undefined: nobody knows it. */
  accepted(remoteAddress: Uint8Array, remotePort: number): number | undefined;
  /** Of a "connect": it will come from this port of ours. The far port to connect to; undefined: it is not wanted any more. */
  bound(id: number, localPort: number): number | undefined;
  handleEvents(events: readonly SocketEvent[]): void;
}

interface OpenSocket {
  readonly id: number;
  readonly fd: number;
  isConnecting: boolean;
  isPaused: boolean;
  /** There may be something to read, or an end to hear of. */
  isReadable: boolean;
  /** The program's end, or a reset, is behind what can be read. */
  isGone: boolean;
  /** The program ended its direction, and we heard it. */
  hasEnded: boolean;
  ours: "open" | "ending" | "ended";
  /** What the kernel has not taken yet; the first chunk may be the rest of one. Bound: the engine's. */
  readonly unwritten: Uint8Array[];
  /** Bytes of the first chunk that were taken before. */
  writtenOfFirst: number;
}

export class PlainTcp {
  readonly #shim: NativeShim = nativeShim();
  readonly #hooks: PlainTcpHooks;
  readonly #blocks: BlockPool;
  readonly #rows = new Int32Array(TCP_ROWS * TCP_ROW_WORDS);
  readonly #peer = new Uint8Array(18);
  /** Key: descriptor. Bound: the engine's; an entry goes when its socket is closed. */
  readonly #byDescriptor = new Map<number, OpenSocket>();
  /** The same by the engine's id. */
  readonly #sockets = new Map<number, OpenSocket>();
  #tcp: TcpHandle | undefined;
  #listener = -1;
  #address = "::1";
  #readsLeft = 0;
  #readsEach = 0;
  /** What is read into next. */
  #block: Uint8Array | undefined;
  #events: SocketEvent[] = [];
  #flush: NodeJS.Immediate | undefined;
  /** A connection could not be accepted for want of descriptors. */
  #acceptIsDue = false;

  constructor(blocks: BlockPool, hooks: PlainTcpHooks) {
    this.#blocks = blocks;
    this.#hooks = hooks;
  }

  /** Listens at the node's overlay address; returns the port. */
  listen(address: string): number {
    this.#address = address;
    this.#tcp = checkedValue(
      this.#shim.tcpOpen(this.#rows, () => this.#handleReady()),
      "epoll",
    );
    this.#listener = checked(this.#shim.tcpBind(address), "bind");
    checked(this.#shim.tcpListen(this.#listener, BACKLOG), "listen");
    checked(this.#shim.tcpWatch(this.#tcp, this.#listener), "epoll");
    return checked(this.#shim.tcpPort(this.#listener), "getsockname");
  }

  handle(command: SocketCommand): void {
    if (command.kind === "connect") return this.#connect(command.id, command.remoteAddress);
    const socket = this.#sockets.get(command.id);
    if (socket === undefined) return;
    switch (command.kind) {
      case "write":
        socket.unwritten.push(command.bytes);
        if (socket.unwritten.length === 1) this.#write(socket);
        return;
      case "end":
        if (socket.ours === "open") socket.ours = "ending";
        return this.#endIfWritten(socket);
      case "pause":
        socket.isPaused = true;
        return;
      case "resume":
        socket.isPaused = false;
        if (socket.isReadable) this.#watch(socket.fd);
        return;
      case "reset":
        return this.#close(socket, true);
    }
  }

  /** Breaks off all connections: the programs learn at once that nobody carries them any more. */
  close(): void {
    clearImmediate(this.#flush);
    if (this.#tcp === undefined) return;
    this.#shim.tcpEnd(this.#tcp);
    this.#tcp = undefined;
    if (this.#listener >= 0) this.#shim.tcpClose(this.#listener, false);
    for (const { fd } of this.#sockets.values()) this.#shim.tcpClose(fd, true);
    this.#sockets.clear();
    this.#byDescriptor.clear();
  }

  // ---- beginnings

  #accept(): void {
    this.#acceptIsDue = false;
    for (;;) {
      const fd = this.#shim.tcpAccept(this.#listener, this.#peer);
      if (fd === -errno.ECONNABORTED) continue;
      if (fd < 0) {
        this.#acceptIsDue = fd !== -errno.EAGAIN;
        return;
      }
      const id = this.#hooks.accepted(this.#peer.slice(0, 16), (this.#peer[16]! << 8) | this.#peer[17]!);
      if (id === undefined) {
        this.#shim.tcpClose(fd, true);
        continue;
      }
      this.#adopt(id, fd, false);
      this.#tell({ kind: "connected", id });
    }
  }

  #connect(id: number, remoteAddress: Uint8Array): void {
    const fd = this.#shim.tcpBind(this.#address);
    if (fd < 0) return this.#tell({ kind: "refused", id });
    const port = this.#hooks.bound(id, checked(this.#shim.tcpPort(fd), "getsockname"));
    if (port === undefined || this.#shim.tcpConnect(fd, remoteAddress, port) < 0) {
      this.#shim.tcpClose(fd, false);
      return this.#tell({ kind: "refused", id });
    }
    this.#adopt(id, fd, true);
  }

  #adopt(id: number, fd: number, isConnecting: boolean): void {
    const socket: OpenSocket = {
      ...{ id, fd, isConnecting, isPaused: false, isReadable: false, isGone: false, hasEnded: false },
      ...{ ours: "open", unwritten: [], writtenOfFirst: 0 },
    };
    this.#sockets.set(id, socket);
    this.#byDescriptor.set(fd, socket);
    this.#watch(fd);
  }

  /** Also tells again what is so now. */
  #watch(fd: number): void {
    if (this.#tcp !== undefined) checked(this.#shim.tcpWatch(this.#tcp, fd), "epoll");
  }

  // ---- what the kernel says

  #handleReady(): void {
    if (this.#tcp === undefined) return;
    const count = checked(this.#shim.tcpPoll(this.#tcp), "epoll");
    this.#readsLeft = READS_PER_WAKE;
    this.#readsEach = Math.max(1, Math.min(MOST_READS_OF_ONE, Math.floor(READS_PER_WAKE / Math.max(1, count))));
    for (let row = 0; row < count * TCP_ROW_WORDS; row += TCP_ROW_WORDS) {
      const fd = this.#rows[row]!;
      if (fd === this.#listener) this.#accept();
      const socket = this.#byDescriptor.get(fd);
      if (socket !== undefined) this.#handleChange(socket, this.#rows[row + 1]!);
    }
    this.#deliver();
  }

  #handleChange(socket: OpenSocket, ready: number): void {
    if (socket.isConnecting) {
      const error = this.#shim.tcpError(socket.fd);
      if (error === 0 && (ready & TCP_READY.WRITABLE) === 0) return;
      socket.isConnecting = false;
      if (error !== 0) return this.#forget(socket, { kind: "refused", id: socket.id });
      this.#tell({ kind: "connected", id: socket.id });
    }
    if (ready & TCP_READY.GONE) socket.isGone = true;
    if (ready & (TCP_READY.READABLE | TCP_READY.GONE)) {
      socket.isReadable = true;
      this.#read(socket);
    }
    if (ready & TCP_READY.WRITABLE && socket.unwritten.length > 0) this.#write(socket);
  }

  /** While it is paused, and after its end, only a reset is heard. */
  #read(socket: OpenSocket): void {
    if (socket.isPaused || socket.hasEnded) {
      if (socket.isGone && this.#shim.tcpError(socket.fd) !== 0) this.#close(socket, false);
      return;
    }
    for (let reads = 0; reads < this.#readsEach && this.#readsLeft > 0; reads++) {
      this.#readsLeft--;
      this.#block ??= this.#blocks.take();
      const count = this.#shim.tcpRead(socket.fd, this.#block);
      if (count > 0) this.#tell({ kind: "data", id: socket.id, bytes: this.#take(this.#block, count) });
      else if (count === 0) return this.#handleEnd(socket);
      else if (count !== -errno.EAGAIN) return this.#close(socket, false);
      // Less than there was room for is all there was, unless the end is behind it.
      if (count < BLOCK_BYTES && !(socket.isGone && count > 0)) {
        socket.isReadable = false;
        return;
      }
    }
    this.#watch(socket.fd); // others have their turn, here and in the event loop
  }

  /** Small pieces are copied, so that they hold no whole block. */
  #take(block: Uint8Array, count: number): Uint8Array {
    if (count < LEAST_LENT_BYTES) return block.slice(0, count);
    this.#block = undefined;
    return this.#blocks.lend(block, count);
  }

  #handleEnd(socket: OpenSocket): void {
    socket.isReadable = false;
    socket.hasEnded = true;
    this.#tell({ kind: "ended", id: socket.id });
    this.#closeIfOver(socket);
  }

  // ---- writing

  #write(socket: OpenSocket): void {
    for (let chunk = socket.unwritten[0]; chunk !== undefined; chunk = socket.unwritten[0]) {
      const from = socket.writtenOfFirst;
      const count = this.#shim.tcpWrite(socket.fd, from === 0 ? chunk : chunk.subarray(from));
      if (count === -errno.EAGAIN) return;
      if (count < 0) return this.#close(socket, false);
      socket.writtenOfFirst += count;
      if (socket.writtenOfFirst < chunk.length) continue;
      socket.writtenOfFirst = 0;
      socket.unwritten.shift();
      this.#blocks.giveBack(chunk.buffer, chunk.length);
      this.#tell({ kind: "written", id: socket.id, byteCount: chunk.length });
    }
    this.#endIfWritten(socket);
  }

  #endIfWritten(socket: OpenSocket): void {
    if (socket.ours !== "ending" || socket.unwritten.length > 0) return;
    socket.ours = "ended";
    this.#shim.tcpShutdown(socket.fd);
    this.#closeIfOver(socket);
  }

  // ---- ends

  #closeIfOver(socket: OpenSocket): void {
    if (!socket.hasEnded || socket.ours !== "ended") return;
    this.#forget(socket, { kind: "closed", id: socket.id, inOrder: true });
  }

  #close(socket: OpenSocket, reset: boolean): void {
    this.#forget(socket, { kind: "closed", id: socket.id, inOrder: false }, reset);
  }

  #forget(socket: OpenSocket, last: SocketEvent, reset = false): void {
    if (this.#sockets.get(socket.id) !== socket) return;
    this.#sockets.delete(socket.id);
    this.#byDescriptor.delete(socket.fd);
    socket.unwritten.length = 0;
    this.#shim.tcpClose(socket.fd, reset);
    if (this.#acceptIsDue) this.#watch(this.#listener);
    this.#tell(last);
  }

  // ---- events

  /** All of one turn at once: each batch costs the engine a round of settling. */
  #tell(event: SocketEvent): void {
    this.#events.push(event);
    this.#flush ??= setImmediate(() => this.#deliver());
  }

  #deliver(): void {
    clearImmediate(this.#flush);
    this.#flush = undefined;
    if (this.#events.length === 0) return;
    const events = this.#events;
    this.#events = [];
    this.#hooks.handleEvents(events);
  }
}

const { errno } = constants;
/** The kernel's limit (somaxconn) may be lower; a SYN that finds no room is repeated by its program. */
const BACKLOG = 4_096;
/** Two megabytes; and what a connection may hold beyond what its stream takes, as it is paused only afterwards. */
const READS_PER_WAKE = 32;
const MOST_READS_OF_ONE = 4;
const LEAST_LENT_BYTES = BLOCK_BYTES / 2;
