/**
 * Untrusted JSON → a checked request, and the backend's method that answers it: one row per method of the API.
 * Unknown keys are refused: a newer program must not believe that a limit it sent was understood.
 */
import { PilotError } from "../base/pilot-error.ts";
import { MAX_LEASE_BYTES, MAX_LEASE_MS } from "../wire/ask-text.ts";
import { parseServices } from "../wire/services.ts";
import {
  type AddrRequest,
  type ControlBackend,
  type ControlMethod,
  type EmptyRequest,
  MAX_PING_COUNT,
  MAX_PING_TIMEOUT_MS,
  type PeerRequest,
  type PingRequest,
  type ReplyOf,
  type RequestOf,
  type WhoisRequest,
} from "./api.ts";
import { type EventsRequest, MAX_EVENTS_WAIT_MS } from "./events-api.ts";
import type { KeyRequest } from "./key-api.ts";
import {
  JOIN_RULES,
  MAX_TOKEN_LENGTH,
  type NetworkCreateRequest,
  type NetworkDeleteRequest,
  type NetworkInviteRequest,
  type NetworkJoinRequest,
  type NetworkRequest,
} from "./network-api.ts";
import {
  type FlowKillRequest,
  type LockdownRequest,
  MAX_CONFIRM_MS,
  MAX_LOCKDOWN_MS,
  MAX_LOCKDOWN_PEERS,
  type PolicyApplyRequest,
  type PolicyCheckRequest,
} from "./policy-api.ts";
import type { RunRequest } from "./run-api.ts";
import { type LeaseTerms, MAX_REASON_LENGTH, type TrustApproveRequest, type TrustAskRequest } from "./trust-api.ts";
import type { WhyRequest } from "./why-api.ts";

export interface PreparedCall {
  readonly method: ControlMethod;
  /** How long the call may take. */
  readonly deadlineMs: number;
  invoke(backend: ControlBackend, signal: AbortSignal): Promise<object>;
}

/** Throws a PilotError `unknown_method` or `bad_request`. */
export function prepareCall(method: string, body: unknown): PreparedCall {
  if (!Object.hasOwn(METHODS, method)) {
    throw new PilotError(
      "unknown_method",
      `There is no method ${JSON.stringify(method.slice(0, 64))}`,
      `Use one of ${METHOD_NAMES.join(", ")}. A newer program may need a newer daemon.`,
    );
  }
  return prepare(method as ControlMethod, body);
}

function prepare<M extends ControlMethod>(method: M, body: unknown): PreparedCall {
  const row: MethodRow<M> = METHODS[method];
  const request = row.parse(asObject(body));
  return {
    method,
    deadlineMs: row.deadlineMs?.(request) ?? DEFAULT_DEADLINE_MS,
    invoke: (backend, signal) => row.invoke(backend, request, signal) as Promise<object>,
  };
}

interface MethodRow<M extends ControlMethod> {
  parse(body: JsonObject): RequestOf<M>;
  invoke(backend: ControlBackend, request: RequestOf<M>, signal: AbortSignal): Promise<ReplyOf<M>>;
  deadlineMs?(request: RequestOf<M>): number;
}

type JsonObject = Readonly<Record<string, unknown>>;

const DEFAULT_DEADLINE_MS = 30_000;

