/**
 * The control API's answers: every request becomes a command or a question to the engine, on the driver's thread, and
 * what has to be waited for (a pong, an acknowledgement, a registry's answer) is waited for here.
 */
import type { Fields } from "../audit/record.ts";
import { toBase64 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import { type Endpoint, formatEndpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import { PilotError } from "../base/pilot-error.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import type {
  AddrReply,
  AddrRequest,
  ControlBackend,
  EmptyRequest,
  MetricsReply,
  NetcheckReply,
  PeerIdentity,
  PeerRequest,
  PeerStatus,
  PeersReply,
  PingReply,
  PingRequest,
  Problem,
  StatusReply,
  TraceReply,
  WhoisReply,
  WhoisRequest,
} from "../control/api.ts";
import type { AuditBackend } from "../control/audit-api.ts";
import { mapInTurns } from "../control/turns.ts";
import { VERSION } from "../control/version.ts";
import type { Engine, EngineEvent } from "../engine/engine.ts";
import type { OpenedFlow } from "../engine/engine-ports.ts";
import { now, wallNow } from "../io/clock.ts";
import type { RegistryConnection } from "../io/registry-connection.ts";
import type { StateDirectory } from "../io/state-directory.ts";
import type { Flow } from "../policy/flow-table.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { TrustRecord } from "../trust/trust-record.ts";
import { formatOverlayAddress, formatPilotAddress } from "../wire/address.ts";
import { type NodeId, networkId } from "../wire/ids.ts";
import type { AuditLog } from "./audit-log.ts";
import type { CompatLink } from "./compat-link.ts";
import { Configuration } from "./configuration.ts";
import type { Driver } from "./driver.ts";
import { placeOf } from "./flow-status.ts";
import type { Guests } from "./guests.ts";
import type { KeptFiles } from "./kept-files.ts";
import { KeptState } from "./kept-state.ts";
import { KeyRequests } from "./key-requests.ts";
import { leaseStatus } from "./lease-status.ts";
import type { LiveEvents } from "./live-events.ts";
import { Metrics } from "./metrics.ts";
import { NameService } from "./name-service.ts";
import { netcheck } from "./netcheck.ts";
import { NetworkRequests } from "./network-requests.ts";
import type { NodeMemory } from "./node-memory.ts";
import type { OverlayInterface } from "./overlay-interface.ts";
import type { OwnIdentity } from "./own-identity.ts";
import { nodeInText } from "./peer-text.ts";
import { PolicyRequests } from "./policy-requests.ts";
import type { Preference } from "./preference.ts";
import { SocketOwners } from "./socket-owners.ts";
import { traceReply } from "./trace.ts";
import { transportProblems } from "./transport-problems.ts";
import type { TrustFile } from "./trust-file.ts";
import { TrustRequests } from "./trust-requests.ts";
import type { UpOptions } from "./up-options.ts";
import { Waiters } from "./waiters.ts";
import { WhyRequests } from "./why.ts";

export interface BackendParts {
  readonly guests: Guests;
  readonly options: UpOptions;
  readonly engine: Engine;
  readonly client: RegistryClient;
  readonly connection: RegistryConnection;
  readonly book: TrustBook;
  readonly trust: TrustFile;
  readonly memory: NodeMemory;
  readonly files: KeptFiles;
  readonly ownKey: OwnIdentity;
  /** The key is handed over by the system at each start. */
  readonly isKeyLent: boolean;
  readonly crypto: Crypto;
  readonly listen: Endpoint;
  readonly state: StateDirectory;
  readonly face: OverlayInterface;
  readonly preference: Preference;
  /** The way to the beacon when UDP is blocked. */
  readonly compat: CompatLink | undefined;
  readonly beaconEndpoint: Endpoint | undefined;
  /** Undefined when none is kept. */
  readonly auditLog: AuditLog | undefined;
  readonly events: LiveEvents;
}

export class Backend implements ControlBackend {
  readonly network: NetworkRequests;
  readonly policy: PolicyRequests;
  readonly trust: TrustRequests;
  readonly why: WhyRequests;
  readonly config: Configuration;
  readonly key: KeyRequests;
  readonly run: Guests;
  readonly metrics: Metrics;
  readonly names: NameService;
  readonly audit: AuditBackend;
  readonly events: LiveEvents;
  readonly #parts: BackendParts;
  readonly #owners: SocketOwners;
  readonly #programQuota = new TokenBucket(PROGRAMS_PER_SECOND, PROGRAMS_AT_ONCE, now());
  readonly #pongs = new Waiters<number, number>();
  readonly #beaconMtus = new Waiters<"beacon", number | undefined>();
  readonly #names = new Waiters<string, NodeId | undefined>();
  readonly #kept: KeptState;
  #driver!: Driver;
  onFatal: (error: Error) => void = () => {};

  constructor(parts: BackendParts) {
    this.#parts = parts;
    this.#kept = new KeptState(parts);
    this.run = parts.guests;
    const ways = {
      input: <T>(act: (at: Instant) => T) => this.#driver.input(act),
      find: (text: string, signal: AbortSignal) => this.#findOther(text, signal),
      identity: (node: NodeId) => this.#identity(node),
    };
    this.#owners = new SocketOwners({
      interfaceName: parts.options.tun,
      guestAt: (protocol, port) => parts.guests.ownerOf(protocol, port),
      answer: (id, owner) => ways.input((at) => parts.engine.answerOwner(id, owner, at)),
    });
    this.network = new NetworkRequests({ ...parts, ...ways });
    this.key = new KeyRequests({ ...parts, ...ways });
    const noteChange = (change: string, facts: Fields, automatic = false) => {
      const event = { event: "policy", at: wallNow(), matters: true, byOperator: !automatic };
      parts.events.add({ ...event, fields: () => ({ change, ...facts }) });
    };
    this.policy = new PolicyRequests({
      ...{ ...parts, ...ways, noteChange, owners: this.#owners },
      policyFile: parts.options.policy,
    });
    this.trust = new TrustRequests({ ...parts, ...ways, owners: this.#owners });
    this.why = new WhyRequests({
      ...parts,
      ...ways,
      owners: this.#owners,
      findAny: (text, signal) => this.#find(text, signal),
    });
    this.events = parts.events;
    this.events.problems = () => [...this.#problems(), ...this.#transportProblems()];
    this.audit = { flush: async (_request, signal) => await demandAudit(parts.auditLog).flush(signal) };
    this.names = new NameService({
      ...{ tun: parts.options.tun, prefix: parts.options.prefix, engine: parts.engine },
      ...{ book: parts.book, memory: parts.memory },
      rememberNames: (names) => this.#kept.namesHeard(names),
      ownName: () => this.hostname,
      fingerprint: (node) => this.#fingerprint(this.#keyOf(node)) ?? undefined,
      members: async (network) =>
        (await this.network.members({ network: String(network) }, AbortSignal.timeout(NAME_PATIENCE_MS))).members,
    });
    this.metrics = new Metrics({
      status: async () => this.#status(await this.#peers()),
      counters: () => parts.engine.counters(),
      isPreferred: () => parts.preference.isOn,
      nameQueries: () => this.names.status.queries,
      audit: () => parts.auditLog?.facts(),
    });
    this.config = new Configuration({
      source: parts.options.configuration,
      client: parts.client,
      hostname: parts.options.hostname,
      problems: parts.engine.problems,
      reloadPolicy: () => this.policy.reload(),
      pump: () => parts.connection.pump(),
    });
  }

  attach(driver: Driver): void {
    this.#driver = driver;
  }

  /** What was learned is on disk afterwards; the driver must stand still. */
  close(): void {
    this.#kept.close();
  }

  get hostname(): string | undefined {
    return this.config.hostname ?? this.#parts.memory.hostname;
  }

  /** Leases go on while the machine sleeps, and this process's clock does not. */
  noticeSleep(): void {
    const sleptMs = this.#parts.trust.takeSleepMs();
    if (sleptMs > 0) this.#driver.input((at) => this.#parts.engine.handleSleep(sleptMs, at));
  }

  handleEvent(event: EngineEvent): void {
    if (this.why.handleEvent(event)) return;
    switch (event.kind) {
      case "beacon-mtu":
        this.#beaconMtus.settle("beacon", event.bytes);
        return;
      case "pong":
        this.#pongs.settle(event.pong.sequence, event.pong.rttMs);
        return;
      case "revocation-acknowledged":
        this.trust.acknowledged(event.node);
        return;
      case "hostname":
        if (event.node !== undefined) this.#kept.namesHeard([{ name: event.name, node: event.node }]);
        this.#names.settle(event.name, event.node);
        return;
      case "kinds-changed":
      case "endpoints-changed":
      case "tags-changed":
        return this.#kept.peersLearned();
      case "beacon-tcp":
        this.#parts.compat?.want(event.wanted);
        return;
      case "network":
        this.network.answered(event);
        return;
      case "key-rotated":
      case "key-kept":
        return this.key.rotationEnded(event);
      case "deregistered":
        return this.key.deregistrationEnded(event);
      case "owner-wanted":
        return this.#owners.handleQuestion(event.question);
      case "flow-recorded":
        return void this.#findProgram(event.flow, event.opened);
      case "networks-changed":
        this.#kept.networksChanged();
        this.network.interfaceChanged();
        return;
      case "trust-changed":
        this.#kept.trustChanged(event.mayWait);
        queueMicrotask(() => this.noticeSleep()); // an input of its own
        return;
    }
  }

  async status(_request: EmptyRequest): Promise<StatusReply> {
    return this.#status(await this.#peers());
  }

  async metricsText(_request: EmptyRequest): Promise<MetricsReply> {
    return { text: await this.metrics.text() };
  }

  #status(peers: PeerStatus[]): StatusReply {
    const { options, engine, listen, ownKey, book } = this.#parts;
    const self = this.#identity(engine.node);
    return {
      interface: options.tun,
      address: self.address,
      pilot: self.pilot,
      node: engine.node,
      hostname: self.hostname,
      mtu: options.mtu,
      version: VERSION,
      uptimeS: Math.floor(now() / 1000),
      listen: formatEndpoint(listen),
      publicKey: toBase64(ownKey.publicKey),
      registry: this.#registryStatus(),
      beacon: this.#beaconStatus(),
      dns: { address: this.names.status.address, resolved: this.names.status.resolved },
      peers,
      pending: [...book.records()].filter((record) => record.request !== undefined).length,
      drops: engine.drops(),
      problems: [...this.#problems(), ...this.#transportProblems()],
    };
  }

  async peers(_request: EmptyRequest): Promise<PeersReply> {
    return { peers: await this.#peers() };
  }

  async addr(request: AddrRequest, signal: AbortSignal): Promise<AddrReply> {
    const { engine } = this.#parts;
    const node = request.peer === undefined ? engine.node : await this.#find(request.peer, signal);
    return { ...this.#identity(node), self: node === engine.node };
  }

  async whois(request: WhoisRequest, _signal: AbortSignal): Promise<WhoisReply> {
    const { engine, options, book, ownKey } = this.#parts;
    const found = nodeInText(request.address, options.prefix);
    if (found?.form !== "overlay") {
      throw new PilotError(
        "not_overlay_address",
        `${request.address} is no address of this overlay`,
        `Give an IPv6 address inside ${options.prefix.text}.`,
      );
    }
    const self = found.node === engine.node;
    const key = self ? ownKey.publicKey : book.get(found.node)?.publicKey;
    return {
      ...this.#identity(found.node),
      fingerprint: this.#fingerprint(key),
      trust: book.stateOf(found.node),
      lease: leaseStatus(book.get(found.node), engine, now()),
      self,
    };
  }

  async ping(request: PingRequest, signal: AbortSignal): Promise<PingReply> {
    const node = await this.#findOther(request.peer, signal);
    this.#demandTrust(node);
    const replies: { seq: number; rttMs: number | null }[] = [];
    for (let seq = 1; seq <= request.count && !signal.aborted; seq++) {
      if (seq > 1) await this.#pause(signal);
      replies.push({ seq, rttMs: await this.#pingOnce(node, request.timeoutMs, signal) });
    }
    const facts = this.#parts.engine.linkFacts(node);
    return {
      peer: this.#identity(node),
      replies,
      sent: replies.length,
      received: replies.filter((reply) => reply.rttMs !== null).length,
      path: facts?.path ?? "none",
    };
  }

  async netcheck(_request: EmptyRequest, signal: AbortSignal): Promise<NetcheckReply> {
    const { options, engine, client, crypto, beaconEndpoint } = this.#parts;
    const { registry, beacon, compat } = options;
    const { transport } = engine.beaconWay;
    const found = { registry, beacon, compat, beaconEndpoint, transport };
    const measureMtu = async (abort: AbortSignal): Promise<number | null> => {
      const measured = this.#beaconMtus.wait("beacon", MTU_PATIENCE_MS, abort);
      this.#driver.input((at) => engine.measureBeaconMtu(at));
      return (await measured) ?? null;
    };
    const askTime = () => this.#driver.input(() => client.heartbeatNow());
    const reply = await netcheck({ ...found, client, crypto, measureMtu, askTime }, signal);
    if (!reply.udp.out) this.#driver.input((at) => engine.beaconWay.handleSuspicion(at));
    return reply;
  }

  async trace(request: PeerRequest, signal: AbortSignal): Promise<TraceReply> {
    const { engine } = this.#parts;
    const node = await this.#findOther(request.peer, signal);
    this.#demandTrust(node);
    const since = now();
    this.#driver.input((at) => engine.probeEveryWay(node, at));
    await sleep(TRACE_MS);
    return traceReply(engine, node, this.#identity(node), since, now());
  }

  // ---- inside

  #demandTrust(node: NodeId): void {
    const state = this.#parts.book.stateOf(node);
    if (state === "mutual") return;
    const name = this.#nameOf(node);
    if (state === "revoked") {
      throw new PilotError("revoked", `You revoked ${name}`, `To trust it again: pilot-tun trust ask ${name}.`);
    }
    if (state === "revoked-by-peer") {
      throw new PilotError(
        "revoked_by_peer",
        `${name} revoked this node`,
        `To ask it again: pilot-tun trust ask ${name}.`,
      );
    }
    if (state === "lease-ended") {
      throw new PilotError("lease_ended", `The lease with ${name} is over`, `Ask again: pilot-tun trust ask ${name}.`);
    }
    const hint = {
      none: `Ask it: pilot-tun trust ask ${name}.`,
      asked: `Its operator must approve: pilot-tun trust approve, over there.`,
      pending: `Answer it: pilot-tun trust approve ${name}.`,
    }[state];
    throw new PilotError("not_trusted", `${name} and this node do not trust each other (${state})`, hint);
  }

  async #pingOnce(node: NodeId, timeoutMs: number, signal: AbortSignal): Promise<number | null> {
    const deadline = now() + timeoutMs;
    while (!signal.aborted && now() < deadline) {
      const sequence = this.#driver.input((at) => this.#parts.engine.ping(node, at));
      if (sequence !== undefined) {
        return (await this.#pongs.wait(sequence, deadline - now(), signal)) ?? null;
      }
      await sleep(KEY_POLL_MS); // keys are being agreed
    }
    return null;
  }

  async #pause(signal: AbortSignal): Promise<void> {
    if (!signal.aborted) await sleep(PING_INTERVAL_MS);
  }

  async #findOther(text: string, signal: AbortSignal): Promise<NodeId> {
    const node = await this.#find(text, signal);
    if (node !== this.#parts.engine.node) return node;
    throw new PilotError("own_address", `${text} is this node itself`, "Name another node.");
  }

  /** The node behind what a person typed. */
  async #find(text: string, signal: AbortSignal): Promise<NodeId> {
    const { options, memory, book, connection } = this.#parts;
    const written = nodeInText(text, options.prefix);
    if (written !== undefined) return written.node;
    const name = text.toLowerCase().replace(/\.pilot\.?$/, "");
    if (name === this.hostname) return this.#parts.engine.node;
    const trusted = [...book.records()].find((record) => record.hostname === name);
    if (trusted !== undefined) return trusted.node;
    const cached = memory.nodeNamed(name);
    if (connection.state === "ok") {
      const asked = this.#names.wait(name, NAME_PATIENCE_MS, signal);
      this.#driver.input(() => this.#parts.engine.resolveHostname(name));
      const node = await asked;
      if (node !== undefined) return node;
    } else if (cached === undefined) {
      throw new PilotError(
        "registry_down",
        `The name ${name} is not known here, and the registry cannot be asked`,
        "Give the Pilot address or node number, or try again when the registry is back.",
      );
    }
    if (cached !== undefined) return cached;
    throw new PilotError(
      "unknown_peer",
      `No node is named ${name}, or it is private and does not know this node`,
      "Ask its operator for the Pilot address (pilot-tun addr, over there) and use that.",
    );
  }

  #identity(node: NodeId): PeerIdentity {
    const address = { network: networkId(0), node };
    return {
      node,
      pilot: formatPilotAddress(address),
      address: formatOverlayAddress(this.#parts.options.prefix, address),
      hostname: this.#hostnameOf(node) ?? null,
    };
  }

  #hostnameOf(node: NodeId): string | undefined {
    return node === this.#parts.engine.node ? this.hostname : this.#parts.book.get(node)?.hostname;
  }

  #nameOf(node: NodeId): string {
    return this.#hostnameOf(node) ?? formatPilotAddress({ network: networkId(0), node });
  }

  #keyOf(node: NodeId): Uint8Array | undefined {
    const { engine, ownKey, book } = this.#parts;
    return node === engine.node ? ownKey.publicKey : book.get(node)?.publicKey;
  }

  #fingerprint(key: Uint8Array | undefined): string | null {
    return key === undefined ? null : `SHA256:${toBase64(this.#parts.crypto.sha256(key)).replace(/=+$/, "")}`;
  }

  async #peers(): Promise<PeerStatus[]> {
    const listed = [...this.#parts.book.records()].filter((record) => record.state !== "none");
    return mapInTurns(listed, (record) => this.#peer(record));
  }

  #peer(record: TrustRecord): PeerStatus {
    const facts = this.#parts.engine.linkFacts(record.node);
    const at = now();
    return {
      ...this.#identity(record.node),
      trust: record.state,
      path: facts?.path ?? "none",
      endpoint: facts?.isUp && facts.endpoint !== undefined ? formatEndpoint(facts.endpoint) : null,
      rttMs: facts?.rttMs === undefined ? null : round(facts.rttMs),
      rxBytes: facts?.rxBytes ?? 0,
      txBytes: facts?.txBytes ?? 0,
      rxPackets: facts?.rxPackets ?? 0,
      txPackets: facts?.txPackets ?? 0,
      session: facts?.security?.level ?? "none",
      lastHandshakeAgoS: agoS(facts?.security?.since ?? facts?.establishedAt, at),
      lastReceivedAgoS: agoS(facts?.lastReceivedAt, at),
      kind: facts?.kind ?? "unknown",
      mtuBytes: facts?.mtuBytes ?? null,
      pathMtuBytes: facts?.pathMtuBytes ?? null,
      lease: leaseStatus(record, this.#parts.engine, at),
      note: this.#note(record, facts?.isUp === true),
    };
  }

  #note(record: TrustRecord, isUp: boolean): string {
    switch (record.state) {
      case "asked":
        return record.askReason === "" ? "waits for its approval" : `waits for its approval: "${record.askReason}"`;
      case "pending":
        return record.request?.reason ? `asks you: "${record.request.reason}"` : "asks you";
      case "revoked":
        return record.revocationUntold ? "does not know yet" : "";
      case "lease-ended":
        return record.leaseEnd === "bytes" ? "its lease's bytes are used up" : "its lease is over";
      case "mutual":
        if (record.request !== undefined) return `asks for other limits: "${record.request.reason}"`;
        return isUp ? "" : "no session yet";
      case "none":
      case "revoked-by-peer":
        return "";
    }
  }

  #registryStatus(): StatusReply["registry"] {
    const { connection, options } = this.#parts;
    const state = connection.state === "ok" ? "connected" : connection.state === "down" ? "down" : "connecting";
    return {
      state,
      address: `${options.registry.host}:${options.registry.port}`,
      error: state === "connected" ? null : (connection.error ?? null),
      sinceS: Math.max(0, Math.round((now() - connection.stateSince) / 1000)),
    };
  }

  #beaconStatus(): StatusReply["beacon"] {
    const { options, engine } = this.#parts;
    const beacon = engine.beaconFacts(now());
    const { transport } = engine.beaconWay;
    return {
      state: beacon.state,
      address: `${options.beacon.host}:${options.beacon.port}`,
      observed: transport === "tcp" || beacon.observed === undefined ? null : formatEndpoint(beacon.observed),
      transport,
    };
  }

  /** For the audit log. A program that is gone too soon, or one of too many, is not named. */
  async #findProgram(flow: Flow, opened: OpenedFlow): Promise<void> {
    if (!this.#programQuota.take(now())) return;
    const { engine } = this.#parts;
    const place = placeOf(flow, engine.prefix);
    // Until the connection is accepted it is its listener's: that is who has this port, whoever asks.
    const [own, listener] = await this.#owners.find([place, { ...place, remotePort: 0 }]);
    const owner = own ?? (flow.beganRemotely ? listener : undefined);
    if (owner === undefined) return;
    opened.owner = owner;
    engine.admission.noteOwner(flow, owner);
  }

  #problems(): Problem[] {
    const { engine, auditLog } = this.#parts;
    return [...engine.problems.values(), ...(auditLog?.problems.values() ?? [])];
  }

  #transportProblems(): Problem[] {
    const { compat, engine } = this.#parts;
    const registry = this.#registryStatus();
    return transportProblems({
      udpBlocked: engine.beaconWay.isUdpBlocked(now()),
      beacon: this.#beaconStatus().address,
      compat,
      registry: { ...registry, isDown: registry.state !== "connected" },
    });
  }
}

function agoS(at: Instant | undefined, nowAt: Instant): number | null {
  return at === undefined ? null : Math.max(0, Math.round((nowAt - at) / 1000));
}

function demandAudit(log: AuditLog | undefined): AuditLog {
  if (log !== undefined) return log;
  throw new PilotError("audit_off", "This daemon keeps no audit log", "Start it without --no-audit.");
}

function round(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Of flows in the audit log: each costs a question to the kernel and a look through /proc. */
const PROGRAMS_PER_SECOND = 20;
const PROGRAMS_AT_ONCE = 100;
/** Every way round the world answers within this time. */
const TRACE_MS = 1_000;
const MTU_PATIENCE_MS = 10_000;
const NAME_PATIENCE_MS = 5_000;
const KEY_POLL_MS = 5;
const PING_INTERVAL_MS = 1_000;
