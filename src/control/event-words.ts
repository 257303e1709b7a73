/**
 * What an event says, in one line for people; what it holds beyond that is in its facts. The line carries text of others: who
 * shows it makes it harmless first.
 */
import { bytes, duration } from "../base/readable.ts";

export type Facts = Readonly<Record<string, unknown>>;

/** Events of a newer daemon are described too. */
export function describeEvent(event: string, facts: Facts): string {
  const describe = Object.hasOwn(DESCRIBE, event) ? DESCRIBE[event]! : describeAny;
  return describe(facts);
}

const DESCRIBE: Readonly<Record<string, (facts: Facts) => string>> = {
  file: ({ file }) => `file ${file} begins`,
  start: ({ version, after, self }) =>
    `daemon ${version} of ${nameOf(self)} starts${after === "crash" ? " after a crash" : ""}`,
  stop: () => "daemon ends",
  gap: ({ lost, since, until }) => `${lost} events between ${since} and ${until} were not written down`,
  repair: (facts) => `put right: ${describeAny(facts)}`,
  "flow-open": (facts) => `${flowText(facts)}${viaText(facts)} flow ${facts.flow}`,
  "flow-close": (facts) => {
    const { txBytes, rxBytes, seconds, cause, flow } = facts;
    const volume = `sent ${bytes(Number(txBytes))}, received ${bytes(Number(rxBytes))} in ${duration(Number(seconds))}`;
    return `${flowText(facts)}: ${volume}; ${cause} flow ${flow}`;
  },
  "flow-sum": (facts) => {
    const { began, ended, txBytes, rxBytes } = facts;
    const volume = `sent ${bytes(Number(txBytes))}, received ${bytes(Number(rxBytes))}`;
    return `${flowText(facts)}: ${began} more began, ${ended} ended, ${volume}`;
  },
  denial: (facts) => {
    const { count, reason, ports } = facts;
    const where = Array.isArray(ports) && ports.length > 0 ? ` port ${ports.join(",")}` : "";
    return `${flowText(facts)}${where} refused${Number(count) > 1 ? ` ${count} times` : ""}: ${reason}${ruleText(facts)}`;
  },
  path: ({ peer, path, endpoint }) =>
    `${nameOf(peer)}: ${path === "none" ? "no session" : `${path}, ${endpoint ?? "?"}`}`,
  problem: ({ state, code, message }) => (state === "gone" ? `over: ${code}` : `${code}: ${message}`),
  trust: (facts) => `${nameOf(facts.peer)}: ${facts.from} → ${facts.to}${byText(facts)}`,
  key: (facts) => `${nameOf(facts.peer)}: ${facts.change} ${facts.key}`,
  policy: (facts) => {
    const { change, rules, cut } = facts;
    const size = typeof rules === "number" ? `, ${rules} rules` : "";
    return `${change}${size}${typeof cut === "number" && cut > 0 ? `, ${cut} flows cut` : ""}${byText(facts)}`;
  },
};

function flowText(facts: Facts): string {
  const { direction, protocol, localPort, remotePort, peer } = facts;
  const there = `${nameOf(peer)}${portText(remotePort)}`;
  const here = portText(localPort);
  const ends = direction === "in" ? `${there} → ${here || "here"}` : `${here || "here"} → ${there}`;
  return `${protocol ?? "any"} ${ends}${ruleText(facts)}`;
}

function portText(port: unknown): string {
  return typeof port === "number" ? `:${port}` : "";
}

function viaText({ path, program }: Facts): string {
  const owner = program as { name?: unknown; pid?: unknown; uid?: unknown; unit?: unknown } | null | undefined;
  const place = owner?.unit ? ` in ${owner.unit}` : "";
  const who = owner?.name ? `${owner.name} (${owner.pid})${place}` : owner ? `uid ${owner.uid}` : "";
  return `, ${path ?? "no path"}${who === "" ? "" : `, ${who}`};`;
}

function ruleText({ rule }: Facts): string {
  const place = rule as { file?: unknown; line?: unknown } | null | undefined;
  return place ? ` [${place.file}:${place.line}]` : "";
}

function byText({ by }: Facts): string {
  const caller = by as
    | { uid?: unknown; user?: unknown; login?: { uid: unknown; user: unknown } | null }
    | null
    | undefined;
  if (!caller) return "";
  const login = caller.login ? `, logged in as ${caller.login.user ?? caller.login.uid}` : "";
  return ` by ${caller.user ?? `uid ${caller.uid}`}${login}`;
}

/** The name of a peer in an event. */
export function nameOf(peer: unknown): string {
  const { name, pilot } = (peer ?? {}) as { name?: unknown; pilot?: unknown };
  return typeof name === "string" ? name : typeof pilot === "string" ? pilot : "somebody";
}

function describeAny(facts: Facts): string {
  return Object.entries(facts)
    .filter(([key]) => !["seq", "at", "event", "hash"].includes(key))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join(" ");
}
