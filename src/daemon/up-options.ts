/**
 * What `pilot-tun up` is told, and what it hands back once the interface is up. The command line fills the options with
 * checked values and every default but `listen` and `hostname`; the daemon checks no text again.
 */
import type { Endpoint } from "../base/endpoint.ts";

/** What proves that the registry is the one: nothing, the system's certificate authorities, or a pinned certificate. */
export type RegistrySecurity =
  | { readonly kind: "plain" }
  | { readonly kind: "authorities" }
  /** SHA-256 of the certificate's DER form in lower-case hex. */
  | { readonly kind: "pinned"; readonly fingerprint: string };

export interface UpOptions {
  readonly registry: HostPort;
  readonly registrySecurity: RegistrySecurity;
  readonly beacon: HostPort;
  /** Where the beacon is reached when UDP is blocked; undefined: nowhere. */
  readonly compat: CompatAddress | undefined;
  readonly stateDir: string;
  /** Path of the control socket. */
  readonly control: string;
  /** Name of the interface, at most 15 bytes. */
  readonly tun: string;
  /** Undefined keeps the one of the last registration, or none. */
  readonly hostname: string | undefined;
  /** Undefined leaves those that the registry has. */
  readonly tags: readonly string[] | undefined;
  /** Underlay address to bind; undefined lets the kernel choose a port on every address. */
  readonly listen: Endpoint | undefined;
  readonly prefix: Prefix48;
  readonly mtu: number;
  /** How long the keys of a session in use are good. */
  readonly rekeyEveryMs: number;
  /** True lets the registry tell everybody where this node is. */
  readonly public: boolean;
  /** Send to peers through the beacon alone, and tell nobody where this node is. */
  readonly relayOnly: boolean;
  /** Answer names under `.pilot` for this host. */
  readonly dns: boolean;
  /** Goes before ordinary programs where that helps. */
  readonly prefer: boolean;
  /** Where metrics are read; undefined: nowhere. */
  readonly metrics: MetricsAddress | undefined;
  /** What may pass; without the file trusted peers reach every port, unless it must exist. */
  readonly policy: { readonly path: string; readonly mustExist: boolean };
  /** Where and how much is written down of what passed and who changed what; undefined: nothing. */
  readonly audit: AuditOptions | undefined;
  /** Accept the key derivation of daemons from before April 2026 as well: a downgrade, off by default. */
  readonly allowLegacyKeys: boolean;
  /** Be a plain Pilot agent to every peer, for tests: only streams, datagrams and pings, no packets. */
  readonly plainOnly: boolean;
  /** What was configured, and how to read it again. */
  readonly configuration: ConfigurationSource;
  /** Aborts when the daemon is asked to end before it is ready: it undoes what it did and rejects. */
  readonly signal: AbortSignal;
}

export type MetricsAddress =
  | { readonly kind: "unix"; readonly path: string }
  /** A loopback address. */
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

export interface ConfigurationSource {
  /** The configuration file, which need not exist. */
  readonly path: string;
  /** Key: an option's name in the file. What is in force, as text. */
  readonly settings: ReadonlyMap<string, string>;
  /** Reads the file again; throws an Error that says everything wrong with it. */
  reread(): Reread;
}

/** What of the options may change while the daemon runs, and all of them as text to compare. */
export interface Reread {
  readonly settings: ReadonlyMap<string, string>;
  readonly hostname: string | undefined;
  readonly public: boolean;
  readonly tags: readonly string[] | undefined;
}

export interface AuditOptions {
  readonly directory: string;
  /** The newest files that are kept. */
  readonly keepFiles: number;
  readonly maxFileBytes: number;
}

export interface CompatAddress extends HostPort {
  readonly path: string;
  /** SHA-256 of the certificate in lower-case hex; undefined: the system's certificate authorities decide. */
  readonly fingerprint: string | undefined;
}

export interface HostPort {
  /** A host name, or an IPv4 or IPv6 address without brackets. */
  readonly host: string;
  readonly port: number;
}

/** The overlay's IPv6 /48 prefix. */
export interface Prefix48 {
  /** `fd50:494c:4f54::/48`. */
  readonly text: string;
  /** Its first six bytes. */
  readonly bytes: Uint8Array;
}

export interface Running {
  /** For people: one line without its line feed. */
  readonly readyLine: string;
  /** For programs: the same facts. */
  readonly ready: ReadyFacts;
  /** Settles when the daemon has ended and undone what it did to the host; rejects when it ended by a failure. */
  readonly closed: Promise<void>;
  /** Ends it cleanly. The same promise each time. */
  close(): Promise<void>;
}

export interface ReadyFacts {
  readonly interface: string;
  readonly address: string;
  readonly pilot: string;
  readonly node: number;
  readonly hostname: string | null;
  /** Underlay `address:port`. */
  readonly listen: string;
  readonly control: string;
}
