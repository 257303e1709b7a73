/**
 * A rendezvous: the registry on TCP and the beacon on UDP in one process, over one database. Prints nothing; what an
 * operator must know comes as a PilotError at the start, or through `onProblem` while it runs.
 */
import { type Endpoint, formatEndpoint } from "../base/endpoint.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { FrameServerLimits } from "../io/frame-server.ts";
import { forbidDumps, nativeShimIfBuilt } from "../io/native.ts";
import { NodeCrypto } from "../io/node-crypto.ts";
import { ServiceManager } from "../io/service-manager.ts";
import { SqliteStore } from "../io/sqlite-store.ts";
import { backupStore } from "../io/store-backup.ts";
import { loadTlsCertificate, type TlsCertificate, type TlsSource } from "../io/tls-certificate.ts";
import { type BeaconCounters, type BeaconLimits, BeaconServer } from "../rendezvous/beacon.ts";
import type { RegistryLimits } from "../rendezvous/registry.ts";
import { BeaconProbePort } from "./beacon-probe-port.ts";
import { type BeaconPort, BeaconSocket, type BeaconSocketCounters } from "./beacon-socket.ts";
import { bindError } from "./bind-error.ts";
import { CompatListener, type CompatStats } from "./compat-listener.ts";
import { NativeBeaconPort } from "./native-beacon-port.ts";
import { RegistryListener } from "./registry-listener.ts";
import { type AdminServer, startAdminServer } from "./rendezvous-admin.ts";
import { healthOf } from "./rendezvous-health.ts";
import { formatMetrics } from "./rendezvous-metrics.ts";
import { VERIFYING_KEYS } from "./verified-signatures.ts";

export interface RendezvousOptions {
  readonly registry: Endpoint;
  readonly beacon: Endpoint;
  readonly stateDir: string;
  readonly adminToken?: string;
  /** How long an invitation into a network waits for its answer; 30 days unless told. */
  readonly inviteLifeMs?: number;
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
  forbidDumpsIfBuilt();
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
  const crypto = new NodeCrypto(VERIFYING_KEYS);
  const beacon = await openBeacon(options, beaconServer(options, store, crypto));
  const registry = new RegistryListener(options, store, certificate, beacon);
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

/** Certificate key and admin token are not for a core file; the unit's LimitCORE= is what is left without the C shim. */
function forbidDumpsIfBuilt(): void {
  if (nativeShimIfBuilt() !== undefined) forbidDumps();
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
    proofs: { crypto, rendezvous: store.rendezvousId, keyOf: (node) => store.keyOf(node) },
    hides: (node) => store.nodeById(node)?.relayOnly === true,
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
