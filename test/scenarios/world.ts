/**
 * One scenario, lived through by real engines in a simulated network. After everything that happens the invariants are
 * looked at; the first that does not hold ends the run, with the log of what led to it.
 */
import type { Engine } from "../../src/engine/engine.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { parsePolicy } from "../../src/policy/parse-policy.ts";
import { consents, isConfirmed, mustBeTold } from "../../src/trust/trust-record.ts";
import { COUNTER } from "../../src/tunnel/data-plane.ts";
import type { Link } from "../../src/tunnel/link.ts";
import { NO_TERMS } from "../../src/wire/ask-text.ts";
import { networkId } from "../../src/wire/ids.ts";
import { ACCOUNTS } from "../helpers/accounts.ts";
import { Random } from "../helpers/random.ts";
import { SimNat, SimRouters } from "../helpers/sim-nat.ts";
import { ADMIN_TOKEN, type Flight, SimNetwork, type SimNode } from "../helpers/sim-network.ts";
import { deafen, gag, smuggle } from "./hostile.ts";
import { KeyAges } from "./key-ages.ts";
import { PAYLOAD_BYTES, Programs } from "./programs.ts";
import { type Denied, Reference } from "./reference.ts";
import { type Act, describeAct, type NamedTerms, type Scenario, type Step } from "./scenario.ts";
import { Underlay } from "./underlay.ts";
import { seconds, Violated } from "./violated.ts";

/** From the end of all faults until everybody who may talk can: a registry's pause, a beacon's, and three tries of a link. */
export const CALM_MS = 150_000;

/**
 * Until an ask that opened again is seen: it is made again after a pause, and a node polls its letters twice a minute. Memberships
 * are looked up every three minutes, so an ask that one of them answered may open long after the end of all faults.
 */
