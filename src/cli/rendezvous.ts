/** `pilot-tun rendezvous`: registry and beacon of an overlay of one's own, in the foreground. */
import { resolve } from "node:path";
import type { Endpoint } from "../base/endpoint.ts";
import { formatEndpoint } from "../base/endpoint.ts";
import type { PilotError } from "../base/pilot-error.ts";
import { EXIT, type ExitCode, type Problem, SCHEMA } from "../control/api.ts";
import { type Confinement, confineDaemon, socketFolder, stateFolder } from "./confine.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { type ForegroundTask, runForeground } from "./foreground.ts";
import { plain } from "./format.ts";
import { Checked, type Parsed, parseBindAddress, parsePath, parseWhole } from "./parse-options.ts";
import { problemLines, usageProblem } from "./refusal.ts";
import { DEFAULT_STATE, declareRendezvousOperations, defaultAdminPath } from "./rendezvous-ops.ts";
import { secretIn } from "./secret-file.ts";
import { layerSettings, problemInPlace } from "./settings.ts";

export const declareRendezvous: Declare = (program, perform) => {
  const command = program
    .command("rendezvous")
    .description("run a registry and a beacon, in the foreground")
    .option("--config <FILE>", `options in TOML; default: ${DEFAULT_CONFIG} if it is there`)
    .option("--check", "only check the options and the configuration file")
    .option("--registry <ADDR:PORT>", "address of this machine for the registry (TCP)")
    .option("--beacon <ADDR:PORT>", "address of this machine for the beacon (UDP)")
    .option(
      "--beacon-probe <ADDR:PORT[,ADDR:PORT]>",
      "further ports (UDP), by which netcheck sees what a NAT does: one on the beacon's address, one on another",
    )
    .option("--compat <ADDR:PORT>", "address for nodes whose network blocks UDP (TLS, usually port 443)")
    .option("--tls-cert <FILE>", "certificate, with its chain, in PEM form")
    .option("--tls-key <FILE>", "its private key")
    .option("--tls-self-signed", "make a certificate and keep it in the state directory; clients pin its fingerprint")
    .option("--registry-tls-only", "refuse registry connections that are not TLS; needs a certificate")
    .option("--admin-token-file <FILE>", "who presents this token may create networks")
    .option("--invite-days <DAYS>", "how long an invitation into a network waits for its answer", "30")
    .option("--state <DIR>", "registrations and trust pairs", DEFAULT_STATE)
    .option("--admin <SOCKET>", "where health, metrics and backup ask (default: admin.sock in the state directory)")
    .option(
      "--user <NAME>",
      `whom root becomes before anything is opened, or root; default: whose --state is, else ${OWN_USER} if there is one`,
    )
    .option("--relay-limit <MBIT/S>", "what one node that proved its number may send through the relay", "10000")
    .option("--relay-limit-unproven <MBIT/S>", "what one address may send through it without a proof", "200")
    .option("--relay-proven-only", "relay only between nodes that proved their numbers, which pilot-tun does")
    .addHelpText("after", examples("pilot-tun rendezvous --registry 0.0.0.0:9000 --beacon 0.0.0.0:9001 --state ./rv"))
    .action(perform((context, input) => rendezvous(context, input)));
  declareRendezvousOperations(command, perform);
};

/** Made by the package. */
const OWN_USER = "pilot-rendezvous";
const DEFAULT_CONFIG = "/etc/pilot-tun/rendezvous.toml";

export interface RendezvousOptions {
  readonly registry: Endpoint;
  readonly beacon: Endpoint;
  readonly stateDir: string;
  readonly beaconProbe?: readonly Endpoint[];
  readonly compat?: Endpoint;
  readonly tls?: TlsOptions;
  readonly registryTlsOnly: boolean;
  readonly adminToken?: string;
  readonly inviteLifeMs: number;
  /** Unix socket for health, metrics and backups. */
  readonly admin: string;
  readonly relayProvenOnly: boolean;
  readonly beaconLimits: Readonly<Record<"relayBytes" | "unprovenRelay" | "unprovenRelayBytes", RateLimit>>;
  /** A problem while it runs, such as a full disk. */
  readonly onProblem: (problem: PilotError) => void;
}

