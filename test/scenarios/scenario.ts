/**
 * What happens in one simulated life of a network, as plain data made from a seed: who is where, and what befalls whom
 * when. Nodes go by their index. A step that makes no sense when its time comes (the node is down, nobody asked) does
 * nothing, so that any part of a scenario is a scenario.
 */
import type { NatKind } from "../helpers/lab-nat.ts";
import { Random } from "../helpers/random.ts";
import type { Denied } from "./reference.ts";

export interface Scenario {
  readonly seed: number;
  readonly nodes: readonly NodePlan[];
  /** By time. */
  readonly steps: readonly Step[];
  /** When all faults end. */
  readonly calmAtMs: number;
  /** The node that runs a modified pilot-tun; undefined: none does. */
  readonly hostile: number | undefined;
  /** There is a network that nodes may join. */
  readonly hasNetwork: boolean;
  /** How often keys of sessions are replaced; undefined: as always. */
  readonly rekeyMs: number | undefined;
}

/** What an operator names beside his word. */
export interface NamedTerms {
  readonly durationMs?: number;
  readonly maxBytes?: number;
}

export interface NodePlan {
  /** The router it is behind, by its number; undefined: none. */
  readonly router: number | undefined;
  readonly routerKind: NatKind;
  readonly relayOnly: boolean;
}

export interface Step {
  readonly atMs: number;
  readonly act: Act;
}

export type Act =
  | { readonly kind: "ask" | "approve"; readonly a: number; readonly b: number; readonly terms?: NamedTerms }
  | { readonly kind: "revoke"; readonly a: number; readonly b: number }
  /** A program on `a` sends so many packets to `b`, trusted or not; perhaps between their addresses in the network. */
  | {
      readonly kind: "send";
      readonly a: number;
      readonly b: number;
      readonly packets: number;
      readonly inNetwork?: boolean;
    }
  | { readonly kind: "kill"; readonly a: number; readonly learned: "kept" | "lost" }
  | { readonly kind: "start"; readonly a: number }
  /** Nodes on different sides hear nothing of each other, or the island hears of nobody at all. */
  | { readonly kind: "part"; readonly sides: readonly boolean[] }
  | { readonly kind: "island"; readonly a: number }
  | { readonly kind: "join" }
  | { readonly kind: "weather"; readonly loss: number; readonly jitterMs: number; readonly duplication: number }
  | { readonly kind: "registry" | "beacon"; readonly to: "down" | "up" | "restarted" }
  /** One node cannot reach the registry, and can again; its peers and the beacon it does. */
  | { readonly kind: "unlisted" | "listed"; readonly a: number }
  /** The wall clock of one machine is set. */
  | { readonly kind: "clock"; readonly a: number; readonly skewMs: number }
  | { readonly kind: "move"; readonly a: number }
  /** A router restarts and knows no mapping any more. */
  | { readonly kind: "router"; readonly router: number }
  /** Somebody sends again, from where they came, datagrams that were recorded earlier. */
  | { readonly kind: "replay"; readonly datagrams: number }
  /** The machine sleeps: its monotonic clock stands still, and nothing reaches it. */
  | { readonly kind: "sleep" | "wake"; readonly a: number }
  /** The policy of `a` is from now on to deny `b` this, and to let everybody else be. */
  | { readonly kind: "policy"; readonly a: number; readonly b: number; readonly denies: Denied }
  /** The operator joins the network, or leaves it. */
  | { readonly kind: "enter" | "leave"; readonly a: number };

export function makeScenario(seed: number, nodeCount?: number): Scenario {
  const random = new Random(seed);
  const size = nodeCount ?? sizeFor(random);
  const nodes = planNodes(random, size);
  const pairs = planPairs(random, size);
  const calmAtMs = random.between(40, 150) * 1_000;
  const words = pairs.flatMap((pair) => introductions(random, pair, calmAtMs));
  const sends = traffic(random, pairs, size, calmAtMs);
  const troubles = faults(random, nodes, calmAtMs);
  // What came later than the rest draws from elsewhere, so that seeds go on meaning what they meant.
  const more = new Random(seed ^ 0x1ea5e5);
  const hostile = more.chance(0.25) ? more.between(0, size - 1) : undefined;
  const hasNetwork = more.chance(0.2);
  const rekeyMs = more.chance(0.3) ? 15_000 : undefined;
  const steps = [
    ...(more.chance(0.25) ? words.map((step) => limited(more, step)) : words),
    ...(hasNetwork ? sends.map((step) => within(more, step)) : sends),
    ...troubles,
    ...(hasNetwork ? memberships(more, size, calmAtMs) : []),
    ...(more.chance(0.2) ? policies(more, pairs, calmAtMs) : []),
    ...(more.chance(0.3) ? sleeps(more, size, calmAtMs) : []),
    ...(more.chance(0.15) ? burst(more, pairs, calmAtMs) : []),
    ...(more.chance(0.2) ? heldBack(more, pairs, calmAtMs) : []),
  ];
  steps.sort((one, other) => one.atMs - other.atMs);
  return { seed, nodes, steps, calmAtMs, hostile, hasNetwork, rekeyMs };
}

