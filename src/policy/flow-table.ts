/**
 * Flows that were allowed, in one typed array: the packet path finds a verdict without allocating.
 *
 * Key: transport protocol, both addresses (their last 12 bytes: the first 4 are the overlay prefix and checked before),
 * both ports; local and remote side, not source and destination, so both directions share an entry. The entry keeps who
 * began: a flow is judged by its first packet, and its replies pass.
 * Bound: CAPACITY entries. A flow has two rows of places, far from each other, so that a table which is half full hardly
 * loses one by chance. A flow whose places are all taken replaces one that is over, or else one of the peer that has
 * most; a peer with more than all of those there gets no entry, so a scan pushes out nothing but itself.
 * A verdict counts only under the epoch it was made in, and only while the flow is not idle; refusals are never stored.
 *
 * For TCP an entry keeps what a word to the local program must carry to be believed (RFC 5961): the last acknowledgement
 * it sent, or its SYN's number before that, and the sequence number that follows what it was given.
 */

import { writeU32 } from "../base/bytes.ts";
import { PlaceSet } from "../base/place-set.ts";
import * as lifetime from "./flow-lifetime.ts";
import type { Direction } from "./rule.ts";
import type { SocketOwner } from "./socket-owner.ts";

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
  /** Of a connection that this host is still opening: its SYN's sequence number. */
  readonly synSent: number | undefined;
  /** Names this flow and no later one in its place. */
  readonly id: string;
  readonly link: number;
  readonly beganRemotely: boolean;
  /** Of the SYN that was seen to open it. */
  readonly openingSequence: number | undefined;
  /** Who sends the echo requests; undefined for other protocols. */
  readonly asker: "local" | "remote" | undefined;
  /** What `FlowWatch.began` said. */
  readonly isRecorded: boolean;
  /** What the policy answered when it was judged last. */
  readonly verdict: number;
  /** Undefined: nobody asked, or nobody knows. */
  readonly owner: SocketOwner | undefined;
  readonly startedS: number;
  readonly lastSeenS: number;
  /** Bytes of IP packets that went to the peer and came from it, as they travel: each segment with its headers. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

/**
 * Why a flow is over: quiet for too long, closed by both sides, reset, begun anew between the same ports, pushed out by
 * others, at the end of its budget, killed by an operator, or cut because it may not go on.
 */
export type FlowEnd = "idle" | "closed" | "reset" | "reopened" | "evicted" | "over-budget" | "killed" | "cut";

/** Who wants to know of every flow that begins and ends. */
export interface FlowWatch {
  /** Returns whether it is told of by itself; the flow carries that to its end. */
  began(flow: Flow): boolean;
  /** The last word about the flow, with all its bytes. */
  ended(flow: Flow, why: FlowEnd): void;
  /** Bytes that still came after the last word, of a flow both of whose sides had closed it. */
  cameLate(flow: Flow): void;
}

/** How a flow came to be. */
export interface Begun {
  readonly direction: Direction;
  readonly verdict: number;
  readonly owner: SocketOwner | undefined;
  /** The rule has terms, so each packet is looked at. */
  readonly isGoverned: boolean;
  /** Sequence number of the SYN that opens it. */
  readonly openingSequence?: number | undefined;
  /** False keeps the age of the entry that is there. */
  readonly isNew: boolean;
}

export class FlowTable {
  watch: FlowWatch | undefined;
  readonly #words = new Int32Array(CAPACITY * STRIDE);
  /** The entries in use. */
  readonly #places = new PlaceSet(CAPACITY);
  /** Two for each entry, as long as its flow: bytes sent and received. */
  readonly #bytes = new Float64Array(CAPACITY * 2);
  /** Key: entry. Bound: the entries; removed with the flow. */
  readonly #owners = new Map<number, SocketOwner>();
  /** For each entry the sequence number that opened it, if its flags say so. */
  readonly #openings = new Int32Array(CAPACITY);
  /** Where the next `sweep` begins. */
  #sweptTo = 0;
  #size = 0;
  /** Key: link index. Bound: links with flows. */
  readonly #held = new Map<number, number>();