export type TlsOptions =
  | { readonly kind: "files"; readonly certFile: string; readonly keyFile: string }
  | { readonly kind: "self-signed"; readonly stateDir: string; readonly names: readonly string[] };

interface RendezvousTask extends ForegroundTask {
  /** SHA-256 of the TLS certificate, in hex. */
  readonly fingerprint?: string | undefined;
}

type StartRendezvous = (options: RendezvousOptions) => Promise<RendezvousTask>;

export async function rendezvous(
  context: Context,
  input: Input,
  startRendezvous: StartRendezvous = loadAndStart,
): Promise<ExitCode> {
  const { options, settings } = readRendezvousOptions(context, input);
  if (input.options.check === true) {
    context.answer({ schema: SCHEMA, ok: true }, () => ["the options are good"]);
    return EXIT.ok;
  }
  if (startRendezvous === loadAndStart) await confineDaemon(context, confinementOf(options, settings.values.user));
  const facts = {
    registry: formatEndpoint(options.registry),
    beacon: formatEndpoint(options.beacon),
    stateDir: options.stateDir,
    ...(options.compat === undefined ? {} : { compat: formatEndpoint(options.compat) }),
  };
  return await runForeground(
    context.environment,
    () => startRendezvous({ ...options, onProblem: (problem) => reportProblem(context, problem) }),
    ({ fingerprint }) => {
      const tls = fingerprint === undefined ? {} : { fingerprint };
      context.answer({ schema: SCHEMA, ...facts, ...tls }, () => [readyLine(facts, fingerprint)]);
    },
  );
}

interface ReadyFacts {
  readonly registry: string;
  readonly beacon: string;
  readonly stateDir: string;
  readonly compat?: string;
}

function readyLine({ registry, beacon, stateDir, compat }: ReadyFacts, fingerprint: string | undefined): string {
  const parts = [`registry ${registry}`, `beacon ${beacon}`];
  if (compat !== undefined) parts.push(`compat ${compat}`);
  parts.push(`state ${stateDir}`);
  if (fingerprint !== undefined) parts.push(`certificate ${fingerprint}`);
  return `rendezvous ready: ${parts.join(", ")}`;
}

function reportProblem(context: Context, problem: PilotError): void {
  context.environment.stderr(`${problemLines(problem, plain).join("\n")}\n`);
}

async function loadAndStart(options: RendezvousOptions): Promise<RendezvousTask> {
  const daemon = await import("../daemon/rendezvous.ts");
  return await daemon.runRendezvous(options);
}

/** A port below 1024, such as 443. */
function confinementOf({ stateDir, admin }: Pick<RendezvousOptions, "stateDir" | "admin">, user: unknown): Confinement {
  return {
    user: user === undefined ? undefined : String(user),
    ownUser: OWN_USER,
    capabilities: ["NET_BIND_SERVICE"],
    mayPreferItself: false,
    stateDir,
    folders: [stateFolder(stateDir, ["rendezvous.db"]), socketFolder(admin, defaultAdminPath(stateDir))],
  };
}

function readRendezvousOptions(context: Context, input: Input) {
  const named = input.options.config;
  const config = { path: String(named ?? DEFAULT_CONFIG), mustExist: named !== undefined };
  const settings = layerSettings(input, context.environment.variables, config);
  return { settings, options: parseRendezvousOptions(settings.values, (problem) => problemInPlace(problem, settings)) };
}

