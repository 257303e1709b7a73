/**
 * The local API, all of it: what travels between the daemon and programs on its own machine.
 *
 * HTTP/1.1 over a unix socket, so that anything can speak it:
 *   curl --unix-socket /run/pilot-tun/control.sock -X POST http://pilot/v1/addr -d '{"peer":"b.pilot"}'
 * `POST /v1/<method>` with a JSON object (an empty body is `{}`). The answer is one JSON object that carries
 * `"schema":"pilot-tun/1"`: the method's reply, or `{"schema", "error": {code, message, hint}}` with the code's status.
 *
 * Promises within one schema: no key goes away or changes its meaning, new ones may appear. Every key is always there;
 * what is not known is null. Secrets are never in a reply.
 *
 * A `peer` in a request is text as a person types it: hostname (`b`, `b.pilot`), Pilot address
 * (`0:0000.0000.0007`), overlay IPv6 address or node number. The daemon resolves it; not found is `unknown_peer`.
 */
import type { DropReason } from "../base/drop-reason.ts";
import type { ErrorCode, Problem } from "../base/error-code.ts";
import type { AuditBackend, AuditMethods } from "./audit-api.ts";
import type { ConfigBackend, ConfigMethods } from "./config-api.ts";
import type { EventsBackend, EventsMethods } from "./events-api.ts";
import type { KeyBackend, KeyMethods } from "./key-api.ts";
import type { NetworkBackend, NetworkMethods } from "./network-api.ts";
import type { PolicyBackend, PolicyMethods } from "./policy-api.ts";
import type { RunBackend, RunMethods } from "./run-api.ts";
import type { TrustBackend, TrustMethods } from "./trust-api.ts";
import type { WhyBackend, WhyMethods } from "./why-api.ts";

export type { Problem };

export const SCHEMA = "pilot-tun/1";

/** Every method, its request and its reply. */
export interface ControlMethods
  extends NetworkMethods,
    PolicyMethods,
    RunMethods,
    TrustMethods,
    WhyMethods,
    ConfigMethods,
    KeyMethods,
    AuditMethods,
    EventsMethods {
  status: { request: EmptyRequest; reply: StatusReply };
  metrics: { request: EmptyRequest; reply: MetricsReply };
  peers: { request: EmptyRequest; reply: PeersReply };
  addr: { request: AddrRequest; reply: AddrReply };
  ping: { request: PingRequest; reply: PingReply };
  netcheck: { request: EmptyRequest; reply: NetcheckReply };
  trace: { request: PeerRequest; reply: TraceReply };
  whois: { request: WhoisRequest; reply: WhoisReply };
}

export type ControlMethod = keyof ControlMethods;
export type RequestOf<M extends ControlMethod> = ControlMethods[M]["request"];
export type ReplyOf<M extends ControlMethod> = ControlMethods[M]["reply"];

/** A reply as it travels: the server adds the schema. */
export type Sealed<Reply> = { readonly schema: typeof SCHEMA } & Reply;

/**
 * What the daemon implements. Requests are checked before they arrive here. A method that fails throws a `PilotError`
 * with a code of base/error-code.ts. `signal` aborts when the caller went away or the request's time is up.
 */
export interface ControlBackend {
  readonly network: NetworkBackend;
  readonly policy: PolicyBackend;
  readonly audit: AuditBackend;
  readonly events: EventsBackend;
  readonly trust: TrustBackend;
  readonly why: WhyBackend;
  readonly config: ConfigBackend;
  readonly key: KeyBackend;
  readonly run: RunBackend;
  status(request: EmptyRequest, signal: AbortSignal): Promise<StatusReply>;
  metricsText(request: EmptyRequest, signal: AbortSignal): Promise<MetricsReply>;
  peers(request: EmptyRequest, signal: AbortSignal): Promise<PeersReply>;
  addr(request: AddrRequest, signal: AbortSignal): Promise<AddrReply>;
  ping(request: PingRequest, signal: AbortSignal): Promise<PingReply>;
  netcheck(request: EmptyRequest, signal: AbortSignal): Promise<NetcheckReply>;
  trace(request: PeerRequest, signal: AbortSignal): Promise<TraceReply>;
  whois(request: WhoisRequest, signal: AbortSignal): Promise<WhoisReply>;
}

