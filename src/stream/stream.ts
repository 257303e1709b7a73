/**
 * One reliable stream (pilot protocol §4): the handshake, the open link, and what remains of it afterwards.
 * Commands and `handle…` change it at a given time; then drain `pollPacket` and `pollEvent` and ask `pollTimeout`.
 * Time never goes back. A packet or event is for the one owner that polls; streams of a table are polled by the table.
 */
import { after, type Deadline, earlier, type Instant } from "../base/instant.ts";
import type { PilotAddress } from "../wire/ids.ts";
import { FLAG } from "../wire/virtual-packet.ts";
import { Fifo } from "./fifo.ts";
import { type LinkOutcome, type LinkStatistics, OpenLink } from "./open-link.ts";
import type { PeerTraits } from "./peer-traits.ts";
import { initialWindow } from "./receiver.ts";
import { sequenceAdd } from "./sequence.ts";
import { ownShares, type StreamShares } from "./shares.ts";
import type { StreamEvent, StreamFailure } from "./stream-event.ts";
import type { StreamOptions } from "./stream-options.ts";
import { hasFlag, isOpeningSyn, PacketForm, type StreamPacket } from "./stream-packet.ts";

/**
 *   dial ──▶ waiting ──▶ connecting ───┐
 *   SYN  ──▶ offered ──▶ accepting ────┴──▶ open ──▶ time-wait ──▶ closed
 *   broken off by us, at any time ────────────────▶ resetting ──▶ closed
 *   RST from the far side, or nobody there ───────────────────▶ closed
 */
type StreamState =
  /** The table holds the SYN back, so as not to exceed what the far side takes per second. */
  | { readonly kind: "waiting" }
  | { readonly kind: "connecting"; readonly since: Instant; readonly syns: number; readonly repeatAt: Instant }
  /** A SYN came; the program has not said yet whether it takes it. */
  | { readonly kind: "offered"; readonly peer: PeerSyn; readonly until: Instant }
  | {
      readonly kind: "accepting";
      readonly peer: PeerSyn;
      readonly sends: number;
      readonly repeatAt: Instant;
      readonly until: Instant;
    }
  | { readonly kind: "open"; readonly link: OpenLink }
  /** Answers what is late; programs may still read. */
  | { readonly kind: "time-wait"; readonly link: OpenLink; readonly until: Instant }
  /** Answers with RST what shows that the first was lost. */
  | { readonly kind: "resetting"; readonly sequence: number; readonly sentAt: Instant; readonly until: Instant }
  | { readonly kind: "closed"; readonly link: OpenLink | undefined };

interface PeerSyn {
  readonly sequence: number;
  readonly window: number;
}

export class Stream {
  readonly remote: PilotAddress;
  readonly localPort: number;
  readonly remotePort: number;
  readonly #options: StreamOptions;
  readonly #initialSequence: number;
  readonly #form: PacketForm;
  readonly #shares: StreamShares;
  readonly #onChange: () => void;
  readonly #outbox = new Fifo<StreamPacket>();
  readonly #events = new Fifo<StreamEvent>();
  #state: StreamState = { kind: "waiting" };
  #now: Instant;
  /** Asked for before the stream was open. */
  #earlyEnd: "half" | "whole" | undefined;
  #strangeSynAt: Instant | undefined;

  constructor(parameters: StreamParameters) {
    this.remote = parameters.remote;
    this.localPort = parameters.localPort;
    this.remotePort = parameters.remotePort;
    this.#options = parameters.options;
    this.#initialSequence = parameters.initialSequence;
    this.#form = new PacketForm(parameters.localPort, parameters.remotePort);
    this.#shares = parameters.shares ?? ownShares();
    this.#onChange = parameters.onChange;
    this.#now = parameters.now;
  }

  get stateKind(): StreamState["kind"] {
    return this.#state.kind;
  }