/** Throws a UsageError with all that is wrong. */
export function parseRendezvousOptions(
  raw: Input["options"],
  inPlace?: (problem: Problem) => Problem,
): Omit<RendezvousOptions, "onProblem"> {
  const checked = new Checked(inPlace);
  const options = {
    registry: checked.take(parseBindAddress("--registry", raw.registry), UNBOUND),
    beacon: checked.take(parseBindAddress("--beacon", raw.beacon), UNBOUND),
    stateDir: checked.take(parsePath("--state", raw.state), ""),
    relayProvenOnly: raw.relayProvenOnly === true,
  };
  const admin = checked.take(parsePath("--admin", raw.admin ?? defaultAdminPath(options.stateDir)), "");
  const inviteDays = checked.take(parseWhole("--invite-days", raw.inviteDays ?? 30, 1, 3650), 1);
  const relayMbit = checked.take(parseWhole("--relay-limit", raw.relayLimit ?? 10_000, 1, 1_000_000), 1);
  const unproven = parseWhole("--relay-limit-unproven", raw.relayLimitUnproven ?? 200, 1, 1_000_000);
  const beaconLimits = relayLimits(relayMbit, checked.take(unproven, 1));
  const beaconProbe =
    raw.beaconProbe === undefined ? {} : { beaconProbe: checked.take(parseProbePorts(raw.beaconProbe), []) };
  const compat = raw.compat === undefined ? undefined : checked.take(parseBindAddress("--compat", raw.compat), UNBOUND);
  const tls = checked.take(parseTls(raw, options.stateDir, [options.registry, options.beacon, compat]), undefined);
  const registryTlsOnly = raw.registryTlsOnly === true;
  if (registryTlsOnly && tls === undefined)
    checked.take(tlsProblem("--registry-tls-only needs a certificate"), undefined);
  checked.end();
  const adminToken = secretIn("--admin-token-file", raw.adminTokenFile);
  const relay = { admin, inviteLifeMs: inviteDays * DAY_MS, beaconLimits };
  return {
    ...options,
    registryTlsOnly,
    ...(adminToken === undefined ? {} : { adminToken }),
    ...relay,
    ...beaconProbe,
    ...(compat === undefined ? {} : { compat }),
    ...(tls === undefined ? {} : { tls }),
  };
}

function parseProbePorts(text: unknown): Parsed<readonly Endpoint[]> {
  const ports: Endpoint[] = [];
  for (const part of String(text).split(",")) {
    const parsed = parseBindAddress("--beacon-probe", part);
    if (!("value" in parsed)) return parsed;
    ports.push(parsed.value);
  }
  if (ports.length <= MAX_PROBE_PORTS) return { value: ports };
  const hint = "Name one on the beacon's address and one on another.";
  return { problem: usageProblem(`--beacon-probe names ${ports.length} ports`, hint) };
}

interface RateLimit {
  readonly perSecond: number;
  readonly burst: number;
}

/** A fifth of a second's bytes at once, and never less than a few superdatagrams. */
function relayLimits(mbitPerSecond: number, unprovenMbitPerSecond: number): RendezvousOptions["beaconLimits"] {
  const rate = (mbit: number, unitBytes: number): RateLimit => {
    const perSecond = (mbit * 1e6) / 8 / unitBytes;
    return { perSecond, burst: Math.max(perSecond / 5, (512 * 1024) / unitBytes) };
  };
  return {
    relayBytes: rate(mbitPerSecond, 1),
    unprovenRelay: rate(unprovenMbitPerSecond, TYPICAL_FRAME_BYTES),
    unprovenRelayBytes: rate(unprovenMbitPerSecond, 1),
  };
}

/** Undefined without TLS, which only --compat cannot do without. */
function parseTls(
  raw: Input["options"],
  stateDir: string,
  endpoints: readonly (Endpoint | undefined)[],
): Parsed<TlsOptions | undefined> {
  const { tlsCert, tlsKey, tlsSelfSigned } = raw;
  if (tlsSelfSigned === true && (tlsCert !== undefined || tlsKey !== undefined)) {
    return tlsProblem("--tls-self-signed excludes --tls-cert and --tls-key");
  }
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    return tlsProblem("--tls-cert and --tls-key belong together");
  }
  if (tlsSelfSigned === true) {
    const names = new Set(endpoints.flatMap((endpoint) => (endpoint === undefined ? [] : [endpoint.address])));
    return { value: { kind: "self-signed", stateDir, names: [...names] } };
  }
  if (tlsCert === undefined) {
    return raw.compat === undefined ? { value: undefined } : tlsProblem("--compat needs a TLS certificate");
  }
  return { value: { kind: "files", certFile: resolve(String(tlsCert)), keyFile: resolve(String(tlsKey)) } };
}

function tlsProblem(message: string): Parsed<never> {
  return { problem: usageProblem(message, "Give --tls-cert FILE --tls-key FILE, or --tls-self-signed.") };
}

/** There is no third question to ask. */
const MAX_PROBE_PORTS = 2;
const TYPICAL_FRAME_BYTES = 1000;
const DAY_MS = 24 * 3_600_000;
/** Stands in for a value that was refused; nothing is started with it. */
const UNBOUND: Endpoint = { address: "", port: 0 };
