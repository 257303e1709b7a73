/**
 * Text of the command line → checked values. Each parser returns its value or a Problem that says what would be right;
 * `Checked` gathers all problems of one command line, so that a person corrects them in one go.
 */
import { isIP, isIPv4 } from "node:net";
import { resolve } from "node:path";
import { Address6 } from "ip-address";
import type { Endpoint } from "../base/endpoint.ts";
import type { Problem } from "../control/api.ts";
import { instancePaths, isInstanceName } from "../control/instance.ts";
import type { MetricsAddress } from "../daemon/up-options.ts";
import { COMPAT_PATH, COMPAT_PORT } from "../wire/compat.ts";
import { MAX_TAGS } from "../wire/registry.ts";
import { UsageError, usageProblem } from "./refusal.ts";
import type { Variables } from "./settings.ts";

export type Parsed<T> = { readonly value: T } | { readonly problem: Problem };

export interface GlobalOptions {
  /** Which of several daemons on this machine; undefined: the nameless one. */
  readonly instance: string | undefined;
  readonly control: string;
  readonly json: boolean;
  readonly colour: boolean;
  /** Undefined: each command's own default. */
  readonly timeoutMs: number | undefined;
}

/** Collects problems; `end` throws them together. */
export class Checked {
  readonly #problems: Problem[] = [];
  readonly #inPlace: (problem: Problem) => Problem;

  /** `inPlace` lets a problem say where its value stands, when that is not the command line. */
  constructor(inPlace: (problem: Problem) => Problem = (problem) => problem) {
    this.#inPlace = inPlace;
  }

  /** The value, or `fallback` while the problem waits for `end`. */
  take<T>(parsed: Parsed<T>, fallback: T): T {
    if ("value" in parsed) return parsed.value;
    this.#problems.push(this.#inPlace(parsed.problem));
    return fallback;
  }

