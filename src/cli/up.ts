/** `pilot-tun up`: the daemon, in the foreground. Checks every option before any of the daemon is loaded. */
import { Option } from "commander";
import { EXIT, type ExitCode, type Problem, SCHEMA } from "../control/api.ts";
import { auditDirectoryOf, instancePaths } from "../control/instance.ts";
import type { Running, UpOptions } from "../daemon/up-options.ts";
import { COMPAT_PATH, COMPAT_PORT } from "../wire/compat.ts";
import { type Confinement, confineDaemon, socketFolder, stateFolder } from "./confine.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { runForeground } from "./foreground.ts";
import {
  Checked,
  parseAuditKeep,
  parseBindAddress,
  parseCompatUrl,
  parseFingerprint,
  parseHostname,
  parseHostPort,
  parseInterfaceName,
  parseMetrics,
  parsePath,
  parsePrefix,
  parseRekeyEvery,
  parseTags,
  parseWhole,
} from "./parse-options.ts";
import { declareRegistryOptions, parseRegistrySecurity } from "./registry-options.ts";
import { effectiveSettings, layerSettings, problemInPlace, type Settings } from "./settings.ts";

export const declareUp: Declare = (program, perform) => {
  declareRegistryOptions(
    program.command("up").description("bring the interface up and stay in the foreground; needs root"),
  )
    .option("--config <FILE>", "options in TOML; default: /etc/pilot-tun[-INSTANCE]/config.toml if it is there")
    .option("--check", "only check the options and the configuration file")
    .option("--beacon <HOST:PORT>", "the overlay's beacon (UDP)")
    .option("--compat <URL>", "where the beacon is reached when UDP is blocked; default: wss://BEACON-HOST/v1/compat")
    .option("--compat-fingerprint <HEX>", "SHA-256 of that server's certificate; default: certificate authorities")
    .option("--no-compat", "never go around blocked UDP")
    .option("--state <DIR>", "identity, trust and caches; default: /var/lib/pilot-tun[-INSTANCE]")
    .option("--tun <NAME>", "name of the interface; default: pilot0, or pilot-INSTANCE")
    .option("--hostname <NAME>", "the name to register: reachable as NAME.pilot")
    .option("--tags <WORD,…>", "words to register, by which rules of peers may know this node: tag:WORD")
    .option("--listen <ADDR:PORT>", "underlay address to bind; default: every address, any port")
    .option("--prefix <PREFIX>", "the overlay's IPv6 prefix", "fd50:494c:4f54::/48")
    .option("--mtu <BYTES>", `of the interface, ${MIN_MTU_BYTES} to ${MAX_MTU_BYTES}`, "1360")
    .option("--rekey-every <TIME>", "replace the keys of sessions in use so often, 5s to 120s", "120s")
    .option(
      "--policy <FILE>",
      `what may pass, with FILE.d/*.policy; default: /etc/pilot-tun[-INSTANCE]/policy if it is there`,
    )
    .option("--audit <DIR>", "the audit log; default: the folder audit in that of --state")
    .option("--no-audit", "keep no audit log")
    .option("--audit-keep <FILESxSIZE>", "how much of it: so many files of so many KiB or MiB", "8x16M")
    .option(
      "--metrics <ADDRESS>",
      "serve metrics for Prometheus: 127.0.0.1:9586, [::1]:9586 or unix:PATH; default: nowhere",
    )
    .option("--no-prefer", "never go before other programs of this host, also not while pings wait for them")
    .option("--no-dns", "answer no names under .pilot on this host")
    .option(
      "--user <NAME>",
      `whom root becomes before anything is opened, or root; default: whose --state is, else ${OWN_USER} if there is one`,
    )
    .option("--see-programs", "let root keep the right to look at everybody's programs, for rules by group: and flows")
    .option("--allow-g1-keys", "also accept the weaker key derivation of Pilot daemons from before April 2026")
    .addOption(new Option("--plain-only", "be a plain Pilot agent to every peer; for tests").hideHelp())
    .option(
      "--relay-only",
      "reach peers through the beacon alone: neither they nor the registry's users learn where this is",
    )
    .option("--public", "let the registry tell everybody where this node is")
    .addHelpText(
      "after",
      examples(
        "sudo pilot-tun up --registry registry.example:9000 --beacon registry.example:9001 --hostname alice",
        "sudo pilot-tun up --registry 192.0.2.1:9000 --beacon 192.0.2.1:9001 --listen 0.0.0.0:4000",
      ),
    )
    .action(perform((context, input) => up(context, input)));
};

