/**
 * Rules as a decision structure: a look-up by each thing that is known of the peer (and of the local program, where rules
 * ask for it), in each a binary search over ports, and the smallest rule number of those found decides. Cost per new flow
 * does not grow with the number of rules.
 *
 * Compiled for one moment: rules that are over are left out, and `expiresAt` says when the next one is.
 */
import type { WallClock } from "../base/instant.ts";
import type { NetworkId, NodeId } from "../wire/ids.ts";
import { NEXT_HEADER } from "../wire/ipv6.ts";
import type { Direction, FlowFacts, Rule, Selector } from "./rule.ts";
import { ancestorsOf, cgroupsOf, type OwnerSelector, type SocketOwner, unitOf } from "./socket-owner.ts";

export class CompiledPolicy {
  readonly rules: readonly Rule[];
  /** When the first rule that is still there ends; undefined: none does. */
  readonly expiresAt: WallClock | undefined;
  /** Key: what the two selectors of a rule name. Bound: the rules. */
  readonly #tables: ReadonlyMap<string, LazyTable>;
  /** The rules that name an owner, as if they named none. Key: what the peer's selector names. Bound: the rules. */
  readonly #withOwner: ReadonlyMap<string, LazyTable>;
  /** Key: node and network. Bound: MAX_PEERS, all go when there are more. */
  readonly #peers = new Map<number, PeerTables>();
  readonly #peerKinds: ReadonlySet<Selector["kind"]>;
  readonly #ownerKinds: ReadonlySet<OwnerSelector["kind"]>;

  constructor(rules: readonly Rule[], now: WallClock) {
    this.rules = rules;
    const live = rules.map((rule, index) => ({ rule, index })).filter(({ rule }) => !isOver(rule, now));
    const owned = live.filter(({ rule }) => rule.owner !== undefined);
    this.#tables = tablesOf(live, ({ owner, peer }) => ownerKey(owner) + peerKey(peer));
    this.#withOwner = tablesOf(owned, ({ peer }) => peerKey(peer));
    this.#peerKinds = new Set(live.map(({ rule }) => rule.peer.kind));
    this.#ownerKinds = new Set(owned.map(({ rule }) => rule.owner!.kind));
    const ends = live.flatMap(({ rule }) => rule.until ?? []);
    this.expiresAt = ends.length === 0 ? undefined : ends.reduce((first, end) => (end < first ? end : first));
  }

