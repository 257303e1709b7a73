/**
 * Connections that local programs have with agents from before this daemon's start. Nobody carries them any more, and a
 * program that only waits would wait for ever. What its kernel says when it is provoked by an ACK that makes no sense is
 * answered with the reset that it believes (connections.ts). Those with a pilot-tun are let alone: they go on.
 */
import type { NodeId } from "../../wire/ids.ts";
import { encodeStrayAck, type TcpEnds } from "../../wire/tcp.ts";

export class Orphans {
  /** Key: node. Bound: the connections that the kernel had at the start; an entry goes when its peer is reached. */
  readonly #waiting = new Map<NodeId, TcpEnds[]>();

  /** `ends`: of a packet to the program. */
  add(node: NodeId, ends: TcpEnds): void {
    const known = this.#waiting.get(node);
    if (known === undefined) this.#waiting.set(node, [ends]);
    else known.push(ends);
  }

  /** Packets for the programs that have connections with this node. Of two sequence numbers one is outside any window. */
  take(node: NodeId): Uint8Array[] {
    const waiting = this.#waiting.get(node) ?? [];
    this.#waiting.delete(node);
    return waiting.flatMap((ends) => [0, 0x8000_0000].map((sequence) => encodeStrayAck({ ...ends, sequence })));
  }
}
