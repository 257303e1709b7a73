/**
 * TCP between local programs and plain agents: which connections there are, and how each begins and ends.
 *
 * Out: the program's SYN is held while a stream is dialled to the same port. Established: the SYN goes to the daemon's
 * listener through the NAT, and the kernel answers the program. Refused: RST at once. No answer: ICMPv6 "unreachable".
 * In: a stream to port P makes the daemon connect to [L]:P through the NAT, so that the local server sees the agent's own
 * address; it is accepted when the server accepted, and refused when the server refused.
 *
 * A program's packets were judged by trust and policy before they get here, each of them; a stream's SYN was too.
 */
import { readU16, readU32, writeU16 } from "../../base/bytes.ts";
import { DeadlineHeap } from "../../base/deadline-heap.ts";
import type { DropReason } from "../../base/drop-reason.ts";
import { after, type Deadline, type Instant } from "../../base/instant.ts";
import type { Way } from "../../policy/rule.ts";
import { Fifo } from "../../stream/fifo.ts";
import type { Stream } from "../../stream/stream.ts";
import type { StreamEvent } from "../../stream/stream-event.ts";
import type { StagedPacket } from "../../tunnel/data-plane.ts";
import { networkAt } from "../../wire/address.ts";
import { transportChecksum } from "../../wire/checksum.ts";
import { BACKBONE, type NodeId, type PilotAddress } from "../../wire/ids.ts";
import { IPV6, IPV6_HEADER_BYTES, NEXT_HEADER } from "../../wire/ipv6.ts";
import { encodeReset, MIN_TCP_HEADER_BYTES, TCP, TCP_FLAG } from "../../wire/tcp.ts";
import { FIRST_EPHEMERAL_PORT } from "../../wire/virtual-packet.ts";
import type { NodeStreams, StreamOwner } from "../node-streams.ts";
import { Connection } from "./connection.ts";
import type { OwnServices } from "./own-services.ts";
import type { SocketCommand, SocketEvent } from "./socket-messages.ts";
import { StreamWays } from "./stream-ways.ts";
import { type NatBinding, type NatSide, type NatSides, TcpNat, turnAround } from "./tcp-nat.ts";

export interface ConnectionsParts {
  readonly streams: NodeStreams;
  readonly services: OwnServices;
  randomBytes(length: number): Uint8Array;
  /** 16 bytes, in network 0. */
  addressOf(node: NodeId): Uint8Array;
  /** Writes a whole packet to the TUN. */
  deliver(packet: Uint8Array): void;
  /** Tells a program that nobody answers. */
  unreachable(packet: Uint8Array, now: Instant): void;
  /** When anything at all last came from the node. */
  heardAt(node: NodeId): Instant | undefined;
  /** Whether the agent, at this address of its own, may reach this port of ours. */
  mayReach(agent: PilotAddress, port: number): boolean;
  /** The number of a node's connections became zero, or one. */
  changed(node: NodeId): void;
}

/** What becomes of a program's packet. */
export type TcpVerdict = "loopback" | "taken" | DropReason;

export class Connections implements StreamOwner {
  readonly nat = new TcpNat();
  readonly ways = new StreamWays();
  /** Where the daemon's listener is; undefined until it is open. */
  listenerPort: number | undefined;
  readonly #parts: ConnectionsParts;
  /** Bound: the nodes of the connections; emptied after each input. */
  readonly #unanswered = new Set<NodeId>();
  /** Key: id. Bound: MAX_CONNECTIONS; an entry goes when its NAT ports are free again. */
  readonly #connections = new Map<number, Connection>();
  /** Bound: the connections. */
  readonly #byStream = new Map<Stream, Connection>();
  /** Those that are over, in the order in which they ended. */
  readonly #over = new Set<Connection>();
  readonly #deadlines = new DeadlineHeap<Connection>();
  readonly #commands = new Fifo<SocketCommand>();
  readonly #tellSockets = (command: SocketCommand): void => this.#commands.push(command);
  #lastId = 0;

  constructor(parts: ConnectionsParts) {
    this.#parts = parts;
    parts.streams.listenToRest("ask", this);
  }