/** Operators who name limits: mostly those who approve. */
function limited(random: Random, { atMs, act }: Step): Step {
  if ((act.kind !== "approve" && act.kind !== "ask") || !random.chance(act.kind === "approve" ? 0.6 : 0.2))
    return { atMs, act };
  const durationMs = random.between(5, 90) * 1_000;
  const maxBytes = random.between(1, 20) * 1_000;
  const terms = random.chance(0.5) ? { durationMs } : random.chance(0.5) ? { maxBytes } : { durationMs, maxBytes };
  return { atMs, act: { ...act, terms } };
}

function within(random: Random, { atMs, act }: Step): Step {
  return { atMs, act: act.kind === "send" ? { ...act, inNetwork: random.chance(0.5) } : act };
}

function memberships(random: Random, size: number, calmAtMs: number): Step[] {
  const steps: Step[] = [];
  for (let a = 0; a < size; a++) {
    let atMs = random.between(300, 5_000);
    for (let isIn = random.chance(0.2); atMs < calmAtMs && steps.length < 4 * size; isIn = !isIn) {
      steps.push({ atMs, act: { kind: isIn ? "leave" : "enter", a } });
      atMs += random.between(100, calmAtMs);
    }
  }
  return steps;
}

function policies(random: Random, pairs: readonly Pair[], calmAtMs: number): Step[] {
  return Array.from({ length: random.between(1, 6) }, () => {
    const [one, other] = random.pick(pairs);
    const [a, b] = random.chance(0.5) ? [one, other] : [other, one];
    const denies = random.pick<Denied>(["in", "out", "both", "nothing"]);
    return { atMs: random.between(1_000, calmAtMs), act: { kind: "policy", a, b, denies } };
  });
}

function sleeps(random: Random, size: number, calmAtMs: number): Step[] {
  return Array.from({ length: random.between(1, 3) }, (): Step[] => {
    const a = random.between(0, size - 1);
    const atMs = random.between(1_000, calmAtMs);
    const untilMs = atMs + random.pick([200, 3_000, 20_000, 60_000]);
    return [
      { atMs, act: { kind: "sleep", a } },
      { atMs: untilMs, act: { kind: "wake", a } },
    ];
  })
    .flat()
    .filter((step) => step.atMs < calmAtMs);
}

/** More at once than may wait for a key, of a node that has none yet. */
function burst(random: Random, pairs: readonly Pair[], calmAtMs: number): Step[] {
  const [a, b] = random.pick(pairs);
  const packets = random.between(70, 120);
  const atMs = random.between(calmAtMs / 2, calmAtMs - 1);
  const acts: Act[] = [
    { kind: "kill", a, learned: "kept" },
    { kind: "start", a },
    { kind: "send", a, b, packets },
  ];
  return acts.map((act) => ({ atMs, act }));
}

/** An approval that one of the two ends holds back, or hears late, while its ask is taken back and made anew. */
function heldBack(random: Random, pairs: readonly Pair[], calmAtMs: number): Step[] {
  const [one, other] = random.pick(pairs);
  const [a, b] = random.chance(0.5) ? [one, other] : [other, one];
  const unlisted = random.chance(0.5) ? a : b;
  const steps: Step[] = [];
  let atMs = random.between(1_000, calmAtMs - 25_000);
  const then = (pauseMs: number, act: Act) => {
    atMs += pauseMs;
    steps.push({ atMs, act });
  };
  then(0, { kind: "ask", a, b });
  // The one who asked must not have heard the answer when he loses the registry, which he asks every two seconds.
  if (unlisted === b) then(random.between(3_000, 6_000), { kind: "unlisted", a: b });
  then(unlisted === b ? random.between(0, 500) : random.between(3_000, 6_000), { kind: "approve", a: b, b: a });
  if (unlisted === a) then(random.between(10, 500), { kind: "unlisted", a });
  then(random.between(500, 3_000), { kind: "revoke", a, b });
  then(random.between(200, 3_000), { kind: "ask", a, b });
  then(random.between(1_000, 8_000), { kind: "listed", a: unlisted });
  return steps;
}

