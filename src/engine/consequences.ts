/**
 * What follows from what a link, the registry or the beacon report: the engine's inner wiring. Each input of the engine
 * ends in `settle`, which asks every source for events until none has any.
 */
import type { DropCounters } from "../base/drop-reason.ts";
import type { Instant } from "../base/instant.ts";
import type { BeaconEvent } from "../beacon/client.ts";
import type { RegistryEvent } from "../registry/events.ts";
import type { StagedPacket } from "../tunnel/data-plane.ts";
import type { Link } from "../tunnel/link.ts";
import type { LinkEvent } from "../tunnel/link-context.ts";
import type { LinkTable, Transmit } from "../tunnel/link-table.ts";
import type { BeaconWay } from "./beacon-way.ts";
import type { BridgeConversation } from "./bridge-conversation.ts";
import type { DirectHandshakes } from "./direct-handshakes.ts";
import type { EngineEvent, EngineParts } from "./engine-ports.ts";
import type { Gate } from "./gate.ts";
import type { Introductions } from "./introductions.ts";
import type { KnownEndpoints } from "./known-endpoints.ts";
import type { Leases } from "./leases.ts";
import type { Networks } from "./networks.ts";
import type { NodeStreams } from "./node-streams.ts";
import type { PacketSizes } from "./packet-sizes.ts";
import type { Paths } from "./paths.ts";
import type { Pings } from "./pings.ts";
import type { PlainAgents } from "./plain/plain-agents.ts";
import type { Refusals } from "./refusals.ts";
import type { RevocationNotices } from "./revocation-notices.ts";
import { SilentRevocations } from "./silent-revocations.ts";
import type { Strangers } from "./strangers.ts";

export interface ConsequencesParts extends Pick<EngineParts, "registry" | "beacon" | "trust"> {
  readonly links: LinkTable;
  readonly endpoints: KnownEndpoints;
  readonly introductions: Introductions;
  readonly networks: Networks;
  readonly strangers: Strangers;
  readonly bridge: BridgeConversation;
  readonly pings: Pings;
  readonly direct: DirectHandshakes;
  readonly notices: RevocationNotices;
  readonly sizes: PacketSizes;
  readonly paths: Paths;
  readonly beaconWay: BeaconWay;
  readonly plain: PlainAgents;
  readonly streams: NodeStreams;
  readonly refusals: Refusals;
  readonly drops: DropCounters;
  readonly gate: Gate;
  readonly leases: Leases;
  emit(event: EngineEvent): void;
  transmit(transmit: Transmit): void;
}

export class Consequences {
  readonly #parts: ConsequencesParts;
  readonly #silent: SilentRevocations;
  /** How many sessions came up, and how many keys were agreed on inside them. */
  readonly counters = { sessions: 0, agreements: 0 };

