/**
 * Plain Pilot agents as ordinary hosts: between their virtual packets and the packets of local programs. TCP becomes streams
 * (connections.ts), UDP becomes datagrams and an echo request a control ping (translation.ts). Nothing here decides who may
 * talk: outbound packets come from `Outbound` once they are allowed, inbound ones are checked by the caller.
 * As agents have it, both ends of whatever is said are in one network, any that both nodes are in.
 *
 * What happens to a packet for a peer depends on its mode, which the hello conversation sets:
 *   unknown   the packet goes out whole, and a copy waits in case the peer turns out to be plain;
 *   plain     it is translated;
 *   mixed     a pilot-tun to which translated connections are still open (it was plain before): those go on;
 *   whole     a pilot-tun: nothing to do here.
 */
import type { BlockPool } from "../../base/block-pool.ts";
import { readU16 } from "../../base/bytes.ts";
import type { Crypto } from "../../base/crypto.ts";
import type { DropCounters, DropReason } from "../../base/drop-reason.ts";
import { type Deadline, earlier, type Instant } from "../../base/instant.ts";
import type { Flow } from "../../policy/flow-table.ts";
import type { Way } from "../../policy/rule.ts";
import type { StreamPacket } from "../../stream/stream-packet.ts";
import type { TrustBook } from "../../trust/trust-book.ts";
import { MAX_LINKS, type StagedPacket } from "../../tunnel/data-plane.ts";
import type { Link } from "../../tunnel/link.ts";
import type { LinkTable } from "../../tunnel/link-table.ts";
import { networkAt } from "../../wire/address.ts";
import { BACKBONE, type NodeId, networkId, type PilotAddress } from "../../wire/ids.ts";
import { IPV6, NEXT_HEADER } from "../../wire/ipv6.ts";
import { VIRTUAL_SOURCE_PORT, type VirtualPacket } from "../../wire/virtual-packet.ts";
import type { Admission } from "../admission.ts";
import type { PeerKind } from "../bridge-conversation.ts";
import type { Networks } from "../networks.ts";
import type { NodeStreams, StreamPurpose } from "../node-streams.ts";
import type { WaitingInbound } from "../owner-questions.ts";
import type { Pings } from "../pings.ts";
import type { Refusals } from "../refusals.ts";
import { Connections, isTcpPacket, type TcpVerdict } from "./connections.ts";
import { Orphans } from "./orphans.ts";
import { OwnServices } from "./own-services.ts";
import { RestartQuestions } from "./restart-questions.ts";
import { type NatBinding, turnAround } from "./tcp-nat.ts";
import { TranslatedTraffic } from "./translated-traffic.ts";
import { Translation } from "./translation.ts";
import { WaitingPackets } from "./waiting-packets.ts";

export interface PlainAgentsParts {
  readonly local: NodeId;
  readonly links: LinkTable;
  readonly streams: NodeStreams;
  readonly pings: Pings;
  readonly refusals: Refusals;
  readonly crypto: Crypto;
  readonly trust: TrustBook;
  readonly drops: DropCounters;
  readonly admission: Admission;
  readonly networks: Pick<Networks, "areBothIn" | "sharedByName">;
  /** This node's. */
  hostname(): string | undefined;
  /** 16 bytes. */
  addressOf(address: PilotAddress): Uint8Array;
  kindOf(node: NodeId): PeerKind;
}

export const MODE = { UNKNOWN: 0, WHOLE: 1, PLAIN: 2, MIXED: 3 } as const;

/** "whole": send it as it is. "loopback": it was rewritten and goes back to the TUN. "taken": nothing more to do. */
export type PlainVerdict = "whole" | TcpVerdict;

export class PlainAgents {
  /** Per link index: one of MODE. */
  readonly modes = new Uint8Array(MAX_LINKS);
  readonly connections: Connections;
  readonly #parts: PlainAgentsParts;
  readonly #restarts = new RestartQuestions(({ node, than }) => this.connections.olderStreams(node, than));
  readonly #services: OwnServices;
  readonly #translation: Translation;
  readonly #waiting = new WaitingPackets();
  readonly #tunPackets: Uint8Array[] = [];
  /** Of trust, policy and memberships, when the services' streams were last judged. */
  #epoch: number;
  readonly traffic = new TranslatedTraffic();
  readonly orphans = new Orphans();

