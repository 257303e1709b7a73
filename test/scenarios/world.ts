/**
 * One scenario, lived through by real engines in a simulated network. After everything that happens the invariants are
 * looked at; the first that does not hold ends the run, with the log of what led to it.
 */

import type { Endpoint } from "../../src/base/endpoint.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { COUNTER } from "../../src/tunnel/data-plane.ts";
import { udpPacket } from "../helpers/inner-packets.ts";
import { Random } from "../helpers/random.ts";
import { SimNat, SimRouters } from "../helpers/sim-nat.ts";
import { BEACON, type Flight, SimNetwork, type SimNode } from "../helpers/sim-network.ts";
import { Consents } from "./reference.ts";
import { type Act, describeAct, type Scenario, type Step } from "./scenario.ts";

/** Behind the head of every packet that programs send; must never be seen on the underlay. */
const MARKER = Buffer.from("the-plain-words-of-a-program");
const FLOW_LABEL = 0x5eed5;
/** Longer than any frame that carries no packet of a program. */
const PAYLOAD_BYTES = 400;
/** All that is counted per second of simulated time and node, packets of programs aside. */
const MAX_DATAGRAMS_PER_S = 300;
/** From the end of all faults until everybody who may talk can: a registry's pause, a beacon's, and three tries of a link. */
export const CALM_MS = 150_000;

export interface Violation {
  readonly invariant: string;
  readonly detail: string;
  readonly atMs: number;
}

export interface Outcome {
  readonly violation: Violation | undefined;
  readonly log: readonly string[];
  readonly sent: number;
  readonly delivered: number;
  readonly datagrams: number;
  readonly pairs: number;
}

class Violated extends Error {
  readonly invariant: string;

  constructor(invariant: string, detail: string) {
    super(detail);
    this.invariant = invariant;
  }
}

interface SentPacket {
  readonly from: number;
  readonly to: number;
  readonly atMs: number;
  /** Did the operator of the sending side consent then? */
  readonly consented: boolean;
  /** As it was sent; and translated, as towards a plain agent: a node that does not yet know what its peer is does both. */
  delivered: boolean;
  translated: boolean;
}

export function live(scenario: Scenario, steps: readonly Step[] = scenario.steps): Outcome {
  const world = new World(scenario);
  let violation: Violation | undefined;
  try {
    world.run(steps);
  } catch (error) {
    const invariant = error instanceof Violated ? error.invariant : "nothing throws";
    const detail = error instanceof Violated ? error.message : error instanceof Error ? error.stack! : String(error);
    violation = { invariant, detail, atMs: world.nowMs };
  }
  return { violation, ...world.summary() };
}

/** OpenSSL's, with the scenario's randomness. */
class RepeatableCrypto extends NodeCrypto {
  readonly #random: (length: number) => Uint8Array;

  constructor(random: (length: number) => Uint8Array) {
    super();
    this.#random = random;
  }

  override randomBytes(length: number): Uint8Array {
    return this.#random(length);
  }
}

class World {
  readonly #network: SimNetwork;
  readonly #nodes: SimNode[] = [];
  readonly #routers = new Map<number, SimNat>();
  readonly #consents = new Consents();
  readonly #random: Random;
  readonly #log: string[] = [];
  readonly #packets: SentPacket[] = [];
  /** The last datagrams as they arrived. Bound: MAX_RECORDED. */
  readonly #recorded: Flight[] = [];
  /** Pairs of which one side ever took its consent back: `a b`, the smaller first. */
  readonly #troubled = new Set<string>();
  /**
   * And of those the ones of which one asked again. An answer to an earlier ask that comes late, or a revocation that does,
   * may then leave one side with a trust that the other does not share and lets nothing through for, until somebody decides.
   */
  readonly #askedAnew = new Set<string>();
  readonly #datagramsOf: number[];
  #second = 0;
  #datagrams = 0;
  #delivered = 0;
  #sides: readonly boolean[] | undefined;
  #island: number | undefined;
  /** What arrives now was sent again by a stranger. */
  #isReplay = false;
  #moves = 0;

