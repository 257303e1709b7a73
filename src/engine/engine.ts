/**
 * One node of the overlay, without I/O: joins routing, trust, tunnels, the registry's and the beacon's conversation.
 *
 * Contract: every input carries `now` (monotonic); `handleClock` says what time that is for others. After each input
 * drain, in this order, until empty: pollTransmit (then call sendReleased once), pollTunPacket, pollEvent; then arm one timer for pollTimeout. Inputs:
 * `handleTunBatch`, `handleUdpBatch` (rows of the data plane, borrowed), `handleRegistry`, `handleTimeout`, and the
 * operator's commands. Nothing throws on what came from outside.
 */

import { DropCounters, type DropReason } from "../base/drop-reason.ts";
import type { Endpoint, LocalAddress } from "../base/endpoint.ts";
import type { Problem } from "../base/error-code.ts";
import { after, type Deadline, earlier, type Instant, type WallClock } from "../base/instant.ts";
import { FlowTable } from "../policy/flow-table.ts";
import type { Policy } from "../policy/policy.ts";
import type { SocketOwner } from "../policy/socket-owner.ts";
import { Routes } from "../routing/routes.ts";
import type { LeaseTime } from "../trust/lease.ts";
import type { StagedPacket } from "../tunnel/data-plane.ts";
import type { LocalIdentity } from "../tunnel/key-exchange.ts";
import type { Link } from "../tunnel/link.ts";
import { LinkTable, type Transmit } from "../tunnel/link-table.ts";
import { REKEY_LIMITS } from "../tunnel/rekeying.ts";
import { encodeAddressBytes, type OverlayPrefix } from "../wire/address.ts";
import { type NetworkId, type NodeId, networkId } from "../wire/ids.ts";
import type { Admission } from "./admission.ts";
import { AuditTrail } from "./audit-trail.ts";
import { BeaconMtu } from "./beacon-mtu.ts";
import { BeaconWay } from "./beacon-way.ts";
import { BridgeConversation, type PeerKind } from "./bridge-conversation.ts";
import { Consequences } from "./consequences.ts";
import { Datagrams } from "./datagrams.ts";
import { DirectHandshakes } from "./direct-handshakes.ts";
import type { EngineCounters, EngineEvent, EngineOptions, EngineParts, LinkFacts } from "./engine-ports.ts";
import { Gate } from "./gate.ts";
import { Inbound } from "./inbound.ts";
import { type IntroductionParts, Introductions } from "./introductions.ts";
import { KnownEndpoints } from "./known-endpoints.ts";
import { Leases } from "./leases.ts";
import { LinkHistory } from "./link-history.ts";
import { Networks, NO_NETWORKS } from "./networks.ts";
import { NodeStreams } from "./node-streams.ts";
import { Outbound } from "./outbound.ts";
import { PacketSizes } from "./packet-sizes.ts";
import { Parting } from "./parting.ts";
import { Paths } from "./paths.ts";
import { downgradeProblem, keyChangeProblem } from "./peer-problems.ts";
import { Pings } from "./pings.ts";
import { PlainAgents } from "./plain/plain-agents.ts";
import { addPlaneDrops } from "./plane-drops.ts";
import { Refusals } from "./refusals.ts";
import { RevocationNotices } from "./revocation-notices.ts";
import { Strangers } from "./strangers.ts";
import { VirtualPackets } from "./virtual-packets.ts";

export type { EngineCounters, EngineEvent, EngineOptions, EngineParts, LinkFacts } from "./engine-ports.ts";

export class Engine {
  readonly node: NodeId;
  readonly prefix: OverlayPrefix;
  readonly routes: Routes;
  readonly introductions: Introductions;
  readonly networks: Networks;
  /** Decides about flows. */
  readonly gate: Gate;
  readonly leases: Leases;
  readonly paths: Paths;
  readonly sizes: PacketSizes;
  /** Local programs' connections with peers that are no pilot-tun; the edge lends it sockets. */
  readonly plain: PlainAgents;
  /** UDP or TCP to the beacon; the edge reports what became of the connection. */
  readonly beaconWay: BeaconWay;
  readonly #beaconMtu: BeaconMtu;
  readonly #options: EngineOptions;
  readonly #parts: EngineParts;
  readonly #links: LinkTable;
  readonly #flows = new FlowTable();
  readonly #drops = new DropCounters();
  readonly #refusals: Refusals;
  readonly #strangers: Strangers;
  readonly #pings: Pings;
  readonly #bridge: BridgeConversation;
  readonly #notices: RevocationNotices;
  readonly streams: NodeStreams;
  readonly #direct: DirectHandshakes;
  readonly outbound: Outbound;
  readonly #inbound: Inbound;
  readonly #transmits: Transmit[] = [];
  readonly #events: EngineEvent[] = [];
  /** Packets for the interface that waited. Bound: what OwnerQuestions holds; emptied after each input. */
  readonly #held: Uint8Array[] = [];
  readonly #history: LinkHistory;
  readonly #endpoints: KnownEndpoints;
  readonly #parting: Parting;
  readonly #consequences: Consequences;
  /** Key: code. Bound: one per code and pinned peer. */
  readonly problems = new Map<string, Problem>();
  #clockOffsetMs = 0;
  /** The first `#clockOffsetMs`: how long flows are idle must not change because the clock is set. */
  readonly #steadyOffsetMs: number;

