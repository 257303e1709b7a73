/**
 * One far node as the stream table sees it: its streams, and how fast SYNs may go either way. The node is one, whichever of
 * its addresses (one for each network it is in) a stream is with: its limits are the node's.
 */
import type { Instant } from "../base/instant.ts";
import type { TokenBucket } from "../base/token-bucket.ts";
import type { NetworkId, NodeId } from "../wire/ids.ts";
import { DialPacer } from "./dial-pacer.ts";
import { Fifo } from "./fifo.ts";
import type { StreamShares } from "./shares.ts";
import type { Stream } from "./stream.ts";

export class RemoteNode {
  readonly node: NodeId;
  /** Key: network and both ports as one number. Bound: the table's limits. A stream goes when it is closed. */
  readonly streams = new Map<number, Stream>();
  /** Dials that wait for the pacer. Bound: the number of streams. */
  readonly waiting = new Fifo<Stream>();
  readonly pacer = new DialPacer();
  /** For SYNs from there. */
  readonly synBucket: TokenBucket;

  readonly shares: StreamShares;

  constructor(node: NodeId, synBucket: TokenBucket, shares: StreamShares) {
    this.node = node;
    this.synBucket = synBucket;
    this.shares = shares;
  }

  find(network: NetworkId, localPort: number, remotePort: number): Stream | undefined {
    return this.streams.get(streamKey(network, localPort, remotePort));
  }

  /** Whether this is the stream that packets between its ports are for. */
  holds(stream: Stream): boolean {
    return this.streams.get(keyOf(stream)) === stream;
  }

  add(stream: Stream): void {
    this.streams.set(keyOf(stream), stream);
  }

  remove(stream: Stream): void {
    this.streams.delete(keyOf(stream));
  }

  isIdle(now: Instant): boolean {
    return this.streams.size === 0 && this.synBucket.isFull(now) && this.pacer.isIdle(now);
  }
}

/** 48 bits, which a number holds exactly. */
function streamKey(network: NetworkId, localPort: number, remotePort: number): number {
  return network * 2 ** 32 + localPort * 65_536 + remotePort;
}

function keyOf({ remote, localPort, remotePort }: Stream): number {
  return streamKey(remote.network, localPort, remotePort);
}