/** Made by the package. */
const OWN_USER = "pilot-tun";

/** RFC 8200 §5. */
const MIN_MTU_BYTES = 1280;
const MAX_MTU_BYTES = 9000;

type ParsedOptions = Omit<UpOptions, "signal" | "configuration">;
type StartDaemon = (options: UpOptions) => Promise<Running>;

export async function up(context: Context, input: Input, startDaemon: StartDaemon = loadAndStart): Promise<ExitCode> {
  const { options, settings } = readUpOptions(context, input);
  if (input.options.check === true) return checked(context, settings);
  const reread = () => {
    const again = readUpOptions(context, input);
    return {
      settings: effectiveSettings(again.settings),
      hostname: again.options.hostname,
      public: again.options.public,
      tags: again.options.tags,
    };
  };
  const configuration = { path: configFileOf(context, input).path, settings: effectiveSettings(settings), reread };
  if (startDaemon === loadAndStart) await confineDaemon(context, confinementOf(context, options, settings.values));
  return await runForeground(
    context.environment,
    (signal) => startDaemon({ ...options, configuration, signal }),
    (running) => context.answer({ schema: SCHEMA, ...running.ready }, () => [running.readyLine]),
  );
}

/** Interface, addresses and routes; ports below 1024, such as the one for names. */
function confinementOf(
  context: Context,
  { stateDir, control, audit }: ParsedOptions,
  raw: Input["options"],
): Confinement {
  const hasOwnAudit = audit !== undefined && audit.directory !== auditDirectoryOf(stateDir);
  return {
    user: raw.user === undefined ? undefined : String(raw.user),
    ownUser: OWN_USER,
    capabilities: ["NET_ADMIN", "NET_BIND_SERVICE", ...(raw.seePrograms === true ? TO_SEE_PROGRAMS : [])],
    mayPreferItself: raw.prefer !== false,
    stateDir,
    folders: [
      stateFolder(stateDir, ["identity.json", "node.json"]),
      ...(hasOwnAudit ? [stateFolder(audit.directory, ["anchor.json"])] : []),
      socketFolder(control, instancePaths(context.options.instance).control),
    ],
  };
}

/** Other users' /proc/PID/fd: to open it and to read its links. */
const TO_SEE_PROGRAMS = ["SYS_PTRACE", "DAC_READ_SEARCH"] as const;

function checked(context: Context, { configPath }: Settings): ExitCode {
  const reply = { schema: SCHEMA, ok: true, config: configPath ?? null };
  context.answer(reply, () => [configPath === undefined ? "the options are good" : `${configPath} is good`]);
  return EXIT.ok;
}

/** Everything that is asked of the daemon, from wherever it stands. Throws a UsageError with all that is wrong. */
export function readUpOptions(context: Context, input: Input) {
  const settings = layerSettings(input, context.environment.variables, configFileOf(context, input));
  const options = parseUpOptions(context, settings.values, (problem) => problemInPlace(problem, settings));
  return { settings, options };
}

function configFileOf(context: Context, { options }: Input): { readonly path: string; readonly mustExist: boolean } {
  const named = options.config ?? (context.environment.variables.PILOT_TUN_CONFIG || undefined);
  if (named === undefined) return { path: instancePaths(context.options.instance).config, mustExist: false };
  const checked = new Checked();
  const path = checked.take(parsePath("--config", named), "");
  checked.end();
  return { path, mustExist: true };
}

