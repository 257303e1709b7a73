/**
 * One TCP connection between a local program and a plain agent, as the daemon sees it: a Pilot stream on one hand, a socket
 * of the daemon on the other. Bytes are handed over as the taker has room; each direction ends by itself where the far side
 * can do that (the stream knows). This file moves the bytes; whose connection it is and when it is over, connections.ts says.
 */
import { concatBytes } from "../../base/bytes.ts";
import type { Instant } from "../../base/instant.ts";
import { Fifo } from "../../stream/fifo.ts";
import type { Stream } from "../../stream/stream.ts";
import type { NodeId } from "../../wire/ids.ts";
import type { SocketCommand } from "./socket-messages.ts";
import type { NatSides } from "./tcp-nat.ts";

/**
 *   out:  dialing ──▶ handed-over ──▶ open ──▶ over
 *   in:   connecting ───────────────▶ open ──▶ over
 */
export type ConnectionPhase =
  /** The program's SYN waits for the far side's answer. */
  | "dialing"
  /** Our listener got the SYN; the program's handshake with it is under way. */
  | "handed-over"
  /** We connect to the local server; the far side's SYN waits. */
  | "connecting"
  | "open"
  /** Only the NAT still knows it, for what the kernel says at the end. */
  | "over";

export class Connection {
  readonly id: number;
  readonly node: NodeId;
  readonly stream: Stream;
  /** As the NAT has them; undefined until it has. */
  sides: NatSides | undefined;
  #syn: Uint8Array | undefined;
  phase: ConnectionPhase;
  /** When the far side last showed that it takes part: its SYN, or its answer to ours; undefined before. */
  answeredAt: Instant | undefined;
  /** When the program's SYN came. */
  askedAt: Instant | undefined;
  /** The stream has said its last event. */
  streamIsOver = false;
  socketIsGone = false;
  readonly #tell: (command: SocketCommand) => void;
  /** From the program, for the stream. Bound: one "data" beyond what the stream took, as the socket is paused then. */
  readonly #toStream = new Fifo<Uint8Array>();
  #unwrittenBytes = 0;
  #paused = false;
  #programEnded = false;
  #streamWriteClosed = false;
  #agentEnded = false;
  #endTold = false;

  constructor(parameters: ConnectionParameters, tell: (command: SocketCommand) => void) {
    this.id = parameters.id;
    this.node = parameters.node;
    this.stream = parameters.stream;
    this.#syn = parameters.syn;
    this.phase = parameters.syn === undefined ? "connecting" : "dialing";
    this.#tell = tell;
  }

  /** A copy of the program's SYN with a complete checksum, as long as it waits for its answer. */
  get syn(): Uint8Array | undefined {
    return this.#syn;
  }

  takeSyn(): Uint8Array | undefined {
    const syn = this.#syn;
    this.#syn = undefined;
    return syn;
  }

  // ---- program → agent

  handleData(bytes: Uint8Array, now: Instant): void {
    this.#toStream.push(bytes);
    this.pumpToStream(now);
  }

  handleProgramEnded(now: Instant): void {
    this.#programEnded = true;
    this.pumpToStream(now);
  }

  /** The stream may have room. */
  pumpToStream(now: Instant): void {
    if (this.streamIsOver) return this.#refuseData();
    if (this.stream.stateKind !== "open") return this.#pause(this.#toStream.length > 0);
    for (let bytes = this.#toStream.peek(); bytes !== undefined; bytes = this.#toStream.peek()) {
      const taken = this.stream.write(bytes, now);
      if (taken < bytes.length) {
        this.#toStream.replaceFirst(bytes.subarray(taken));
        break;
      }
      this.#toStream.shift();
    }
    this.#pause(this.#toStream.length > 0);
    if (this.#toStream.length > 0 || !this.#programEnded || this.#streamWriteClosed) return;
    this.#streamWriteClosed = true;
    this.stream.closeWrite(now);
  }

  /** The far side takes nothing any more: a program that goes on writing learns it by a reset, as over any TCP. */
  #refuseData(): void {
    if (this.#toStream.length === 0 || this.socketIsGone) return;
    this.#toStream.clear();
    this.#tell({ kind: "reset", id: this.id });
  }

  #pause(pause: boolean): void {
    if (pause === this.#paused) return;
    this.#paused = pause;
    this.#tell({ kind: pause ? "pause" : "resume", id: this.id });
  }

  // ---- agent → program

  handleWritten(byteCount: number, now: Instant): void {
    this.#unwrittenBytes -= byteCount;
    this.pumpToProgram(now);
  }

  handleAgentEnded(now: Instant): void {
    this.#agentEnded = true;
    this.pumpToProgram(now);
  }

  /** Nothing is read from the stream while the program is behind: its window closes by that. */
  pumpToProgram(now: Instant): void {
    if (this.phase !== "open" || this.socketIsGone) return;
    while (this.#unwrittenBytes < MAX_UNWRITTEN_BYTES) {
      const pieces = this.#read(now);
      if (pieces.length === 0) return this.#endProgramIfDue();
      for (const bytes of pieces) {
        this.#unwrittenBytes += bytes.length;
        this.#tell({ kind: "write", id: this.id, bytes });
      }
    }
  }

  /** Small pieces become one, as each write costs a system call; a large one ends them, and is not copied. */
  #read(now: Instant): Uint8Array[] {
    const small: Uint8Array[] = [];
    let length = 0;
    let large: Uint8Array | undefined;
    while (large === undefined && length < WRITE_BYTES) {
      const piece = this.stream.read(now);
      if (piece === undefined) break;
      if (piece.length >= LARGE_BYTES) large = piece;
      else {
        small.push(piece);
        length += piece.length;
      }
    }
    const joined = small.length > 1 ? [concatBytes(...small)] : small;
    return large === undefined ? joined : [...joined, large];
  }

  #endProgramIfDue(): void {
    if (this.#endTold || !(this.#agentEnded || this.streamIsOver)) return;
    this.#endTold = true;
    this.#tell({ kind: "end", id: this.id });
  }
}

export interface ConnectionParameters {
  readonly id: number;
  readonly node: NodeId;
  readonly stream: Stream;
  /** Of a program that wants out. */
  readonly syn: Uint8Array | undefined;
}

/** Told to the socket and not yet taken by the kernel. */
const MAX_UNWRITTEN_BYTES = 512 << 10;
const WRITE_BYTES = 64 << 10;
const LARGE_BYTES = 16 << 10;