  end(): void {
    if (this.#problems.length > 0) throw new UsageError(this.#problems);
  }
}

/** The global options as commander read them. Throws UsageError. */
export function parseGlobalOptions(raw: Readonly<Record<string, unknown>>, variables: Variables): GlobalOptions {
  const checked = new Checked();
  const timeout = raw.timeout;
  const name = raw.instance ?? (variables.PILOT_TUN_INSTANCE || undefined);
  const instance = name === undefined ? undefined : checked.take(parseInstance("--instance", name), undefined);
  const control = raw.control ?? (variables.PILOT_TUN_CONTROL || instancePaths(instance).control);
  const options = {
    instance,
    control: checked.take(parsePath("--control", control), ""),
    json: raw.json === true,
    colour: raw.color !== false,
    timeoutMs: timeout === undefined ? undefined : checked.take(parseDuration("--timeout", timeout), 0),
  };
  checked.end();
  return options;
}

/** `500ms`, `5s`, `5`, `2m`; as milliseconds. */
export function parseDuration(option: string, text: unknown): Parsed<number> {
  const match = /^(\d{1,7}(?:\.\d{1,3})?)(ms|s|m)?$/.exec(String(text));
  const ms = match === null ? 0 : Math.round(Number(match[1]) * UNIT_MS[(match[2] ?? "s") as keyof typeof UNIT_MS]);
  if (ms >= 1 && ms <= MAX_DURATION_MS) return { value: ms };
  return bad(`${option} ${quoted(text)} is not a time`, "Write 500ms, 5s or 2m; at most one hour.");
}

const UNIT_MS = { ms: 1, s: 1000, m: 60_000 } as const;
const MAX_DURATION_MS = 3_600_000;

/** Longer would leave more to whoever gets hold of keys, shorter wins nothing. */
export function parseRekeyEvery(option: string, text: unknown): Parsed<number> {
  const parsed = parseDuration(option, text);
  if ("value" in parsed && (parsed.value < 5_000 || parsed.value > 120_000))
    return bad(`${option} ${quoted(text)} is not from 5s to 120s`, `For example ${option} 120s.`);
  return parsed;
}

export function parseWhole(option: string, text: unknown, least: number, most: number): Parsed<number> {
  const value = /^\d{1,9}$/.test(String(text)) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return { value };
  return bad(
    `${option} ${quoted(text)} is not a whole number from ${least} to ${most}`,
    `For example ${option} ${least}.`,
  );
}

export function parsePath(option: string, text: unknown): Parsed<string> {
  if (typeof text === "string" && text !== "" && !text.includes("\0")) return { value: resolve(text) };
  return bad(`${option} needs a path`, `For example ${option} /srv/pilot-tun.`);
}

export function parseInstance(option: string, text: unknown): Parsed<string> {
  if (typeof text === "string" && isInstanceName(text)) return { value: text };
  return bad(
    `${option} ${quoted(text)} is not the name of an instance`,
    `Write a letter and up to 8 of a-z 0-9, for example ${option} work.`,
  );
}

/** `8x16M`: files and the size of each, K for KiB and M for MiB. */
export function parseAuditKeep(
  option: string,
  text: unknown,
): Parsed<{ readonly keepFiles: number; readonly maxFileBytes: number }> {
  const match = /^(\d{1,5})x(\d{1,7})([KM])$/.exec(String(text));
  const keepFiles = Number(match?.[1]);
  const maxFileBytes = Number(match?.[2]) * (match?.[3] === "M" ? 1024 * 1024 : 1024);
  const isSane = keepFiles >= 2 && keepFiles <= 10_000 && maxFileBytes >= 64 * 1024 && maxFileBytes <= 1024 ** 3;
  if (isSane) return { value: { keepFiles, maxFileBytes } };
  return bad(
    `${option} ${quoted(text)} is not a number of files and their size`,
    `Write 2 to 10000 files of 64K to 1024M each, for example ${option} 8x16M.`,
  );
}

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** `registry.example:9000`, `192.0.2.1:9000`, `[2001:db8::1]:9000`. */
export function parseHostPort(option: string, text: unknown): Parsed<HostPort> {
  const parts = splitPort(text);
  if (parts === undefined) return badHostPort(option, text);
  if (isIP(parts.host) === 0 && !isHostName(parts.host)) return badHostPort(option, text);
  return { value: parts };
}

/** An address of this machine to bind: `0.0.0.0:4000`, `[::]:4000`. */
export function parseBindAddress(option: string, text: unknown): Parsed<Endpoint> {
  const parts = splitPort(text);
  if (parts !== undefined && isIP(parts.host) !== 0) {
    return { value: { address: canonicalAddress(parts.host), port: parts.port } };
  }
  const port = examplePort(option);
  if (text === undefined) return bad(`${option} is missing`, `For example ${option} 0.0.0.0:${port}.`);
  return bad(
    `${option} ${quoted(text)} is not an address and a port`,
    `Write an IPv4 or IPv6 address of this machine, for example ${option} 0.0.0.0:${port} or ${option} '[::]:${port}'.`,
  );
}

/** `unix:/run/x.sock` or a loopback address and port: metrics name peers, and are for this host. */
export function parseMetrics(option: string, text: unknown): Parsed<MetricsAddress> {
  const path = /^unix:(\/[^\0]+)$/.exec(String(text))?.[1];
  if (path !== undefined) return { value: { kind: "unix", path } };
  const parts = splitPort(text);
  if (parts !== undefined && isLoopback(parts.host)) return { value: { kind: "tcp", ...parts } };
  return bad(
    `${option} ${quoted(text)} is neither a loopback address with a port nor a unix socket`,
    `Write ${option} 127.0.0.1:9586, ${option} '[::1]:9586' or ${option} unix:/run/pilot-tun/metrics.sock.`,
  );
}

/** `127.0.0.1:9587`, `[::1]:9587`: what only this machine reaches. */
export function parseLoopback(option: string, text: unknown): Parsed<HostPort> {
  const parts = splitPort(text);
  if (parts !== undefined && isLoopback(parts.host)) return { value: parts };
  return bad(
    `${option} ${quoted(text)} is not a loopback address with a port`,
    `Write ${option} 127.0.0.1:9587 or ${option} '[::1]:9587'; other machines reach it with ssh -L.`,
  );
}

function isLoopback(host: string): boolean {
  return isIP(host) !== 0 && /^(?:127\.\d+\.\d+\.\d+|::1)$/.test(host);
}

/** `wss://rendezvous.example/v1/compat`; without a path, or without the scheme, the usual ones. */
export function parseCompatUrl(option: string, text: string): Parsed<HostPort & { readonly path: string }> {
  const url = URL.parse(text.includes("://") ? text : `wss://${text}`);
  const isPlain = url?.username === "" && url.password === "" && url.search === "" && url.hash === "";
  if (url === null || url.protocol !== "wss:" || url.hostname === "" || !isPlain) {
    const hint = `For example ${option} wss://rendezvous.example${COMPAT_PATH}; only TLS is spoken there.`;
    return bad(`${option} ${quoted(text)} is not the URL of a WebSocket over TLS`, hint);
  }
  return {
    value: {
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port === "" ? COMPAT_PORT : Number(url.port),
      path: url.pathname === "/" ? COMPAT_PATH : url.pathname,
    },
  };
}

/** SHA-256 of a certificate, as openssl, browsers and a rendezvous print it. */
export function parseFingerprint(option: string, text: unknown): Parsed<string> {
  const hex = String(text)
    .replace(/^sha-?256[:=]/i, "")
    .replaceAll(":", "")
    .toLowerCase();
  if (/^[0-9a-f]{64}$/.test(hex)) return { value: hex };
  const hint = "Write 64 hex digits; a self-signed rendezvous prints them when it starts.";
  return bad(`${option} ${quoted(text)} is not a SHA-256 fingerprint`, hint);
}

function badHostPort(option: string, text: unknown): Parsed<never> {
  const port = examplePort(option);
  const example = `For example ${option} registry.example:${port} or ${option} '[2001:db8::1]:${port}'.`;
  if (text === undefined) return bad(`${option} is missing`, example);
  return bad(`${option} ${quoted(text)} is not HOST:PORT`, example);
}

/** The ports that registries and beacons usually have; anything for a tunnel. */
function examplePort(option: string): number {
  if (option === "--registry") return 9000;
  return option === "--beacon" ? 9001 : 4000;
}

function splitPort(text: unknown): HostPort | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(String(text ?? ""));
  if (match === null) return undefined;
  const port = Number(match[3]);
  if (port < 1 || port > 65_535) return undefined;
  if (match[1] !== undefined) return isIP(match[1]) === 6 ? { host: match[1], port } : undefined;
  return { host: match[2]!, port };
}