  constructor(options: EngineOptions, parts: EngineParts, now: Instant, wall: WallClock) {
    this.#options = options;
    this.#parts = parts;
    this.node = options.node;
    this.prefix = options.prefix;
    this.#endpoints = new KnownEndpoints(options.endpoints);
    this.#clockOffsetMs = wall - now;
    this.#steadyOffsetMs = wall - now;
    const local: LocalIdentity = options;
    this.networks = this.#createNetworks();
    this.routes = new Routes(options.prefix.bytes, options.node, [networkId(0), ...this.networks.memberships()]);
    this.#pings = new Pings(options.node, (link, sequence, at) => this.#bridge.heardPong(link, sequence, at));
    this.paths = new Paths(
      { ...parts, listenPort: options.listenPort, links: () => this.#links },
      options.beaconEndpoint,
      now,
    );
    this.beaconWay = this.#createBeaconWay(now);
    this.#beaconMtu = new BeaconMtu({
      crypto: parts.crypto,
      local: options.node,
      beacon: () => this.paths.beaconEndpoint,
      transmit: (transmit) => this.#transmits.push(transmit),
      measured: (bytes) => this.#events.push({ kind: "beacon-mtu", bytes }),
    });
    this.#links = new LinkTable({
      crypto: parts.crypto,
      dataPlane: parts.dataPlane,
      local,
      allowLegacyKeys: options.allowLegacyKeys,
      relayOnly: options.relayOnly ?? false,
      relay: () => this.paths.beaconEndpoint,
      relayKind: () => this.paths.relayKind,
      rekey: { ...REKEY_LIMITS, ...options.rekey },
      mustAgree: (node) => this.#bridge.agrees && parts.trust.get(node)?.agreesOnKeys === true,
      wantsKeepalive: (link) => this.#bridge.kindOf(link.node) !== "plain",
    });
    this.#refusals = new Refusals(this.addressOf(options.node), now);
    this.#strangers = new Strangers({
      lookup: (node) => parts.registry.lookup(node),
      mayBelong: (packet, node, at) => this.networks.mayBelong(packet, node, at),
      noRoute: (packet, at) => this.#refusals.noRoute(packet, at),
      prohibited: (packet, at) => this.#refusals.prohibited(packet, at),
    });
    this.leases = new Leases(
      { trust: parts.trust, links: this.#links, end: (node, how, at) => this.introductions.endLease(node, how, at) },
      options.leaseNow ?? (0 as LeaseTime),
      now,
    );
    this.#bridge = this.#createBridge(parts.crypto.randomBytes(8));
    this.#notices = new RevocationNotices(parts.trust, this.#bridge);
    this.introductions = this.#createIntroductions(now);
    this.streams = new NodeStreams(
      {
        local: options.node,
        randomBytes: (length) => parts.crypto.randomBytes(length),
        send: (...packet) => this.plain.sendStreamPacket(...packet),
      },
      now,
    );
    this.gate = this.#createGate(now, wall);
    this.plain = new PlainAgents({
      ...{ local: this.node, links: this.#links, streams: this.streams, pings: this.#pings },
      admission: this.admission,
      ...{ refusals: this.#refusals, crypto: parts.crypto, trust: parts.trust, drops: this.#drops },
      networks: this.networks,
      hostname: () => parts.registry.hostname,
      addressOf: (address) => encodeAddressBytes(options.prefix, address),
      kindOf: (node) => this.#bridge.kindOf(node),
    });
    this.#direct = new DirectHandshakes({
      local,
      crypto: parts.crypto,
      streams: this.streams,
      introductions: this.introductions,
      book: parts.trust,
      drops: this.#drops,
      wall: (at) => this.#wall(at),
      revocationHeard: (node, at) => this.#revocationHeard(node, at),
    });
    const shared = {
      dataPlane: parts.dataPlane,
      flows: this.#flows,
      ...{ admission: this.admission, governor: this.gate.governor, leases: this.leases },
      ...{ related: this.gate.related, owners: this.gate.owners },
      links: this.#links,
      routes: this.routes,
      networks: this.networks,
      plain: this.plain,
      trust: parts.trust,
      drops: this.#drops,
      trail: this.gate.trail,
    };
    this.sizes = new PacketSizes({
      ...{ ...shared, mtuBytes: options.mtuBytes, bridge: this.#bridge, pings: this.#pings, paths: this.paths },
      decide: (link, packet, at) => this.#inbound.decideReassembled(link, packet, at),
    });
    this.outbound = new Outbound({
      ...shared,
      sizes: this.sizes,
      refusals: this.#refusals,
      refuseStranger: (packet, node, at) => this.#strangers.refuse(packet, node, at),
    });
    const datagrams = new Datagrams({
      links: this.#links,
      beacon: parts.beacon,
      beaconEndpoint: () => this.paths.beaconEndpoint,
      wrongKey: (node, at) => this.introductions.heardWrongKey(node, at),
      heardEcho: (frame, at) => this.#beaconMtu.handleFrame(frame, at),
      heardBeacon: (datagram, source, at) => this.beaconWay.handleDatagram(datagram, source, at),
    });
    this.#history = new LinkHistory({
      relay: () => options.beaconEndpoint,
      rttMs: (of) => this.#pings.rttMs(of),
      kindOf: (of) => this.#bridge.kindOf(of),
      addTranslated: (of, sum) => this.plain.traffic.addTo(sum, of),
    });
    const virtual = new VirtualPackets({ ...shared, pings: this.#pings, bridge: this.#bridge, streams: this.streams });
    this.#inbound = new Inbound({
      ...shared,
      sizes: this.sizes,
      mtuBytes: options.mtuBytes,
      heardPacket: (link, at) => this.#bridge.heardPacket(link, at),
      handleVirtual: (...packet) => virtual.handle(...packet),
      handleDatagram: (...datagram) => datagrams.handle(...datagram),
    });
    const ends = { links: this.#links, bridge: this.#bridge, pings: this.#pings, direct: this.#direct };
    const talk = { ...ends, notices: this.#notices, sizes: this.sizes, plain: this.plain, streams: this.streams };
    const kept = { refusals: this.#refusals, flows: this.#flows, history: this.#history, leases: this.leases };
    this.#parting = new Parting({ ...talk, ...kept, explanations: this.gate.explanations });
    this.#consequences = new Consequences({
      ...{ ...talk, ...parts, refusals: this.#refusals, strangers: this.#strangers, drops: this.#drops },
      ...{ gate: this.gate, leases: this.leases },
      ...{ endpoints: this.#endpoints, introductions: this.introductions, networks: this.networks },
      ...{ paths: this.paths, beaconWay: this.beaconWay },
      emit: (event) => this.#events.push(event),
      transmit: (transmit) => this.#transmits.push(transmit),
    });
    this.introductions.resume(now);
    this.leases.settle(now);
    this.leases.handleTimeout(now); // what ended while this daemon did not run
  }

  // ---- inputs

  /** `wall` is what other machines call `now`; must be called at least after every clock change. */
  handleClock(now: Instant, wall: WallClock): void {
    this.gate.trail?.handleClock(now, wall);
    const isSet = Math.abs(wall - now - this.#clockOffsetMs) > CLOCK_SET_MS;
    this.#clockOffsetMs = wall - now;
    if (isSet) this.admission.handleClockSet(now);
  }

  handleTunBatch(count: number, now: Instant): void {
    this.beaconWay.noteUse(now);
    this.outbound.decide(count, now, this.steadyS(now));
    this.#settle(now);
  }

  handleUdpBatch(count: number, now: Instant): void {
    this.#inbound.decide(count, now, this.steadyS(now));
    this.#settle(now);
  }

  /** The registry's client has news. */
  handleRegistry(now: Instant): void {
    this.#settle(now);
  }

  handleTimeout(now: Instant): void {
    this.#links.handleTimeout(now);
    this.#strangers.handleTimeout(now);
    this.networks.handleTimeout(now);
    this.introductions.handleTimeout(now);
    this.gate.handleTimeout(now);
    if (this.leases.handleTimeout(now)) this.#events.push({ kind: "trust-changed", mayWait: false });
    this.streams.handleTimeout(now);
    this.#direct.handleTimeout(now);
    this.plain.handleTimeout(now);
    this.#parts.beacon?.handleTimeout(now);
    this.beaconWay.handleTimeout(now);
    this.#beaconMtu.handleTimeout(now);
    this.#settle(now);
  }

  /** The machine slept for so long, while `now` stood still. */
  handleSleep(ms: number, now: Instant): void {
    this.leases.handleSleep(ms);
    this.#settle(now);
  }

  /** The machine's underlay addresses, or that it slept; true when connections to servers should be renewed. */
  handleUnderlay(local: readonly LocalAddress[], resumed: boolean, now: Instant): boolean {
    const matters = this.paths.handleUnderlay(local, resumed, now);
    if (matters) this.beaconWay.handleSuspicion(now);
    this.#settle(now);
    return matters;
  }

  // ---- commands

  /** Where the beacon is from now on, and how it is reached; relayed links follow at once. */
  setBeaconEndpoint(endpoint: Endpoint, transport: "udp" | "tcp", now: Instant): void {
    this.paths.setBeacon(endpoint, transport, now);
    this.#settle(now);
  }

  /** Tries every way to a peer, for `trace`; the outcome is in `link(node).path`. */
  probeEveryWay(node: NodeId, now: Instant): void {
    this.#links.get(node)?.probeEveryWay(now);
    this.#settle(now);
  }

  /** Finds how large a datagram to the beacon may be: the event `beacon-mtu`. */
  measureBeaconMtu(now: Instant): void {
    this.#parts.beacon?.suspect(now); // after a change of our NAT mapping nothing comes back until the beacon knows
    this.#beaconMtu.measure(now);
    this.#settle(now);
  }

  get admission(): Admission {
    return this.gate.admission;
  }

  /** To the event "owner-wanted"; undefined: nobody knows. */
  answerOwner(id: number, owner: SocketOwner | undefined, now: Instant): void {
    this.gate.owners.answer(id, owner, now);
    this.#settle(now);
  }

  link(node: NodeId): Link | undefined {
    return this.#links.get(node);
  }

  /** A control ping; its sequence number, or undefined while there is no key (the link is being made then). */
  ping(node: NodeId, now: Instant): number | undefined {
    const link = this.#links.get(node);
    if (link === undefined) return undefined;
    if (!link.isUp) link.connect(now);
    link.noteUse(now);
    this.beaconWay.noteUse(now);
    const sequence = this.#pings.send(link, now);
    if (sequence !== undefined) link.noteSent(now); // silence is noticed as it is after a program's packet
    this.#settle(now);
    return sequence;
  }

  resolveHostname(name: string): void {
    this.#parts.registry.resolveHostname(name);
  }

  /** Says goodbye to nobody (`plain.close` did, to agents): peers find out by silence, or by our next start. Wipes all keys. */
  close(): void {
    this.leases.close();
    this.gate.trail?.close();
    for (const link of [...this.#links.links()]) this.#links.close(link.node);
  }

  // ---- outputs

  pollTransmit(): Transmit | undefined {
    return this.#links.pollTransmit() ?? this.paths.pollTransmit() ?? this.#transmits.shift();
  }

  /** Packets that waited for a key: they follow the key exchange that makes them readable. */
  sendReleased(): void {
    this.#links.sendReleased();
  }

  pollTunPacket(): Uint8Array | undefined {
    return this.#refusals.pollPacket() ?? this.sizes.pollPacket() ?? this.plain.pollTunPacket() ?? this.#held.shift();
  }

  /**
   * Packets of programs that waited for an answer: they are put before `handleTunBatch` once more, like packets that were
   * just read. Must be asked for after `pollEvent`, until there are none.
   */
  takeHeld(): StagedPacket[] {
    return this.gate.owners.takeOutbound();
  }

  pollEvent(): EngineEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    let first = earlier(this.#links.pollTimeout(), this.#strangers.pollTimeout());
    first = earlier(first, earlier(this.networks.pollTimeout(), this.gate.pollTimeout()));
    first = earlier(first, earlier(this.leases.pollTimeout(), this.streams.pollTimeout()));
    first = earlier(first, earlier(this.#direct.pollTimeout(), this.introductions.pollTimeout()));
    first = earlier(first, this.plain.pollTimeout());
    first = earlier(first, earlier(this.beaconWay.pollTimeout(), this.#beaconMtu.pollTimeout()));
    return earlier(first, this.#parts.beacon?.pollTimeout());
  }

  // ---- questions

  addressOf(node: NodeId): Uint8Array {
    return encodeAddressBytes(this.#options.prefix, { network: networkId(0), node });
  }

  linkFacts(node: NodeId): LinkFacts | undefined {
    const link = this.#links.get(node);
    return link && { ...this.#history.facts(link), ...this.sizes.facts(link) };
  }

  beaconFacts(now: Instant): { state: "ok" | "waiting" | "down"; observed: Endpoint | undefined } {
    const { repliedAt, observed } = this.#parts.beacon ?? {};
    if (repliedAt === undefined) return { state: "waiting", observed: undefined };
    return { state: after(repliedAt, BEACON_SILENCE_MS) > now ? "ok" : "down", observed };
  }

  /** What peers are: a hint for the next start. */
  knownKinds(): ReadonlyMap<NodeId, PeerKind> {
    return this.#bridge.kinds;
  }

  /** Endpoints worth keeping for the next start. */
  knownEndpoints(): ReadonlyMap<NodeId, Endpoint> {
    return this.#endpoints.all();
  }

  counters(): EngineCounters {
    let staged = 0;
    for (const link of this.#links.links()) staged += link.stagedPackets;
    return { ...this.#consequences.counters, ...this.admission.counters, flows: this.#flows.size, staged };
  }

  /** Of packets that never came here. */
  countDrop(reason: DropReason, packets = 1): void {
    this.#drops.count(reason, packets);
  }

  drops(): Partial<Record<DropReason, number>> {
    const drops = this.#drops.nonZero();
    addPlaneDrops(drops, this.#parts.dataPlane.counters);
    return drops;
  }

  /** The time of flows: Unix seconds as they were when this daemon started, and since then real ones. */
  steadyS(now: Instant): number {
    return Math.floor((now + this.#steadyOffsetMs) / 1000);
  }

  // ---- inside

  #createGate(now: Instant, wall: WallClock): Gate {
    const state = { flows: this.#flows, links: this.#links, routes: this.routes, refusals: this.#refusals };
    const own = { leases: this.leases, bridge: this.#bridge, networks: this.networks };
    return new Gate(
      {
        ...this.#parts,
        ...state,
        ...own,
        emit: (event) => this.#events.push(event),
        createTrail: (policy) => this.#createTrail(policy, now, wall),
        wall: (at) => this.#wall(at),
        steadyS: (at) => this.steadyS(at),
      },
      this.#options.tags ?? [],
    );
  }

  /** Packets of peers that waited for an answer. */
  #decideHeld(now: Instant): void {
    const { owners } = this.gate;
    for (let waiting = owners.pollInbound(); waiting !== undefined; waiting = owners.pollInbound()) {
      const link = this.#links.get(waiting.node);
      if (link === undefined) continue;
      const refused = waiting.isTranslated
        ? this.plain.decideHeld(link, waiting, now)
        : this.#inbound.decideHeld(link, waiting, now, this.steadyS(now));
      if (refused !== undefined) this.#drops.count(refused);
      else if (!waiting.isTranslated) this.#held.push(waiting.packet);
    }
  }

  #wall(now: Instant): WallClock {
    return (now + this.#clockOffsetMs) as WallClock;
  }

  #settle(now: Instant): void {
    this.#decideHeld(now);
    this.#consequences.settle(now);
  }

  #createBeaconWay(now: Instant): BeaconWay {
    const { beaconEndpoint, hasBeaconTcp } = this.#options;
    return new BeaconWay(
      beaconEndpoint,
      hasBeaconTcp ?? false,
      {
        use: (endpoint, transport, at) => this.paths.setBeacon(endpoint, transport, at),
        transmit: (transmit) => this.#transmits.push(transmit),
        wantTcp: (wanted) => this.#events.push({ kind: "beacon-tcp", wanted }),
      },
      now,
    );
  }

  #createBridge(instance: Uint8Array): BridgeConversation {
    return new BridgeConversation({
      local: this.#options.node,
      mtuBytes: this.#options.mtuBytes,
      instance,
      consentTo: (node, now) => this.introductions.consentTo(node, now),
      heardConsent: (node, said, now) => this.introductions.heardConsent(node, said, now),
      heardRevoked: (node, revocation, now) => this.introductions.heardTakenBack(node, revocation, now),
      heardRevokedAck: (node, now) => this.#revocationHeard(node, now),
      heardSize: (link, message, now) => this.sizes.handleMessage(link, message, now),
      explanations: () => this.gate.explanations,
      ping: (link, now) => this.#pings.send(link, now),
      plainOnly: this.#options.plainOnly ?? false,
      agrees: this.#options.agreesOnKeys ?? true,
      kinds: this.#options.kinds ?? new Map(),
      kindChanged: (node, now) => {
        this.#events.push({ kind: "kinds-changed" });
        this.plain.kindChanged(node, now);
      },
    });
  }

  #createTrail(policy: Policy, now: Instant, wall: WallClock): AuditTrail | undefined {
    const { audit: sink, crypto, trust } = this.#parts;
    if (sink === undefined) return undefined;
    const state = { flows: this.#flows, links: this.#links, trust, policy, networks: [...this.networks.memberships()] };
    const { prefix } = this.#options;
    const emit = (event: EngineEvent) => void this.#events.push(event);
    const ways = { leases: this.leases, steadyS: (at: Instant) => this.steadyS(at), emit };
    return new AuditTrail({ sink, crypto, prefix, ...state, ...ways }, now, wall);
  }

  #createNetworks(): Networks {
    const { trust, registry } = this.#parts;
    const changed = (lost: readonly NetworkId[], now: Instant) => this.#networksChanged(lost, now);
    const own = { prefix: this.#options.prefix, local: this.node, refusals: () => this.#refusals };
    return new Networks({ ...own, registry, trust, changed }, this.#options.networks ?? NO_NETWORKS);
  }

  #networksChanged(lost: readonly NetworkId[], now: Instant): void {
    this.routes.setNetworks([networkId(0), ...this.networks.memberships()]);
    this.#parts.trust.bumpEpoch();
    const nowS = this.steadyS(now);
    for (const network of lost) this.#refusals.cut(this.#flows.cutNetwork(network, nowS));
    this.plain.networksChanged(now);
    this.introductions.membershipsChanged((node) => this.networks.sharesJoined(node), now);
    this.gate.trail?.networksChanged([...this.networks.memberships()]);
    this.#events.push({ kind: "networks-changed" });
  }

  #createIntroductions(start: Instant): Introductions {
    const { trust, registry } = this.#parts;
    const parts: IntroductionParts = {
      ...{ book: trust, registry },
      wall: (now) => this.#wall(now),
      openLink: (node, publicKey, now) => {
        const link = this.#links.open(node, publicKey);
        const endpoint = this.#endpoints.get(node);
        if (endpoint !== undefined) link?.suggestEndpoint(endpoint, "cached", now);
      },
      closeLink: (node, now) => this.#parting.closeLink(node, now),
      connectLink: (node, now) => this.#links.get(node)?.connect(now),
      located: (node, endpoint, lan, now) => this.paths.handleResolved(node, endpoint, lan, now),
      leases: this.leases,
      leasesChanged: (now) => this.admission.leasesChanged(now),
      cutFlows: (node, why, now) => this.#parting.cutFlows(node, why, this.steadyS(now), now),
      consentChanged: (node, now) => {
        const link = this.#links.get(node);
        if (link !== undefined) this.#bridge.consentChanged(link, now);
      },
      sayDirectly: (node, word, now) => this.#direct.say(node, word, this.#links.get(node)?.isUp ?? false, now),
      notifyRevoked: (node, now) => this.#parting.notifyRevoked(node, now),
      keyChanged: (record, key) => {
        this.problems.set(`key_changed ${record.node}`, keyChangeProblem(record, key, this.#parts.crypto));
        this.gate.trail?.keyOffered(record, key);
      },
      keySettled: (node) => void this.problems.delete(`key_changed ${node}`),
      agreementMissed: (record) => this.problems.set(`session_downgraded ${record.node}`, downgradeProblem(record)),
      agreementSettled: (node) => void this.problems.delete(`session_downgraded ${node}`),
      consentFor: (node, now) => this.networks.consentFor(node, now),
    };
    return new Introductions(parts, start);
  }

  #revocationHeard(node: NodeId, now: Instant): void {
    this.introductions.heardRevocationAck(node, now);
    this.#events.push({ kind: "revocation-acknowledged", node });
  }
}

/** More than what time servers correct bit by bit. */
const CLOCK_SET_MS = 2_000;
/** Three discovers without an answer. */
const BEACON_SILENCE_MS = 80_000;