  /** Connections that are not over. */
  get size(): number {
    return this.#connections.size - this.#over.size;
  }

  // ---- packets of the TUN

  /**
   * A TCP packet of a program to the agent, between addresses of one network, allowed; rewritten in place when the verdict is
   * "loopback".
   */
  handleProgramPacket(node: NodeId, packet: StagedPacket, now: Instant): TcpVerdict {
    const { bytes } = packet;
    const flags = bytes[IPV6_HEADER_BYTES + TCP.FLAGS]!;
    const isOpening = (flags & (TCP_FLAG.SYN | TCP_FLAG.ACK | TCP_FLAG.RST)) === TCP_FLAG.SYN;
    const binding = this.#bindingOf(node, bytes);
    const connection = binding && this.#connections.get(binding.id);
    if (connection !== undefined && !(isOpening && connection.phase === "over")) {
      this.ways.set(connection.stream, packet.way);
      if (connection.phase === "dialing") return "taken"; // a repeated SYN
      turnAround(bytes, binding!.other, packet.csumStart !== 0);
      return "loopback";
    }
    if (connection !== undefined) this.#remove(connection);
    if (isOpening) return this.#open(node, packet, now);
    this.#resetStranger(bytes, flags);
    return "no-session";
  }

  /**
   * A SYN of this host on the daemon's side: true for one of the daemon's own. Any other is a program's, to which the kernel
   * gave the port of a connection that is over; that one is forgotten.
   */
  isOwnSyn({ id }: NatBinding): boolean {
    const connection = this.#connections.get(id);
    if (connection?.phase === "connecting") return true;
    if (connection?.phase === "over") this.#remove(connection);
    return connection !== undefined && connection.phase !== "over";
  }

  /** True for a TCP packet of a program whose connection the NAT knows. */
  knows(node: NodeId, packet: Uint8Array): boolean {
    return this.#bindingOf(node, packet) !== undefined;
  }

  /** The agent may not talk to us any more, or we not to it: ends all, both ways, now. */
  cut(node: NodeId, now: Instant): void {
    this.#cutThose((connection) => connection.node === node, now);
  }

  cutAll(now: Instant): void {
    this.#cutThose(() => true, now);
  }

  /** The same for those whose far side had answered before that instant. */
  cutOlder(node: NodeId, than: Instant, now: Instant): void {
    this.#cutThose((connection) => isOlder(connection, node, than), now);
  }