/** Most networks are small: there a seed costs little, and most of what goes wrong needs two or three. */
function sizeFor(random: Random): number {
  const share = random.fraction();
  if (share < 0.55) return random.between(2, 4);
  if (share < 0.9) return random.between(5, 8);
  if (share < 0.995) return random.between(9, 16);
  return random.between(30, 50);
}

const KINDS: readonly NatKind[] = ["endpoint-independent", "address-dependent", "port-dependent", "symmetric"];

function planNodes(random: Random, size: number): NodePlan[] {
  const routers = random.between(0, Math.ceil(size / 2));
  const kinds = Array.from({ length: routers }, () => random.pick(KINDS));
  return Array.from({ length: size }, () => {
    const router = routers > 0 && random.chance(0.6) ? random.between(0, routers - 1) : undefined;
    return { router, routerKind: kinds[router ?? 0] ?? KINDS[0]!, relayOnly: random.chance(0.08) };
  });
}

type Pair = readonly [number, number];

/** A path through all, so that everybody has somebody, and some more. */
function planPairs(random: Random, size: number): Pair[] {
  const pairs: Pair[] = Array.from({ length: size - 1 }, (_, i) => [i, i + 1]);
  const extra = size <= 2 ? 0 : random.between(0, size);
  for (let i = 0; i < extra; i++) {
    const a = random.between(0, size - 1);
    const b = random.between(0, size - 1);
    const isKnown = pairs.some(([x, y]) => (x === a && y === b) || (x === b && y === a));
    if (a !== b && !isKnown) pairs.push([a, b]);
  }
  return pairs;
}

/** Ask and approve, sometimes both ask, sometimes revoke, sometimes think better of it. */
function introductions(random: Random, pair: Pair, calmAtMs: number): Step[] {
  const [a, b] = random.chance(0.5) ? pair : ([pair[1], pair[0]] as const);
  const steps: Step[] = [];
  let atMs = random.between(100, calmAtMs / 3);
  const introduce = () => {
    steps.push({ atMs, act: { kind: "ask", a, b } });
    if (random.chance(0.15)) steps.push({ atMs: atMs + random.between(0, 3_000), act: { kind: "ask", a: b, b: a } });
    // The operator looks now and then.
    for (let i = 1; i <= 4; i++) {
      steps.push({ atMs: atMs + i * random.between(2_000, 9_000), act: { kind: "approve", a: b, b: a } });
    }
  };
  introduce();
  while (random.chance(0.4)) {
    atMs += random.between(8_000, calmAtMs / 2);
    const [by, of] = random.chance(0.5) ? [a, b] : [b, a];
    steps.push({ atMs, act: { kind: "revoke", a: by, b: of } });
    if (random.chance(0.3)) continue;
    atMs += random.between(50, 15_000);
    introduce();
  }
  return steps.filter((step) => step.atMs < calmAtMs);
}

function traffic(random: Random, pairs: readonly Pair[], size: number, calmAtMs: number): Step[] {
  const sends = Math.ceil((calmAtMs / 1_000) * Math.min(pairs.length, 12) * 0.5);
  return Array.from({ length: sends }, () => {
    const pair = random.pick(pairs);
    const isStranger = random.chance(0.1);
    const ends = isStranger ? [random.between(0, size - 1), random.between(0, size - 1)] : pair;
    const [a, b] = random.chance(0.5) ? [ends[0]!, ends[1]!] : [ends[1]!, ends[0]!];
    return { atMs: random.between(500, calmAtMs), act: { kind: "send", a, b, packets: random.between(1, 4) } };
  });
}

