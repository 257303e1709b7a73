/**
 * What happens in one simulated life of a network, as plain data made from a seed: who is where, and what befalls whom
 * when. Nodes go by their index. A step that makes no sense when its time comes (the node is down, nobody asked) does
 * nothing, so that any part of a scenario is a scenario.
 */
import type { NatKind } from "../helpers/lab-nat.ts";
import { Random } from "../helpers/random.ts";

export interface Scenario {
  readonly seed: number;
  readonly nodes: readonly NodePlan[];
  /** By time. */
  readonly steps: readonly Step[];
  /** When all faults end. */
  readonly calmAtMs: number;
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
  | { readonly kind: "ask" | "approve" | "revoke"; readonly a: number; readonly b: number }
  /** A program on `a` sends so many packets to `b`, trusted or not. */
  | { readonly kind: "send"; readonly a: number; readonly b: number; readonly packets: number }
  | { readonly kind: "kill"; readonly a: number; readonly learned: "kept" | "lost" }
  | { readonly kind: "start"; readonly a: number }
  /** Nodes on different sides hear nothing of each other, or the island hears of nobody at all. */
  | { readonly kind: "part"; readonly sides: readonly boolean[] }
  | { readonly kind: "island"; readonly a: number }
  | { readonly kind: "join" }
  | { readonly kind: "weather"; readonly loss: number; readonly jitterMs: number; readonly duplication: number }
  | { readonly kind: "registry" | "beacon"; readonly to: "down" | "up" | "restarted" }
  /** The wall clock of one machine is set. */
  | { readonly kind: "clock"; readonly a: number; readonly skewMs: number }
  | { readonly kind: "move"; readonly a: number }
  /** A router restarts and knows no mapping any more. */
  | { readonly kind: "router"; readonly router: number }
  /** Somebody sends again, from where they came, datagrams that were recorded earlier. */
  | { readonly kind: "replay"; readonly datagrams: number };

export function makeScenario(seed: number, nodeCount?: number): Scenario {
  const random = new Random(seed);
  const size = nodeCount ?? sizeFor(random);
  const nodes = planNodes(random, size);
  const pairs = planPairs(random, size);
  const calmAtMs = random.between(40, 150) * 1_000;
  const steps = [
    ...pairs.flatMap((pair) => introductions(random, pair, calmAtMs)),
    ...traffic(random, pairs, size, calmAtMs),
    ...faults(random, nodes, calmAtMs),
  ];
  steps.sort((one, other) => one.atMs - other.atMs);
  return { seed, nodes, steps, calmAtMs };
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
      return `n${act.a} asks n${act.b} for trust`;
    case "approve":
      return `n${act.a} approves n${act.b}`;
    case "revoke":
      return `n${act.a} revokes n${act.b}`;
    case "send":
      return `n${act.a} sends ${act.packets} to n${act.b}`;
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
    case "clock":
      return `the clock of n${act.a} is set by ${act.skewMs / 1000} s`;
    case "move":
      return `n${act.a} gets another address`;
    case "router":
      return `router ${act.router} restarts`;
    case "replay":
      return `${act.datagrams} recorded datagrams are sent again`;
  }
}