  constructor({ seed, nodes }: Scenario) {
    this.#random = new Random(seed ^ 0x5eed);
    this.#network = new SimNetwork(seed, (random) => new RepeatableCrypto(random));
    this.#network.keepsCaptured = false;
    this.#datagramsOf = nodes.map(() => 0);
    const routers = new SimRouters(this.#network);
    const route = this.#network.tap;
    for (const [i, plan] of nodes.entries()) {
      const node = this.#addNode(routers, i, plan);
      node.onTunPacket = (packet) => this.#packetForProgram(i, packet);
      this.#nodes.push(node);
    }
    this.#network.tap = (flight) => this.#onTheWay(flight, route);
    this.#network.onArrival = (flight, node, receive) => this.#arrival(flight, node, receive);
  }

  #addNode(routers: SimRouters, index: number, plan: Scenario["nodes"][number]): SimNode {
    if (plan.router === undefined) return this.#network.addNode(`n${index}`, plan.relayOnly);
    let nat = this.#routers.get(plan.router);
    if (nat === undefined) {
      nat = new SimNat(this.#network, plan.routerKind, `203.0.113.${plan.router + 1}`);
      this.#routers.set(plan.router, nat);
    }
    return routers.add(`n${index}`, nat, `192.168.${plan.router}.${index + 1}`);
  }

  get nowMs(): number {
    return this.#network.now;
  }

  summary(): Omit<Outcome, "violation"> {
    const pairs = this.#pairs().filter(([a, b]) => this.#areMutual(a, b)).length;
    const [sent, delivered, datagrams] = [this.#packets.length, this.#delivered, this.#datagrams];
    return { log: this.#log, sent, delivered, datagrams, pairs };
  }

  run(steps: readonly Step[]): void {
    const startMs = this.nowMs;
    for (const { atMs, act } of steps) {
      this.#pass(startMs + atMs - this.nowMs);
      this.#note(describeAct(act));
      this.#do(act);
      this.#checkState();
    }
    this.#calm();
    this.#pass(CALM_MS);
    this.#checkAgreement();
    this.#checkReach();
  }

  // What happens.

  #pass(ms: number): void {
    for (let left = ms; left > 0; left -= 1_000) {
      this.#network.run(Math.min(left, 1_000));
      this.#checkState();
    }
  }

  #do(act: Act): void {
    switch (act.kind) {
      case "ask":
        return this.#command(act.a, (engine, now) => {
          const record = engine.introductions.ask(this.#numberOf(act.b), "please", now);
          if (record !== undefined) this.#consents.give(act.a, act.b);
          if (this.#troubled.has(pairName(act.a, act.b))) this.#askedAnew.add(pairName(act.a, act.b));
        });
      case "approve":
        return this.#command(act.a, (engine, now) => {
          const record = engine.introductions.approve(this.#numberOf(act.b), now);
          if (record !== undefined) this.#consents.give(act.a, act.b);
          else this.#note("  (nothing to approve)");
        });
      case "revoke":
        return this.#command(act.a, (engine, now) => {
          this.#consents.revoke(act.a, act.b, this.nowMs);
          this.#troubled.add(pairName(act.a, act.b));
          engine.introductions.revoke(this.#numberOf(act.b), now);
        });
      case "send":
        for (let i = 0; i < act.packets; i++) this.#send(act.a, act.b);
        return;
      case "kill":
        if (this.#nodes[act.a]!.isUp) this.#nodes[act.a]!.kill(act.learned);
        return;
      case "start":
        if (!this.#nodes[act.a]!.isUp) this.#nodes[act.a]!.start();
        return;
      case "part":
        this.#sides = act.sides;
        return;
      case "island":
        this.#island = act.a;
        this.#nodes[act.a]!.reachesRegistry = false;
        return this.#nodes[act.a]!.loseRegistry();
      case "join":
        return this.#join();
      case "weather":
        Object.assign(this.#network.conditions, {
          loss: act.loss,
          jitterMs: act.jitterMs,
          duplication: act.duplication,
        });
        return;
      case "registry":
        return this.#registry(act.to);
      case "beacon":
        if (act.to === "restarted") this.#network.restartBeacon();
        else this.#network.beaconIsUp = act.to === "up";
        return;
      case "clock":
        this.#nodes[act.a]!.wallSkewMs = act.skewMs;
        return;
      case "move":
        return this.#move(act.a);
      case "router":
        return this.#routers.get(act.router)?.forget();
      case "replay":
        return this.#replay(act.datagrams);
    }
  }