const METHODS: { readonly [M in ControlMethod]: MethodRow<M> } = {
  metrics: { parse: parseEmpty, invoke: (backend, request, signal) => backend.metricsText(request, signal) },
  status: { parse: parseEmpty, invoke: (backend, request, signal) => backend.status(request, signal) },
  peers: { parse: parseEmpty, invoke: (backend, request, signal) => backend.peers(request, signal) },
  addr: { parse: parseAddr, invoke: (backend, request, signal) => backend.addr(request, signal) },
  ping: {
    parse: parsePing,
    invoke: (backend, request, signal) => backend.ping(request, signal),
    // Looking the peer up comes before the first and may take as long as any other call.
    deadlineMs: (request) => request.count * request.timeoutMs + DEFAULT_DEADLINE_MS,
  },
  netcheck: { parse: parseEmpty, invoke: (backend, request, signal) => backend.netcheck(request, signal) },
  "policy/check": {
    parse: parsePolicyCheck,
    invoke: (backend, request, signal) => backend.policy.check(request, signal),
  },
  "policy/show": { parse: parseEmpty, invoke: (backend, request, signal) => backend.policy.show(request, signal) },
  "policy/apply": {
    parse: parsePolicyApply,
    invoke: (backend, request, signal) => backend.policy.apply(request, signal),
  },
  "policy/confirm": {
    parse: parseEmpty,
    invoke: (backend, request, signal) => backend.policy.confirm(request, signal),
  },
  "policy/rollback": {
    parse: parseEmpty,
    invoke: (backend, request, signal) => backend.policy.rollback(request, signal),
  },
  "policy/reload": { parse: parseEmpty, invoke: (backend, request, signal) => backend.policy.reload(request, signal) },
  events: {
    parse: parseEvents,
    invoke: ({ events }, request, signal) => events.next(request, signal),
    deadlineMs: (request) => (request.waitMs ?? 0) + DEFAULT_DEADLINE_MS,
  },
  "audit/flush": { parse: parseEmpty, invoke: ({ audit }, request, signal) => audit.flush(request, signal) },
  flows: { parse: parseEmpty, invoke: (backend, request, signal) => backend.policy.flows(request, signal) },
  "flows/kill": { parse: parseFlowKill, invoke: (backend, request, signal) => backend.policy.kill(request, signal) },
  lockdown: { parse: parseLockdown, invoke: (backend, request, signal) => backend.policy.lockdown(request, signal) },
  why: { parse: parseWhy, invoke: (backend, request, signal) => backend.why.explain(request, signal) },
  "config/show": { parse: parseEmpty, invoke: (backend, request, signal) => backend.config.show(request, signal) },
  run: { parse: parseRun, invoke: ({ run }, request, signal) => run.prepare(request, signal) },
  reload: { parse: parseEmpty, invoke: (backend, request, signal) => backend.config.reload(request, signal) },
  trace: { parse: parsePeer, invoke: (backend, request, signal) => backend.trace(request, signal) },
  whois: { parse: parseWhois, invoke: (backend, request, signal) => backend.whois(request, signal) },
  "trust/ask": { parse: parseTrustAsk, invoke: ({ trust }, request, signal) => trust.ask(request, signal) },
  "trust/pending": { parse: parseEmpty, invoke: ({ trust }, request, signal) => trust.pending(request, signal) },
  "trust/approve": { parse: parseTrustApprove, invoke: ({ trust }, request, signal) => trust.approve(request, signal) },
  "trust/deny": { parse: parsePeer, invoke: ({ trust }, request, signal) => trust.deny(request, signal) },
  "trust/ls": { parse: parseEmpty, invoke: ({ trust }, request, signal) => trust.ls(request, signal) },
  "key/rotate": { parse: parseKey, invoke: ({ key }, request, signal) => key.rotate(request, signal) },
  "key/deregister": { parse: parseKey, invoke: ({ key }, request, signal) => key.deregister(request, signal) },
  "network/ls": { parse: parseEmpty, invoke: ({ network }, request, signal) => network.ls(request, signal) },
  "network/create": { parse: parseCreate, invoke: ({ network }, request, signal) => network.create(request, signal) },
  "network/delete": { parse: parseDelete, invoke: ({ network }, request, signal) => network.delete(request, signal) },
  "network/join": { parse: parseJoin, invoke: ({ network }, request, signal) => network.join(request, signal) },
  "network/leave": { parse: parseNetwork, invoke: ({ network }, request, signal) => network.leave(request, signal) },
  "network/invite": { parse: parseInvite, invoke: ({ network }, request, signal) => network.invite(request, signal) },
  "network/members": {
    parse: parseNetwork,
    invoke: ({ network }, request, signal) => network.members(request, signal),
  },
  "network/invites": { parse: parseEmpty, invoke: ({ network }, request, signal) => network.invites(request, signal) },
  "network/accept": { parse: parseNetwork, invoke: ({ network }, request, signal) => network.accept(request, signal) },
  "network/decline": {
    parse: parseNetwork,
    invoke: ({ network }, request, signal) => network.decline(request, signal),
  },
  "trust/revoke": { parse: parsePeer, invoke: ({ trust }, request, signal) => trust.revoke(request, signal) },
};

/** As in the path of a call, without `/v1/`. */
export const METHOD_NAMES: readonly string[] = Object.keys(METHODS);

function parseEmpty(body: JsonObject): EmptyRequest {
  onlyKeys(body, []);
  return {};
}