async function loadAndStart(options: UpOptions): Promise<Running> {
  const daemon = await import("../daemon/up.ts");
  return await daemon.up(options);
}

/** Throws a UsageError with all that is wrong. */
export function parseUpOptions(
  context: Context,
  raw: Input["options"],
  inPlace?: (problem: Problem) => Problem,
): ParsedOptions {
  const paths = instancePaths(context.options.instance);
  const checked = new Checked(inPlace);
  const options = {
    registry: checked.take(parseHostPort("--registry", raw.registry), NOWHERE),
    beacon: checked.take(parseHostPort("--beacon", raw.beacon), NOWHERE),
    stateDir: checked.take(parsePath("--state", raw.state ?? paths.stateDir), ""),
    control: context.options.control,
    tun: checked.take(parseInterfaceName("--tun", raw.tun ?? paths.tun), ""),
    hostname: raw.hostname === undefined ? undefined : checked.take(parseHostname("--hostname", raw.hostname), ""),
    tags: raw.tags === undefined ? undefined : checked.take(parseTags("--tags", raw.tags), []),
    listen: raw.listen === undefined ? undefined : checked.take(parseBindAddress("--listen", raw.listen), UNBOUND),
    prefix: checked.take(parsePrefix("--prefix", raw.prefix), NO_PREFIX),
    mtu: checked.take(parseWhole("--mtu", raw.mtu, MIN_MTU_BYTES, MAX_MTU_BYTES), 0),
    rekeyEveryMs: checked.take(parseRekeyEvery("--rekey-every", raw.rekeyEvery), 0),
    public: raw.public === true,
    relayOnly: raw.relayOnly === true,
    dns: raw.dns !== false,
    prefer: raw.prefer !== false,
    metrics: raw.metrics === undefined ? undefined : checked.take(parseMetrics("--metrics", raw.metrics), undefined),
    policy: {
      path: checked.take(parsePath("--policy", raw.policy ?? paths.policy), ""),
      mustExist: raw.policy !== undefined,
    },
    allowLegacyKeys: raw.allowG1Keys === true,
    plainOnly: raw.plainOnly === true,
  };
  const registrySecurity = parseRegistrySecurity(raw, checked);
  const compat = parseCompat(raw, options.beacon.host, checked);
  const audit = parseAudit(raw, options.stateDir, checked);
  checked.end();
  return { ...options, registrySecurity, compat, audit };
}

/** Undefined with --no-audit. */
function parseAudit(raw: Input["options"], stateDir: string, checked: Checked): UpOptions["audit"] {
  const keep = checked.take(parseAuditKeep("--audit-keep", raw.auditKeep), { keepFiles: 0, maxFileBytes: 0 });
  if (raw.audit === false) return undefined;
  const named = typeof raw.audit === "string" ? checked.take(parsePath("--audit", raw.audit), "") : undefined;
  return { directory: named ?? auditDirectoryOf(stateDir), ...keep };
}

/** Undefined with --no-compat. */
function parseCompat(raw: Input["options"], beaconHost: string, checked: Checked): UpOptions["compat"] {
  if (raw.compat === false) return undefined;
  const pin = raw.compatFingerprint;
  const fingerprint = pin === undefined ? undefined : checked.take(parseFingerprint("--compat-fingerprint", pin), "");
  const server =
    typeof raw.compat === "string"
      ? checked.take(parseCompatUrl("--compat", raw.compat), { ...NOWHERE, path: "" })
      : { host: beaconHost, port: COMPAT_PORT, path: COMPAT_PATH };
  return { ...server, fingerprint };
}

// Stand in for a value that was refused; nothing is started with them.
const NOWHERE = { host: "", port: 0 };
const UNBOUND = { address: "", port: 0 };
const NO_PREFIX = { text: "", bytes: new Uint8Array() };