  get size(): number {
    return this.#size;
  }

  /** The entry of this flow, or -1. */
  find(key: FlowKeySource): number {
    const code = hash(key);
    for (let i = 0; i < PLACES; i++) {
      const entry = placeOf(code, i);
      if (this.#matches(entry, key)) return entry;
    }
    return -1;
  }

  /** True when the entry's verdict was made under `epoch`. */
  isCurrent(entry: number, epoch: number): boolean {
    return this.#words[entry + EPOCH] === (epoch | 0);
  }

  /**
   * True when the entry's verdict stands for a packet that comes now: made under `epoch`, not idle for too long, and not
   * opened anew, by the other side or after its end.
   */
  isLive(entry: number, epoch: number, nowS: number, opens: boolean, remotely: boolean): boolean {
    const words = this.#words;
    if (words[entry + EPOCH] !== (epoch | 0)) return false;
    if (opens && !this.continues(entry, remotely)) return false;
    return nowS - words[entry + LAST_SEEN_S]! <= lifetime.SHORTEST_IDLE_S || !this.isIdle(entry, nowS);
  }

  /** Whether a packet that opens a flow in this direction only repeats what opened this one. */
  continues(entry: number, remotely: boolean): boolean {
    const flags = this.#words[entry + FLAGS]!;
    return (flags & CLOSING) === 0 && remotely === ((flags & BEGAN_REMOTELY) !== 0);
  }

  directionOf(entry: number): Direction {
    return (this.#words[entry + FLAGS]! & BEGAN_REMOTELY) !== 0 ? "in" : "out";
  }

  /** Whose local socket it is, if the policy asked for that. */
  ownerOf(entry: number): SocketOwner | undefined {
    return this.#owners.get(entry);
  }

  noteOwner(id: string, owner: SocketOwner): void {
    const entry = this.#entryOf(id);
    if (entry >= 0) this.#owners.set(entry, owner);
  }

  /** Quiet for so long that the next packet begins a new flow. */
  isIdle(entry: number, nowS: number): boolean {
    const protocol = this.#words[entry + PROTOCOL]! & 0xff;
    const isClosing = (this.#words[entry + FLAGS]! & CLOSING) !== 0;
    return nowS - this.#words[entry + LAST_SEEN_S]! > lifetime.idleLimitS(protocol, isClosing);
  }

  /** One side said that it ends, or both with a reset. */
  noteClosing(entry: number, remotely: boolean, isReset: boolean): void {
    const side = isReset ? WAS_RESET : remotely ? CLOSED_THERE : CLOSED_HERE;
    this.#words[entry + FLAGS] = this.#words[entry + FLAGS]! | CLOSING | side;
  }

  /** Packets of this flow are not simply passed on. */
  isGoverned(entry: number): boolean {
    return (this.#words[entry + FLAGS]! & (GOVERNED | ANSWERS_BY_RELAY)) !== 0;
  }

  verdictOf(entry: number): number {
    return this.#words[entry + VERDICT]!;
  }

  /** The peer's last packet came through the relay though it could be reached directly. */
  answersByRelay(entry: number): boolean {
    return (this.#words[entry + FLAGS]! & ANSWERS_BY_RELAY) !== 0;
  }

  setAnswersByRelay(entry: number, byRelay: boolean): void {
    this.#setFlag(entry, ANSWERS_BY_RELAY, byRelay);
  }

  /** Next-header number of the transport. */
  protocolOf(entry: number): number {
    return this.#words[entry + PROTOCOL]! & 0xff;
  }

  localPortOf(entry: number): number {
    return this.#words[entry + PORTS]! >>> 16;
  }

  remotePortOf(entry: number): number {
    return this.#words[entry + PORTS]! & 0xffff;
  }

  /** Number of the network that the peer's address is in: bytes 6 and 7, the lower half of the first word kept. */
  networkOf(entry: number): number {
    return this.#words[entry + REMOTE]! & 0xffff;
  }

  lastSeenS(entry: number): number {
    return this.#words[entry + LAST_SEEN_S]!;
  }

  linkOf(entry: number): number {
    return this.#words[entry + LINK]!;
  }

  /** A packet of the flow went out; returns its link index. */
  noteSent(entry: number, bytes: number, nowS: number): number {
    return this.#note((entry / STRIDE) * 2, entry, bytes, nowS);
  }

  /** A packet of the flow came in; returns its link index. */
  noteReceived(entry: number, bytes: number, nowS: number): number {
    return this.#note((entry / STRIDE) * 2 + 1, entry, bytes, nowS);
  }

  noteAckSent(entry: number, ack: number): void {
    this.#words[entry + LAST_ACK] = ack;
    this.#words[entry + FLAGS] = (this.#words[entry + FLAGS]! & ~HAS_SYN) | HAS_ACK;
  }

  /** A program opens a connection: nothing was acknowledged yet. */
  noteSynSent(entry: number, sequence: number): void {
    this.#words[entry + LAST_ACK] = sequence;
    this.#words[entry + FLAGS] = (this.#words[entry + FLAGS]! & ~HAS_ACK) | HAS_SYN;
  }

  noteNextSeq(entry: number, sequence: number): void {
    this.#words[entry + NEXT_SEQ] = sequence;
    this.#words[entry + FLAGS] = this.#words[entry + FLAGS]! | HAS_SEQ;
  }

  /** Stores an allowed flow, or renews its verdict; the entry, or -1 when this link holds too many already. */
  allow(key: FlowKeySource, link: number, epoch: number, nowS: number, begun: Begun = BEGUN_HERE): number {
    const words = this.#words;
    const known = this.find(key);
    if (known >= 0 && begun.isNew) this.#tell(known, this.#isOver(known, nowS) ?? "reopened");
    const entry = known < 0 ? this.#claim(key, link, nowS) : known;
    if (entry < 0) return -1;
    if (known < 0) this.#hold(link, 1);
    else if (words[entry + LINK] !== link) this.#move(entry, link);
    if (known < 0 || begun.isNew) {
      words[entry + STARTED_S] = nowS;
      words[entry + FLAGS] = begun.direction === "in" ? BEGAN_REMOTELY : 0;
      this.#owners.delete(entry);
      this.#bytes.fill(0, (entry / STRIDE) * 2, (entry / STRIDE) * 2 + 2);
    }
    this.#setFlag(entry, GOVERNED, begun.isGoverned);
    words[entry + EPOCH] = epoch;
    words[entry + LINK] = link;
    words[entry + LAST_SEEN_S] = nowS;
    words[entry + VERDICT] = begun.verdict;
    if (begun.owner !== undefined) this.#owners.set(entry, begun.owner);
    if (known < 0 || begun.isNew) this.#begin(entry, begun.openingSequence);
    return entry;
  }

  /** Entries of flows that are not over. */
  live(nowS: number): number[] {
    const entries: number[] = [];
    for (let entry = this.#next(0); entry >= 0; entry = this.#next(entry + STRIDE)) {
      if (this.#isOver(entry, nowS) === undefined) entries.push(entry);
    }
    return entries;
  }

  /** The same as values. */
  list(nowS: number): Flow[] {
    return this.live(nowS).map((entry) => this.read(entry));
  }

  /** Removes the flow of this id and returns it. */
  cutOne(id: string): Flow | undefined {
    const entry = this.#entryOf(id);
    return entry < 0 ? undefined : this.cutEntry(entry, "killed");
  }

  /** Removes this very flow and returns it. */
  cutEntry(entry: number, why: FlowEnd): Flow {
    const flow = this.read(entry);
    this.#remove(entry, why);
    return flow;
  }

  /**
   * Asks anew about every flow. Its verdict is stored; those that are not allowed under it, or have none, are removed.
   * Returns the removed that were not idle, with the verdict that ended them.
   */
  rejudge(
    verdictOf: (entry: number) => number | undefined,
    allows: (verdict: number) => boolean,
    nowS: number,
  ): Flow[] {
    const cut: Flow[] = [];
    for (let entry = this.#next(0); entry >= 0; entry = this.#next(entry + STRIDE)) {
      const verdict = verdictOf(entry);
      if (verdict !== undefined) this.#words[entry + VERDICT] = verdict;
      if (verdict !== undefined && allows(verdict)) continue;
      if (!this.isIdle(entry, nowS)) cut.push(this.read(entry));
      this.#remove(entry, this.#isOver(entry, nowS) ?? "cut");
    }
    return cut;
  }

  /** Removes every flow of a link and returns those that were not over. */
  cut(link: number, nowS: number): Flow[] {
    return this.#cutWhere((entry) => this.#words[entry + LINK] === link, nowS);
  }

  /** Removes every flow between addresses of which one is in `network`; returns those that were not over. */
  cutNetwork(network: number, nowS: number): Flow[] {
    // Bytes 6 and 7 of an address, the lower half of the first word kept.
    const isIn = (entry: number) => [LOCAL, REMOTE].some((side) => (this.#words[entry + side]! & 0xffff) === network);
    return this.#cutWhere(isIn, nowS);
  }

  #cutWhere(isMeant: (entry: number) => boolean, nowS: number): Flow[] {
    const flows: Flow[] = [];
    for (let entry = this.#next(0); entry >= 0; entry = this.#next(entry + STRIDE)) {
      if (!isMeant(entry)) continue;
      const over = this.#isOver(entry, nowS);
      if (over === undefined) flows.push(this.read(entry));
      this.#remove(entry, over ?? "cut");
    }
    return flows;
  }

  /** How long to wait for the next `sweep`: few flows are looked at all at once, and for that nobody is woken often. */
  get sweepMs(): number {
    return this.#size <= lifetime.FEW_FLOWS ? lifetime.ALL_SWEEP_MS : lifetime.PART_SWEEP_MS;
  }

  /** Looks through the table, or a part of it, for flows that are over; those that nothing may follow leave it. */
  sweep(nowS: number): void {
    const isAll = this.#size <= lifetime.FEW_FLOWS;
    const from = isAll ? 0 : this.#sweptTo;
    const entries = isAll ? CAPACITY : CAPACITY / lifetime.SWEPT_PARTS;
    this.#sweptTo = (from + entries) % CAPACITY;
    const end = (from + entries) * STRIDE;
    for (let entry = this.#next(from * STRIDE); entry >= 0 && entry < end; entry = this.#next(entry + STRIDE)) {
      const why = this.#isOver(entry, nowS);
      if (why === undefined) continue;
      if (this.isIdle(entry, nowS)) this.#remove(entry, why);
      else this.#tell(entry, why);
    }
  }

  /** The end of this node: tells of every flow there is. */
  tellAll(nowS: number): void {
    for (let entry = this.#next(0); entry >= 0; entry = this.#next(entry + STRIDE)) {
      this.#tell(entry, this.#isOver(entry, nowS) ?? "cut");
    }
  }

  /** Why nothing more is expected of the flow; undefined while it is alive. */
  #isOver(entry: number, nowS: number): FlowEnd | undefined {
    const flags = this.#words[entry + FLAGS]!;
    const isClosed = (flags & CLOSED_BOTH) === CLOSED_BOTH;
    if ((flags & WAS_RESET) !== 0 || isClosed) {
      const isQuiet = nowS - this.#words[entry + LAST_SEEN_S]! >= lifetime.SETTLED_S;
      return isQuiet ? (isClosed ? "closed" : "reset") : undefined;
    }
    return this.isIdle(entry, nowS) ? "idle" : undefined;
  }

  #begin(entry: number, openingSequence: number | undefined): void {
    if (this.watch === undefined) return;
    const words = this.#words;
    if (openingSequence !== undefined) {
      this.#openings[entry / STRIDE] = openingSequence;
      words[entry + FLAGS] = words[entry + FLAGS]! | HAS_OPENING;
    }
    if (this.watch.began(this.read(entry))) words[entry + FLAGS] = words[entry + FLAGS]! | RECORDED;
  }

  /** Once for each flow. */
  #tell(entry: number, why: FlowEnd): void {
    if (this.watch === undefined) return;
    const flags = this.#words[entry + FLAGS]!;
    const counters = (entry / STRIDE) * 2;
    if ((flags & TOLD) === 0) this.watch.ended(this.read(entry), why);
    else if (this.#bytes[counters]! + this.#bytes[counters + 1]! > 0) this.watch.cameLate(this.read(entry));
    else return;
    this.#words[entry + FLAGS] = flags | TOLD;
    this.#bytes.fill(0, counters, counters + 2);
  }

  #note(counter: number, entry: number, bytes: number, nowS: number): number {
    this.#bytes[counter] = this.#bytes[counter]! + bytes;
    this.#words[entry + LAST_SEEN_S] = nowS;
    return this.#words[entry + LINK]!;
  }

  /** -1 when the flow of this id is over. */
  #entryOf(id: string): number {
    const entry = Number.parseInt(id, 36) * STRIDE;
    if (!(entry >= 0 && entry < CAPACITY * STRIDE) || !this.#used(entry)) return -1;
    return this.read(entry).id === id ? entry : -1;
  }

  #setFlag(entry: number, flag: number, isSet: boolean): void {
    const flags = this.#words[entry + FLAGS]!;
    this.#words[entry + FLAGS] = isSet ? flags | flag : flags & ~flag;
  }

  /** The first entry in use from this one on; -1 behind the last. */
  #next(entry: number): number {
    const place = this.#places.next(entry / STRIDE);
    return place < 0 ? -1 : place * STRIDE;
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

  #claim(key: FlowKeySource, link: number, nowS: number): number {
    const entry = this.#freePlace(hash(key), link, nowS);
    if (entry < 0) return -1;
    const words = this.#words;
    const { view, remoteOffset, localOffset } = key;
    for (let i = 0; i < 3; i++) {
      words[entry + REMOTE + i] = view.getInt32(remoteOffset + 4 + 4 * i);
      words[entry + LOCAL + i] = view.getInt32(localOffset + 4 + 4 * i);
    }
    words[entry + PORTS] = key.ports;
    words[entry + PROTOCOL] = key.protocol | USED;
    this.#size++;
    this.#places.add(entry / STRIDE);
    return entry;
  }

  /** An empty place for this hash, emptied if it must be; -1 when only peers with fewer flows have theirs there. */
  #freePlace(code: number, link: number, nowS: number): number {
    let victim = -1;
    let most = 0;
    for (let i = 0; i < PLACES; i++) {
      const entry = placeOf(code, i);
      if (!this.#used(entry)) return entry;
      const weight = this.isIdle(entry, nowS) ? Number.POSITIVE_INFINITY : this.#heldBy(this.#words[entry + LINK]!);
      const isOlder = victim >= 0 && this.#words[entry + LAST_SEEN_S]! < this.#words[victim + LAST_SEEN_S]!;
      if (weight < most || (weight === most && !isOlder)) continue;
      victim = entry;
      most = weight;
    }
    if (most < this.#heldBy(link)) return -1;
    this.#remove(victim, this.#isOver(victim, nowS) ?? "evicted");
    return victim;
  }

  #remove(entry: number, why: FlowEnd): void {
    this.#tell(entry, why);
    this.#hold(this.#words[entry + LINK]!, -1);
    this.#words.fill(0, entry, entry + STRIDE);
    this.#owners.delete(entry);
    this.#size--;
    this.#places.delete(entry / STRIDE);
  }

  #move(entry: number, link: number): void {
    this.#hold(this.#words[entry + LINK]!, -1);
    this.#hold(link, 1);
  }

  #heldBy(link: number): number {
    return this.#held.get(link) ?? 0;
  }