  #command(index: number, act: (engine: Engine, now: SimNetwork["now"]) => void): void {
    const node = this.#nodes[index]!;
    if (node.isUp) node.command(act);
  }

  #send(from: number, to: number): void {
    const [sender, receiver] = [this.#nodes[from]!, this.#nodes[to]!];
    if (!sender.isUp || from === to) return;
    const id = this.#packets.length;
    const consented = this.#consents.has(from, to);
    this.#packets.push({ from, to, atMs: this.nowMs, consented, delivered: false, translated: false });
    const payload = Buffer.alloc(PAYLOAD_BYTES, "padding ");
    MARKER.copy(payload);
    payload.writeUInt32BE(id, MARKER.length);
    const before = this.#traces(sender, to);
    this.#network.tag = id;
    const ends = { source: sender.node, destination: receiver.node, flowLabel: FLOW_LABEL };
    sender.sendPacket(udpPacket({ ...ends, payload: new Uint8Array(payload) }));
    this.#network.tag = undefined;
    // What is to be translated may wait where nobody counts; whether it comes out again shows in the end.
    const isWhole = sender.engine.linkFacts(receiver.node)?.kind === "pilot-tun";
    if (isWhole && sender.book.stateOf(receiver.node) === "mutual" && this.#traces(sender, to) === before) {
      throw new Violated(
        "every drop has a counted reason",
        `packet ${id} of n${from} to n${to} left no trace there; ${this.#linkText(from, to)}`,
      );
    }
  }

  #linkText(from: number, to: number): string {
    const { book, engine } = this.#nodes[from]!;
    const facts = engine.linkFacts(this.#numberOf(to));
    const link = facts === undefined ? "no link" : `link ${facts.isUp ? "up" : "down"}, ${facts.path}, ${facts.kind}`;
    return `${book.stateOf(this.#numberOf(to))}, ${link}, drops ${JSON.stringify(engine.drops())}`;
  }

  /** A number that changes when a packet of a program is sent, as it is or translated, waits, or is counted as dropped. */
  #traces({ engine, plane }: SimNode, to: number): number {
    const translated = engine.linkFacts(this.#numberOf(to))?.txPackets ?? 0;
    return this.#dropped(engine) + engine.counters().staged + plane.counters[COUNTER.TX_PACKETS]! + translated;
  }

  #dropped(engine: Engine): number {
    return Object.values(engine.drops()).reduce((sum, count) => sum + count, 0);
  }

  #join(): void {
    this.#sides = undefined;
    if (this.#island !== undefined) this.#nodes[this.#island]!.reachesRegistry = true;
    this.#island = undefined;
    for (const node of this.#nodes) node.reachesRegistry = true;
  }

  #registry(to: "down" | "up" | "restarted"): void {
    if (to === "restarted") return this.#network.restartRegistry();
    this.#network.registryIsUp = to === "up";
    if (to === "down") for (const node of this.#nodes) node.loseRegistry();
  }

  #move(index: number): void {
    const node = this.#nodes[index]!;
    if (!node.isUp || node.endpoint.address.startsWith("192.168.")) return;
    node.endpoint = { address: `198.18.${index}.${++this.#moves}`, port: 4000 };
    const local = [{ address: node.endpoint.address, prefixLength: 24 }];
    node.command((engine, now) => engine.handleUnderlay(local, false, now));
  }

  #replay(count: number): void {
    for (let i = 0; i < count && this.#recorded.length > 0; i++) {
      const flight = this.#random.pick(this.#recorded);
      this.#network.after(this.#random.between(0, 2_000), () => {
        this.#isReplay = true;
        this.#network.inject(flight);
        this.#network.after(0, () => {
          this.#isReplay = false;
        });
      });
    }
  }

  #calm(): void {
    this.#note("all faults end");
    this.#join();
    Object.assign(this.#network.conditions, { loss: 0, jitterMs: 0, duplication: 0 });
    this.#network.registryIsUp = true;
    this.#network.beaconIsUp = true;
    for (const node of this.#nodes) if (!node.isUp) node.start();
  }

  // The underlay.

  #onTheWay(flight: Flight, route: (flight: Flight) => Flight | undefined): Flight | undefined {
    this.#datagrams++;
    if (Buffer.from(flight.bytes.buffer, flight.bytes.byteOffset, flight.bytes.length).includes(MARKER)) {
      throw new Violated("no plaintext on the underlay", `from ${flight.from.address} to ${flight.to.address}`);
    }
    const from = this.#indexAt(flight.from);
    if (from !== undefined && flight.tag === undefined) this.#countDatagram(from);
    const routed = route(flight);
    if (routed === undefined) return undefined;
    const to = this.#indexAt(routed.to);
    if (this.#areParted(from, to)) return undefined;
    if (this.#recorded.length < MAX_RECORDED) this.#recorded.push(routed);
    else this.#recorded[this.#random.between(0, MAX_RECORDED - 1)] = routed;
    return routed;
  }

  /** Two ends that answer each other for ever would show here. */
  #countDatagram(index: number): void {
    const second = Math.floor(this.nowMs / 1_000);
    if (second !== this.#second) this.#datagramsOf.fill(0);
    this.#second = second;
    if (++this.#datagramsOf[index]! > MAX_DATAGRAMS_PER_S) {
      throw new Violated("nobody floods", `n${index} sends more than ${MAX_DATAGRAMS_PER_S} datagrams in a second`);
    }
  }

  /** Undefined stands for the beacon. */
  #areParted(a: number | undefined, b: number | undefined): boolean {
    if (this.#island !== undefined && (a === this.#island) !== (b === this.#island)) return true;
    return this.#sides !== undefined && a !== undefined && b !== undefined && this.#sides[a] !== this.#sides[b];
  }

  #indexAt(endpoint: Endpoint): number | undefined {
    const index = this.#nodes.findIndex(
      (node) => node.endpoint.address === endpoint.address && node.endpoint.port === endpoint.port,
    );
    if (index < 0 && endpoint.address !== BEACON.address) return undefined;
    return index < 0 ? undefined : index;
  }

  /** A datagram with a packet of a program in it is delivered, or counted. */
  #arrival(flight: Flight, node: SimNode, receive: () => void): void {
    const packet = flight.tag === undefined ? undefined : this.#packets[flight.tag];
    const carries = packet !== undefined && flight.bytes.length > PAYLOAD_BYTES + 100;
    if (!carries) return receive();
    const before = this.#delivered + this.#dropped(node.engine);
    receive();
    if (this.#delivered + this.#dropped(node.engine) === before) {
      throw new Violated("every drop has a counted reason", `packet ${flight.tag} vanished at ${node.name}`);
    }
  }

  // What programs get.

  #packetForProgram(index: number, bytes: Uint8Array): void {
    const packet = Buffer.from(bytes);
    if (packet[6] !== 17) return this.#errorForProgram(index, packet);
    const at = packet.indexOf(MARKER);
    const sent = at < 0 ? undefined : this.#packets[packet.readUInt32BE(at + MARKER.length)];
    if (sent === undefined) throw new Violated("programs get what programs sent", packet.toString("hex").slice(0, 200));
    const { from, to, atMs, consented } = sent;
    const what = `packet of n${from} to n${to}, sent at ${seconds(atMs)}`;
    if (to !== index || packet.readUInt32BE(20) !== this.#numberOf(from)) {
      throw new Violated(
        "packets arrive at their destination, under the name of their source",
        `${what}, at n${index}`,
      );
    }
    // Translation makes a header of its own.
    const form = (packet.readUInt32BE(0) & 0xfffff) === FLOW_LABEL ? "delivered" : "translated";
    if (sent[form]) throw new Violated("nothing is delivered twice", what);
    if (!consented) throw new Violated("no packet without the sender's consent", what);
    if (!this.#consents.has(to, from)) throw new Violated("no packet without the receiver's consent", what);
    const revokedAt = this.#consents.revokedAt(from, to);
    if (revokedAt !== undefined && revokedAt > atMs && !this.#isReplay && this.nowMs > revokedAt + this.#flightMs()) {
      throw new Violated("no packet after the sender's revocation", `${what}, revoked at ${seconds(revokedAt)}`);
    }
    sent[form] = true;
    this.#delivered++;
  }

  #errorForProgram(index: number, packet: Buffer): void {
    const source = packet.readUInt32BE(20);
    if (source === this.#numberOf(index)) return;
    throw new Violated("errors are this host's own", `n${index} got one from ${source}`);
  }

  /** The longest that anything is under way, through the relay and doubled. */
  #flightMs(): number {
    return 2 * (this.#network.conditions.latencyMs + 400 + 1_000) + 100;
  }

  // What must hold at every moment.

  #checkState(): void {
    for (const [index, node] of this.#nodes.entries()) {
      if (!node.isUp) continue;
      const counters = node.engine.counters();
      const links = this.#nodes.filter((other) => node.engine.link(other.node) !== undefined);
      const records = [...node.book.records()].length;
      if (records > this.#nodes.length) throw new Violated("tables are bounded", `n${index} has ${records} records`);
      if (counters.staged > links.length * MAX_STAGED) {
        throw new Violated("tables are bounded", `n${index} holds ${counters.staged} packets`);
      }
      if (counters.flows > this.#packets.length * 2) {
        throw new Violated("tables are bounded", `n${index} has ${counters.flows} flows`);
      }
      for (const other of links) {
        const record = node.book.get(other.node);
        const mayHave = record !== undefined && record.state !== "none" && record.state !== "pending";
        if (!mayHave) throw new Violated("a link is for who is known", `n${index} to ${other.name}: ${record?.state}`);
      }
      for (const [other, peer] of this.#nodes.entries()) {
        if (node.book.stateOf(peer.node) === "mutual" && other !== index && !this.#consents.has(index, other)) {
          throw new Violated("no trust without the operator's word", `n${index} holds n${other} for trusted`);
        }
      }
    }
  }

  // What must hold in the end.

  #checkAgreement(): void {
    // A peer that was away, and wants nothing, may not have heard of a revocation; it must hear of it when it wants something.
    for (const [a, b] of this.#pairs()) {
      if (this.#isHalf(a, b)) this.#send(...(this.#stateOf(a, b) === "mutual" ? ([a, b] as const) : ([b, a] as const)));
    }
    this.#pass(NEWS_MS);
    for (const [a, b] of this.#pairs()) {
      const states = [this.#stateOf(a, b), this.#stateOf(b, a)];
      if (this.#isHalf(a, b) && !this.#askedAnew.has(pairName(a, b)))
        throw new Violated(
          "both sides agree in the end",
          `n${a} ${states[0]}, n${b} ${states[1]}; ${this.#linkText(a, b)}; ${this.#linkText(b, a)}`,
        );
      const isPlain = this.#consents.mayTalk(a, b) && !this.#troubled.has(pairName(a, b));
      if (isPlain && states[0] !== "mutual") {
        throw new Violated("two that consent find each other", `n${a} ${states[0]}, n${b} ${states[1]}`);
      }
    }
  }

  #checkReach(): void {
    const probes = this.#pairs()
      .filter(([a, b]) => this.#areMutual(a, b))
      .flatMap(([a, b]): [number, number][] => [
        [a, b],
        [b, a],
      ]);
    const missing = () =>
      probes.filter(
        ([a, b]) =>
          !this.#packets.some((p) => p.from === a && p.to === b && (p.delivered || p.translated) && p.atMs >= since),
      );
    const since = this.nowMs;
    for (let tries = 0; tries < REACH_TRIES; tries++) {
      for (const [a, b] of missing()) this.#send(a, b);
      this.#pass(5_000);
      if (missing().length === 0) return;
    }
    const [first] = missing();
    throw new Violated(
      "who may talk can, when all is well again",
      `n${first![0]} does not reach n${first![1]}: ${this.#linkText(...first!)}`,
    );
  }

  #pairs(): [number, number][] {
    return this.#nodes.flatMap((_, a) => this.#nodes.slice(a + 1).map((__, i): [number, number] => [a, a + 1 + i]));
  }

  #isHalf(a: number, b: number): boolean {
    return (this.#stateOf(a, b) === "mutual") !== (this.#stateOf(b, a) === "mutual");
  }

  #areMutual(a: number, b: number): boolean {
    return this.#stateOf(a, b) === "mutual" && this.#stateOf(b, a) === "mutual";
  }

  #stateOf(a: number, b: number): string {
    return this.#nodes[a]!.book.stateOf(this.#numberOf(b));
  }

  #numberOf(index: number) {
    return this.#nodes[index]!.node;
  }

  #note(text: string): void {
    this.#log.push(`${seconds(this.nowMs)}  ${text}`);
  }
}

function pairName(a: number, b: number): string {
  return `${Math.min(a, b)} ${Math.max(a, b)}`;
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(3).padStart(8)} s`;
}

/** Per link, as tunnel/staging.ts has it. */
const MAX_STAGED = 64;
const MAX_RECORDED = 400;
const REACH_TRIES = 6;
const NEWS_MS = 30_000;