// ---- what replies are made of -------------------------------------------------------------------------------------

/** The four names of one node; any of them may be written where a peer is asked for. */
export interface PeerIdentity {
  readonly node: number;
  /** `0:0000.0000.0007`. */
  readonly pilot: string;
  /** Overlay IPv6 address. */
  readonly address: string;
  /** Without `.pilot`; null when it has none or none is known. */
  readonly hostname: string | null;
}

/**
 * `none` nobody asked · `asked` we asked, no answer yet · `pending` it asked us, we have not answered · `mutual` both
 * consented · `revoked` by this side · `revoked-by-peer` by the other · `lease-ended` what was agreed on is used up.
 */
export type PeerTrust = "none" | "asked" | "pending" | "mutual" | "revoked" | "revoked-by-peer" | "lease-ended";

/** The limits under which two nodes trust each other: what both allow. */
export interface LeaseStatus {
  /** What the peer may begin to reach here, as `tcp/443`, `udp/53-60`, `tcp`, `icmp`; null: everything, empty: nothing. */
  readonly inward: readonly string[] | null;
  /** What this node may begin to reach over there. */
  readonly outward: readonly string[] | null;
  /** Null: no end. */
  readonly endsInS: number | null;
  /** Of IP packets in both directions; null: no limit. */
  readonly leftBytes: number | null;
  /** What was used up, when trust is `lease-ended`; else null. */
  readonly endedBy: "time" | "bytes" | null;
}

/** How frames reach a peer at this moment; `tcp` is a relay that is reached over TCP because UDP is blocked. */
export type PeerPath = "direct" | "relay" | "tcp" | "none";

/** What the far side was found to be: `plain` is a Pilot agent without pilot-tun. */
export type PeerKind = "pilot-tun" | "plain" | "unknown";

export interface PeerStatus extends PeerIdentity {
  readonly trust: PeerTrust;
  readonly path: PeerPath;
  /** Underlay `address:port` of the peer, or of the beacon when relayed; null when there is no path. */
  readonly endpoint: string | null;
  /** Last measured round trip; null before the first. */
  readonly rttMs: number | null;
  readonly rxBytes: number;
  readonly txBytes: number;
  readonly rxPackets: number;
  readonly txPackets: number;
  /** What the session is made of: `noise` has keys of its own, forward secret; `base` those of the exchange. `none`: no session. */
  readonly session: "noise" | "base" | "none";
  /** Seconds since the keys in use were agreed, or those before it ended; null when there were none. */
  readonly lastHandshakeAgoS: number | null;
  /** Seconds since the last authenticated frame; null when there was none. */
  readonly lastReceivedAgoS: number | null;
  readonly kind: PeerKind;
  /** The largest packet for the peer; a program that sends more is told "packet too big". Null without a link. */
  readonly mtuBytes: number | null;
  /** IP bytes that the underlay was found to carry to the peer; null when that is not known. */
  readonly pathMtuBytes: number | null;
  /** Null: trust has no limits. */
  readonly lease: LeaseStatus | null;
  /** A few words on what is going on (`asked 3m ago: "invoice check"`, `agreeing on keys`); empty when nothing is. */
  readonly note: string;
}

export interface RegistryStatus {
  readonly state: "connected" | "connecting" | "down";
  /** `host:port` as configured. */
  readonly address: string;
  /** Why it is not connected; null when it is. */
  readonly error: string | null;
  /** Seconds in this state. */
  readonly sinceS: number;
}

export interface BeaconStatus {
  /** `ok` when it answered lately, `waiting` before the first answer, `down` when answers stopped. */
  readonly state: "ok" | "waiting" | "down";
  /** `host:port` as configured. */
  readonly address: string;
  /** This node's endpoint as the beacon sees it; null before the first answer. */
  readonly observed: string | null;
  /** How it is reached: `tcp` while UDP is blocked, through a WebSocket over TLS. */
  readonly transport: "udp" | "tcp";
}