  #hold(link: number, change: number): void {
    const held = this.#heldBy(link) + change;
    if (held === 0) this.#held.delete(link);
    else this.#held.set(link, held);
  }

  /** As a value. */
  read(entry: number): Flow {
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
      synSent: flags & HAS_SYN ? words[entry + LAST_ACK]! >>> 0 : undefined,
      id: `${(entry / STRIDE).toString(36)}-${words[entry + STARTED_S]!.toString(36)}`,
      link: words[entry + LINK]!,
      beganRemotely: (flags & BEGAN_REMOTELY) !== 0,
      openingSequence: flags & HAS_OPENING ? this.#openings[entry / STRIDE]! >>> 0 : undefined,
      asker: askerOf(words[entry + PROTOCOL]!),
      isRecorded: (flags & RECORDED) !== 0,
      verdict: words[entry + VERDICT]!,
      owner: this.#owners.get(entry),
      startedS: words[entry + STARTED_S]!,
      lastSeenS: words[entry + LAST_SEEN_S]!,
      sentBytes: this.#bytes[(entry / STRIDE) * 2]!,
      receivedBytes: this.#bytes[(entry / STRIDE) * 2 + 1]!,
    };
  }

  #addressTail(word: number): Uint8Array {
    const tail = new Uint8Array(12);
    for (let i = 0; i < 3; i++) writeU32(tail, 4 * i, this.#words[word + i]!);
    return tail;
  }
}

