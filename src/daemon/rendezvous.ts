/**
 * A rendezvous: the registry on TCP and the beacon on UDP in one process, over one database. Prints nothing; what an
 * operator must know comes as a PilotError at the start, or through `onProblem` while it runs.
 */
import { fromUtf8 } from "../base/bytes.ts";
import { type Endpoint, formatEndpoint } from "../base/endpoint.ts";
import { Histogram } from "../base/histogram.ts";
import { PilotError } from "../base/pilot-error.ts";
import { now, wallNow } from "../io/clock.ts";
import { type FrameConversation, FrameServer, type FrameServerLimits } from "../io/frame-server.ts";
import { NodeCrypto } from "../io/node-crypto.ts";
import { ServiceManager } from "../io/service-manager.ts";
import { SqliteStore } from "../io/sqlite-store.ts";
import { backupStore } from "../io/store-backup.ts";
import { loadTlsCertificate, type TlsCertificate, type TlsSource } from "../io/tls-certificate.ts";
import { type BeaconCounters, type BeaconLimits, BeaconServer } from "../rendezvous/beacon.ts";
import { handleBinaryRequest } from "../rendezvous/binary-conversation.ts";
import { expectedSignature } from "../rendezvous/expected-signature.ts";
import { type RegistryLimits, RegistryServer } from "../rendezvous/registry.ts";
import { Conversation } from "../rendezvous/request-context.ts";
import { encodeRegistryFrame, MAX_FRAME_BYTES, parseRegistryMessage, type RegistryMessage } from "../wire/registry.ts";
import { BINARY, BINARY_PREAMBLE, parseBinaryRequest } from "../wire/registry-binary.ts";
import { BeaconProbePort } from "./beacon-probe-port.ts";
import { type BeaconPort, BeaconSocket, type BeaconSocketCounters } from "./beacon-socket.ts";
import { bindError } from "./bind-error.ts";
import { CompatListener, type CompatStats } from "./compat-listener.ts";
import { NativeBeaconPort } from "./native-beacon-port.ts";
import { type AdminServer, type RendezvousHealth, startAdminServer } from "./rendezvous-admin.ts";
import { formatMetrics } from "./rendezvous-metrics.ts";
import { VerifiedSignatures } from "./verified-signatures.ts";

export interface RendezvousOptions {
  readonly registry: Endpoint;
  readonly beacon: Endpoint;
  readonly stateDir: string;
  readonly adminToken?: string;
  readonly registryLimits?: Partial<RegistryLimits>;
  readonly beaconLimits?: Partial<BeaconLimits>;
  /** The relay serves only nodes that proved their numbers. */
  readonly relayProvenOnly?: boolean;
  /** Relays by node:dgram even where the C shim is built. */
  readonly portableRelay?: boolean;
  readonly connectionLimits?: Partial<FrameServerLimits>;
  /** Unix socket for health, metrics and backups. */
  readonly admin?: string;
  /** Further ports of the beacon, by which nodes see what their NAT does. */
  readonly beaconProbe?: readonly Endpoint[];
  /** Where nodes come whose network blocks UDP; needs `tls`. */
  readonly compat?: Endpoint;
  readonly tls?: TlsSource;
  /** With `tls` the registry speaks TLS to who begins so; true refuses everybody else. */
  readonly registryTlsOnly?: boolean;
  /** A problem while running, such as a full disk: requests fail until it is gone. */
  readonly onProblem?: (problem: PilotError) => void;
}

export interface Rendezvous {
  /** As bound: the port that the system chose when 0 was asked for. */
  readonly registry: Endpoint;
  readonly beacon: Endpoint;
  readonly compat: Endpoint | undefined;
  /** Of the TLS certificate, for clients that pin it. */
  readonly fingerprint: string | undefined;
  stats(): RendezvousStats;
  close(): Promise<void>;
}