const ASK_MS = 45_000;

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
  readonly #scenario: Scenario;
  readonly #network: SimNetwork;
  readonly #nodes: SimNode[] = [];
  readonly #routers = new Map<number, SimNat>();
  readonly #reference = new Reference();
  readonly #programs: Programs;
  readonly #underlay: Underlay;
  readonly #random: Random;
  readonly #keyAges: KeyAges | undefined;
  readonly #log: string[] = [];
  /** `by of`: consents that were given in knowledge of the other's last revocation, and before any later one. */
  readonly #informed = new Set<string>();
  /** Rules of each node's policy, as its files would keep them. */
  readonly #policies = new Map<number, string>();
  #moves = 0;

  constructor(scenario: Scenario) {
    const { seed, nodes } = scenario;
    this.#scenario = scenario;
    this.#random = new Random(seed ^ 0x5eed);
    this.#network = new SimNetwork(seed, (random) => new RepeatableCrypto(random));
    this.#network.keepsCaptured = false;
    if (scenario.rekeyMs !== undefined) this.#network.rekey = { everyMs: scenario.rekeyMs };
    this.#underlay = new Underlay(this.#network, nodes.length, this.#random);
    this.#keyAges = scenario.rekeyMs === undefined ? undefined : new KeyAges(scenario.rekeyMs);
    this.#programs = new Programs({
      reference: this.#reference,
      nowMs: () => this.nowMs,
      numberOf: (index) => this.#numberOf(index),
      isHostile: (index) => this.#isHostile(index),
      // Through the relay, and doubled.
      flightMs: () => 2 * (this.#network.conditions.latencyMs + 400 + 1_000) + 100,
      isReplay: () => this.#underlay.isReplay,
    });
    const routers = new SimRouters(this.#network);
    const route = this.#network.tap;
    for (const [i, plan] of nodes.entries()) {
      const node = this.#addNode(routers, i, plan);
      node.onTunPacket = (packet) => this.#programs.receive(i, packet);
      this.#nodes.push(node);
      this.#started(i);
    }
    if (scenario.hasNetwork) this.#createNetwork();
    this.#network.tap = (flight) => this.#underlay.carry(flight, route);
    const ask = this.#network.ask.bind(this.#network);
    this.#network.ask = (from, conversation, text, answer) => {
      this.#checkLetter(text);
      ask(from, conversation, text, answer);
    };
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

  /** By somebody who is no member of it afterwards. */
  #createNetwork(): void {
    const make = { kind: "create-network", name: "ops", joinRule: "open", adminToken: ADMIN_TOKEN } as const;
    this.#network.run(200);
    for (const command of [make, { kind: "leave-network", network: OPS } as const]) {
      this.#command(0, (engine, now) => engine.networks.request(command, now));
      this.#network.run(200);
    }
  }

  get nowMs(): number {
    return this.#network.now;
  }

  summary(): Omit<Outcome, "violation"> {
    const pairs = this.#pairs().filter(([a, b]) => this.#areMutual(a, b)).length;
    const { packets, delivered } = this.#programs;
    return { log: this.#log, sent: packets.length, delivered, datagrams: this.#underlay.datagrams, pairs };
  }

  run(steps: readonly Step[]): void {
    const startMs = this.nowMs;
    for (const { atMs, act } of steps) {
      this.#pass(startMs + atMs - this.nowMs);
      this.#note(describeAct(act));
      this.#do(act);
      this.#checkState();
    }
    this.#pass(startMs + this.#scenario.calmAtMs - this.nowMs);
    this.#calm();
    this.#pass(CALM_MS);
    this.#checkAgreement();
    this.#checkReach();
  }

  // What happens.

  #pass(ms: number): void {
    for (let left = ms; left > 0; left -= 1_000) {
      this.#network.run(Math.min(left, 1_000));
      this.#smuggle();
      this.#checkState();
    }
  }

  #do(act: Act): void {
    switch (act.kind) {
      case "ask":
        return this.#ask(act.a, act.b, act.terms);
      case "approve":
        return this.#approve(act.a, act.b, act.terms);
      case "revoke":
        return this.#revoke(act.a, act.b);
      case "send":
        for (let i = 0; i < act.packets; i++) this.#send(act.a, act.b, act.inNetwork ?? false);
        return;
      case "kill":
        if (this.#nodes[act.a]!.isUp) this.#nodes[act.a]!.kill(act.learned);
        return;
      case "start":
        return this.#start(act.a);
      case "sleep":
        return this.#nodes[act.a]!.sleep();
      case "wake":
        return this.#nodes[act.a]!.wake();
      case "part":
        this.#underlay.sides = act.sides;
        return;
      case "island":
        this.#underlay.island = act.a;
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
      case "unlisted":
        this.#nodes[act.a]!.reachesRegistry = false;
        return this.#nodes[act.a]!.loseRegistry();
      case "listed":
        this.#nodes[act.a]!.reachesRegistry = this.#underlay.island !== act.a;
        return;
      case "clock":
        this.#nodes[act.a]!.wallSkewMs = act.skewMs;
        return;
      case "move":
        return this.#move(act.a);
      case "router":
        return this.#routers.get(act.router)?.forget();
      case "replay":
        return this.#underlay.replay(act.datagrams);
      case "policy":
        return this.#policy(act.a, act.b, act.denies);
      case "enter":
      case "leave":
        return this.#member(act.a, act.kind);
    }
  }

  #command(index: number, act: (engine: Engine, now: SimNode["now"]) => void): void {
    const node = this.#nodes[index]!;
    if (node.isUp) node.command(act);
  }

  #ask(a: number, b: number, named: NamedTerms | undefined): void {
    this.#command(a, (engine, now) => {
      const isNew = this.#stateOf(a, b) !== "mutual" || !this.#reference.hasGiven(a, b);
      const record = engine.introductions.ask(this.#numberOf(b), "please", now, { ...NO_TERMS, ...named });
      if (record === undefined) return;
      if (named !== undefined) this.#reference.noteLimits(a, b);
      // What an ask names begins when it is answered; the model leaves that to those who approve.
      if (isNew || named !== undefined) this.#reference.give(a, b, this.nowMs);
      if (isNew) this.#noteConsent(a, b);
    });
  }

  #approve(a: number, b: number, named: NamedTerms | undefined): void {
    this.#command(a, (engine, now) => {
      const record = engine.introductions.approve(this.#numberOf(b), now, { ...NO_TERMS, ...named });
      if (record === undefined) return this.#note("  (nothing to approve)");
      if (named !== undefined) this.#reference.noteLimits(a, b);
      const endsAtMs = named?.durationMs === undefined ? undefined : this.nowMs + named.durationMs;
      // Who is modified keeps to nothing that he names.
      this.#reference.give(a, b, this.nowMs, this.#isHostile(a) ? {} : { endsAtMs, maxBytes: named?.maxBytes });
      this.#noteConsent(a, b);
    });
  }

  #revoke(a: number, b: number): void {
    if (this.#isHostile(a)) return;
    this.#command(a, (engine, now) => {
      this.#reference.revoke(a, b, this.nowMs);
      for (const pair of [`${a} ${b}`, `${b} ${a}`]) this.#informed.delete(pair);
      engine.introductions.revoke(this.#numberOf(b), now);
    });
  }

  /** Who has not heard that the other took his word back answers something that is no more. */
  #noteConsent(by: number, of: number): void {
    const epoch = this.#nodes[of]!.book.get(this.#numberOf(by))?.epoch ?? 0;
    const heard = this.#nodes[by]!.book.get(this.#numberOf(of))?.revocationHeard ?? 0;
    if (epoch === heard) this.#informed.add(`${by} ${of}`);
    else this.#informed.delete(`${by} ${of}`);
  }

  #start(index: number): void {
    const node = this.#nodes[index]!;
    if (node.isUp || node.isAsleep) return;
    node.start();
    this.#started(index);
  }

  #started(index: number): void {
    if (this.#isHostile(index)) deafen(this.#nodes[index]!);
    const text = this.#policies.get(index);
    if (text !== undefined) this.#applyPolicy(index, text);
  }

  #policy(a: number, b: number, denies: Denied): void {
    if (a === b || this.#isHostile(a) || this.#nodes[a]!.isAsleep) return;
    const address = `0:0000.0000.${this.#numberOf(b).toString(16).padStart(4, "0")}`;
    const rules = [
      ...(denies === "in" || denies === "both" ? [`deny in any from ${address}`] : []),
      ...(denies === "out" || denies === "both" ? [`deny out any to ${address}`] : []),
      ...["allow in any from trusted", "allow out any to trusted"],
    ];
    this.#policies.set(a, rules.join("\n"));
    this.#reference.deny(a, b, denies);
    if (this.#nodes[a]!.isUp) this.#applyPolicy(a, this.#policies.get(a)!);
  }

  #applyPolicy(index: number, text: string): void {
    const writtenAt = this.#network.wall;
    const { rules, problems } = parsePolicy([{ file: "policy", text, writtenAt }], ACCOUNTS);
    if (problems.length > 0) throw new Error(JSON.stringify(problems));
    this.#command(index, (engine, now) => engine.admission.replaceRules(rules, now));
  }

  #member(index: number, what: "enter" | "leave"): void {
    this.#command(index, (engine, now) => {
      if (what === "enter") this.#reference.join(index);
      else this.#reference.leave(index);
      engine.networks.request({ kind: what === "enter" ? "join-network" : "leave-network", network: OPS }, now);
    });
  }

  #send(from: number, to: number, inNetwork: boolean): void {
    const [sender, receiver] = [this.#nodes[from]!, this.#nodes[to]!];
    if (!sender.isUp || from === to) return;
    const { id, bytes } = this.#programs.make({ from, to, inNetwork, isSmuggled: false, as: undefined });
    const before = this.#traces(sender, to);
    const dropped = this.#dropped(sender.engine);
    this.#network.tag = id;
    sender.sendPacket(bytes);
    this.#network.tag = undefined;
    // A packet that nobody sealed is no use of old keys.
    const mayBeSealed = this.#dropped(sender.engine) === dropped;
    if (mayBeSealed) this.#keyAges?.noteSent(`n${from} to n${to}`, sender.engine.linkFacts(receiver.node), sender.now);
    // What is to be translated may wait where nobody counts; whether it comes out again shows in the end.
    const isWhole = sender.engine.linkFacts(receiver.node)?.kind === "pilot-tun";
    if (isWhole && sender.book.stateOf(receiver.node) === "mutual" && this.#traces(sender, to) === before) {
      throw new Violated(
        "every drop has a counted reason",
        `packet ${id} of n${from} to n${to} left no trace there; ${this.#linkText(from, to)}`,
      );
    }
  }

  /** Who is modified sends to everybody that gave it keys, whenever it can, and now and then as somebody else. */
  #smuggle(): void {
    const { hostile } = this.#scenario;
    if (hostile === undefined || !this.#nodes[hostile]!.isUp) return;
    const node = this.#nodes[hostile]!;
    for (const { to, link } of this.#linksOf(hostile)) {
      if (!link.isUp) continue;
      gag(link);
      const other = this.#random.between(0, this.#nodes.length - 1);
      const as = this.#random.chance(0.2) && other !== hostile && other !== to ? other : undefined;
      const inNetwork = this.#scenario.hasNetwork && this.#random.chance(0.3);
      const { id, bytes } = this.#programs.make({ from: hostile, to, inNetwork, isSmuggled: true, as });
      this.#network.tag = id;
      smuggle(node, link, bytes);
      this.#network.tag = undefined;
    }
  }

  #linksOf(index: number): { readonly to: number; readonly link: Link }[] {
    return this.#nodes.flatMap((other, to) => {
      const link = this.#nodes[index]!.engine.link(other.node);
      return link === undefined ? [] : [{ to, link }];
    });
  }

  #linkText(from: number, to: number): string {
    const { book, engine } = this.#nodes[from]!;
    const facts = engine.linkFacts(this.#numberOf(to));
    const link = facts === undefined ? "no link" : `link ${facts.isUp ? "up" : "down"}, ${facts.path}, ${facts.kind}`;
    const record = book.get(this.#numberOf(to));
    const trust = record && `${record.state}${record.state === "mutual" && !isConfirmed(record) ? " by letters" : ""}`;
    return `${trust}, ${link}, drops ${JSON.stringify(engine.drops())}`;
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
    const { island } = this.#underlay;
    this.#underlay.sides = undefined;
    if (island !== undefined) this.#nodes[island]!.reachesRegistry = true;
    this.#underlay.island = undefined;
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

  #calm(): void {
    this.#note("all faults end");
    this.#join();
    Object.assign(this.#network.conditions, { loss: 0, jitterMs: 0, duplication: 0 });
    this.#network.registryIsUp = true;
    this.#network.beaconIsUp = true;
    for (const [index, node] of this.#nodes.entries()) {
      node.wake();
      this.#start(index);
      if (this.#policies.has(index)) this.#policy(index, (index + 1) % this.#nodes.length, "nothing");
    }
  }

  /** A datagram with a packet of a program in it is delivered, or counted. */
  #arrival(flight: Flight, node: SimNode, receive: () => void): void {
    const index = this.#nodes.indexOf(node);
    if (this.#isHostile(index)) for (const { link } of this.#linksOf(index)) gag(link);
    const packet = flight.tag === undefined ? undefined : this.#programs.packets[flight.tag];
    const carries = packet !== undefined && flight.bytes.length > PAYLOAD_BYTES + 100;
    if (!carries) return receive();
    const before = this.#programs.delivered + this.#dropped(node.engine);
    receive();
    if (this.#programs.delivered + this.#dropped(node.engine) === before) {
      throw new Violated("every drop has a counted reason", `packet ${flight.tag} vanished at ${node.name}`);
    }
  }

  // What must hold at every moment.

  #checkState(): void {
    for (const [index, node] of this.#nodes.entries()) {
      if (!node.isUp || this.#isHostile(index)) continue;
      this.#checkTables(index, node);
      for (const [other, peer] of this.#nodes.entries()) {
        const mayTrust = this.#reference.has(index, other, this.nowMs);
        if (node.book.stateOf(peer.node) === "mutual" && other !== index && !mayTrust) {
          throw new Violated("no trust without the operator's word", `n${index} holds n${other} for trusted`);
        }
      }
    }
  }

  #checkTables(index: number, node: SimNode): void {
    const counters = node.engine.counters();
    const links = this.#linksOf(index);
    const records = [...node.book.records()].length;
    if (records > this.#nodes.length) throw new Violated("tables are bounded", `n${index} has ${records} records`);
    for (const { to, link } of links) {
      if (link.stagedPackets > MAX_STAGED) {
        throw new Violated("tables are bounded", `n${index} holds ${link.stagedPackets} packets for n${to}`);
      }
      const record = node.book.get(this.#numberOf(to));
      const mayHave = record?.state === "asked" || record?.state === "mutual" || (record && mustBeTold(record));
      if (!mayHave) throw new Violated("a link is for who is known", `n${index} to n${to}: ${record?.state}`);
    }
    if (counters.flows > this.#programs.packets.length * 2) {
      throw new Violated("tables are bounded", `n${index} has ${counters.flows} flows`);
    }
  }

  /** What a node has the registry know, or tell, of its consent. */
  #checkLetter(text: string): void {
    if (!CONSENT_LETTERS.some((type) => text.includes(type))) return;
    const { node_id, from_node_id, peer_id, to_node_id, accept } = JSON.parse(text);
    const index = this.#nodes.findIndex((node) => node.node === (node_id ?? from_node_id));
    if (index < 0 || accept === false || this.#isHostile(index)) return;
    const record = this.#nodes[index]!.book.get(peer_id ?? to_node_id);
    if (record === undefined || !consents(record)) {
      throw new Violated("no letter speaks for a consent that is over", `n${index}, ${record?.state}: ${text}`);
    }
  }

  // What must hold in the end.

  #checkAgreement(): void {
    for (const [a, b] of this.#pairs()) {
      const isHalf = (this.#stateOf(a, b) === "mutual") !== (this.#stateOf(b, a) === "mutual");
      const detail = `n${a} ${this.#linkText(a, b)}; n${b} ${this.#linkText(b, a)}`;
      if (isHalf) throw new Violated("both sides agree in the end", detail);
      const areInformed = this.#informed.has(`${a} ${b}`) && this.#informed.has(`${b} ${a}`);
      if (areInformed && this.#reference.areFriends(a, b) && !this.#areMutual(a, b)) {
        throw new Violated("two that consent find each other", detail);
      }
      for (const [by, of] of [
        [a, b],
        [b, a],
      ] as const)
        this.#checkAsk(by, of, detail);
    }
  }

  /** Who asked in knowledge of the other's last revocation waits for somebody who sees that he does. */
  #checkAsk(by: number, of: number, detail: string): void {
    if (this.#stateOf(by, of) !== "asked" || !this.#informed.has(`${by} ${of}`)) return;
    const openMs = this.#nodes[by]!.wall - this.#nodes[by]!.book.get(this.#numberOf(of))!.since;
    if (openMs >= 0 && openMs < ASK_MS) return;
    const request = this.#nodes[of]!.book.get(this.#numberOf(by))?.request;
    if (request === undefined) throw new Violated("who is asked sees it in the end", detail);
  }

  #checkReach(): void {
    const probes = this.#pairs()
      .filter(([a, b]) => this.#areMutual(a, b) && !this.#isLeased(a, b))
      .flatMap(([a, b]): [number, number][] => [
        [a, b],
        [b, a],
      ]);
    const since = this.nowMs;
    const arrived = (a: number, b: number) =>
      this.#programs.packets.some(
        (p) => p.from === a && p.to === b && (p.delivered || p.translated) && p.atMs >= since,
      );
    const missing = () => probes.filter(([a, b]) => !arrived(a, b));
    for (let tries = 0; tries < REACH_TRIES; tries++) {
      for (const [a, b] of missing()) this.#send(a, b, false);
      this.#pass(5_000);
      if (missing().length === 0) return;
    }
    const [first] = missing();
    throw new Violated(
      "who may talk can, when all is well again",
      `n${first![0]} does not reach n${first![1]}: ${this.#linkText(...first!)}`,
    );
  }

  /** Of nodes that keep to the rules. */
  #pairs(): [number, number][] {
    const pairs = this.#nodes.flatMap((_, a) =>
      this.#nodes.slice(a + 1).map((__, i): [number, number] => [a, a + 1 + i]),
    );
    return pairs.filter(([a, b]) => !this.#isHostile(a) && !this.#isHostile(b));
  }

  /** By anybody's word: what is left of it may be nothing. */
  #isLeased(a: number, b: number): boolean {
    return this.#nodes[a]!.engine.leases.limitsOf(this.#numberOf(b)) !== undefined;
  }

  #areMutual(a: number, b: number): boolean {
    return this.#stateOf(a, b) === "mutual" && this.#stateOf(b, a) === "mutual";
  }

  #stateOf(a: number, b: number): string {
    return this.#nodes[a]!.book.stateOf(this.#numberOf(b));
  }

  #isHostile(index: number): boolean {
    return index === this.#scenario.hostile;
  }

  #numberOf(index: number) {
    return this.#nodes[index]!.node;
  }

  #note(text: string): void {
    this.#log.push(`${seconds(this.nowMs)}  ${text}`);
  }
}

const OPS = networkId(1);
const CONSENT_LETTERS = ['"report_trust"', '"respond_handshake"', '"request_handshake"'];
/** Per link, as tunnel/staging.ts has it. */
const MAX_STAGED = 64;
const REACH_TRIES = 6;
