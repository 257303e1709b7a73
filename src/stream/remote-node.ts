/** One far node as the stream table sees it: its streams, and how fast SYNs may go either way. */
import type { Instant } from "../base/instant.ts";
import type { TokenBucket } from "../base/token-bucket.ts";
import type { PilotAddress } from "../wire/ids.ts";
import { DialPacer } from "./dial-pacer.ts";
import { Fifo } from "./fifo.ts";
import type { StreamShares } from "./shares.ts";
import type { Stream } from "./stream.ts";

export class RemoteNode {
  readonly address: PilotAddress;
  /** Key: both ports as one number. Bound: the table's limits. A stream goes when it is closed. */
  readonly streams = new Map<number, Stream>();
  /** Dials that wait for the pacer. Bound: the number of streams. */
  readonly waiting = new Fifo<Stream>();
  readonly pacer = new DialPacer();
  /** For SYNs from there. */
  readonly synBucket: TokenBucket;

  readonly shares: StreamShares;

  constructor(address: PilotAddress, synBucket: TokenBucket, shares: StreamShares) {
    this.address = address;
    this.synBucket = synBucket;
    this.shares = shares;
  }

  find(localPort: number, remotePort: number): Stream | undefined {
    return this.streams.get(portsKey(localPort, remotePort));
  }

  add(stream: Stream): void {
    this.streams.set(portsKey(stream.localPort, stream.remotePort), stream);
  }

  remove(stream: Stream): void {
    this.streams.delete(portsKey(stream.localPort, stream.remotePort));
  }

  isIdle(now: Instant): boolean {
    return this.streams.size === 0 && this.synBucket.isFull(now) && this.pacer.isIdle(now);
  }
}

/** 48 bits, which a number holds exactly. */
export function addressKey(address: PilotAddress): number {
  return address.network * 2 ** 32 + address.node;
}

function portsKey(localPort: number, remotePort: number): number {
  return localPort * 65_536 + remotePort;
}
