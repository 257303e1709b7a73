/**
 * A data plane of the shim and one of TypeScript with the same keys and endpoints, fed with the same input. The shim's
 * has no device and no socket: datagrams are injected, frames are taken from its queue.
 */
import { expect } from "vitest";
import type { Endpoint } from "../../src/base/endpoint.ts";
import type { NativeShim } from "../../src/io/native.ts";
import { NativeDataPlane } from "../../src/io/native-data-plane.ts";
import {
  type Batch,
  COUNTER,
  type DataPlane,
  IN,
  type KeySpec,
  OUT,
  ROW_WORDS,
  type StagedPacket,
} from "../../src/tunnel/data-plane.ts";
import { PortableDataPlane } from "../../src/tunnel/portable-data-plane.ts";
import { A, B, ENDPOINT_SLOT, KEY_SLOT, keySpec } from "../helpers/data-plane-pair.ts";
import { builtShim } from "./build-shim.ts";

/** Rows beyond which the shim looks no further back for a packet's flow. */
export const LOOK_BACK_ROWS = 16;

export interface InboundRow {
  readonly kind: number;
  readonly keySlot: number;
  readonly flags: number;
  readonly segments: number;
  readonly totalBytes: number;
  readonly sender: number;
  readonly nextSequence: number;
  readonly segmentBytes: number;
  readonly source: Endpoint;
  readonly bytes: string;
}

const open = new Set<TwinPlanes>();

const NO_TUN = -1;

/** For `afterEach`: closes what the test left open. */
export function closePlanes(): void {
  for (const planes of open) planes.close();
}

/** Node 2's planes; the peer is node 1 at endpoint A. */
export class TwinPlanes {
  readonly shim: NativeShim = builtShim();
  readonly native = new NativeDataPlane();
  readonly portable = new PortableDataPlane();

  constructor(overrides: Partial<KeySpec> = {}) {
    open.add(this);
    this.shim.attachTun(this.native.handle, NO_TUN, true); // the twin, too, joins UDP packets
    this.both((plane) => {
      plane.installKey(KEY_SLOT, keySpec(2, 1, overrides));
      plane.setEndpoint(ENDPOINT_SLOT, A, new Uint8Array(0));
      plane.bindKey(KEY_SLOT, ENDPOINT_SLOT);
    });
  }

  both(change: (plane: DataPlane) => void): void {
    change(this.native);
    change(this.portable);
  }

  /** Receives the datagrams as one batch in both, expects the same rows and counters, and returns the rows. */
  receive(datagrams: readonly Uint8Array[], from: Endpoint = A): InboundRow[] {
    for (const datagram of datagrams) this.inject(datagram, 0, from);
    const native = rowsOf(this.native, this.native.receiveAndOpen());
    const portable = rowsOf(this.portable, this.portable.receive(datagrams.map((bytes) => ({ from, bytes }))));
    expect(native).toEqual(portable);
    expect(this.nativeCounters()).toEqual(this.portableCounters());
    return native;
  }

  inject(datagrams: Uint8Array, segmentBytes: number, from: Endpoint = A): void {
    const result = this.shim.inject(this.native.handle, datagrams, segmentBytes, from.address, from.port);
    expect(result).toBeGreaterThan(0);
  }

  /** Sends the packets through both, expects the same frames, and returns them. */
  send(packets: readonly StagedPacket[]): Uint8Array[] {
    for (const packet of packets) this.both((plane) => plane.sendStaged(KEY_SLOT, ENDPOINT_SLOT, packet));
    const native = this.takeNative();
    const portable = this.portable.takeDatagrams().map(({ bytes }) => bytes);
    expect(native.map(hexOf)).toEqual(portable.map(hexOf));
    return native;
  }

  /** Frames that the shim has queued, cut as the kernel would cut them. */
  takeNative(): Uint8Array[] {
    return this.takeNativeRuns().flat();
  }

  takeNativeRuns(): Uint8Array[][] {
    const queued = this.shim.takeQueued(this.native.handle);
    const runs: Uint8Array[][] = [];
    for (let at = 0; at < queued.length; at += 2) runs.push(cut(queued[at] as Uint8Array, queued[at + 1] as number));
    return runs;
  }

  nativeCounters(): number[] {
    return comparable(this.native.counters);
  }

  portableCounters(): number[] {
    return comparable(this.portable.counters);
  }

  close(): void {
    open.delete(this);
    this.native.close();
  }
}

export { A, B };

export function cut(bytes: Uint8Array, size: number): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += size) parts.push(bytes.slice(at, at + size));
  return parts;
}

export function rowsOf(plane: DataPlane, count: number): InboundRow[] {
  return Array.from({ length: count }, (_, index) => {
    const word = (at: number) => wordOf(plane.inbound, index, at);
    const offset = word(IN.OFFSET);
    return {
      kind: word(IN.KIND),
      keySlot: word(IN.KEY_SLOT),
      flags: word(IN.FLAGS),
      segments: word(IN.SEGMENTS),
      totalBytes: word(IN.TOTAL_BYTES),
      sender: word(IN.SENDER),
      nextSequence: word(IN.NEXT_SEQ),
      segmentBytes: word(IN.SEGMENT_BYTES),
      source: plane.source(word(IN.SOURCE)),
      bytes: hexOf(plane.inbound.arena.subarray(offset, offset + word(IN.LENGTH))),
    };
  });
}

export function wordOf(batch: Batch, row: number, word: number): number {
  return batch.rows[row * ROW_WORDS + word]!;
}

export function setWord(batch: Batch, row: number, word: number, value: number): void {
  batch.rows[row * ROW_WORDS + word] = value;
}

/** Sends the first `count` outbound rows to the peer. */
export function decideOutbound(batch: Batch, count: number): void {
  for (let row = 0; row < count; row++) {
    setWord(batch, row, OUT.KEY_SLOT, KEY_SLOT);
    setWord(batch, row, OUT.ENDPOINT_SLOT, ENDPOINT_SLOT);
  }
}

export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** All but datagrams sent, which the shim counts when the kernel has taken them. */
function comparable(counters: Float64Array): number[] {
  return [...counters].map((count, index) => (index === COUNTER.TX_DATAGRAMS ? 0 : count));
}