export interface DnsStatus {
  /** Where names under `.pilot` are answered; null when they are not. */
  readonly address: string | null;
  /** Whether systemd-resolved asks there: `absent` when it does not run, `off` when nothing is answered. */
  readonly resolved: "absent" | "applied" | "refused" | "off";
}

// ---- requests and replies -----------------------------------------------------------------------------------------

export type EmptyRequest = Readonly<Record<never, never>>;

export interface PeerRequest {
  readonly peer: string;
}

export interface StatusReply {
  /** Name of the interface, `pilot0`. */
  readonly interface: string;
  /** Null, with `pilot` and `node`, until the registry has given this node its address for the first time. */
  readonly address: string | null;
  readonly pilot: string | null;
  readonly node: number | null;
  readonly hostname: string | null;
  readonly mtu: number;
  readonly version: string;
  readonly uptimeS: number;
  /** Underlay `address:port` that the tunnels use. */
  readonly listen: string;
  /** This node's Ed25519 public key, base64. */
  readonly publicKey: string;
  readonly registry: RegistryStatus;
  readonly beacon: BeaconStatus;
  readonly dns: DnsStatus;
  readonly peers: readonly PeerStatus[];
  /** How many peers wait for `trust approve` or `trust deny`. */
  readonly pending: number;
  /** Packets that went no further, by reason; only reasons that occurred. */
  readonly drops: Readonly<Partial<Record<DropReason, number>>>;
  readonly problems: readonly Problem[];
}

export interface MetricsReply {
  /** As Prometheus reads it. */
  readonly text: string;
}

export interface PeersReply {
  readonly peers: readonly PeerStatus[];
}

export interface AddrRequest {
  /** This node when absent. */
  readonly peer?: string;
}

export interface AddrReply extends PeerIdentity {
  /** True when the answer is this node itself. */
  readonly self: boolean;
}

export interface PingRequest {
  readonly peer: string;
  /** 1 to MAX_PING_COUNT; one after another, each sent when the one before was answered or given up. */
  readonly count: number;
  /** How long each is waited for; 1 to MAX_PING_TIMEOUT_MS. */
  readonly timeoutMs: number;
}

export interface PingReply {
  readonly peer: PeerIdentity;
  /** In order; `seq` starts at 1, `rttMs` is null for one that was not answered in time. */
  readonly replies: readonly { readonly seq: number; readonly rttMs: number | null }[];
  readonly sent: number;
  readonly received: number;
  readonly path: PeerPath;
}

/**
 * RFC 4787 §4.1 and §5. A beacon with two further ports tells the three apart. With one only so far: on the same address it
 * cannot tell endpoint-independent from address-dependent, on another address not the two stricter ones.
 */
export type NatBehaviour =
  | "endpoint-independent"
  | "address-dependent"
  | "endpoint-independent-or-address-dependent"
  | "address-dependent-or-stricter"
  | "address-and-port-dependent"
  | "none"
  | "unknown";

export interface Reachability {
  /** What was tried; null when there is nothing to try. */
  readonly address: string | null;
  readonly reachable: boolean;
  readonly latencyMs: number | null;
  readonly error: string | null;
}

/** What the network lets through, looked at when asked. */
export interface NetcheckReply {
  readonly udp: {
    /** A datagram to the beacon was answered. */
    readonly out: boolean;
    /** The probe's endpoint as the beacon saw it. */
    readonly endpoint: string | null;
  };
  readonly nat: {
    /** Null: not known. */
    readonly present: boolean | null;
    readonly mapping: NatBehaviour;
    readonly filtering: NatBehaviour;
    readonly hairpin: boolean | null;
  };
  /** Bytes; null when it is not known. */
  readonly mtu: { readonly toBeacon: number | null };
  readonly registry: Reachability;
  /** Over UDP. */
  readonly beacon: Reachability;
  /** The way around blocked UDP; `proxy` is what HTTPS_PROXY names. */
  readonly fallback: Reachability & { readonly proxy: string | null };
  /** What the daemon uses now. */
  readonly transport: "udp" | "tcp";
  /** This machine's clock minus the registry's, which tells whole seconds; null when it never answered. */
  readonly clockSkewMs: number | null;
}