function parseAddr(body: JsonObject): AddrRequest {
  onlyKeys(body, ["peer"]);
  return body.peer === undefined ? {} : { peer: word(body, "peer") };
}

function parsePeer(body: JsonObject): PeerRequest {
  onlyKeys(body, ["peer"]);
  return { peer: word(body, "peer") };
}

function parseWhois(body: JsonObject): WhoisRequest {
  onlyKeys(body, ["address"]);
  return { address: word(body, "address") };
}

function parsePing(body: JsonObject): PingRequest {
  onlyKeys(body, ["peer", "count", "timeoutMs"]);
  return {
    peer: word(body, "peer"),
    count: whole(body, "count", MAX_PING_COUNT),
    timeoutMs: whole(body, "timeoutMs", MAX_PING_TIMEOUT_MS),
  };
}

function parseTrustAsk(body: JsonObject): TrustAskRequest {
  onlyKeys(body, ["peer", "reason", ...TERMS]);
  const asked = { peer: word(body, "peer"), ...leaseTerms(body) };
  const reason = body.reason;
  if (reason === undefined) return asked;
  if (typeof reason !== "string" || reason.length > MAX_REASON_LENGTH) {
    throw badRequest(`The reason must be text of at most ${MAX_REASON_LENGTH} characters`);
  }
  return { ...asked, reason };
}

function parseTrustApprove(body: JsonObject): TrustApproveRequest {
  onlyKeys(body, ["peer", ...TERMS]);
  return { peer: word(body, "peer"), ...leaseTerms(body) };
}

const TERMS = ["ports", "forMs", "maxBytes"];

function leaseTerms(body: JsonObject): LeaseTerms {
  const { ports, forMs, maxBytes } = body;
  if (ports !== undefined && (typeof ports !== "string" || parseServices(ports) === undefined)) {
    throw badRequest("The ports must be a list such as tcp/443,udp/53,tcp/8000-8099,icmp");
  }
  return {
    ...(ports === undefined ? {} : { ports }),
    ...(forMs === undefined ? {} : { forMs: whole(body, "forMs", MAX_LEASE_MS) }),
    ...(maxBytes === undefined ? {} : { maxBytes: whole(body, "maxBytes", MAX_LEASE_BYTES) }),
  };
}

function parseKey(body: JsonObject): KeyRequest {
  onlyKeys(body, ["insecure"]);
  if (body.insecure !== undefined && typeof body.insecure !== "boolean") throw badRequest("insecure is true or false");
  return body.insecure === true ? { insecure: true } : {};
}

function parseNetwork(body: JsonObject): NetworkRequest {
  onlyKeys(body, ["network"]);
  return { network: word(body, "network") };
}

function parseJoin(body: JsonObject): NetworkJoinRequest {
  onlyKeys(body, ["network", "token"]);
  const network = word(body, "network");
  return body.token === undefined ? { network } : { network, token: secret(body, "token") };
}

function parseDelete(body: JsonObject): NetworkDeleteRequest {
  onlyKeys(body, ["network", "adminToken"]);
  return { network: word(body, "network"), adminToken: secret(body, "adminToken") };
}

function parseInvite(body: JsonObject): NetworkInviteRequest {
  onlyKeys(body, ["network", "peer"]);
  return { network: word(body, "network"), peer: word(body, "peer") };
}

function parseCreate(body: JsonObject): NetworkCreateRequest {
  onlyKeys(body, ["name", "joinRule", "token", "adminToken"]);
  const joinRule = JOIN_RULES.find((rule) => rule === body.joinRule);
  if (joinRule === undefined) throw badRequest(`The joinRule must be one of ${JOIN_RULES.join(", ")}`);
  const request = { name: word(body, "name"), joinRule, adminToken: secret(body, "adminToken") };
  return body.token === undefined ? request : { ...request, token: secret(body, "token") };
}

function secret(body: JsonObject, key: string): string {
  const value = body[key];
  if (typeof value === "string" && value.length >= 1 && value.length <= MAX_TOKEN_LENGTH) return value;
  throw badRequest(`The ${key} must be text of 1 to ${MAX_TOKEN_LENGTH} characters`);
}