/** Each fault begins and, mostly, ends; all end when it becomes calm. */
function faults(random: Random, nodes: readonly NodePlan[], calmAtMs: number): Step[] {
  const steps: Step[] = [];
  const count = random.between(2, 6 + Math.ceil(nodes.length / 2));
  const any = () => random.between(0, nodes.length - 1);
  for (let i = 0; i < count; i++) {
    const atMs = random.between(1_000, calmAtMs);
    const untilMs = atMs + random.between(100, calmAtMs / 2);
    const add = (act: Act, end?: Act) => {
      steps.push({ atMs, act });
      if (end !== undefined) steps.push({ atMs: untilMs, act: end });
    };
    switch (random.between(0, 10)) {
      case 0: {
        const a = any();
        add({ kind: "kill", a, learned: random.chance(0.5) ? "kept" : "lost" }, { kind: "start", a });
        break;
      }
      case 1:
        add({ kind: "part", sides: nodes.map(() => random.chance(0.5)) }, { kind: "join" });
        break;
      case 2:
        add({ kind: "island", a: any() }, { kind: "join" });
        break;
      case 3:
      case 4:
        add(
          {
            ...{ kind: "weather", loss: random.pick([0, 0.05, 0.3, 0.7]) },
            ...{ jitterMs: random.pick([0, 20, 400]), duplication: random.pick([0, 0.1, 0.5]) },
          },
          { kind: "weather", loss: 0, jitterMs: 0, duplication: 0 },
        );
        break;
      case 5:
        add({ kind: "registry", to: "down" }, { kind: "registry", to: "up" });
        break;
      case 6:
        add({ kind: "beacon", to: "down" }, { kind: "beacon", to: "up" });
        break;
      case 7:
        add({ kind: random.pick(["registry", "beacon"] as const), to: "restarted" });
        break;
      case 8:
        add({ kind: "clock", a: any(), skewMs: random.pick([-3_600_000, -5_000, 1_000, 90_000, 86_400_000]) });
        break;
      case 9:
        add(random.chance(0.5) ? { kind: "move", a: any() } : { kind: "router", router: nodes[any()]!.router ?? 0 });
        break;
      default:
        add({ kind: "replay", datagrams: random.between(1, 60) });
    }
  }
  return steps.filter((step) => step.atMs < calmAtMs);
}

/** One line for people. */
export function describeAct(act: Act): string {
  switch (act.kind) {
    case "ask":
      return `n${act.a} asks n${act.b} for trust${describeTerms(act.terms)}`;
    case "approve":
      return `n${act.a} approves n${act.b}${describeTerms(act.terms)}`;
    case "revoke":
      return `n${act.a} revokes n${act.b}`;
    case "send":
      return `n${act.a} sends ${act.packets} to n${act.b}${act.inNetwork ? " in the network" : ""}`;
    case "kill":
      return `n${act.a} is killed, what it learned is ${act.learned}`;
    case "start":
      return `n${act.a} starts`;
    case "part":
      return `parted: ${act.sides.map((side, i) => `n${i}${side ? "|" : "-"}`).join(" ")}`;
    case "island":
      return `n${act.a} is cut off from everybody`;
    case "join":
      return "all are joined again";
    case "weather":
      return `loss ${act.loss}, jitter ${act.jitterMs} ms, duplication ${act.duplication}`;
    case "registry":
    case "beacon":
      return `the ${act.kind} is ${act.to}`;
    case "unlisted":
      return `n${act.a} cannot reach the registry`;
    case "listed":
      return `n${act.a} can reach the registry again`;
    case "clock":
      return `the clock of n${act.a} is set by ${act.skewMs / 1000} s`;
    case "move":
      return `n${act.a} gets another address`;
    case "router":
      return `router ${act.router} restarts`;
    case "replay":
      return `${act.datagrams} recorded datagrams are sent again`;
    case "sleep":
      return `n${act.a} falls asleep`;
    case "wake":
      return `n${act.a} wakes`;
    case "policy":
      return `the policy of n${act.a} denies n${act.b} ${act.denies}`;
    case "enter":
      return `n${act.a} joins the network`;
    case "leave":
      return `n${act.a} leaves the network`;
  }
}

function describeTerms(terms: NamedTerms | undefined): string {
  const time = terms?.durationMs === undefined ? "" : ` for ${terms.durationMs / 1_000} s`;
  return `${time}${terms?.maxBytes === undefined ? "" : ` max ${terms.maxBytes} bytes`}`;
}