export const MAX_PING_COUNT = 100;
export const MAX_PING_TIMEOUT_MS = 60_000;

/** Every way to a peer was just tried; what became of it. */
export interface TraceReply {
  readonly peer: PeerIdentity;
  readonly path: PeerPath;
  /** Underlay `address:port` where frames go; null when there is no path. */
  readonly endpoint: string | null;
  /** The peer answered just now, whichever way. */
  readonly answered: boolean;
  /** Why frames do not go directly: one code, and the same for people; null when they do. */
  readonly notDirect: { readonly code: TraceReason; readonly message: string } | null;
  readonly candidates: readonly TraceCandidate[];
  /** The last changes of the path, newest first. */
  readonly history: readonly { readonly agoS: number; readonly path: PeerPath; readonly endpoint: string | null }[];
  /** This node's endpoint as the beacon sees it, and its addresses on its own networks. */
  readonly observed: string | null;
  readonly local: readonly string[];
}

export type TraceReason =
  | "no-session"
  | "relay-only"
  | "udp-blocked"
  | "no-candidates"
  | "no-answer"
  | "one-way"
  | "settling";

export interface TraceCandidate {
  readonly endpoint: string;
  /** Who named it: the registry (its public or its LAN address), an earlier run, a punch, or a frame of the peer itself. */
  readonly origin: "registry" | "lan" | "cached" | "punch" | "heard";
  /**
   * `chosen` carries frames; `answers` answered just now; `heard` sent to us lately but does not answer there; `silent` does
   * neither; `untried`.
   */
  readonly state: "chosen" | "answers" | "heard" | "silent" | "untried";
  readonly tries: number;
  readonly triedAgoS: number | null;
  readonly heardAgoS: number | null;
  readonly rttMs: number | null;
}

export interface WhoisRequest {
  /** An overlay IPv6 address. */
  readonly address: string;
}

export interface WhoisReply extends PeerIdentity {
  /** `SHA256:` and base64 of the hash of the peer's Ed25519 public key; null when its key is not known. */
  readonly fingerprint: string | null;
  readonly trust: PeerTrust;
  /** Null: trust has no limits. */
  readonly lease: LeaseStatus | null;
  /** True when the address is this node's own. */
  readonly self: boolean;
}

// ---- errors -------------------------------------------------------------------------------------------------------

export interface ErrorReply {
  readonly schema: typeof SCHEMA;
  readonly error: Problem;
}

/** Exit codes of the command line: stable, also for scripts. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  notRunning: 3,
  policy: 4,
  notTrusted: 5,
  unreachable: 6,
  timeout: 7,
  needsConfirmation: 8,
  needsPrivilege: 9,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

interface ErrorClass {
  readonly exit: ExitCode;
  /** HTTP status. */
  readonly status: number;
}