function parseEvents(body: JsonObject): EventsRequest {
  onlyKeys(body, ["run", "after", "waitMs"]);
  const { run, after, waitMs } = body;
  const isCount = (value: unknown, most: number): value is number =>
    Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= most;
  if (after !== undefined && !isCount(after, Number.MAX_SAFE_INTEGER)) throw badRequest("The after must be a number");
  if (waitMs !== undefined && !isCount(waitMs, MAX_EVENTS_WAIT_MS)) {
    throw badRequest(`The waitMs must be a whole number from 0 to ${MAX_EVENTS_WAIT_MS}`);
  }
  const place = run === undefined ? {} : { run: word(body, "run") };
  return { ...place, ...(after === undefined ? {} : { after }), ...(waitMs === undefined ? {} : { waitMs }) };
}

function parsePolicyCheck(body: JsonObject): PolicyCheckRequest {
  onlyKeys(body, ["path"]);
  return body.path === undefined ? {} : { path: absolutePath(body, "path") };
}

function parsePolicyApply(body: JsonObject): PolicyApplyRequest {
  onlyKeys(body, ["path", "confirmMs"]);
  const path = absolutePath(body, "path");
  return body.confirmMs === undefined ? { path } : { path, confirmMs: whole(body, "confirmMs", MAX_CONFIRM_MS) };
}

function parseFlowKill(body: JsonObject): FlowKillRequest {
  onlyKeys(body, ["id"]);
  return { id: word(body, "id") };
}

function parseLockdown(body: JsonObject): LockdownRequest {
  onlyKeys(body, ["on", "except", "forMs"]);
  const { on, except = [] } = body;
  if (typeof on !== "boolean") throw badRequest("The key on must be true or false");
  if (!Array.isArray(except) || except.length > MAX_LOCKDOWN_PEERS) {
    throw badRequest(`The key except must be a list of at most ${MAX_LOCKDOWN_PEERS} peers`);
  }
  const peers = except.map((peer: unknown) => word({ except: peer }, "except"));
  const end = body.forMs === undefined ? {} : { forMs: whole(body, "forMs", MAX_LOCKDOWN_MS) };
  return { on, except: peers, ...end };
}

function parseWhy(body: JsonObject): WhyRequest {
  onlyKeys(body, ["peer", "protocol", "port", "from"]);
  const { protocol, port } = body;
  const ends = {
    ...(body.peer === undefined && body.from !== undefined ? {} : { peer: word(body, "peer") }),
    ...(body.from === undefined ? {} : { from: word(body, "from") }),
  };
  if (protocol === undefined) return ends;
  if (protocol === "icmp") return { ...ends, protocol };
  if (protocol !== "tcp" && protocol !== "udp") throw badRequest("The protocol must be tcp, udp or icmp");
  if (port === undefined) throw badRequest("A port is missing");
  return { ...ends, protocol, port: whole(body, "port", 65_535) };
}

function parseRun(body: JsonObject): RunRequest {
  onlyKeys(body, ["uid"]);
  return body.uid === undefined || body.uid === 0 ? (body as RunRequest) : { uid: whole(body, "uid", MAX_UID) };
}

/** The largest that is a user's: the one above means "none". */
const MAX_UID = 0xfffffffe;

function absolutePath(body: JsonObject, key: string): string {
  const value = body[key];
  if (typeof value === "string" && /^\/[^\0]{0,4095}$/.test(value)) return value;
  throw badRequest(`The ${key} must be an absolute path`);
}

function asObject(body: unknown): JsonObject {
  if (typeof body === "object" && body !== null && !Array.isArray(body)) return body as JsonObject;
  throw badRequest("The body must be a JSON object");
}

function onlyKeys(body: JsonObject, allowed: readonly string[]): void {
  const unknown = Object.keys(body).find((key) => !allowed.includes(key));
  if (unknown !== undefined) throw badRequest(`Unknown key ${JSON.stringify(unknown.slice(0, 64))}`);
}

/** One visible word: a name or an address. */
function word(body: JsonObject, key: string): string {
  const value = body[key];
  // 253 is the longest name of DNS (RFC 1035 §2.3.4); no address is longer.
  if (typeof value === "string" && /^[\x21-\x7e]{1,253}$/.test(value)) return value;
  throw badRequest(`The ${key} must be a name or an address: 1 to 253 visible ASCII characters`);
}

function whole(body: JsonObject, key: string, most: number): number {
  const value = body[key];
  if (typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw badRequest(`The ${key} must be a whole number from 1 to ${most}`);
}

function badRequest(message: string): PilotError {
  return new PilotError("bad_request", message, "Look the request up in the local API's description.");
}