  constructor(parts: ConsequencesParts) {
    this.#parts = parts;
    this.#silent = new SilentRevocations({
      registry: parts.registry,
      isPlain: (node) => parts.bridge.kindOf(node) === "plain",
      noPair: (node, now) => parts.introductions.heardNoPair(node, now),
    });
  }

  /** Consequences of an input inside the engine, until nothing is left to do; bounded, each round consumes events. */
  settle(now: Instant): void {
    this.#parts.leases.settle(now);
    this.#parts.plain.settle(now);
    for (const node of this.#parts.plain.connections.takeUnanswered()) {
      if (this.#parts.links.get(node)?.isUp) this.#silent.doubt(node, now);
    }
    const { registry, beacon } = this.#parts;
    for (let round = 0; round < MAX_SETTLE_ROUNDS; round++) {
      let idle = true;
      for (let event = this.#parts.links.pollEvent(); event !== undefined; event = this.#parts.links.pollEvent()) {
        idle = false;
        this.#handleLink(event, now);
      }
      for (let event = registry.pollEvent(); event !== undefined; event = registry.pollEvent()) {
        idle = false;
        this.#handleRegistryEvent(event, now);
      }
      for (let event = beacon?.pollEvent(); event !== undefined; event = beacon?.pollEvent()) {
        idle = false;
        this.#handleBeacon(event, now);
      }
      if (this.#parts.streams.settle(now)) idle = false;
      if (idle) break;
    }
    this.#parts.leases.settle(now);
    this.#parts.beaconWay.settle(now);
    this.#collectOutputs();
  }

  #collectOutputs(): void {
    const beacon = this.#parts.paths.beaconEndpoint;
    if (beacon !== undefined) {
      for (
        let bytes = this.#parts.beacon?.pollDatagram();
        bytes !== undefined;
        bytes = this.#parts.beacon?.pollDatagram()
      ) {
        this.#parts.transmit({ to: beacon, datagram: bytes });
      }
    }
    for (let pong = this.#parts.pings.pollPong(); pong !== undefined; pong = this.#parts.pings.pollPong()) {
      this.#parts.emit({ kind: "pong", pong });
    }
    const { owners } = this.#parts.gate;
    for (let question = owners.pollQuestion(); question !== undefined; question = owners.pollQuestion()) {
      this.#parts.emit({ kind: "owner-wanted", question });
    }
    const changed = this.#parts.trust.takeChanged();
    if (changed !== undefined) this.#parts.emit({ kind: "trust-changed", mayWait: changed === "soon" });
  }

  #handleLink(event: LinkEvent, now: Instant): void {
    const { link } = event;
    switch (event.kind) {
      case "up":
        this.counters.sessions++;
        this.#rememberEndpoint(link);
        this.#parts.bridge.linkUp(link, now);
        this.#proveKey(link, link.sendSlot, now); // also the first round trip to show
        this.#parts.direct.linkUp(link.node, now);
        this.#parts.notices.reset(link.node);
        this.#parts.notices.send(link, now);
        this.#parts.plain.linkUp(link.node, now);
        this.#parts.gate.trail?.pathChanged(link);
        return;
      case "rekeyed":
        return this.#parts.plain.rekeyed(link, now);
      case "down":
        this.#parts.plain.linkDown(link.node, now);
        this.#parts.notices.send(link, now);
        this.#parts.gate.trail?.pathChanged(link);
        return this.#parts.sizes.forget(link);
      case "moved":
        this.#parts.sizes.mtus.moved(link, now);
        this.#rememberEndpoint(link);
        this.#parts.gate.trail?.pathChanged(link);
        return;
      case "agreed":
        this.counters.agreements++;
        return this.#parts.introductions.heardAgreement(link.node);
      case "unsecured":
        return this.#parts.introductions.heardNoAgreement(link.node);
      case "forgotten":
        return this.#silent.doubt(link.node, now);
      case "endpoint-wanted":
        this.#parts.registry.resolve(link.node);
        this.#parts.paths.requestPunch(link.node, now);
        this.#parts.beaconWay.handleSuspicion(now);
        return;
      case "proof-wanted":
        return this.#proveKey(link, event.keySlot, now);
      case "direct-proof-wanted":
        return this.#parts.pings.proveDirect(link, event.endpoint, now);
      case "relay-proof-wanted":
        return this.#parts.pings.proveRelay(link, now);
      case "hello-due":
        // The ping of the session's beginning may have come before the peer had its key.
        if (this.#parts.pings.rttMs(link.node) === undefined) this.#parts.pings.send(link, now);
        return this.#parts.bridge.helloDue(link, now);
      case "notice-due":
        this.#parts.notices.send(link, now);
        return;
      case "mtu-probe-due":
      case "mtu-check-due":
        return this.#parts.sizes.handleDue(link, event.kind, now);
      case "unreachable":
        this.#refuseStaged(event.packets, now);
        this.#parts.plain.linkUnreachable(link.node);
        return;
      case "barred":
        this.#parts.drops.count("wrong-path");
        this.#parts.gate.governor.refuseDetour(link, event.packet.bytes, now);
        return;
    }
  }

  #proveKey(link: Link, keySlot: number | undefined, now: Instant): void {
    if (keySlot === undefined) this.#parts.pings.send(link, now);
    else this.#parts.pings.prove(link, keySlot, now);
  }

  #refuseStaged(packets: readonly StagedPacket[], now: Instant): void {
    this.#parts.drops.count("no-path", packets.length);
    for (const packet of packets) this.#parts.refusals.unreachable(packet.bytes, now);
  }

  #handleRegistryEvent(event: RegistryEvent, now: Instant): void {
    if (event.kind === "registered") {
      this.#parts.introductions.registered(now);
      this.#parts.beacon?.registered(now);
    }
    this.#parts.networks.handleRegistry(event, now);
    this.#parts.gate.handleRegistry(event, now);
    if (event.kind === "network" || event.kind === "key-rotated" || event.kind === "key-kept") this.#parts.emit(event);
    if (event.kind === "command-done" && event.command.kind === "deregister")
      this.#parts.emit({ kind: "deregistered" });
    if (event.kind === "command-failed" && event.command.kind === "deregister") {
      this.#parts.emit({ kind: "deregistered", error: event.error });
    }
    this.#parts.strangers.handleRegistry(event, now);
    this.#silent.handleRegistry(event, now);
    if (event.kind === "hostname") {
      this.#parts.emit({ kind: "hostname", name: event.name, node: event.node, error: event.error });
    }
    this.#parts.introductions.handleRegistry(event, now);
  }

  #handleBeacon(event: BeaconEvent, now: Instant): void {
    switch (event.kind) {
      case "notify":
        this.#parts.registry.pollHandshakes();
        return;
      case "punch":
        this.#parts.paths.handlePunch(event.endpoint, now);
        return;
      case "observed":
        if (this.#parts.beaconWay.transport !== "udp" || this.#parts.paths.handleObserved(event.endpoint, now)) return;
        return this.#parts.drops.count("beacon-limited");
      case "accepted":
        return this.#parts.paths.handleAccepted(now);
    }
  }

  #rememberEndpoint(link: Link): void {
    if (this.#parts.endpoints.learn(link)) this.#parts.emit({ kind: "endpoints-changed" });
  }
}

const MAX_SETTLE_ROUNDS = 16;