  /** Of those that `cutOlder` would cut. */
  olderStreams(node: NodeId, than: Instant): Stream[] {
    const older = [...this.#byStream.values()].filter((connection) => isOlder(connection, node, than));
    return older.map(({ stream }) => stream).filter((stream) => stream.stateKind === "open");
  }

  /** The same for connections in networks of which `isShared` says that one of both is not in them any more. */
  cutNetworks(isShared: (agent: PilotAddress) => boolean, now: Instant): void {
    const isGone = ({ stream: { remote } }: Connection) => remote.network !== BACKBONE && !isShared(remote);
    this.#cutThose(isGone, now);
  }

  /** Agents that have left SYNs without any answer since this was last asked. */
  takeUnanswered(): NodeId[] {
    const nodes = [...this.#unanswered];
    this.#unanswered.clear();
    return nodes;
  }

  giveUpDials(node: NodeId, now: Instant): void {
    for (const connection of [...this.#connections.values()]) {
      if (connection.node === node && connection.phase === "dialing") this.#handleOverdue(connection, now);
    }
  }

  #cutThose(isMeant: (connection: Connection) => boolean, now: Instant): void {
    for (const connection of [...this.#connections.values()]) if (isMeant(connection)) this.cutOne(connection.id, now);
  }

  /** The same for one connection. */
  cutOne(id: number, now: Instant): void {
    const connection = this.#connections.get(id);
    if (connection === undefined || connection.phase === "over") return;
    connection.stream.reset(now);
    if (connection.phase === "dialing") this.#refuseProgram(connection);
    else this.#breakSocket(connection);
    this.#end(connection, now);
  }

  /** What the agent began is allowed, on this way. */
  setWay(id: number, way: Way | undefined): void {
    const connection = this.#connections.get(id);
    if (connection !== undefined) this.ways.set(connection.stream, way);
  }

  /** What the agent began may not be: as if nobody listened. */
  refuse(id: number, now: Instant): void {
    const connection = this.#connections.get(id);
    if (connection?.phase !== "connecting") return;
    connection.stream.refuse(now);
    this.#breakSocket(connection);
    this.#end(connection, now);
  }

  // ---- streams

  handleRequested(stream: Stream, now: Instant): void {
    const { node } = stream.remote;
    const isOurs = stream.localPort === this.listenerPort || this.listenerPort === undefined;
    if (isOurs || !this.#parts.mayReach(stream.remote, stream.localPort)) {
      stream.refuse(now);
      return;
    }
    const connection = this.#create(node, stream, undefined);
    if (connection === undefined) {
      stream.refuse(now);
      return;
    }
    connection.answeredAt = now;
    this.#deadlines.set(connection, { at: after(now, CONNECT_LIMIT_MS), reason: "plain-connect" });
    this.#commands.push({ kind: "connect", id: connection.id, remoteAddress: this.#parts.addressOf(node) });
  }

  handleAccepted(stream: Stream, now: Instant): void {
    const { services } = this.#parts;
    if (services.has(stream)) return services.handleStreamEvent(stream, { kind: "established" }, now);
    const connection = this.#byStream.get(stream);
    connection?.pumpToStream(now);
    connection?.pumpToProgram(now);
  }

  handleStreamEvent(stream: Stream, event: StreamEvent, now: Instant): void {
    const { services } = this.#parts;
    if (services.has(stream)) return services.handleStreamEvent(stream, event, now);
    const connection = this.#byStream.get(stream);
    if (connection === undefined) return;
    switch (event.kind) {
      case "established":
        return this.#handOver(connection, now);
      case "readable":
        return connection.pumpToProgram(now);
      case "writable":
        return connection.pumpToStream(now);
      case "ended":
        return connection.handleAgentEnded(now);
      case "closed":
        return this.#handleStreamClosed(connection, now);
      default:
        connection.streamIsOver = true;
        this.#handleStreamFailed(connection, event.kind === "timed-out", now);
    }
  }

  // ---- sockets

  /**
   * Our listener has a connection from this port of the agent's address: its id; undefined: nobody knows it. "connected"
   * follows when the socket takes commands.
   */
  handleSocketAccepted(node: NodeId, remotePort: number): number | undefined {
    if (this.listenerPort === undefined) return undefined;
    const binding = this.nat.find(node, BACKBONE, this.listenerPort, remotePort);
    const connection = binding && this.#connections.get(binding.id);
    if (connection?.phase !== "handed-over") return undefined;
    connection.phase = "open";
    this.#deadlines.set(connection, undefined);
    return connection.id;
  }

  /**
   * The socket for a "connect" will come from this port, which nobody else on this host has: the port at the agent's
   * address to connect to; undefined: the connection is over.
   */
  handleSocketBound(id: number, localPort: number): number | undefined {
    const connection = this.#connections.get(id);
    if (connection?.phase !== "connecting") return undefined;
    const sides = this.#sidesOfServer(connection, localPort);
    return sides !== undefined && this.#bind(connection, sides) ? sides.daemon.remotePort : undefined;
  }

  handleSocketEvent(event: SocketEvent, now: Instant): void {
    const connection = this.#connections.get(event.id);
    if (connection === undefined || connection.phase === "over") return;
    switch (event.kind) {
      case "connected":
        return this.#handleConnected(connection, now);
      case "refused":
        return this.#handleServerRefused(connection, now);
      case "data":
        return connection.handleData(event.bytes, now);
      case "written":
        connection.handleWritten(event.byteCount, now);
        if (connection.streamIsOver) this.#deadlines.set(connection, orphanDeadline(now)); // slow, but alive
        return;
      case "ended":
        connection.handleProgramEnded(now);
        if (connection.streamIsOver) this.#deadlines.set(connection, orphanDeadline(now));
        return;
      case "closed":
        connection.socketIsGone = true;
        if (!event.inOrder && !connection.streamIsOver) connection.stream.reset(now);
        if (!event.inOrder || connection.streamIsOver) this.#end(connection, now);
        return;
    }
  }

  pollCommand(): SocketCommand | undefined {
    return this.#commands.shift();
  }

  // ---- time

  pollTimeout(): Deadline | undefined {
    return this.#deadlines.first()?.deadline;
  }

  handleTimeout(now: Instant): void {
    for (let first = this.#deadlines.first(); first !== undefined; first = this.#deadlines.first()) {
      if (first.deadline.at > now) return;
      this.#deadlines.set(first.owner, undefined);
      const { owner } = first;
      const at = this.#patienceEndsAt(owner, now);
      if (owner.phase === "dialing" && owner.stream.stateKind === "connecting") this.#unanswered.add(owner.node);
      if (at !== undefined && at > now) this.#deadlines.set(owner, { at, reason: "plain-dial" });
      else this.#handleOverdue(owner, now);
    }
  }

  /**
   * An agent may take its time, but one from which nothing came since the SYN, though the link has asked for life meanwhile,
   * is not there. What was under way when the SYN left says nothing of that.
   */
  #patienceEndsAt(connection: Connection, now: Instant): Instant | undefined {
    const dueAt = answerDueAt(connection, now);
    const { dialledAt } = connection.stream;
    if (dueAt === undefined || dialledAt === undefined) return dueAt;
    const heardAt = this.#parts.heardAt(connection.node);
    const isSilent = heardAt === undefined || heardAt < after(dialledAt, UNDER_WAY_MS);
    return isSilent ? (Math.min(dueAt, after(dialledAt, DIAL_DOUBT_MS)) as Instant) : dueAt;
  }

  #handleOverdue(connection: Connection, now: Instant): void {
    if (connection.phase === "over") return this.#remove(connection);
    if (connection.phase === "connecting") connection.stream.refuse(now);
    else connection.stream.reset(now);
    if (connection.phase === "dialing") this.#parts.unreachable(connection.syn!, now);
    else this.#breakSocket(connection);
    this.#end(connection, now);
  }

  #bindingOf(node: NodeId, packet: Uint8Array): NatBinding | undefined {
    const { network, localPort, remotePort } = programSideOf(packet);
    return this.nat.find(node, network, localPort, remotePort);
  }

  // ---- beginnings

  #open(node: NodeId, packet: StagedPacket, now: Instant): TcpVerdict {
    const { bytes } = packet;
    const program = programSideOf(bytes);
    if (this.listenerPort === undefined) return this.#tellFull(bytes, now);
    const remote = { network: program.network, node };
    const stream = this.#parts.streams.dial(this, remote, program.remotePort, now);
    if (stream === undefined) return this.#tellFull(bytes, now);
    const connection = this.#create(node, stream, wholeCopy(packet));
    const remotePort = this.nat.freeRemotePort(node, BACKBONE, this.listenerPort, program.localPort);
    const isBound =
      connection !== undefined &&
      remotePort !== undefined &&
      this.#bind(connection, { program, daemon: { network: BACKBONE, localPort: this.listenerPort, remotePort } });
    if (!isBound) {
      if (connection !== undefined) this.#remove(connection);
      stream.reset(now);
      return this.#tellFull(bytes, now);
    }
    this.ways.set(stream, packet.way);
    connection.askedAt = now;
    this.#deadlines.set(connection, { at: after(now, DIAL_DOUBT_MS), reason: "plain-dial" });
    return "taken";
  }

