/**
 * What was moved between programs and plain agents past the data plane, which counts inner packets only. As long as nobody
 * knows what a peer is, packets also go out whole; those are taken back when it turns out to be an agent, which ignored
 * them and gets them translated: each is counted once.
 */
import { KEY_STAT, KEY_STAT_COUNT } from "../../tunnel/data-plane.ts";
import type { Link } from "../../tunnel/link.ts";
import type { NodeId } from "../../wire/ids.ts";

export class TranslatedTraffic {
  /** Key: node. Bound: trust records that had a link; payload bytes and packets, by KEY_STAT. */
  readonly #sums = new Map<NodeId, Float64Array>();
  /** Key: node. Bound: links; what the data plane had counted when the peer's kind became unknown, if anything. */
  readonly #before = new Map<NodeId, Float64Array>();

  noteSent(node: NodeId, payloadBytes: number, packets = 1): void {
    if (payloadBytes > 0) this.#count(node, KEY_STAT.TX_BYTES, KEY_STAT.TX_PACKETS, payloadBytes, packets);
  }

  noteReceived(node: NodeId, payloadBytes: number, packets = 1): void {
    if (payloadBytes > 0) this.#count(node, KEY_STAT.RX_BYTES, KEY_STAT.RX_PACKETS, payloadBytes, packets);
  }

  /** Adds what was translated to what the data plane counted. */
  addTo(sum: Float64Array, node: NodeId): void {
    const own = this.#sums.get(node);
    if (own !== undefined) for (let i = 0; i < KEY_STAT_COUNT; i++) sum[i] = sum[i]! + own[i]!;
  }

  /** Nobody knows any more what the peer is. */
  kindIsUnknown(link: Link): void {
    this.#before.set(link.node, link.traffic());
  }

  /** It is known again. */
  kindIsKnown(link: Link, isPlain: boolean): void {
    const before = this.#before.get(link.node);
    this.#before.delete(link.node);
    if (!isPlain) return;
    const { TX_BYTES, TX_PACKETS } = KEY_STAT;
    const now = link.traffic();
    const since = (at: number) => now[at]! - (before?.[at] ?? 0);
    this.#count(link.node, TX_BYTES, TX_PACKETS, -since(TX_BYTES), -since(TX_PACKETS));
  }

  forget(node: NodeId): void {
    this.#sums.delete(node);
    this.#before.delete(node);
  }

  #count(node: NodeId, bytesAt: number, packetsAt: number, bytes: number, packets: number): void {
    let own = this.#sums.get(node);
    if (own === undefined) {
      own = new Float64Array(KEY_STAT_COUNT);
      this.#sums.set(node, own);
    }
    own[bytesAt] = own[bytesAt]! + bytes;
    own[packetsAt] = own[packetsAt]! + packets;
  }
}