export interface RendezvousStats {
  readonly nodes: number;
  readonly connections: number;
  readonly requests: number;
  readonly beaconNodes: number;
  readonly beacon: Readonly<BeaconCounters>;
  readonly relay: Readonly<BeaconSocketCounters>;
  /** Undefined without a compat endpoint. */
  readonly compat: CompatStats | undefined;
}

export async function runRendezvous(options: RendezvousOptions): Promise<Rendezvous> {
  const manager = new ServiceManager(process.env, process.pid);
  const store = SqliteStore.open(options.stateDir);
  try {
    const running = await openSockets(options, store);
    manager.ready(`registry ${formatEndpoint(running.registry)}, beacon ${formatEndpoint(running.beacon)}`);
    return {
      ...running,
      close: () => {
        manager.stopping();
        return running.close();
      },
    };
  } catch (cause) {
    store.close();
    throw cause;
  }
}

async function openSockets(options: RendezvousOptions, store: SqliteStore): Promise<Rendezvous> {
  const certificate = options.tls === undefined ? undefined : loadTlsCertificate(options.tls);
  const crypto = new NodeCrypto();
  const beacon = await openBeacon(options, beaconServer(options, store, crypto));
  const registry = new RegistryListener(options, store, certificate, (node) => beacon.notify(node));
  let registryEndpoint: Endpoint;
  try {
    registryEndpoint = await registry.listen();
  } catch (cause) {
    await beacon.close();
    throw cause;
  }
  const probes = BeaconProbePort.chain(options.beaconProbe ?? []);
  let compat: CompatListener | undefined;
  let compatEndpoint: Endpoint | undefined;
  try {
    await probes?.bind();
  } catch (cause) {
    await Promise.all([registry.close(), beacon.close()]);
    throw cause;
  }
  if (probes !== undefined) beacon.server.answerProbe = (request, source) => probes.answer(request, source);
  try {
    compat = openCompat(options, store, beacon, certificate);
    compatEndpoint = await compat?.listen();
  } catch (cause) {
    await Promise.all([registry.close(), beacon.close(), probes?.close()]);
    throw bindError("compat", "TCP", options.compat!, cause);
  }
  let admin: AdminServer | undefined;
  try {
    admin = await openAdmin(options, { store, registry, beacon, registryEndpoint });
  } catch (cause) {
    await Promise.all([registry.close(), beacon.close(), compat?.close(), probes?.close()]);
    throw cause;
  }
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    await admin?.close();
    await Promise.all([registry.close(), beacon.close(), compat?.close(), probes?.close()]);
    store.close();
  };
  return {
    registry: registryEndpoint,
    beacon: beacon.endpoint,
    compat: compatEndpoint,
    fingerprint: certificate?.fingerprint,
    stats: () => ({
      nodes: store.nodeCount(),
      connections: registry.connectionCount,
      requests: registry.requests,
      beaconNodes: beacon.server.nodeCount,
      beacon: { ...beacon.server.counters },
      compat: compat?.stats(),
      relay: beacon.stats(),
    }),
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

/** The C shim relays several times as much; where it is not built, node:dgram does it. */
async function openBeacon(options: RendezvousOptions, server: BeaconServer): Promise<BeaconPort> {
  const portable = () => new BeaconSocket(options.beacon, server);
  let port: BeaconPort = options.portableRelay === true ? portable() : new NativeBeaconPort(options.beacon, server);
  try {
    await port.bind();
  } catch (cause) {
    if (port instanceof BeaconSocket || !(cause instanceof PilotError) || !SHIM_UNUSABLE.has(cause.code)) throw cause;
    port = portable();
    await port.bind();
  }
  return port;
}

/** Not built; or no IPv6 sockets on this machine, which the shim needs also for IPv4. */
const SHIM_UNUSABLE: ReadonlySet<string> = new Set(["shim_missing", "address_unusable"]);

function beaconServer(options: RendezvousOptions, store: SqliteStore, crypto: NodeCrypto): BeaconServer {
  return new BeaconServer({
    proofs: { crypto, keyOf: (node) => store.nodeById(node)?.publicKey },
    provenOnly: options.relayProvenOnly ?? false,
    ...(options.beaconLimits === undefined ? {} : { limits: options.beaconLimits }),
  });
}

interface AdminParts {
  readonly store: SqliteStore;
  readonly registry: RegistryListener;
  readonly beacon: BeaconPort;
  readonly registryEndpoint: Endpoint;
}

async function openAdmin(options: RendezvousOptions, parts: AdminParts): Promise<AdminServer | undefined> {
  if (options.admin === undefined) return undefined;
  const { store, registry, beacon } = parts;
  return await startAdminServer(options.admin, {
    health: () => healthOf(parts),
    metrics: () =>
      formatMetrics({
        nodes: store.nodeCount(),
        connections: registry.connectionCount,
        requests: registry.requestCounts,
        commitSeconds: registry.commitSeconds.snapshot(),
        commitFailures: registry.commitFailures,
        beacon: beacon.server,
        relay: beacon.stats(),
      }),
    backup: (file) => backupStore(store, options.stateDir, file),
  });
}

function healthOf({ store, registry, beacon, registryEndpoint }: AdminParts): RendezvousHealth {
  const problem = probeProblem(store);
  const { queuedBytes, queuedFrames, queuedFlows } = beacon.stats();
  return {
    healthy: problem === null && registry.isListening,
    registry: {
      endpoint: formatEndpoint(registryEndpoint),
      listening: registry.isListening,
      connections: registry.connectionCount,
    },
    beacon: {
      endpoint: formatEndpoint(beacon.endpoint),
      bound: true,
      nodes: beacon.server.nodeCount,
      provenNodes: beacon.server.provenCount,
    },
    store: { writable: problem === null, nodes: store.nodeCount(), problem },
    queue: { bytes: queuedBytes, frames: queuedFrames, flows: queuedFlows },
  };
}

function probeProblem(store: SqliteStore): string | null {
  try {
    store.probe();
    return null;
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause);
  }
}