  #tellFull(packet: Uint8Array, now: Instant): DropReason {
    this.#parts.unreachable(packet, now);
    return "no-path";
  }

  /** The agent's port at its own address if that is free, so that logs show what the agent sees. */
  #sidesOfServer({ node, stream }: Connection, localPort: number): NatSides | undefined {
    const { network } = stream.remote;
    const remotePort = this.nat.freeRemotePort(node, network, stream.localPort, stream.remotePort);
    if (remotePort === undefined) return undefined;
    const random = readU32(this.#parts.randomBytes(4), 0);
    const natPort = this.nat.freeRemotePort(node, BACKBONE, localPort, FIRST_EPHEMERAL_PORT + (random % NAT_PORTS));
    if (natPort === undefined) return undefined;
    return {
      program: { network, localPort: stream.localPort, remotePort },
      daemon: { network: BACKBONE, localPort, remotePort: natPort },
    };
  }

  /** Undefined: there are too many. */
  #create(node: NodeId, stream: Stream, syn: Uint8Array | undefined): Connection | undefined {
    if (this.#connections.size >= MAX_CONNECTIONS)
      for (const oldest of this.#over) {
        this.#remove(oldest);
        break;
      }
    if (this.#connections.size >= MAX_CONNECTIONS) return undefined;
    const connection = new Connection({ id: ++this.#lastId, node, stream, syn }, this.#tellSockets);
    this.#connections.set(connection.id, connection);
    this.#byStream.set(stream, connection);
    return connection;
  }

  /** False when one of the sides is taken. */
  #bind(connection: Connection, sides: NatSides): boolean {
    if (!this.nat.add(connection.node, connection.id, sides)) return false;
    connection.sides = sides;
    this.#parts.changed(connection.node);
    return true;
  }

  /** The far side answered: now the program may have its answer, from the kernel. */
  #handOver(connection: Connection, now: Instant): void {
    if (connection.phase !== "dialing") return;
    connection.phase = "handed-over";
    connection.answeredAt = now;
    const packet = connection.takeSyn()!;
    turnAround(packet, connection.sides!.daemon, false);
    this.#parts.deliver(packet);
    this.#deadlines.set(connection, { at: after(now, ACCEPT_LIMIT_MS), reason: "plain-accept" });
  }

  #handleConnected(connection: Connection, now: Instant): void {
    if (connection.phase === "connecting") {
      connection.phase = "open";
      this.#deadlines.set(connection, undefined);
      connection.stream.accept(now);
    }
    connection.pumpToProgram(now);
  }

  #handleServerRefused(connection: Connection, now: Instant): void {
    connection.socketIsGone = true;
    if (this.#parts.services.offers(connection.stream.localPort)) {
      this.#byStream.delete(connection.stream);
      this.#parts.services.take(connection.stream, now);
    } else {
      connection.stream.refuse(now);
    }
    this.#end(connection, now);
  }

  // ---- ends

  #handleStreamClosed(connection: Connection, now: Instant): void {
    connection.streamIsOver = true;
    if (connection.socketIsGone) return this.#end(connection, now);
    if (connection.phase !== "open") return this.#deadlines.set(connection, orphanDeadline(now));
    connection.pumpToProgram(now);
    connection.pumpToStream(now);
    this.#deadlines.set(connection, orphanDeadline(now));
  }

  #handleStreamFailed(connection: Connection, isSilent: boolean, now: Instant): void {
    if (connection.phase === "dialing") {
      if (isSilent) this.#parts.unreachable(connection.syn!, now);
      else this.#refuseProgram(connection);
    } else {
      this.#breakSocket(connection);
    }
    this.#end(connection, now);
  }

  /** As the far side's own kernel would refuse the SYN (RFC 9293 §3.10.7.1). */
  #refuseProgram({ syn }: Connection): void {
    const acknowledgement = (readU32(syn!, IPV6_HEADER_BYTES + TCP.SEQUENCE) + 1) >>> 0;
    this.#parts.deliver(encodeReset({ ...answerTo(syn!), sequence: 0, acknowledgement }));
  }

  /** A packet of a connection from before our start, or long over: its program must not wait. */
  #resetStranger(packet: Uint8Array, flags: number): void {
    if ((flags & TCP_FLAG.RST) !== 0 || (flags & TCP_FLAG.ACK) === 0) return;
    const sequence = readU32(packet, IPV6_HEADER_BYTES + TCP.ACKNOWLEDGEMENT);
    this.#parts.deliver(encodeReset({ ...answerTo(packet), sequence }));
  }

  #breakSocket(connection: Connection): void {
    if (!connection.socketIsGone) this.#commands.push({ kind: "reset", id: connection.id });
  }

  /** The NAT keeps its ports a while longer: the kernels' last words, and TIME_WAIT. */
  #end(connection: Connection, now: Instant): void {
    connection.phase = "over";
    this.#byStream.delete(connection.stream);
    this.ways.set(connection.stream, undefined);
    this.#over.add(connection);
    this.#deadlines.set(connection, { at: after(now, LINGER_MS), reason: "plain-linger" });
  }

  #remove(connection: Connection): void {
    this.#deadlines.set(connection, undefined);
    this.#over.delete(connection);
    this.#byStream.delete(connection.stream);
    this.#connections.delete(connection.id);
    if (connection.sides === undefined) return;
    this.nat.remove(connection.node, connection.sides);
    this.#parts.changed(connection.node);
  }
}

