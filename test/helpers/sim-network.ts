/**
 * A network in memory: real engines, the real registry and beacon, one fake clock. Links delay, lose and reorder
 * datagrams from a seed; nodes can be killed, restarted (with what they had on disk), moved, and cut off the registry.
 */
import type { AuditSink } from "../../src/audit/record.ts";
import { utf8 } from "../../src/base/bytes.ts";
import type { Crypto } from "../../src/base/crypto.ts";
import type { Endpoint } from "../../src/base/endpoint.ts";
import { sameEndpoint } from "../../src/base/endpoint.ts";
import { type Instant, instant, type WallClock } from "../../src/base/instant.ts";
import { BeaconClient } from "../../src/beacon/client.ts";
import { OwnIdentity } from "../../src/daemon/own-identity.ts";
import type { PeerKind } from "../../src/engine/bridge-conversation.ts";
import { Engine, type EngineEvent } from "../../src/engine/engine.ts";
import { NO_NETWORKS, type StoredNetworks } from "../../src/engine/networks.ts";
import { HIDDEN } from "../../src/engine/paths.ts";
import type { StoredTags } from "../../src/engine/peer-tags.ts";
import { RegistryClient } from "../../src/registry/client.ts";
import { BeaconServer } from "../../src/rendezvous/beacon.ts";
import { MemoryStore } from "../../src/rendezvous/memory-store.ts";
import { RegistryServer } from "../../src/rendezvous/registry.ts";
import { Conversation } from "../../src/rendezvous/request-context.ts";
import type { LeaseTime } from "../../src/trust/lease.ts";
import { TrustBook } from "../../src/trust/trust-book.ts";
import type { StagedPacket } from "../../src/tunnel/data-plane.ts";

import type { RekeyLimits } from "../../src/tunnel/link-context.ts";
import { PortableCrypto } from "../../src/tunnel/portable-crypto.ts";
import { PortableDataPlane } from "../../src/tunnel/portable-data-plane.ts";
import { DEFAULT_OVERLAY_PREFIX } from "../../src/wire/address.ts";
import { NOTIFY_HANDSHAKES } from "../../src/wire/beacon.ts";
import { type NodeId, nodeId } from "../../src/wire/ids.ts";
import { EventQueue, type QueuedEvent } from "./event-queue.ts";
import { whole } from "./inner-packets.ts";
import { olderCrypto } from "./older-generation.ts";
import { askText } from "./registry-caller.ts";
import { seededBytes } from "./seeded-bytes.ts";

export const BEACON: Endpoint = { address: "192.0.2.1", port: 9001 };
export const ADMIN_TOKEN = "the operator's own token";
const WALL_START = 1_760_000_000_000;

export interface Conditions {
  latencyMs: number;
  jitterMs: number;
  loss: number;
  /** Share of datagrams that arrive twice, the copy up to a second later. */
  duplication: number;
}

/** A datagram as the network sees it; a tap may change it, or return undefined to drop it. */
export interface Flight {
  readonly from: Endpoint;
  readonly to: Endpoint;
  readonly bytes: Uint8Array;
  /** What a test knows of it; copies keep it. */
  readonly tag?: number | undefined;
}

export class SimNetwork {
  readonly conditions: Conditions = { latencyMs: 5, jitterMs: 0, loss: 0, duplication: 0 };
  readonly nodes: SimNode[] = [];
  /** Every datagram that was sent, for replays; a long run may set it to undefined. */
  captured: Flight[] = [];
  keepsCaptured = true;
  /** Put on every datagram that is sent meanwhile. */
  tag: number | undefined;
  /** Told what happens to each datagram that reaches a node. */
  onArrival: (flight: Flight, node: SimNode, receive: () => void) => void = (_flight, _node, receive) => receive();
  tap: (flight: Flight) => Flight | undefined = (flight) => flight;
  registryIsUp = true;
  /** On top of the latency. */
  registryDelayMs = 0;
  /** Every request that reached the registry, for replays. */
  readonly requests: string[] = [];
  /** A registry that lies: what it answers in place of the truth. */
  registryTap: (request: string, reply: string) => string = (_request, reply) => reply;
  readonly crypto: Crypto;
  readonly #random: (length: number) => Uint8Array;
  readonly store = new MemoryStore();
  #registry: RegistryServer;
  #beacon: BeaconServer;
  beaconIsUp = true;
  /** Of nodes that are added from now on: when keys of sessions are replaced. */
  rekey: Partial<RekeyLimits> = {};
  readonly #queue = new EventQueue();
  #order = 0;
  #nowMs = 0;
  wallOffsetMs = WALL_START;

