/**
 * Rules as a decision structure: five look-ups by what is known of the peer, in each a binary search over ports, and the
 * smallest rule number of those found decides. Cost per new flow does not grow with the number of rules.
 *
 * Compiled for one moment: rules that are over are left out, and `expiresAt` says when the next one is.
 */
import type { WallClock } from "../base/instant.ts";
import type { NetworkId, NodeId } from "../wire/ids.ts";
import { NEXT_HEADER } from "../wire/ipv6.ts";
import type { Direction, FlowFacts, Rule, Selector } from "./rule.ts";

export class CompiledPolicy {
  readonly rules: readonly Rule[];
  /** When the first rule that is still there ends; undefined: none does. */
  readonly expiresAt: WallClock | undefined;
  /** Key: what a selector names. Bound: the rules. */
  readonly #tables = new Map<string, SelectorTable>();
  readonly #byKind: Readonly<Record<Selector["kind"], boolean>>;

  constructor(rules: readonly Rule[], now: WallClock) {
    this.rules = rules;
    const live = new Map<string, { rule: Rule; index: number }[]>();
    const byKind = { trusted: false, name: false, address: false, network: false, key: false };
    let expiresAt: WallClock | undefined;
    rules.forEach((rule, index) => {
      if (rule.until !== undefined && rule.until <= now) return;
      if (rule.until !== undefined && (expiresAt === undefined || rule.until < expiresAt)) expiresAt = rule.until;
      byKind[rule.peer.kind] = true;
      const key = selectorKey(rule.peer);
      const known = live.get(key);
      if (known === undefined) live.set(key, [{ rule, index }]);
      else known.push({ rule, index });
    });
    for (const [key, list] of live) this.#tables.set(key, new SelectorTable(list));
    this.expiresAt = expiresAt;
    this.#byKind = byKind;
  }

  /** Index of the rule that decides; NO_RULE: none matches, which denies. */
  decide(flow: FlowFacts): number {
    const slot = slotOf(flow.direction, flow.protocol);
    const uses = this.#byKind;
    let best = NO_RULE;
    if (uses.trusted) best = this.#smaller(best, TRUSTED, slot, flow.port);
    if (uses.name && flow.name !== undefined) best = this.#smaller(best, nameKey(flow.name), slot, flow.port);
    if (uses.address) best = this.#smaller(best, addressKey(flow.network, flow.node), slot, flow.port);
    if (uses.network) best = this.#smaller(best, networkKey(flow.network), slot, flow.port);
    if (uses.key && flow.fingerprint !== undefined)
      best = this.#smaller(best, keyKey(flow.fingerprint), slot, flow.port);
    return best;
  }

  #smaller(best: number, key: string, slot: number, port: number): number {
    const found = this.#tables.get(key)?.find(slot, port) ?? NO_RULE;
    if (found === NO_RULE) return best;
    return best === NO_RULE || found < best ? found : best;
  }
}

/** The rules of one selector: per direction and protocol, ports cut into ranges that each have one first rule. */
class SelectorTable {
  readonly #slots: (PortTable | undefined)[];

  constructor(rules: readonly { rule: Rule; index: number }[]) {
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
function portTable(list: readonly { rule: Rule; index: number }[]): PortTable {
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

function selectorKey(selector: Selector): string {
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
  }
}

const nameKey = (name: string) => `n${name}`;
const addressKey = (network: NetworkId, node: NodeId) => `a${network}:${node}`;
const networkKey = (network: NetworkId) => `w${network}`;
const keyKey = (fingerprint: string) => `k${fingerprint}`;
const TRUSTED = "t";

const KIND = { tcp: 0, udp: 1, icmp: 2, other: 3 } as const;
const SLOTS = 8;
const EVERY_PORT = [{ first: 0, last: 0xffff }];
export const NO_RULE = -1;