/** Its far side had answered before that instant. */
function isOlder({ node, answeredAt }: Connection, ofNode: NodeId, than: Instant): boolean {
  return node === ofNode && answeredAt !== undefined && answeredAt < than;
}

/**
 * When it is too late for the agent's answer. The reference takes so few SYNs a second that in a burst many wait their turn
 * for longer than an answer may take; the program's kernel waits for two minutes.
 */
function answerDueAt({ phase, stream, askedAt }: Connection, now: Instant): Instant | undefined {
  if (phase !== "dialing" || askedAt === undefined) return undefined;
  const dialledAt = stream.stateKind === "waiting" ? now : (stream.dialledAt ?? askedAt);
  return Math.min(after(dialledAt, DIAL_LIMIT_MS), after(askedAt, TURN_LIMIT_MS)) as Instant;
}

function programSideOf(packet: Uint8Array): NatSide {
  const network = networkAt(packet, IPV6.DESTINATION);
  return { network, localPort: portAt(packet, TCP.SOURCE_PORT), remotePort: portAt(packet, TCP.DESTINATION_PORT) };
}

function portAt(packet: Uint8Array, field: number): number {
  return readU16(packet, IPV6_HEADER_BYTES + field);
}

/** Addresses and ports of a packet that answers this one. */
function answerTo(packet: Uint8Array) {
  return {
    source: packet.slice(IPV6.DESTINATION, IPV6.DESTINATION + 16),
    destination: packet.slice(IPV6.SOURCE, IPV6.SOURCE + 16),
    sourcePort: portAt(packet, TCP.DESTINATION_PORT),
    destinationPort: portAt(packet, TCP.SOURCE_PORT),
  };
}