function openCompat(
  options: RendezvousOptions,
  store: SqliteStore,
  beacon: BeaconPort,
  certificate: TlsCertificate | undefined,
): CompatListener | undefined {
  if (options.compat === undefined || certificate === undefined) return undefined;
  const compat = new CompatListener(
    { listen: options.compat, certificate },
    {
      store,
      beacon: beacon.server,
      handleDatagram: (datagram, source) => beacon.handleDatagram(datagram, source),
    },
  );
  beacon.sendToConnection = (to, bytes) => compat.send(to, bytes);
  return compat;
}

/** The registry's sockets, and the commit that stands between a request and its reply. */
class RegistryListener {
  requests = 0;
  commitFailures = 0;
  isListening = false;
  readonly commitSeconds = new Histogram(COMMIT_SECONDS);
  readonly #options: RendezvousOptions;
  readonly #store: SqliteStore;
  readonly #server: RegistryServer;
  readonly #frames: FrameServer;
  readonly #signatures = new VerifiedSignatures();
  readonly #notify: (node: Parameters<BeaconServer["notify"]>[0]) => void;
  /** A request of this turn failed half way: nothing of the turn may be committed. */
  #failure: unknown;

  constructor(
    options: RendezvousOptions,
    store: SqliteStore,
    certificate: TlsCertificate | undefined,
    notify: (node: Parameters<BeaconServer["notify"]>[0]) => void,
  ) {
    this.#options = options;
    this.#store = store;
    this.#notify = notify;
    this.#server = new RegistryServer({
      store,
      crypto: this.#signatures,
      startedAt: now(),
      startedAtWall: wallNow(),
      ...(options.adminToken === undefined ? {} : { adminToken: options.adminToken }),
      ...(options.registryLimits === undefined ? {} : { limits: options.registryLimits }),
    });
    this.#frames = new FrameServer({
      listen: options.registry,
      maxFrameBytes: MAX_FRAME_BYTES,
      tls: certificate && { ...certificate, only: options.registryTlsOnly ?? false },
      openConversation: (sourceIp) => this.#open(new Conversation(sourceIp)),
      settle: () => this.#settle(),
      ...(options.connectionLimits === undefined ? {} : { limits: options.connectionLimits }),
    });
  }

  get connectionCount(): number {
    return this.#frames.connectionCount;
  }

  get requestCounts() {
    return this.#server.counts.list();
  }

  async listen(): Promise<Endpoint> {
    try {
      const endpoint = await this.#frames.listen();
      this.isListening = true;
      return endpoint;
    } catch (cause) {
      throw bindError("registry", "TCP", this.#options.registry, cause);
    }
  }

  close(): Promise<void> {
    this.isListening = false;
    return this.#frames.close();
  }

  #open(conversation: Conversation): FrameConversation {
    let isBinary = false;
    return {
      get isThrottled(): boolean {
        return conversation.isThrottled;
      },
      skipPreamble: (peek) => {
        const first = peek(BINARY_PREAMBLE.length);
        if (first === undefined) return undefined;
        isBinary = BINARY_PREAMBLE.every((byte, index) => first[index] === byte);
        return isBinary ? BINARY_PREAMBLE.length : 0;
      },
      prepareFrame: (payload) => this.#prepare(payload, isBinary, conversation),
      handleFrame: (payload) => this.#handle(payload, isBinary, conversation),
    };
  }

  /** Lets another thread check the signature of a frequent request, for a source that keeps to its rate. */
  #prepare(payload: Uint8Array, isBinary: boolean, conversation: Conversation): Promise<void> | undefined {
    if (conversation.isThrottled) return undefined;
    const message = isBinary ? parseBinaryMessage(payload) : parseRegistryMessage(fromUtf8(payload) ?? "");
    const expected = message === undefined ? undefined : expectedSignature(message, this.#store);
    return expected === undefined ? undefined : this.#signatures.checkAhead(expected);
  }

  #handle(payload: Uint8Array, isBinary: boolean, conversation: Conversation): Uint8Array | undefined {
    this.requests++;
    try {
      if (isBinary) return handleBinaryRequest(this.#server, payload, conversation, now(), wallNow());
      const text = fromUtf8(payload) ?? "";
      return encodeRegistryFrame(this.#server.handleRequest(text, conversation, now(), wallNow()));
    } catch (cause) {
      // The database refused a change (a full disk, an I/O error); the rules themselves do not throw.
      this.#failure = cause;
      return undefined;
    }
  }

  #commit(): void {
    if (!this.#store.isDirty) return;
    const startedAt = now();
    this.#store.commit();
    this.commitSeconds.observe((now() - startedAt) / 1000);
  }

  #settle(): void {
    const failure = this.#failure;
    this.#failure = undefined;
    try {
      if (failure !== undefined) throw failure;
      this.#commit();
    } catch (cause) {
      this.commitFailures++;
      this.#store.rollback();
      this.#options.onProblem?.(storageError(this.#options.stateDir, cause));
      throw cause;
    }
    for (let node = this.#server.pollNotice(); node !== undefined; node = this.#server.pollNotice()) this.#notify(node);
  }
}

function parseBinaryMessage(payload: Uint8Array): RegistryMessage | undefined {
  const request = parseBinaryRequest(payload);
  if (request?.type === BINARY.JSON) return parseRegistryMessage(request.text);
  return request?.message;
}

/** From a flush that a disk's cache takes at once to a disk in trouble. */
const COMMIT_SECONDS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1];

function storageError(stateDir: string, cause: unknown): PilotError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PilotError(
    "state_unwritable",
    `Could not store a request in ${stateDir}: ${reason}; the client was cut off and will ask again`,
    "Free disk space there, and check the disk.",
    cause,
  );
}