  constructor(seed: number, makeCrypto: (random: (length: number) => Uint8Array) => Crypto = portableCrypto) {
    this.#random = seededBytes(seed);
    this.crypto = makeCrypto(this.#random);
    this.#beacon = this.#newBeacon();
    this.#registry = this.#newRegistry();
  }

  /** As after a restart of that process: what it did not write down is forgotten, and connections to it end. */
  restartRegistry(): void {
    this.#registry = this.#newRegistry();
    for (const node of this.nodes) node.loseRegistry();
  }

  restartBeacon(): void {
    this.#beacon = this.#newBeacon();
  }

  #newBeacon(): BeaconServer {
    const keyOf = (node: NodeId) => this.store.keyOf(node);
    return new BeaconServer({
      proofs: { crypto: this.crypto, rendezvous: RENDEZVOUS, keyOf },
      hides: (node) => this.store.nodeById(node)?.relayOnly === true,
    });
  }

  #newRegistry(): RegistryServer {
    return new RegistryServer({
      store: this.store,
      crypto: this.crypto,
      startedAt: this.now,
      startedAtWall: this.wall,
      rendezvousId: RENDEZVOUS,
      adminToken: ADMIN_TOKEN,
    });
  }

  get now(): Instant {
    return instant(this.#nowMs);
  }

  get wall(): WallClock {
    return (this.#nowMs + this.wallOffsetMs) as WallClock;
  }

  /** What the clock of leases shows on every machine here: it knows nothing of the wall clock. */
  get leaseNow(): LeaseTime {
    return this.#nowMs as LeaseTime;
  }

  addNode(name: string, relayOnly = false): SimNode {
    const node = new SimNode(this, name, { address: `198.51.100.${this.nodes.length + 1}`, port: 4000 });
    node.relayOnly = relayOnly;
    this.nodes.push(node);
    node.start();
    return node;
  }

  /** Lets `ms` of time pass, jumping from one thing that happens to the next. */
  run(ms: number): void {
    const end = this.#nowMs + ms;
    for (const node of this.nodes) node.forgetDeadline(); // a test may have done anything meanwhile
    for (let turns = 0; ; turns++) {
      const next = this.#nextAt();
      if (next === undefined || next > end) break;
      if (next > this.#nowMs) turns = 0;
      if (turns > MAX_TURNS) throw new Error(`somebody wants to be woken for ever at ${this.#nowMs} ms`);
      this.#nowMs = Math.max(this.#nowMs, next);
      this.#runDue();
    }
    this.#nowMs = end;
  }

  /** Lets time pass until `condition` holds; throws after `limitMs`. Returns how long it took. */
  runUntil(condition: () => boolean, limitMs: number): number {
    const start = this.#nowMs;
    while (!condition()) {
      if (this.#nowMs - start > limitMs) throw new Error(`not so within ${limitMs} ms of simulated time`);
      this.run(1);
    }
    return this.#nowMs - start;
  }

  after(ms: number, act: () => void): void {
    this.#queue.push({ at: this.#nowMs + ms, order: this.#order++, act });
  }

  fraction(): number {
    const bytes = this.#random(4);
    return (bytes[0]! * 2 ** 24 + bytes[1]! * 2 ** 16 + bytes[2]! * 2 ** 8 + bytes[3]!) / 2 ** 32;
  }

  send(from: Endpoint, to: Endpoint, bytes: Uint8Array): void {
    const sent: Flight = { from, to, bytes: bytes.slice(), tag: this.tag };
    if (this.keepsCaptured) this.captured.push(sent);
    const flight = this.tap(sent);
    if (flight === undefined || this.fraction() < this.conditions.loss) return;
    const { latencyMs, jitterMs, duplication } = this.conditions;
    this.inject(flight, latencyMs + this.fraction() * jitterMs);
    if (duplication > 0 && this.fraction() < duplication) this.inject(flight, latencyMs + this.fraction() * 1_000);
  }

  inject(flight: Flight, delayMs = 0): void {
    this.after(delayMs, () => this.#deliver(flight));
  }

  /** One request of a node to the registry; the answer comes a round trip later, if the registry is up. */
  ask(from: Endpoint, conversation: Conversation, text: string, answer: (text: string) => void): void {
    this.after(this.conditions.latencyMs, () => {
      if (!this.registryIsUp) return;
      this.requests.push(text);
      const truth = askText(this.#registry, text, conversation, this.now, this.wall);
      const reply = this.registryTap(text, truth);
      for (let node = this.#registry.pollNotice(); node !== undefined; node = this.#registry.pollNotice()) {
        const notice = this.#beacon.notify(node, NOTIFY_HANDSHAKES, this.now);
        if (notice !== undefined) this.send(BEACON, notice.to, notice.bytes);
      }
      this.after(this.conditions.latencyMs + this.registryDelayMs, () => answer(reply));
    });
    void from;
  }

  #deliver(flight: Flight): void {
    if (sameEndpoint(flight.to, BEACON)) {
      if (!this.beaconIsUp) return;
      this.tag = flight.tag; // a relayed frame is the same frame
      const answers = this.#beacon.handleDatagram(flight.bytes.slice(), flight.from, this.now);
      for (const answer of answers) this.send(BEACON, answer.to, answer.bytes);
      this.tag = undefined;
      return;
    }
    const to = this.nodes.find((node) => node.isUp && sameEndpoint(node.endpoint, flight.to));
    if (to !== undefined) this.onArrival(flight, to, () => to.receive(flight.from, flight.bytes));
  }

  #nextAt(): number | undefined {
    let next = this.#queue.first?.at ?? Number.POSITIVE_INFINITY;
    for (const node of this.nodes) next = Math.min(next, node.deadline());
    return next === Number.POSITIVE_INFINITY ? undefined : next;
  }

  /** What is due now; what that puts off for no time at all comes after the nodes were woken. */
  #runDue(): void {
    const last = this.#order;
    const now = this.#nowMs;
    for (let entry = this.#queue.first; entry !== undefined && isDue(entry); entry = this.#queue.first) {
      this.#queue.shift();
      entry.act();
    }
    for (const node of this.nodes) node.wakeIfDue();

    function isDue({ at, order }: QueuedEvent): boolean {
      return at <= now && order < last;
    }
  }
}

function portableCrypto(random: (length: number) => Uint8Array): Crypto {
  return new PortableCrypto(random);
}

/** Of what happens in one moment, each of it because of something before. */
const MAX_TURNS = 10_000;
const RENDEZVOUS = "00112233445566778899aabbccddeeff";

export class SimNode {
  readonly name: string;
  readonly events: EngineEvent[] = [];
  /** Packets written to the TUN since the last `take`. */
  #tunPackets: Uint8Array[] = [];
  endpoint: Endpoint;
  engine!: Engine;
  client!: RegistryClient;
  plane!: PortableDataPlane;
  book = new TrustBook();
  /** As kept on disk. */
  networks: StoredNetworks = NO_NETWORKS;
  #tags: StoredTags = [];
  isUp = false;
  reachesRegistry = true;
  readonly #network: SimNetwork;
  readonly #identity: OwnIdentity;
  #node: NodeId | undefined;
  #endpoints: ReadonlyMap<NodeId, Endpoint> = new Map();
  #kinds: ReadonlyMap<NodeId, PeerKind> = new Map();
  /** From the next start on: be a plain agent to every peer. */
  plainOnly = false;
  /** From the next start on: false is a pilot-tun that does not agree on keys. */
  agreesOnKeys = true;
  /** From the next start on: when keys of sessions are replaced. */
  rekey: Partial<RekeyLimits>;
  /** From the next start on: reach peers through the beacon alone. */
  relayOnly = false;
  /** From the next start on: where what happens is written down. */
  audit: AuditSink | undefined;
  /** From the next start on: `allowed` beside the newer ones, or `only`, as a daemon of February 2026. */
  olderKeys: "refused" | "allowed" | "only" = "refused";
  /** Where packets for programs go. */
  onTunPacket = (packet: Uint8Array): void => void this.#tunPackets.push(packet);
  makePlane = (): PortableDataPlane => new PortableDataPlane();
  /** What this machine's wall clock shows beyond that of others. */
  wallSkewMs = 0;
  #asleepSince: number | undefined;
  #sleptMs = 0;
  /** When it wants to be woken, in the network's time; undefined: ask it. */
  #deadline: number | undefined;
  /** Bumped at each start, so that what was under way for an earlier life is not delivered to the next. */
  #life = 0;

  constructor(network: SimNetwork, name: string, endpoint: Endpoint) {
    this.#network = network;
    this.name = name;
    this.endpoint = endpoint;
    this.rekey = network.rekey;
    const seed = network.crypto.randomBytes(32);
    this.#identity = new OwnIdentity({ seed, publicKey: network.crypto.ed25519PublicKey(seed) });
  }

  get node(): NodeId {
    return this.engine.node;
  }

  /** Of this machine's monotonic clock, which stands still while it sleeps. */
  get now(): Instant {
    return instant(this.#network.now - this.#sleptMs);
  }

  get wall(): WallClock {
    return (this.#network.wall + this.wallSkewMs) as WallClock;
  }

  start(): void {
    const crypto = this.olderKeys === "only" ? olderCrypto(this.#network.crypto) : this.#network.crypto;
    this.#life++;
    this.client = new RegistryClient({
      crypto,
      identity: this.#identity,
      hostname: this.name,
      listen: this.relayOnly ? HIDDEN : { port: this.endpoint.port, lan: [] },
      isPublic: false,
    });
    if (this.#node === undefined) this.#node = this.#firstRegistration();
    const identity = this.#identity;
    this.plane = this.makePlane();
    this.engine = new Engine(
      {
        prefix: DEFAULT_OVERLAY_PREFIX,
        node: this.#node,
        get seed() {
          return identity.seed;
        },
        get publicKey() {
          return identity.publicKey;
        },
        mtuBytes: 1360,
        listenPort: this.endpoint.port,
        allowLegacyKeys: this.olderKeys === "allowed",
        kinds: this.#kinds,
        plainOnly: this.plainOnly,
        agreesOnKeys: this.agreesOnKeys,
        rekey: this.rekey,
        relayOnly: this.relayOnly,
        beaconEndpoint: BEACON,
        endpoints: this.#endpoints,
        networks: this.networks,
        tags: this.#tags,
        leaseNow: this.#network.leaseNow,
      },
      {
        crypto,
        dataPlane: this.plane,
        registry: this.client,
        beacon: new BeaconClient(this.#node, this.now, {
          get publicKey() {
            return identity.publicKey;
          },
          rendezvous: () => this.client.rendezvous,
          sign: (text) => crypto.ed25519Sign(identity.seed, utf8(text)),
        }),
        trust: this.book,
        audit: this.audit,
      },
      this.now,
      this.wall,
    );
    this.isUp = true;
    this.connectRegistry();
    this.drain();
  }

  /**
   * Ends it as kill -9 does: nothing is said to anybody; what was on disk stays, as trust and networks do, which are
   * written when they change. `learned`: what it knew of peers without anybody's word for it (endpoints, kinds, tags) had
   * been written, too.
   */
  kill(learned: "kept" | "lost" = "kept"): void {
    this.isUp = false;
    if (learned === "kept") {
      this.#endpoints = this.engine.knownEndpoints();
      this.#kinds = this.engine.knownKinds();
      this.#tags = JSON.parse(JSON.stringify(this.engine.gate.tags.toStored()));
    }
    this.book = TrustBook.fromJson(JSON.parse(JSON.stringify(this.book.toJson())))!;
  }

  /** The machine sleeps, until `wake`: it hears nothing, and the network goes on without it. */
  sleep(): void {
    if (!this.isUp) return;
    this.isUp = false;
    this.#asleepSince = this.#network.now;
  }

  get isAsleep(): boolean {
    return this.#asleepSince !== undefined;
  }

  /** It hears of time and underlay first, as the daemon sees to; its connection to the registry did not outlive this. */
  wake(): void {
    if (this.#asleepSince === undefined) return;
    const ms = this.#network.now - this.#asleepSince;
    this.#asleepSince = undefined;
    this.#sleptMs += ms;
    this.isUp = true;
    this.#clock();
    this.engine.handleSleep(ms, this.now);
    this.engine.handleTimeout(this.now);
    this.engine.handleUnderlay([{ address: this.endpoint.address, prefixLength: 24 }], true, this.now);
    this.loseRegistry();
  }

  connectRegistry(): void {
    const life = this.#life;
    this.client.handleConnecting(this.now);
    this.#deadline = undefined;
    if (!this.reachesRegistry || !this.#network.registryIsUp) {
      this.client.handleDisconnected(this.now, "refused");
      this.#connectLater(life);
      return;
    }
    this.client.handleConnected(this.now);
  }

  #connectLater(life: number): void {
    this.#network.after(1_000, () => {
      if (life !== this.#life || !this.isUp) return;
      this.connectRegistry();
      this.drain();
    });
  }

  disconnectRegistry(): void {
    this.reachesRegistry = false;
    this.client.handleDisconnected(this.now, "gone");
    this.drain();
  }

  /** The connection ends from the other side; a new one is tried a second later, and each second after that. */
  loseRegistry(): void {
    if (!this.isUp) return;
    this.#conversation = new Conversation(this.endpoint.address);
    this.client.handleDisconnected(this.now, "gone");
    this.drain();
    this.#connectLater(++this.#life);
  }

  command<T>(act: (engine: Engine, now: Instant) => T): T {
    this.#clock();
    const result = act(this.engine, this.now);
    this.engine.handleRegistry(this.now);
    this.drain();
    return result;
  }

  /** As `id rotate` on a running daemon. */
  rotateKey(fill: number): void {
    const seed = new Uint8Array(32).fill(fill);
    const next = { seed, publicKey: this.#network.crypto.ed25519PublicKey(seed) };
    this.events.length = 0;
    this.command(() => this.client.rotateKey(next));
    this.#network.runUntil(() => this.events.some(({ kind }) => kind === "key-rotated"), 5_000);
    this.#identity.adopt(next);
    this.command((engine, now) => engine.paths.reintroduce(now));
  }

  /** A program on this host sends a packet. */
  sendPacket(packet: Uint8Array): void {
    this.sendStaged(whole(packet));
  }

  /** The same with what the kernel says of it, for superpackets. */
  sendStaged(packet: StagedPacket): void {
    this.#clock();
    const count = this.plane.pushTunPackets([packet]);
    this.engine.handleTunBatch(count, this.now);
    this.plane.sealAndSend(count);
    this.drain();
  }

  receive(from: Endpoint, bytes: Uint8Array): void {
    this.#clock();
    const count = this.plane.receive([{ from, bytes }]);
    this.engine.handleUdpBatch(count, this.now);
    this.plane.writeTun(count);
    this.drain();
  }

  takeTunPackets(): Uint8Array[] {
    const packets = this.#tunPackets;
    this.#tunPackets = [];
    return packets;
  }

  /** Infinity: never. Asked anew after each input; whoever goes around them must `forgetDeadline`. */
  deadline(): number {
    if (!this.isUp) return Number.POSITIVE_INFINITY;
    this.#deadline ??=
      this.#sleptMs +
      Math.min(
        this.engine.pollTimeout()?.at ?? Number.POSITIVE_INFINITY,
        this.client.pollTimeout()?.at ?? Number.POSITIVE_INFINITY,
      );
    return this.#deadline;
  }

  forgetDeadline(): void {
    this.#deadline = undefined;
  }

  wakeIfDue(): void {
    if (this.deadline() > this.#network.now) return;
    this.#clock();
    this.client.handleTimeout(this.now);
    this.engine.handleTimeout(this.now);
    this.drain();
    if (this.client.wantsDisconnect) this.loseRegistry();
  }

  drain(): void {
    this.#deadline = undefined;
    for (let out = this.engine.pollTransmit(); out !== undefined; out = this.engine.pollTransmit()) {
      this.#network.send(this.endpoint, out.to, out.datagram);
    }
    this.engine.sendReleased();
    for (const { to, bytes } of this.plane.takeDatagrams()) this.#network.send(this.endpoint, to, bytes);
    for (let packet = this.engine.pollTunPacket(); packet !== undefined; packet = this.engine.pollTunPacket()) {
      this.onTunPacket(packet);
    }
    for (const packet of this.plane.takeTunPackets()) this.onTunPacket(packet);
    for (let event = this.engine.pollEvent(); event !== undefined; event = this.engine.pollEvent()) {
      if (event.kind === "networks-changed") this.networks = structuredClone(this.engine.networks.toStored());
      this.events.push(event);
    }
    this.#pumpRegistry();
    const held = this.engine.takeHeld();
    if (held.length === 0) return;
    const count = this.plane.pushTunPackets(held);
    this.engine.handleTunBatch(count, this.now);
    this.plane.sealAndSend(count);
    this.drain();
  }

  #conversation = new Conversation("203.0.113.1");

  #pumpRegistry(): void {
    const life = this.#life;
    for (let text = this.client.pollRequest(); text !== undefined; text = this.client.pollRequest()) {
      if (!this.reachesRegistry) return;
      this.#network.ask(this.endpoint, this.#conversation, text, (reply) => {
        if (life !== this.#life || !this.isUp) return;
        this.client.handleReply(reply, this.now);
        this.#clock();
        this.engine.handleRegistry(this.now);
        this.drain();
      });
    }
  }

  /** What a daemon does before it has an address: registers and waits. */
  #firstRegistration(): NodeId {
    let node: NodeId | undefined;
    this.#conversation = new Conversation(this.endpoint.address);
    this.client.handleConnecting(this.now);
    this.client.handleConnected(this.now);
    const text = this.client.pollRequest()!;
    this.#network.ask(this.endpoint, this.#conversation, text, (reply) => {
      this.client.handleReply(reply, this.now);
      for (let event = this.client.pollEvent(); event !== undefined; event = this.client.pollEvent()) {
        if (event.kind === "registered") node = event.node;
      }
    });
    this.#network.runUntil(() => node !== undefined, 10_000);
    this.client.handleDisconnected(this.now);
    return nodeId(node!);
  }

  #clock(): void {
    this.engine.handleClock(this.now, this.wall);
  }
}

/** Both ask and approve, and time passes until both hold it for mutual and keys are agreed. */
export function befriend(network: SimNetwork, a: SimNode, b: SimNode): void {
  a.command((engine, now) => engine.introductions.ask(b.node, "please", now));
  network.runUntil(() => b.book.get(a.node)?.request !== undefined, 40_000);
  b.command((engine, now) => engine.introductions.approve(a.node, now));
  network.runUntil(() => a.book.stateOf(b.node) === "mutual", 40_000);
  network.runUntil(
    () => a.engine.linkFacts(b.node)?.isUp === true && b.engine.linkFacts(a.node)?.isUp === true,
    10_000,
  );
}
