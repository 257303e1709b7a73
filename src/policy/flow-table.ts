/**
 * Flows that were allowed, in one typed array: the packet path finds a verdict without allocating.
 *
 * Key: transport protocol, both addresses (their last 12 bytes: the first 4 are the overlay prefix and checked before),
 * both ports; local and remote side, not source and destination, so both directions share an entry.
 * Bound: CAPACITY entries; a new flow whose places are all taken replaces the one that was quiet longest.
 * A verdict counts only under the epoch it was made in; refusals are never stored.
 *
 * For TCP an entry keeps what a reset to the local program must carry to be believed (RFC 5961): the last acknowledgement
 * it sent and the sequence number that follows what it was given.
 */
export interface FlowKeySource {
  readonly view: DataView;
  /** Offsets of the 16-byte addresses in `view`. */
  remoteOffset: number;
  localOffset: number;
  /** Local port in the upper half, remote port in the lower; 0 without ports. */
  ports: number;
  protocol: number;
}

/** A flow as a value, for what happens rarely. */
export interface Flow {
  readonly protocol: number;
  readonly localPort: number;
  readonly remotePort: number;
  /** Last 12 bytes of the addresses. */
  readonly remote: Uint8Array;
  readonly local: Uint8Array;
  readonly lastAckSent: number | undefined;
  readonly nextSeqReceived: number | undefined;
}

