/**
 * A data plane with the replay window of the reference before its third generation (pilot protocol §3.9, §11.5): a frame's
 * counter is remembered before its tag is tested, whatever the prefix, and the greatest stays though the tag was wrong.
 */
import type { KeySpec } from "../../src/tunnel/data-plane.ts";
import { PortableDataPlane } from "../../src/tunnel/portable-data-plane.ts";
import { counterOf, isSealedFrame, senderOf } from "../../src/tunnel/portable-frame.ts";

export class EarlyReplayWindow extends PortableDataPlane {
  /** Key: node. Bound: the nodes of a test. */
  readonly #greatest = new Map<number, number>();

  override installKey(slot: number, spec: KeySpec): void {
    this.#greatest.set(spec.peerNode, 0);
    super.installKey(slot, spec);
  }

  override receive(datagrams: Parameters<PortableDataPlane["receive"]>[0]): number {
    return super.receive(datagrams.filter(({ bytes }) => this.#passes(bytes)));
  }

  #passes(datagram: Uint8Array): boolean {
    const frame = datagram[0] === 9 ? datagram.subarray(RELAY_DELIVERY_BYTES) : datagram;
    const greatest = isSealedFrame(frame) ? this.#greatest.get(senderOf(frame)) : undefined;
    if (greatest === undefined) return true;
    const { high, low } = counterOf(frame);
    const counter = high * 2 ** 32 + low;
    if (counter <= greatest - WINDOW) return false;
    this.#greatest.set(senderOf(frame), Math.max(greatest, counter));
    return true;
  }
}

const WINDOW = 256;
/** Type, sender, destination. */
const RELAY_DELIVERY_BYTES = 9;
