/** A record of the audit log as people read it: one line; what it holds beyond that is in the JSON. */
import { bytes, duration, type Paint, printable } from "./format.ts";

export interface AuditRecord {
  /** Absent: it is not kept. */
  readonly seq?: number;
  readonly at: number;
  readonly event: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

type Fields = AuditRecord["fields"];

export function recordLine(record: AuditRecord, paint: Paint): string {
  const when = new Date(record.at).toISOString().replace("T", " ").slice(0, 19);
  const describe = DESCRIBE[record.event] ?? describeAny;
  const text = printable(describe(record.fields));
  const number = record.seq === undefined ? "" : `${String(record.seq).padStart(6)}  `;
  return `${paint("dim", when)}  ${number}${record.event.padEnd(10)}  ${text}`;
}

const DESCRIBE: Readonly<Record<string, (fields: Fields) => string>> = {
  file: ({ file }) => `file ${file} begins`,
  start: ({ version, after, self }) =>
    `daemon ${version} of ${nameOf(self)} starts${after === "crash" ? " after a crash" : ""}`,
  stop: () => "daemon ends",
  gap: ({ lost, since, until }) => `${lost} events between ${since} and ${until} were not written down`,
  repair: (fields) => `put right: ${describeAny(fields)}`,
  "flow-open": (fields) => `${flowText(fields)}${viaText(fields)} flow ${fields.flow}`,
  "flow-close": (fields) => {
    const { txBytes, rxBytes, seconds, cause, flow } = fields;
    const volume = `sent ${bytes(Number(txBytes))}, received ${bytes(Number(rxBytes))} in ${duration(Number(seconds))}`;
    return `${flowText(fields)}: ${volume}; ${cause} flow ${flow}`;
  },
  "flow-sum": (fields) => {
    const { began, ended, txBytes, rxBytes } = fields;
    const volume = `sent ${bytes(Number(txBytes))}, received ${bytes(Number(rxBytes))}`;
    return `${flowText(fields)}: ${began} more began, ${ended} ended, ${volume}`;
  },
  denial: (fields) => {
    const { count, reason, ports } = fields;
    const where = Array.isArray(ports) && ports.length > 0 ? ` port ${ports.join(",")}` : "";
    return `${flowText(fields)}${where} refused${Number(count) > 1 ? ` ${count} times` : ""}: ${reason}${ruleText(fields)}`;
  },
  path: ({ peer, path, endpoint }) =>
    `${nameOf(peer)}: ${path === "none" ? "no session" : `${path}, ${endpoint ?? "?"}`}`,
  problem: ({ state, code, message }) => (state === "gone" ? `over: ${code}` : `${code}: ${message}`),
  trust: (fields) => `${nameOf(fields.peer)}: ${fields.from} → ${fields.to}${byText(fields)}`,
  key: (fields) => `${nameOf(fields.peer)}: ${fields.change} ${fields.key}`,
  policy: (fields) => {
    const { change, rules, cut } = fields;
    const size = typeof rules === "number" ? `, ${rules} rules` : "";
    return `${change}${size}${typeof cut === "number" && cut > 0 ? `, ${cut} flows cut` : ""}${byText(fields)}`;
  },
};

function flowText(fields: Fields): string {
  const { direction, protocol, localPort, remotePort, peer } = fields;
  const there = `${nameOf(peer)}${portText(remotePort)}`;
  const here = portText(localPort);
  const ends = direction === "in" ? `${there} → ${here || "here"}` : `${here || "here"} → ${there}`;
  return `${protocol ?? "any"} ${ends}${ruleText(fields)}`;
}

function portText(port: unknown): string {
  return typeof port === "number" ? `:${port}` : "";
}

function viaText({ path, program }: Fields): string {
  const owner = program as { name?: unknown; pid?: unknown; uid?: unknown; unit?: unknown } | null | undefined;
  const place = owner?.unit ? ` in ${owner.unit}` : "";
  const who = owner?.name ? `${owner.name} (${owner.pid})${place}` : owner ? `uid ${owner.uid}` : "";
  return `, ${path ?? "no path"}${who === "" ? "" : `, ${who}`};`;
}

function ruleText({ rule }: Fields): string {
  const place = rule as { file?: unknown; line?: unknown } | null | undefined;
  return place ? ` [${place.file}:${place.line}]` : "";
}

function byText({ by }: Fields): string {
  const caller = by as
    | { uid?: unknown; user?: unknown; login?: { uid: unknown; user: unknown } | null }
    | null
    | undefined;
  if (!caller) return "";
  const login = caller.login ? `, logged in as ${caller.login.user ?? caller.login.uid}` : "";
  return ` by ${caller.user ?? `uid ${caller.uid}`}${login}`;
}

function nameOf(peer: unknown): string {
  const { name, pilot } = (peer ?? {}) as { name?: unknown; pilot?: unknown };
  return typeof name === "string" ? name : typeof pilot === "string" ? pilot : "somebody";
}

/** Records of a newer daemon are shown too. */
function describeAny(fields: Fields): string {
  return Object.entries(fields)
    .filter(([key]) => !["seq", "at", "event", "hash"].includes(key))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join(" ");
}