export class FlowTable {
  readonly #words = new Int32Array(CAPACITY * STRIDE);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The entry of this flow, or -1. */
  find(key: FlowKeySource): number {
    const first = hash(key) & MASK;
    for (let i = 0; i < PROBES; i++) {
      const entry = ((first + i) & MASK) * STRIDE;
      if (this.#matches(entry, key)) return entry;
    }
    return -1;
  }

  /** True when the entry's verdict was made under `epoch`. */
  isCurrent(entry: number, epoch: number): boolean {
    return this.#words[entry + EPOCH] === (epoch | 0);
  }

  linkOf(entry: number): number {
    return this.#words[entry + LINK]!;
  }

  /** Marks the flow as alive; returns its link index. */
  touch(entry: number, nowS: number): number {
    this.#words[entry + LAST_SEEN_S] = nowS;
    return this.#words[entry + LINK]!;
  }

  noteAckSent(entry: number, ack: number): void {
    this.#words[entry + LAST_ACK] = ack;
    this.#words[entry + FLAGS] = this.#words[entry + FLAGS]! | HAS_ACK;
  }

  noteNextSeq(entry: number, sequence: number): void {
    this.#words[entry + NEXT_SEQ] = sequence;
    this.#words[entry + FLAGS] = this.#words[entry + FLAGS]! | HAS_SEQ;
  }

  /** Stores an allowed flow, or renews its verdict; returns the entry. */
  allow(key: FlowKeySource, link: number, epoch: number, nowS: number): number {
    let entry = this.find(key);
    if (entry < 0) entry = this.#claim(key);
    const words = this.#words;
    words[entry + EPOCH] = epoch;
    words[entry + LINK] = link;
    words[entry + LAST_SEEN_S] = nowS;
    return entry;
  }

  /** Removes every flow of a link and returns those seen within `freshS` seconds. */
  cut(link: number, nowS: number, freshS: number): Flow[] {
    const flows: Flow[] = [];
    for (let entry = 0; entry < CAPACITY * STRIDE; entry += STRIDE) {
      if (!this.#used(entry) || this.#words[entry + LINK] !== link) continue;
      if (nowS - this.#words[entry + LAST_SEEN_S]! <= freshS) flows.push(this.#read(entry));
      this.#words.fill(0, entry, entry + STRIDE);
      this.#size--;
    }
    return flows;
  }

  /** Removes every flow between addresses of which one is in `network`; returns those seen within `freshS` seconds. */
  cutNetwork(network: number, nowS: number, freshS: number): Flow[] {
    const flows: Flow[] = [];
    for (let entry = 0; entry < CAPACITY * STRIDE; entry += STRIDE) {
      // Bytes 6 and 7 of an address, the lower half of the first word kept.
      const isIn = [LOCAL, REMOTE].some((side) => (this.#words[entry + side]! & 0xffff) === network);
      if (!this.#used(entry) || !isIn) continue;
      if (nowS - this.#words[entry + LAST_SEEN_S]! <= freshS) flows.push(this.#read(entry));
      this.#words.fill(0, entry, entry + STRIDE);
      this.#size--;
    }
    return flows;
  }

  /** How many flows of a link were seen within `freshS` seconds. */
  count(link: number, nowS: number, freshS: number): number {
    let flows = 0;
    for (let entry = 0; entry < CAPACITY * STRIDE; entry += STRIDE) {
      if (!this.#used(entry) || this.#words[entry + LINK] !== link) continue;
      if (nowS - this.#words[entry + LAST_SEEN_S]! <= freshS) flows++;
    }
    return flows;
  }

  #used(entry: number): boolean {
    return (this.#words[entry + PROTOCOL]! & USED) !== 0;
  }

  #matches(entry: number, key: FlowKeySource): boolean {
    const words = this.#words;
    const { view, remoteOffset, localOffset } = key;
    return (
      words[entry + PORTS] === (key.ports | 0) &&
      words[entry + REMOTE + 2] === view.getInt32(remoteOffset + 12) &&
      words[entry + LOCAL + 2] === view.getInt32(localOffset + 12) &&
      words[entry + PROTOCOL] === (key.protocol | USED) &&
      words[entry + REMOTE + 1] === view.getInt32(remoteOffset + 8) &&
      words[entry + LOCAL + 1] === view.getInt32(localOffset + 8) &&
      words[entry + REMOTE] === view.getInt32(remoteOffset + 4) &&
      words[entry + LOCAL] === view.getInt32(localOffset + 4)
    );
  }

  #claim(key: FlowKeySource): number {
    const entry = this.#freePlace(hash(key) & MASK);
    const words = this.#words;
    const { view, remoteOffset, localOffset } = key;
    words.fill(0, entry, entry + STRIDE);
    for (let i = 0; i < 3; i++) {
      words[entry + REMOTE + i] = view.getInt32(remoteOffset + 4 + 4 * i);
      words[entry + LOCAL + i] = view.getInt32(localOffset + 4 + 4 * i);
    }
    words[entry + PORTS] = key.ports;
    words[entry + PROTOCOL] = key.protocol | USED;
    return entry;
  }

  #freePlace(first: number): number {
    let oldest = first * STRIDE;
    for (let i = 0; i < PROBES; i++) {
      const entry = ((first + i) & MASK) * STRIDE;
      if (!this.#used(entry)) {
        this.#size++;
        return entry;
      }
      if (this.#words[entry + LAST_SEEN_S]! < this.#words[oldest + LAST_SEEN_S]!) oldest = entry;
    }
    return oldest;
  }

  #read(entry: number): Flow {
    const words = this.#words;
    const ports = words[entry + PORTS]! >>> 0;
    const flags = words[entry + FLAGS]!;
    return {
      protocol: words[entry + PROTOCOL]! & 0xff,
      localPort: ports >>> 16,
      remotePort: ports & 0xffff,
      remote: this.#addressTail(entry + REMOTE),
      local: this.#addressTail(entry + LOCAL),
      lastAckSent: flags & HAS_ACK ? words[entry + LAST_ACK]! >>> 0 : undefined,
      nextSeqReceived: flags & HAS_SEQ ? words[entry + NEXT_SEQ]! >>> 0 : undefined,
    };
  }

  #addressTail(word: number): Uint8Array {
    const tail = new Uint8Array(12);
    const view = new DataView(tail.buffer);
    for (let i = 0; i < 3; i++) view.setInt32(4 * i, this.#words[word + i]!);
    return tail;
  }
}

function hash(key: FlowKeySource): number {
  const { view, remoteOffset, localOffset } = key;
  let h = Math.imul(key.ports ^ 0x2545f491, 0x9e3779b1);
  h = Math.imul((h ^ (h >>> 15)) + view.getInt32(remoteOffset + 12), 0x85ebca6b);
  h = Math.imul((h ^ (h >>> 13)) + view.getInt32(remoteOffset + 4), 0xc2b2ae35);
  h = Math.imul((h ^ (h >>> 16)) + view.getInt32(localOffset + 12) + key.protocol, 0x27d4eb2f);
  return h ^ (h >>> 15);
}

const CAPACITY = 32_768; // a power of two
const MASK = CAPACITY - 1;
const PROBES = 8;
const STRIDE = 16;
const REMOTE = 0;
const LOCAL = 3;
const PORTS = 6;
const PROTOCOL = 7;
const EPOCH = 8;
const LINK = 9;
const LAST_ACK = 10;
const NEXT_SEQ = 11;
const LAST_SEEN_S = 12;
const FLAGS = 13;
const USED = 0x100;
const HAS_ACK = 1;
const HAS_SEQ = 2;