  constructor(parts: PlainAgentsParts) {
    this.#parts = parts;
    this.#epoch = parts.trust.epoch;
    this.#services = new OwnServices({
      local: parts.local,
      hostname: () => parts.hostname(),
      sharedNetwork: (name, other) => parts.networks.sharedByName(name, other),
    });
    this.connections = new Connections({
      ...{ streams: parts.streams, services: this.#services },
      randomBytes: (length) => parts.crypto.randomBytes(length),
      addressOf: (node) => parts.addressOf({ network: BACKBONE, node }),
      deliver: (packet) => this.#deliver(packet),
      unreachable: (packet, now) => parts.refusals.unreachable(packet, now),
      heardAt: (node) => parts.links.get(node)?.lastReceivedAt,
      mayReach: (agent, port) => this.#mayCome(agent) && parts.admission.mayLetIn(agent, port),
      changed: (node) => this.#refreshMode(node),
    });
    this.#translation = new Translation({
      ...parts,
      deliver: (packet) => this.#deliver(packet),
      traffic: this.traffic,
    });
  }

  /** What data of connections lies in, here and at the edge. */
  get blocks(): BlockPool {
    return this.#parts.streams.blocks;
  }

  // ---- what is known of a peer

  /** The peer's kind was learned. */
  kindChanged(node: NodeId, now: Instant): void {
    this.#refreshMode(node);
    const kind = this.#parts.kindOf(node);
    if (kind === "pilot-tun") {
      this.#waiting.release(node);
      this.orphans.take(node); // they were none
    }
    if (kind === "plain") this.#releaseTo(node, now);
  }

  linkUp(node: NodeId, now: Instant): void {
    this.#refreshMode(node);
    if (this.#parts.kindOf(node) === "plain") this.#releaseTo(node, now);
  }

  /** The peer answers to nothing: nor will it to a SYN. */
  linkDown(node: NodeId, now: Instant): void {
    this.connections.giveUpDials(node, now);
  }

  /** The programs have been told that the peer does not answer. */
  linkUnreachable(node: NodeId): void {
    this.#waiting.release(node);
  }

  /** Ends everything with a peer that may not talk to us any more. */
  cut(node: NodeId, now: Instant): void {
    this.#waiting.release(node);
    this.connections.cut(node, now);
    this.#services.cut(({ remote }) => remote.node !== node, now);
    this.#parts.streams.flush(now);
  }

  /**
   * With new keys an agent may have been started anew, and know nothing of what was open. It would stay silent about that;
   * its host, had it none but a kernel, would answer with resets.
   */
  rekeyed({ node, establishedAt }: Link, now: Instant): void {
    if (this.#parts.kindOf(node) === "plain" && establishedAt !== undefined) {
      this.#restarts.ask({ node, than: establishedAt }, now);
    }
  }

  /** This daemon ends, and the sockets behind all connections with it. */
  close(now: Instant): void {
    this.connections.cutAll(now);
    this.#parts.streams.flush(now);
  }

  /** Memberships changed: what is between addresses that are no longer there ends. */
  networksChanged(now: Instant): void {
    this.connections.cutNetworks(({ network, node }) => this.#parts.networks.areBothIn(network, node), now);
    this.#parts.streams.flush(now);
  }

  /** Consequences of what happened elsewhere in the engine. */
  settle(now: Instant): void {
    const { pings, refusals } = this.#parts;
    for (let echo = pings.pollEchoAnswer(); echo !== undefined; echo = pings.pollEchoAnswer()) {
      const refused = this.#translation.answerEcho(echo, now);
      if (refused !== undefined) this.#parts.drops.count(refused);
    }
    this.#cutFlows(refusals.takeCut(), now);
    if (this.#parts.trust.epoch === this.#epoch) return;
    this.#epoch = this.#parts.trust.epoch;
    const { admission } = this.#parts;
    this.#services.cut(({ remote, localPort }) => this.#mayCome(remote) && admission.letsIn(remote, localPort), now);
  }

  /** Whether an agent may talk to us at all from this address of its own. */
  #mayCome(agent: PilotAddress): boolean {
    const { trust, networks } = this.#parts;
    return trust.stateOf(agent.node) === "mutual" && networks.areBothIn(agent.network, agent.node);
  }

  /** These flows may go on no longer: the far sides and the daemon's sockets hear it too. */
  #cutFlows(flows: readonly Flow[], now: Instant): void {
    for (const { protocol, link, remote, localPort, remotePort } of flows) {
      const node = this.#parts.links.at(link)?.node;
      const isTcp = protocol === NEXT_HEADER.TCP && node !== undefined;
      const network = networkId(readU16(remote, FLOW_NETWORK));
      const binding = isTcp ? this.connections.nat.find(node, network, localPort, remotePort) : undefined;
      if (binding !== undefined) this.connections.cutOne(binding.id, now);
    }
  }

  linkClosed(link: Link): void {
    this.modes[link.index] = MODE.UNKNOWN;
    this.#waiting.release(link.node);
    this.#translation.forget(link);
    this.traffic.forget(link.node); // the caller has added it up
  }

  // ---- outbound

  turnAround(packet: Uint8Array, binding: NatBinding, checksumIsPartial: boolean): void {
    turnAround(packet, binding.other, checksumIsPartial);
  }

  /** TCP with this node ends here, and goes on as streams. */
  endsTcp(node: NodeId): boolean {
    return this.#parts.kindOf(node) === "plain";
  }

  /** An allowed packet; its bytes are borrowed, and rewritten in place for "loopback". */
  handlePacket(link: Link, packet: StagedPacket, now: Instant): PlainVerdict {
    const mode = this.modes[link.index];
    const { bytes } = packet;
    const isOfOneNetwork = networkAt(bytes, IPV6.SOURCE) === networkAt(bytes, IPV6.DESTINATION);
    if (mode === MODE.PLAIN && !isOfOneNetwork) {
      this.#parts.refusals.unreachable(bytes, now);
      return "peer-kind";
    }
    if (isTcpPacket(bytes) && isOfOneNetwork) {
      const isKnown = this.connections.knows(link.node, bytes);
      if (isKnown || (mode === MODE.PLAIN && link.isUp)) {
        return this.connections.handleProgramPacket(link.node, packet, now);
      }
    }
    if (mode === MODE.UNKNOWN) this.#waiting.hold(link.node, packet, now);
    if (mode !== MODE.PLAIN) return "whole";
    return link.isUp ? this.#translation.send(link, packet, now) : this.#wait(link, packet, now);
  }

  #wait(link: Link, packet: StagedPacket, now: Instant): PlainVerdict {
    link.connect(now);
    return this.#waiting.hold(link.node, packet, now) ? "taken" : "staging-full";
  }

  // ---- inbound

  /** A datagram of a peer that may talk to us; its bytes are borrowed. */
  handleDatagram(link: Link, packet: VirtualPacket, now: Instant): DropReason | undefined {
    return this.#translation.handleDatagram(link, packet, now);
  }

  /** A datagram made into a packet, which waited to hear whose socket it is for. */
  decideHeld(link: Link, { packet, byRelay }: WaitingInbound, now: Instant): DropReason | undefined {
    return this.#translation.decideTranslated(link, packet, now, byRelay);
  }

  pollTunPacket(): Uint8Array | undefined {
    return this.#tunPackets.shift();
  }

  // ---- streams

  /** The way that packets of a stream must take; its ports as seen from here. */
  wayOf(node: NodeId, localPort: number, remotePort: number): Way | undefined {
    return this.connections.ways.of(node, localPort, remotePort);
  }

  /** What a stream says to its far side; it repeats what is lost. */
  sendStreamPacket(
    node: NodeId,
    header: Uint8Array,
    { payload, segmentBytes }: StreamPacket,
    purpose: StreamPurpose,
    now: Instant,
  ): void {
    const link = this.#parts.links.get(node);
    if (link === undefined) return;
    if (purpose !== "trust" && !link.isUp) link.connect(now);
    const run = { header, payload, segmentBytes: segmentBytes ?? Math.max(1, payload.length) };
    const way = this.wayOf(node, readU16(header, VIRTUAL_SOURCE_PORT), readU16(header, VIRTUAL_SOURCE_PORT + 2));
    if (way === "direct" && link.path.isRelayed) return this.#parts.drops.count("wrong-path");
    if (!link.sendVirtual(run, false, way) || purpose === "trust") return;
    this.traffic.noteSent(node, payload.length, Math.ceil(payload.length / run.segmentBytes));
    if (purpose === "question") link.noteSent(now);
    else link.noteUse(now);
  }

  // ---- time

  pollTimeout(): Deadline | undefined {
    const connections = earlier(this.connections.pollTimeout(), this.#restarts.pollTimeout());
    return earlier(this.#waiting.pollTimeout(), connections);
  }

  handleTimeout(now: Instant): void {
    this.connections.handleTimeout(now);
    for (const { node, than } of this.#restarts.handleTimeout(now)) this.connections.cutOlder(node, than, now);
    for (const node of this.#waiting.overdue(now)) {
      const packets = this.#waiting.release(node);
      if (this.#parts.kindOf(node) !== "plain") continue; // they have gone out whole: the link tells of them
      this.#parts.drops.count("no-path", packets.length);
      for (const packet of packets) this.#parts.refusals.unreachable(packet.bytes, now);
    }
  }

  // ---- inside

  #refreshMode(node: NodeId): void {
    const link = this.#parts.links.get(node);
    if (link === undefined) return;
    const before = this.modes[link.index];
    const mode = this.#modeOf(node);
    this.modes[link.index] = mode;
    if (before === mode) return;
    if (mode === MODE.UNKNOWN) this.traffic.kindIsUnknown(link);
    else if (before === MODE.UNKNOWN) this.traffic.kindIsKnown(link, mode === MODE.PLAIN);
  }

  #modeOf(node: NodeId): number {
    const kind = this.#parts.kindOf(node);
    if (kind === "plain") return MODE.PLAIN;
    if (kind === "unknown") return MODE.UNKNOWN;
    return this.connections.nat.has(node) ? MODE.MIXED : MODE.WHOLE;
  }

  #releaseTo(node: NodeId, now: Instant): void {
    const link = this.#parts.links.get(node);
    if (!link?.isUp) return;
    for (const packet of this.#waiting.release(node)) {
      const verdict = this.handlePacket(link, packet, now);
      if (verdict !== "taken" && verdict !== "loopback" && verdict !== "whole") this.#parts.drops.count(verdict);
    }
    for (const packet of this.orphans.take(node)) this.#deliver(packet);
  }

  #deliver(packet: Uint8Array): void {
    if (this.#tunPackets.length < MAX_QUEUED) this.#tunPackets.push(packet);
  }
}

/** Where the last twelve bytes of an overlay address name its network. */
const FLOW_NETWORK = 2;
/** Written to the TUN at the end of each input; a batch of datagrams is far smaller. */
const MAX_QUEUED = 65_536;