/** How a code ends a command and an HTTP request, where it is no mere failure or its status is another than 500. */
export const ERROR_CLASSES: Readonly<Partial<Record<ErrorCode, ErrorClass>>> = {
  // The request itself; `usage` is the command line's own.
  usage: { exit: EXIT.usage, status: 400 },
  bad_address: { exit: EXIT.usage, status: 400 },
  bad_interface_name: { exit: EXIT.usage, status: 400 },
  bad_request: { exit: EXIT.usage, status: 400 },
  not_overlay_address: { exit: EXIT.usage, status: 400 },
  unknown_page: { exit: EXIT.failed, status: 404 },
  unknown_method: { exit: EXIT.failed, status: 404 },
  wrong_http_method: { exit: EXIT.failed, status: 405 },
  request_too_large: { exit: EXIT.failed, status: 413 },
  busy: { exit: EXIT.failed, status: 429 },
  internal: { exit: EXIT.failed, status: 500 },
  /** The other end of the socket does not speak this API; the client's own. */
  bad_reply: { exit: EXIT.failed, status: 502 },
  // The daemon.
  not_running: { exit: EXIT.notRunning, status: 503 },
  already_running: { exit: EXIT.failed, status: 409 },
  not_privileged: { exit: EXIT.needsPrivilege, status: 403 },
  not_permitted: { exit: EXIT.needsPrivilege, status: 403 },
  port_forbidden: { exit: EXIT.needsPrivilege, status: 403 },
  needs_confirmation: { exit: EXIT.needsConfirmation, status: 409 },
  // The peer.
  unknown_peer: { exit: EXIT.unreachable, status: 404 },
  unreachable: { exit: EXIT.unreachable, status: 502 },
  /** The answer must come from the registry, and it cannot be reached. */
  registry_down: { exit: EXIT.unreachable, status: 503 },
  timeout: { exit: EXIT.timeout, status: 504 },
  // The status page.
  web_unavailable: { exit: EXIT.failed, status: 503 },
  wrong_host: { exit: EXIT.failed, status: 403 },
  wrong_origin: { exit: EXIT.failed, status: 403 },
  token_missing: { exit: EXIT.failed, status: 401 },
  token_wrong: { exit: EXIT.failed, status: 401 },
  read_only: { exit: EXIT.failed, status: 403 },
  /** Answered as it was shown, and something else waits now. */
  request_changed: { exit: EXIT.failed, status: 409 },
  // The configuration.
  config_invalid: { exit: EXIT.usage, status: 422 },
  config_missing: { exit: EXIT.usage, status: 404 },
  // The policy itself.
  policy_invalid: { exit: EXIT.failed, status: 422 },
  policy_missing: { exit: EXIT.failed, status: 404 },
  // The audit log.
  audit_off: { exit: EXIT.failed, status: 404 },
  audit_unreadable: { exit: EXIT.failed, status: 422 },
  policy_unreadable: { exit: EXIT.failed, status: 422 },
  policy_unwritable: { exit: EXIT.failed, status: 500 },
  /** Confirm or rollback while nothing waits for it. */
  nothing_applied: { exit: EXIT.failed, status: 409 },
  unknown_flow: { exit: EXIT.failed, status: 404 },
  not_trusted: { exit: EXIT.notTrusted, status: 403 },
  revoked: { exit: EXIT.notTrusted, status: 403 },
  revoked_by_peer: { exit: EXIT.notTrusted, status: 403 },
  lease_ended: { exit: EXIT.notTrusted, status: 403 },
  /** Approve or deny without a request of that peer. */
  nothing_pending: { exit: EXIT.failed, status: 409 },
  unknown_network: { exit: EXIT.unreachable, status: 404 },
  /** The registry refused: wrong token, not invited, not a member, no such network. */
  network_refused: { exit: EXIT.policy, status: 403 },
  /** A request that could be repeated by who sees it, over a connection that everybody may see. */
  insecure_registry: { exit: EXIT.policy, status: 403 },
  registry_refused: { exit: EXIT.failed, status: 502 },
  /** The key comes with every start from elsewhere. */
  key_lent: { exit: EXIT.failed, status: 409 },
  rotation_unsettled: { exit: EXIT.unreachable, status: 503 },
  /** A restore would replace another key. */
  identity_differs: { exit: EXIT.needsConfirmation, status: 409 },
  no_identity: { exit: EXIT.failed, status: 404 },
  not_registered: { exit: EXIT.failed, status: 409 },
  own_address: { exit: EXIT.usage, status: 400 },
  /** Asked about a flow that neither begins nor ends here. */
  not_this_node: { exit: EXIT.usage, status: 400 },
  // Programs with nothing but the overlay.
  ports_taken: { exit: EXIT.failed, status: 409 },
  /** This machine does not let this user make namespaces, or lacks what they need; the command line's own. */
  run_unavailable: { exit: EXIT.needsPrivilege, status: 403 },
  unknown_user: { exit: EXIT.usage, status: 400 },
};

export function exitCodeOf(code: ErrorCode): ExitCode {
  return errorClass(code).exit;
}

export function httpStatusOf(code: ErrorCode): number {
  return errorClass(code).status;
}

function errorClass(code: ErrorCode): ErrorClass {
  return ERROR_CLASSES[code] ?? { exit: EXIT.failed, status: 500 };
}