  /** Of a dial that waits for its answer: when the first SYN went out. */
  get dialledAt(): Instant | undefined {
    return this.#state.kind === "connecting" ? this.#state.since : undefined;
  }

  /** What the handshake told of the far side; undefined before. */
  get traits(): PeerTraits | undefined {
    return this.#link?.traits;
  }

  /** When the far side last said something on the open stream. */
  get heardAt(): Instant | undefined {
    return this.#state.kind === "open" ? this.#state.link.heardAt : undefined;
  }

  /** Undefined before the handshake is over. */
  get statistics(): LinkStatistics | undefined {
    return this.#link?.statistics;
  }

  // Commands.

  /** Sends the SYN. */
  connect(now: Instant): void {
    if (this.#state.kind !== "waiting") return;
    this.#now = now;
    this.#sendSyn(1);
    this.#onChange();
  }

  /** Takes note of the far side's SYN. */
  offer(syn: StreamPacket, now: Instant): void {
    if (this.#state.kind !== "waiting") return;
    this.#now = now;
    const peer = { sequence: syn.sequence, window: syn.window };
    this.#state = { kind: "offered", peer, until: after(now, OFFER_LIMIT_MS) };
    this.#onChange();
  }

  /** Answers the offer with SYN+ACK. */
  accept(now: Instant): void {
    if (this.#state.kind !== "offered") return;
    this.#now = now;
    const { peer } = this.#state;
    const until = after(now, HALF_OPEN_LIMIT_MS);
    this.#state = { kind: "accepting", peer, sends: 1, repeatAt: after(now, FIRST_REPEAT_MS), until };
    this.#sendSynAck(sequenceAdd(peer.sequence, 1));
    this.#onChange();
  }

  /** Answers the offer as an unbound port does. */
  refuse(now: Instant): void {
    if (this.#state.kind !== "offered") return;
    this.#now = now;
    this.#outbox.push(this.#form.reset(0));
    this.#state = { kind: "closed", link: undefined };
    this.#onChange();
  }

  /**
   * Takes the bytes over, without a copy: they must not be changed afterwards. Returns how many; fewer than all means
   * that a "writable" event will follow. Nothing is taken before the stream is open.
   */
  write(bytes: Uint8Array, now: Instant): number {
    if (this.#state.kind !== "open") return 0;
    this.#now = now;
    const taken = this.#state.link.write(bytes);
    this.#onChange();
    return taken;
  }

  /** The next bytes in order; undefined when there are none yet, after which a "readable" event will tell. */
  read(now: Instant): Uint8Array | undefined {
    const link = this.#link;
    const chunk = link?.read(now);
    if (chunk === undefined || this.#state.kind !== "open") return chunk;
    this.#now = now;
    this.#onChange();
    return chunk;
  }

  /** Ends our direction: what was written still goes out, and reading goes on. */
  closeWrite(now: Instant): void {
    this.#end("half", now);
  }

  /** Ends both directions for this side: what was written still goes out, what arrives is thrown away. */
  close(now: Instant): void {
    this.#end("whole", now);
  }

  /** Breaks off: what is under way is lost on both sides. Says nothing to the program, whose wish it is. */
  reset(now: Instant): void {
    this.#now = now;
    this.#breakOff();
    this.#onChange();
  }

  /** Asks an open stream's far side for a sign of life. */
  provoke(now: Instant): void {
    if (this.#state.kind !== "open") return;
    this.#now = now;
    this.#state.link.provoke();
    this.#onChange();
  }

  // Inputs.

  /** "superseded": the packet is the SYN of a new stream, and this one is over. */
  handlePacket(packet: StreamPacket, now: Instant): "superseded" | undefined {
    this.#now = now;
    const verdict = this.#dispatch(packet);
    this.#onChange();
    return verdict;
  }

  handleTimeout(now: Instant): void {
    this.#now = now;
    const state = this.#state;
    if (state.kind === "connecting" && state.repeatAt <= now) this.#repeatSyn(state.syns);
    else if (state.kind === "offered" && state.until <= now) this.#fail("timed-out");
    else if (state.kind === "accepting") this.#repeatSynAck(state);
    else if (state.kind === "open") this.#conclude(state.link, state.link.handleTimeout(now));
    else if (state.kind === "time-wait" && state.until <= now) this.#state = { kind: "closed", link: state.link };
    else if (state.kind === "resetting" && state.until <= now) this.#state = { kind: "closed", link: undefined };
    this.#onChange();
  }

  // Outputs.

  pollPacket(): StreamPacket | undefined {
    const packet = this.#outbox.shift() ?? this.#nextPacket();
    if (packet !== undefined) this.#link?.handleSent(this.#now);
    return packet;
  }

  pollEvent(): StreamEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    const state = this.#state;
    switch (state.kind) {
      case "connecting":
        return { at: state.repeatAt, reason: "syn-repeat" };
      case "offered":
        return { at: state.until, reason: "offer-limit" };
      case "accepting":
        return earlier(
          { at: state.repeatAt, reason: "syn-ack-repeat" },
          { at: state.until, reason: "half-open-limit" },
        );
      case "open":
        return state.link.deadline();
      case "time-wait":
        return earlier({ at: state.until, reason: "time-wait" }, state.link.acknowledgementDeadline());
      case "resetting":
        return { at: state.until, reason: "reset-linger" };
      default:
        return undefined;
    }
  }

  // The handshake.

  #sendSyn(syns: number): void {
    const repeatMs = Math.min(FIRST_REPEAT_MS * 2 ** (syns - 1), LONGEST_REPEAT_MS);
    const since = this.dialledAt ?? this.#now;
    this.#state = { kind: "connecting", since, syns, repeatAt: after(this.#now, repeatMs) };
    this.#outbox.push(this.#handshakePacket(FLAG.SYN, 0));
  }

  #repeatSyn(syns: number): void {
    if (syns > SYN_REPEATS) this.#fail("timed-out");
    else this.#sendSyn(syns + 1);
  }

  #sendSynAck(acknowledgement: number): void {
    this.#outbox.push(this.#handshakePacket(FLAG.SYN | FLAG.ACK, acknowledgement));
  }

  #repeatSynAck(state: StreamState & { kind: "accepting" }): void {
    if (state.until <= this.#now) {
      this.#fail("timed-out");
      return;
    }
    if (state.repeatAt > this.#now) return;
    const repeatAt = after(this.#now, FIRST_REPEAT_MS * 2 ** state.sends);
    this.#state = { ...state, sends: state.sends + 1, repeatAt };
    const acknowledgement = sequenceAdd(state.peer.sequence, 1);
    this.#sendSynAck(acknowledgement);
    // A reference does not acknowledge a second SYN+ACK, but it does acknowledge a byte that lies before what it expects.
    const numbers = { sequence: this.#initialSequence, acknowledgement, window: this.#window };
    this.#outbox.push(this.#form.packet(FLAG.ACK, numbers, ONE_BYTE));
  }

  #handshakePacket(flags: number, acknowledgement: number): StreamPacket {
    return this.#form.packet(flags, { sequence: this.#initialSequence, acknowledgement, window: this.#window });
  }

  #dispatch(packet: StreamPacket): "superseded" | undefined {
    const state = this.#state;
    switch (state.kind) {
      case "connecting":
        this.#handleWhileConnecting(packet);
        return undefined;
      case "offered":
        if (hasFlag(packet, FLAG.RST)) this.#fail("reset");
        return undefined;
      case "accepting":
        this.#handleWhileAccepting(packet, state);
        return undefined;
      case "open":
        return this.#handleWhileOpen(packet, state.link);
      case "time-wait":
        return this.#handleInTimeWait(packet, state.link);
      case "resetting":
        return this.#handleWhileResetting(packet, state);
      default:
        return isOpeningSyn(packet) ? "superseded" : undefined;
    }
  }

  #handleWhileConnecting(packet: StreamPacket): void {
    const isAck = hasFlag(packet, FLAG.ACK);
    const isForUs = isAck && packet.acknowledgement === this.#afterSyn;
    if (hasFlag(packet, FLAG.RST)) {
      // The reference's RST has no flag but RST, and all its numbers are 0.
      const isBare = !isAck && packet.sequence === 0 && packet.acknowledgement === 0;
      if (isBare || isForUs) this.#fail("refused");
      return;
    }
    if (!hasFlag(packet, FLAG.SYN) || !isForUs) return;
    this.#open({ sequence: packet.sequence, window: packet.window }).acknowledgeAtOnce(this.#now);
  }

  #handleWhileAccepting(packet: StreamPacket, { peer }: StreamState & { kind: "accepting" }): void {
    const expected = sequenceAdd(peer.sequence, 1);
    if (hasFlag(packet, FLAG.RST)) {
      if (packet.sequence === expected || packet.sequence === 0) this.#fail("reset");
      return;
    }
    if (isOpeningSyn(packet)) {
      if (packet.sequence === peer.sequence) this.#sendSynAck(expected);
      return;
    }
    if (!hasFlag(packet, FLAG.ACK) || packet.acknowledgement !== this.#afterSyn) return;
    // The packet may carry data: the bare ACK that came before it may be lost.
    this.#handleWhileOpen(packet, this.#open(peer));
  }

  #open(peer: PeerSyn): OpenLink {
    const isPeers = this.#state.kind === "accepting";
    const numbers = {
      ...{ ownSequence: this.#initialSequence, isPeers },
      ...{ peerSequence: peer.sequence, peerWindow: peer.window },
    };
    const surroundings = { outbox: this.#outbox, events: this.#events, shares: this.#shares, wake: this.#onChange };
    const link = new OpenLink(numbers, this.#options, this.#form, surroundings, this.#now);
    this.#state = { kind: "open", link };
    this.#events.push({ kind: "established" });
    if (this.#earlyEnd !== undefined) link.end(this.#earlyEnd, this.#now);
    return link;
  }

  // After the handshake.

  #handleWhileOpen(packet: StreamPacket, link: OpenLink): "superseded" | undefined {
    if (hasFlag(packet, FLAG.RST)) {
      if (link.acceptsReset(packet)) this.#fail("reset");
      return undefined;
    }
    if (isOpeningSyn(packet)) return this.#handleSynWhileOpen(packet, link);
    if (hasFlag(packet, FLAG.SYN)) {
      // A repeated SYN+ACK: our ACK was lost. Its numbers are wrong once the reference has sent something (§4.1).
      link.acknowledgeSoon(this.#now);
      return undefined;
    }
    this.#strangeSynAt = undefined;
    this.#conclude(link, link.handlePacket(packet, this.#now));
    return undefined;
  }

  /** A repeated SYN of this stream is answered again; one that keeps coming into a stream in use is a restarted node's. */
  #handleSynWhileOpen(packet: StreamPacket, link: OpenLink): "superseded" | undefined {
    if (link.isUnused && packet.sequence === sequenceAdd(link.receiveNext, -1)) {
      this.#sendSynAck(link.receiveNext);
      return undefined;
    }
    if (this.#strangeSynAt !== undefined && this.#now - this.#strangeSynAt >= STRANGE_SYN_INTERVAL_MS) {
      this.#fail("reset");
      return "superseded";
    }
    this.#strangeSynAt ??= this.#now;
    return undefined;
  }

  #handleInTimeWait(packet: StreamPacket, link: OpenLink): "superseded" | undefined {
    if (isOpeningSyn(packet)) return "superseded";
    if (hasFlag(packet, FLAG.RST)) this.#state = { kind: "closed", link };
    // A bare FIN asks whether we heard it. FIN+ACK is an answer, and answering answers is how the reference storms.
    else if (packet.flags === FLAG.FIN) link.acknowledgeSoon(this.#now);
    return undefined;
  }

  #handleWhileResetting(packet: StreamPacket, state: StreamState & { kind: "resetting" }): "superseded" | undefined {
    if (isOpeningSyn(packet)) return "superseded";
    if (hasFlag(packet, FLAG.RST)) this.#state = { kind: "closed", link: undefined };
    else if (this.#now - state.sentAt >= RESET_INTERVAL_MS) {
      this.#state = { ...state, sentAt: this.#now };
      this.#outbox.push(this.#form.reset(state.sequence));
    }
    return undefined;
  }

  #conclude(link: OpenLink, outcome: LinkOutcome | undefined): void {
    if (outcome === undefined) return;
    if (outcome.kind === "failed") {
      this.#events.push({ kind: outcome.failure });
      this.#breakOff();
      return;
    }
    this.#events.push({ kind: "closed", undeliveredBytes: link.undeliveredBytes });
    link.retire();
    this.#state = { kind: "time-wait", link, until: after(this.#now, TIME_WAIT_MS) };
  }

  // The end.

  #end(extent: "half" | "whole", now: Instant): void {
    this.#now = now;
    if (this.#state.kind === "open") this.#state.link.end(extent, now);
    else if (this.#earlyEnd !== "whole") this.#earlyEnd = extent;
    this.#onChange();
  }

  /** Without a word to the far side: it broke off itself, or is not there. */
  #fail(kind: StreamFailure): void {
    this.#events.push({ kind });
    this.#link?.abandon();
    this.#outbox.clear();
    this.#state = { kind: "closed", link: undefined };
  }

  #breakOff(): void {
    const state = this.#state;
    if (state.kind === "time-wait" || state.kind === "resetting" || state.kind === "closed") return;
    const sequence = state.kind === "open" ? state.link.sendNext : state.kind === "offered" ? 0 : this.#afterSyn;
    this.#link?.abandon();
    this.#outbox.clear();
    if (state.kind === "waiting") {
      this.#state = { kind: "closed", link: undefined };
      return;
    }
    this.#state = { kind: "resetting", sequence, sentAt: this.#now, until: after(this.#now, RESET_LINGER_MS) };
    this.#outbox.push(this.#form.reset(sequence));
  }

  #nextPacket(): StreamPacket | undefined {
    const state = this.#state;
    if (state.kind !== "open" && state.kind !== "time-wait") return undefined;
    return state.link.nextPacket(state.kind === "open", this.#now);
  }

  get #window(): number {
    return initialWindow(this.#options.receiveBufferBytes);
  }

  get #afterSyn(): number {
    return sequenceAdd(this.#initialSequence, 1);
  }

  get #link(): OpenLink | undefined {
    const state = this.#state;
    return state.kind === "open" || state.kind === "time-wait" || state.kind === "closed" ? state.link : undefined;
  }
}

export interface StreamParameters {
  readonly remote: PilotAddress;
  readonly localPort: number;
  readonly remotePort: number;
  readonly options: StreamOptions;
  /** Random and not 0, which is how the far side knows that we are no reference. */
  readonly initialSequence: number;
  readonly now: Instant;
  readonly shares?: StreamShares;
  /** Called after every command and input: there may be packets, events or another deadline. */
  readonly onChange: () => void;
}

const ONE_BYTE = new Uint8Array(1);
const FIRST_REPEAT_MS = 1_000;
const LONGEST_REPEAT_MS = 8_000;
const SYN_REPEATS = 6;
const OFFER_LIMIT_MS = 30_000;
const HALF_OPEN_LIMIT_MS = 10_000;
const STRANGE_SYN_INTERVAL_MS = 500;
const TIME_WAIT_MS = 10_000;
const RESET_LINGER_MS = 5_000;
const RESET_INTERVAL_MS = 1_000;