  /** Index of the rule that decides; NO_RULE: none matches, which denies. */
  decide(flow: FlowFacts): number {
    const { keys, ofAnybody } = this.#tablesFor(flow);
    let best = smallest(ofAnybody, flow);
    if (flow.owner === undefined || this.#ownerKinds.size === 0) return best;
    for (const owner of this.#ownerKeys(flow.owner)) {
      for (const peer of keys) best = first(best, lookUp(this.#tables.get(owner + peer), flow));
    }
    return best;
  }

  /** Whether the answer may depend on who owns the local socket. */
  ownerMatters(flow: FlowFacts): boolean {
    if (this.#ownerKinds.size === 0) return false;
    const { ofAnybody, withOwner } = this.#tablesFor(flow);
    const owned = smallest(withOwner, flow);
    return owned !== NO_RULE && first(owned, smallest(ofAnybody, flow)) === owned;
  }

  /** True when some rule names a tag. */
  get asksForTags(): boolean {
    return this.#peerKinds.has("tag");
  }

  /** True when some rule asks for more of an owner than his number. */
  get asksForPrograms(): boolean {
    return [...this.#ownerKinds].some((kind) => kind !== "user");
  }

  /** What is known of a peer changes rarely, and names the same tables until then. */
  #tablesFor(flow: FlowFacts): PeerTables {
    const place = flow.network * 2 ** 32 + flow.node;
    const known = this.#peers.get(place);
    const isSame = known?.name === flow.name && known?.fingerprint === flow.fingerprint && known?.tags === flow.tags;
    if (known !== undefined && isSame) return known;
    if (this.#peers.size >= MAX_PEERS) this.#peers.clear();
    const keys = this.#peerKeys(flow);
    const { name, fingerprint, tags } = flow;
    const found = (tables: ReadonlyMap<string, LazyTable>) => keys.flatMap((key) => tables.get(key) ?? []);
    const peer = { name, fingerprint, tags, keys, ofAnybody: found(this.#tables), withOwner: found(this.#withOwner) };
    this.#peers.set(place, peer);
    return peer;
  }

  #peerKeys(flow: FlowFacts): string[] {
    const kinds = this.#peerKinds;
    const keys: string[] = [];
    if (kinds.has("trusted")) keys.push(TRUSTED);
    if (kinds.has("name") && flow.name !== undefined) keys.push(nameKey(flow.name));
    if (kinds.has("address")) keys.push(addressKey(flow.network, flow.node));
    if (kinds.has("network")) keys.push(networkKey(flow.network));
    if (kinds.has("key") && flow.fingerprint !== undefined) keys.push(keyKey(flow.fingerprint));
    if (kinds.has("tag")) keys.push(...flow.tags.map(tagKey));
    return keys;
  }

  #ownerKeys(owner: SocketOwner): Set<string> {
    const kinds = this.#ownerKinds;
    const keys = new Set<string>();
    if (kinds.has("user")) keys.add(userKey(owner.uid));
    for (const { groups } of owner.programs) {
      if (kinds.has("group")) for (const gid of groups) keys.add(groupKey(gid));
    }
    for (const cgroup of cgroupsOf(owner)) {
      const unit = kinds.has("unit") ? unitOf(cgroup) : undefined;
      if (unit !== undefined) keys.add(unitKey(unit));
      if (kinds.has("cgroup")) for (const path of ancestorsOf(cgroup)) keys.add(cgroupKey(path));
    }
    return keys;
  }
}

interface Numbered {
  readonly rule: Rule;
  readonly index: number;
}

function isOver(rule: Rule, now: WallClock): boolean {
  return rule.until !== undefined && rule.until <= now;
}

/** What a peer's selectors lead to, as long as this is what is known of it. */
interface PeerTables extends Pick<FlowFacts, "name" | "fingerprint" | "tags"> {
  readonly keys: readonly string[];
  readonly ofAnybody: readonly LazyTable[];
  readonly withOwner: readonly LazyTable[];
}

/** Most selectors of a long policy name peers that never come: a table is made when it is first asked. */
class LazyTable {
  readonly #rules: readonly Numbered[];
  #table: SelectorTable | undefined;

  constructor(rules: readonly Numbered[]) {
    this.#rules = rules;
  }

  find(slot: number, port: number): number {
    this.#table ??= new SelectorTable(this.#rules);
    return this.#table.find(slot, port);
  }
}

function tablesOf(rules: readonly Numbered[], keyOf: (rule: Rule) => string): ReadonlyMap<string, LazyTable> {
  const lists = new Map<string, Numbered[]>();
  for (const numbered of rules) {
    const key = keyOf(numbered.rule);
    const known = lists.get(key);
    if (known === undefined) lists.set(key, [numbered]);
    else known.push(numbered);
  }
  return new Map([...lists].map(([key, list]) => [key, new LazyTable(list)]));
}

function smallest(tables: readonly LazyTable[], flow: FlowFacts): number {
  let best = NO_RULE;
  for (const table of tables) best = first(best, lookUp(table, flow));
  return best;
}

function lookUp(table: LazyTable | undefined, { direction, protocol, port }: FlowFacts): number {
  return table?.find(slotOf(direction, protocol), port) ?? NO_RULE;
}

/** Of two rule numbers, the one that decides. */
function first(a: number, b: number): number {
  if (a === NO_RULE || b === NO_RULE) return a === NO_RULE ? b : a;
  return a < b ? a : b;
}

/** The rules of one selector: per direction and protocol, ports cut into ranges that each have one first rule. */
class SelectorTable {
  readonly #slots: (PortTable | undefined)[];

  constructor(rules: readonly Numbered[]) {
    this.#slots = Array.from({ length: SLOTS }, (_, slot) => {
      const here = rules.filter(({ rule }) => coversSlot(rule, slot));
      return here.length === 0 ? undefined : portTable(here);
    });
  }

  find(slot: number, port: number): number {
    const table = this.#slots[slot];
    if (table === undefined) return NO_RULE;
    let low = 0;
    let high = table.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (table.starts[middle]! <= port) low = middle;
      else high = middle - 1;
    }
    return table.rules[low]!;
  }
}

interface PortTable {
  /** Rising, the first is 0. */
  readonly starts: Int32Array;
  /** For the ports from the start at the same place to before the next. */
  readonly rules: Int32Array;
}

/** Paints the ranges in order, each only where nothing is painted yet; `next` leads over what is. */
function portTable(list: readonly Numbered[]): PortTable {
  const edges = new Set([0]);
  for (const { rule } of list) {
    for (const { first, last } of rule.ports ?? EVERY_PORT) edges.add(first).add(last + 1);
  }
  const starts = Int32Array.from(edges).sort();
  const placeOf = new Map<number, number>();
  for (const [place, start] of starts.entries()) placeOf.set(start, place);
  const painted = new Int32Array(starts.length).fill(NO_RULE);
  const next = Int32Array.from({ length: starts.length + 1 }, (_, place) => place);
  for (const { rule, index } of list) {
    for (const { first, last } of rule.ports ?? EVERY_PORT) {
      const end = placeOf.get(last + 1)!;
      for (let place = follow(next, placeOf.get(first)!); place < end; place = follow(next, place)) {
        painted[place] = index;
        next[place] = place + 1;
      }
    }
  }
  return { starts, rules: painted };
}

/** The first place from here on that is not painted; shortens the way for the next time. */
function follow(next: Int32Array, from: number): number {
  let place = from;
  while (next[place] !== place) {
    next[place] = next[next[place]!]!;
    place = next[place]!;
  }
  return place;
}

function coversSlot({ direction, protocol }: Rule, slot: number): boolean {
  if ((slot < SLOTS / 2 ? "in" : "out") !== direction) return false;
  const kind = slot % (SLOTS / 2);
  return protocol === "any" || KIND[protocol] === kind;
}

function slotOf(direction: Direction, protocol: number): number {
  const first = direction === "in" ? 0 : SLOTS / 2;
  switch (protocol) {
    case NEXT_HEADER.TCP:
      return first + KIND.tcp;
    case NEXT_HEADER.UDP:
      return first + KIND.udp;
    case NEXT_HEADER.ICMPV6:
      return first + KIND.icmp;
    default:
      return first + KIND.other;
  }
}

function peerKey(selector: Selector): string {
  switch (selector.kind) {
    case "trusted":
      return TRUSTED;
    case "name":
      return nameKey(selector.name);
    case "address":
      return addressKey(selector.address.network, selector.address.node);
    case "network":
      return networkKey(selector.network);
    case "key":
      return keyKey(selector.fingerprint);
    case "tag":
      return tagKey(selector.tag);
  }
}

/** Ends with a character that no selector contains, so that it runs into no peer's key. */
function ownerKey(selector: OwnerSelector | undefined): string {
  switch (selector?.kind) {
    case undefined:
      return ANYBODY;
    case "user":
      return userKey(selector.uid);
    case "group":
      return groupKey(selector.gid);
    case "unit":
      return unitKey(selector.unit);
    case "cgroup":
      return cgroupKey(selector.path);
  }
}

const nameKey = (name: string) => `n${name}`;
const addressKey = (network: NetworkId, node: NodeId) => `a${network}:${node}`;
const networkKey = (network: NetworkId) => `w${network}`;
const keyKey = (fingerprint: string) => `k${fingerprint}`;
const tagKey = (tag: string) => `g${tag}`;
const TRUSTED = "t";
const userKey = (uid: number) => `u${uid}\n`;
const groupKey = (gid: number) => `g${gid}\n`;
const unitKey = (unit: string) => `s${unit}\n`;
const cgroupKey = (path: string) => `c${path}\n`;
const ANYBODY = "";

const MAX_PEERS = 65_536;
const KIND = { tcp: 0, udp: 1, icmp: 2, other: 3 } as const;
const SLOTS = 8;
const EVERY_PORT = [{ first: 0, last: 0xffff }];
export const NO_RULE = -1;
