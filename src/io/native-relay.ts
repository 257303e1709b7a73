/**
 * The relay socket of the C shim: batches of datagrams in and out, described by rows of an Int32Array. This file owns the
 * layout of the rows and the free slots of the arena; who gets what is decided by its user.
 *
 * A slot is taken by `receive` or `takeSlot` and goes back by `release`, once for each row that was made of it.
 */
import type { Endpoint } from "../base/endpoint.ts";
import { checked, checkedValue, nativeShim, type RelayHandle } from "./native.ts";

export const RELAY_SLOT_BYTES = 65_536;
export const RELAY_SLOTS = 256;
export const RELAY_BATCH = 32;
const RELAY_ROWS = 2112;
export const RELAY_ROW_WORDS = 12;

/** Words of a row. */
export const RELAY_ROW = {
  SLOT: 0,
  /** In the arena. */
  OFFSET: 1,
  LENGTH: 2,
  /** Bytes of each datagram of the run but the last. */
  SEGMENT: 3,
  SENDER: 4,
  DESTINATION: 5,
  /** Received: 5 for a run of relay messages, 0 for any other datagram. To send: 6, 9, or 0 for the bytes as they are. */
  FORM: 6,
  /** Four words: the IPv6 address as it stands in memory; IPv4 is mapped. */
  ADDRESS: 7,
  PORT: 11,
} as const;

/** Sockets that are read by themselves; the program of `sort` numbers those of the second after those of the first. */
export const RELAY_GROUP = { FIRST: 0, SECOND: 1 } as const;
export type RelayGroup = (typeof RELAY_GROUP)[keyof typeof RELAY_GROUP];

export class NativeRelay {
  readonly arena = new Uint8Array(RELAY_SLOTS * RELAY_SLOT_BYTES);
  readonly rows = new Int32Array(RELAY_ROWS * RELAY_ROW_WORDS);
  readonly #shim = nativeShim();
  /** What the shim is told to fill next. */
  readonly #next = new Int32Array(RELAY_BATCH);
  readonly #free = Array.from({ length: RELAY_SLOTS }, (_, slot) => slot);
  readonly #rowsOf = new Uint16Array(RELAY_SLOTS);
  #handle: RelayHandle | undefined;

  /** Throws SystemError; PilotError `shim_missing` where the shim is not built. `onReady`: readable, or writable again. */
  open({ address, port }: Endpoint, onReady: () => void): void {
    const opened = this.#shim.relayOpen(address, port, this.arena, this.rows, this.#next, onReady);
    this.#handle = checkedValue(opened, "bind");
  }

  get port(): number {
    return this.#handle === undefined ? 0 : checked(this.#shim.relayPort(this.#handle), "getsockname");
  }

  /** The socket is there and has its port. */
  get isOpen(): boolean {
    return this.#handle !== undefined && this.#shim.relayPort(this.#handle) > 0;
  }

  get freeSlots(): number {
    return this.#free.length;
  }

  get failed(): number {
    return this.#handle === undefined ? 0 : this.#shim.relayFailed(this.#handle);
  }

  /** From now on the kernel puts datagrams into sockets as `program` says; false where it does not take it. */
  sort(program: Uint8Array): boolean {
    return this.#handle !== undefined && this.#shim.relaySort(this.#handle, program) === 0;
  }

  /** Datagrams that came while the group's sockets were full. */
  overflow(group: RelayGroup): number {
    return this.#handle === undefined ? 0 : this.#shim.relayOverflow(this.#handle, group);
  }

  /** The number of rows filled. */
  receive(group: RelayGroup): number {
    if (this.#handle === undefined) return 0;
    const count = Math.min(RELAY_BATCH, this.#free.length);
    for (let i = 0; i < count; i++) this.#next[i] = this.#free[this.#free.length - 1 - i]!;
    const result = this.#shim.relayReceive(this.#handle, group, count);
    if (result <= 0) return 0; // an error of one datagram: the next call goes on
    const rows = result & 0xffff;
    const used = result >>> 16;
    this.#free.length -= used;
    for (let row = 0; row < rows; row++) this.#rowsOf[this.rows[row * RELAY_ROW_WORDS]!]!++;
    for (let i = 0; i < used; i++) if (this.#rowsOf[this.#next[i]!] === 0) this.#free.push(this.#next[i]!);
    return rows;
  }

  /** The number of rows that are done with; fewer when the socket is full. */
  send(rows: number): number {
    return this.#handle === undefined ? rows : this.#shim.relaySend(this.#handle, rows);
  }

  /** A slot for one row of our own; undefined when there is none. */
  takeSlot(): number | undefined {
    const slot = this.#free.pop();
    if (slot !== undefined) this.#rowsOf[slot] = 1;
    return slot;
  }

  /** One row of the slot is done with. */
  release(slot: number): void {
    this.#rowsOf[slot]!--;
    if (this.#rowsOf[slot] === 0) this.#free.push(slot);
  }

  close(): void {
    if (this.#handle !== undefined) this.#shim.relayClose(this.#handle);
    this.#handle = undefined;
  }
}
