/**
 * A rendezvous: the registry on TCP and the beacon on UDP in one process, over one database. Prints nothing; what an
 * operator must know comes as a PilotError at the start, or through `onProblem` while it runs.
 */
import { fromUtf8 } from "../base/bytes.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { PilotError } from "../base/pilot-error.ts";
import { now, wallNow } from "../io/clock.ts";
import { type FrameConversation, FrameServer, type FrameServerLimits } from "../io/frame-server.ts";
import { NodeCrypto } from "../io/node-crypto.ts";
import { SqliteStore } from "../io/sqlite-store.ts";
import { loadTlsCertificate, type TlsCertificate, type TlsSource } from "../io/tls-certificate.ts";
import { type BeaconCounters, type BeaconLimits, BeaconServer } from "../rendezvous/beacon.ts";
import { handleBinaryRequest } from "../rendezvous/binary-conversation.ts";
import { type RegistryLimits, RegistryServer } from "../rendezvous/registry.ts";
import { Conversation } from "../rendezvous/request-context.ts";
import { encodeRegistryFrame, MAX_FRAME_BYTES } from "../wire/registry.ts";
import { BINARY_PREAMBLE } from "../wire/registry-binary.ts";
import { BeaconSocket, type BeaconSocketCounters } from "./beacon-socket.ts";
import { bindError } from "./bind-error.ts";
import { CompatListener, type CompatStats } from "./compat-listener.ts";

export interface RendezvousOptions {
  readonly registry: Endpoint;
  readonly beacon: Endpoint;
  readonly stateDir: string;
  readonly adminToken?: string;
  readonly registryLimits?: Partial<RegistryLimits>;
  readonly beaconLimits?: Partial<BeaconLimits>;
  /** The relay serves only nodes that proved their numbers. */
  readonly relayProvenOnly?: boolean;
  readonly connectionLimits?: Partial<FrameServerLimits>;
  /** Where nodes come whose network blocks UDP; needs `tls`. */
  readonly compat?: Endpoint;
  readonly tls?: TlsSource;
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
  const store = SqliteStore.open(options.stateDir);
  try {
    return await openSockets(options, store);
  } catch (cause) {
    store.close();
    throw cause;
  }
}

async function openSockets(options: RendezvousOptions, store: SqliteStore): Promise<Rendezvous> {
  const certificate = options.tls === undefined ? undefined : loadTlsCertificate(options.tls);
  const crypto = new NodeCrypto();
  const beacon = new BeaconSocket(options.beacon, beaconServer(options, store, crypto));
  await beacon.bind();
  const registry = new RegistryListener(options, store, (node) => beacon.notify(node));
  let registryEndpoint: Endpoint;
  try {
    registryEndpoint = await registry.listen();
  } catch (cause) {
    await beacon.close();
    throw cause;
  }
  let compat: CompatListener | undefined;
  let compatEndpoint: Endpoint | undefined;
  try {
    compat = openCompat(options, store, beacon, certificate);
    compatEndpoint = await compat?.listen();
  } catch (cause) {
    await Promise.all([registry.close(), beacon.close()]);
    throw bindError("compat", "TCP", options.compat!, cause);
  }
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    await Promise.all([registry.close(), beacon.close(), compat?.close()]);
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

function beaconServer(options: RendezvousOptions, store: SqliteStore, crypto: NodeCrypto): BeaconServer {
  return new BeaconServer({
    proofs: { crypto, keyOf: (node) => store.nodeById(node)?.publicKey },
    provenOnly: options.relayProvenOnly ?? false,
    ...(options.beaconLimits === undefined ? {} : { limits: options.beaconLimits }),
  });
}

function openCompat(
  options: RendezvousOptions,
  store: SqliteStore,
  beacon: BeaconSocket,
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
  readonly #options: RendezvousOptions;
  readonly #store: SqliteStore;
  readonly #server: RegistryServer;
  readonly #frames: FrameServer;
  readonly #notify: (node: Parameters<BeaconServer["notify"]>[0]) => void;
  /** A request of this turn failed half way: nothing of the turn may be committed. */
  #failure: unknown;

  constructor(
    options: RendezvousOptions,
    store: SqliteStore,
    notify: (node: Parameters<BeaconServer["notify"]>[0]) => void,
  ) {
    this.#options = options;
    this.#store = store;
    this.#notify = notify;
    this.#server = new RegistryServer({
      store,
      crypto: new NodeCrypto(),
      startedAt: now(),
      startedAtWall: wallNow(),
      ...(options.adminToken === undefined ? {} : { adminToken: options.adminToken }),
      ...(options.registryLimits === undefined ? {} : { limits: options.registryLimits }),
    });
    this.#frames = new FrameServer({
      listen: options.registry,
      maxFrameBytes: MAX_FRAME_BYTES,
      openConversation: (sourceIp) => this.#open(new Conversation(sourceIp)),
      settle: () => this.#settle(),
      ...(options.connectionLimits === undefined ? {} : { limits: options.connectionLimits }),
    });
  }

  get connectionCount(): number {
    return this.#frames.connectionCount;
  }

  async listen(): Promise<Endpoint> {
    try {
      return await this.#frames.listen();
    } catch (cause) {
      throw bindError("registry", "TCP", this.#options.registry, cause);
    }
  }

  close(): Promise<void> {
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
      handleFrame: (payload) => this.#handle(payload, isBinary, conversation),
    };
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

  #settle(): void {
    const failure = this.#failure;
    this.#failure = undefined;
    try {
      if (failure !== undefined) throw failure;
      this.#store.commit();
    } catch (cause) {
      this.#store.rollback();
      this.#options.onProblem?.(storageError(this.#options.stateDir, cause));
      throw cause;
    }
    for (let node = this.#server.pollNotice(); node !== undefined; node = this.#server.pollNotice()) this.#notify(node);
  }
}

function storageError(stateDir: string, cause: unknown): PilotError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PilotError(
    "state_unwritable",
    `Could not store a request in ${stateDir}: ${reason}; the client was cut off and will ask again`,
    "Free disk space there, and check the disk.",
    cause,
  );
}