function askerOf(protocol: number): Flow["asker"] {
  if ((protocol & ASKED_HERE) !== 0) return "local";
  return (protocol & ASKED_THERE) !== 0 ? "remote" : undefined;
}

function hash(key: FlowKeySource): number {
  const { view, remoteOffset, localOffset } = key;
  let h = Math.imul(key.ports ^ 0x2545f491, 0x9e3779b1);
  h = Math.imul((h ^ (h >>> 15)) + view.getInt32(remoteOffset + 12), 0x85ebca6b);
  h = Math.imul((h ^ (h >>> 13)) + view.getInt32(remoteOffset + 4), 0xc2b2ae35);
  h = Math.imul((h ^ (h >>> 16)) + view.getInt32(localOffset + 12) + key.protocol, 0x27d4eb2f);
  return h ^ (h >>> 15);
}

/** The entry of the `index`-th place where a flow of this hash may be: the first eight lie together, and the others. */
function placeOf(code: number, index: number): number {
  const start = index < ROW_PLACES ? code : Math.imul(code, 0x9e3779b1) >>> 7;
  return ((start + index) & MASK) * STRIDE;
}

const CAPACITY = 262_144; // a power of two
const MASK = CAPACITY - 1;
const ROW_PLACES = 8;
const PLACES = 2 * ROW_PLACES;
const STRIDE = 16;
const REMOTE = 0;
const LOCAL = 3;
const PORTS = 6;
const PROTOCOL = 7;
const EPOCH = 8;
const LINK = 9;
/** What the program acknowledged last, or while it is opening its SYN's sequence number. */
const LAST_ACK = 10;
const NEXT_SEQ = 11;
const LAST_SEEN_S = 12;
const FLAGS = 13;
const VERDICT = 14;
const STARTED_S = 15;
/** Beside the next-header number in a key's protocol: who sends the echo requests. */
export const ASKED_HERE = 0x1000;
export const ASKED_THERE = 0x2000;
/** In the word of the protocol; what a key's protocol says beside the number stays below. */
const USED = 0x10000;
const HAS_ACK = 1;
const HAS_SEQ = 2;
const BEGAN_REMOTELY = 4;
const CLOSING = 8;
const HAS_SYN = 16;
const GOVERNED = 32;
const ANSWERS_BY_RELAY = 64;

const HAS_OPENING = 0x100;
const RECORDED = 0x200;
const TOLD = 0x400;
const CLOSED_HERE = 0x800;
const CLOSED_THERE = 0x1000;
const CLOSED_BOTH = CLOSED_HERE | CLOSED_THERE;
const WAS_RESET = 0x2000;

const BEGUN_HERE: Begun = { direction: "out", verdict: -2, owner: undefined, isGoverned: false, isNew: false };