/** A copy whose checksum is complete. */
function wholeCopy({ bytes, csumStart }: StagedPacket): Uint8Array {
  const packet = bytes.slice();
  if (csumStart === 0) return packet;
  writeU16(packet, IPV6_HEADER_BYTES + TCP.CHECKSUM, 0);
  writeU16(packet, IPV6_HEADER_BYTES + TCP.CHECKSUM, transportChecksum(packet, IPV6_HEADER_BYTES, NEXT_HEADER.TCP));
  return packet;
}

function orphanDeadline(now: Instant): Deadline {
  return { at: after(now, ORPHAN_LIMIT_MS), reason: "plain-orphan" };
}

/** A TCP packet that can be looked at: its header is there. */
export function isTcpPacket(packet: Uint8Array): boolean {
  return packet[IPV6.NEXT_HEADER] === NEXT_HEADER.TCP && packet.length >= IPV6_HEADER_BYTES + MIN_TCP_HEADER_BYTES;
}

const MAX_CONNECTIONS = 16_384;
/** How long a program waits for a far side that says nothing; the stream alone would wait 39 s. */
const DIAL_LIMIT_MS = 15_000;
/** After three SYNs. */
const DIAL_DOUBT_MS = 3_500;
const UNDER_WAY_MS = 500;
const TURN_LIMIT_MS = 120_000;
const CONNECT_LIMIT_MS = 8_000;
const ACCEPT_LIMIT_MS = 10_000;
/** A program that neither reads nor ends, when nobody is left to talk to. */
const ORPHAN_LIMIT_MS = 60_000;
/** Linux keeps TIME_WAIT for 60 s. */
const LINGER_MS = 65_000;
const NAT_PORTS = 16_384;