/** RFC 1123 §2.1; a last label of digits only would be a mistyped IPv4 address. */
function isHostName(text: string): boolean {
  const labels = text.replace(/\.$/, "").split(".");
  const wellFormed = labels.every((label) => /^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$/.test(label));
  return wellFormed && text.length <= 253 && !/^\d+$/.test(labels.at(-1)!);
}

/** RFC 5952; an IPv4-mapped address becomes the IPv4 address. */
function canonicalAddress(text: string): string {
  if (isIPv4(text)) return text;
  const address = new Address6(text);
  const isMapped = address.correctForm().startsWith("::ffff:") && address.isInSubnet(new Address6("::ffff:0:0/96"));
  return isMapped ? address.to4().correctForm() : address.correctForm();
}

/** What the kernel takes as a name (dev_valid_name), without `%`, which would make it a template. */
export function parseInterfaceName(option: string, text: unknown): Parsed<string> {
  if (typeof text === "string" && /^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,15}$/.test(text)) return { value: text };
  return bad(
    `${option} ${quoted(text)} is not an interface name`,
    `Write 1 to 15 of A-Z a-z 0-9 _ . -, for example ${option} pilot0.`,
  );
}

/** The registry's pattern, less names that mean something else where a peer is asked for. */
/** As registries take them: up to ten words, with or without `#` in front. The empty text takes all away. */
export function parseTags(option: string, text: unknown): Parsed<readonly string[]> {
  const words = String(text).split(",").filter(Boolean);
  const tags = [...new Set(words.map((word) => word.trim().replace(/^#/, "")))];
  const wrong = tags.find((tag) => !/^(?!-)[a-z0-9-]{1,32}$(?<!-)/.test(tag));
  if (wrong !== undefined) {
    return bad(`${option}: ${quoted(wrong)} is no tag`, "Write 1 to 32 of a-z 0-9 -, not starting or ending with -.");
  }
  if (tags.length > MAX_TAGS) return bad(`${option} names ${tags.length} tags`, `A registry keeps ${MAX_TAGS}.`);
  return { value: tags };
}

export function parseHostname(option: string, text: unknown): Parsed<string> {
  const valid = typeof text === "string" && /^(?!-)[a-z0-9-]{1,63}$(?<!-)/.test(text);
  if (!valid) {
    return bad(
      `${option} ${quoted(text)} is not a hostname`,
      `Write 1 to 63 of a-z 0-9 -, not starting or ending with -, without .pilot; for example ${option} alice.`,
    );
  }
  if (/^\d+$/.test(text)) {
    return bad(`${option} ${quoted(text)} reads as a node number`, "Choose a hostname with a letter in it.");
  }
  if (RESERVED_HOSTNAMES.has(text)) return bad(`${option} ${quoted(text)} is reserved`, "Choose another hostname.");
  return { value: text };
}

const RESERVED_HOSTNAMES: ReadonlySet<string> = new Set(["localhost", "backbone", "broadcast"]);

export interface Prefix48 {
  readonly text: string;
  readonly bytes: Uint8Array;
}

/** A unique local /48 (RFC 4193). */
export function parsePrefix(option: string, text: unknown): Parsed<Prefix48> {
  const match = /^(fd[0-9a-fA-F:]*)\/48$/i.exec(String(text));
  if (match !== null && isIP(match[1]!) === 6) {
    const address = new Address6(match[1]!);
    const all = Uint8Array.from(address.toByteArray());
    if (all.subarray(6).every((byte) => byte === 0)) {
      return { value: { text: `${address.correctForm()}/48`, bytes: all.slice(0, 6) } };
    }
  }
  return bad(
    `${option} ${quoted(text)} is not a unique local /48 prefix`,
    `Write fdXX:XXXX:XXXX::/48, for example ${option} fd50:494c:4f54::/48.`,
  );
}

function bad(message: string, hint: string): Parsed<never> {
  return { problem: usageProblem(message, hint) };
}

function quoted(text: unknown): string {
  return JSON.stringify(String(text).slice(0, 80));
}
