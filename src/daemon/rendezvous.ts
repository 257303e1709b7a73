/**
 * A rendezvous: the registry on TCP and the beacon on UDP in one process, over one database. Prints nothing; what an
 * operator must know comes as a PilotError at the start, or through `onProblem` while it runs.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { isIPv6 } from "node:net";
import { fromUtf8 } from "../base/bytes.ts";
import { type Endpoint, formatEndpoint } from "../base/endpoint.ts";
import { PilotError } from "../base/pilot-error.ts";
import { now, wallNow } from "../io/clock.ts";
import { type FrameConversation, FrameServer, type FrameServerLimits } from "../io/frame-server.ts";
import { NodeCrypto } from "../io/node-crypto.ts";
import { SqliteStore } from "../io/sqlite-store.ts";
import { type BeaconCounters, type BeaconDatagram, type BeaconLimits, BeaconServer } from "../rendezvous/beacon.ts";
import { handleBinaryRequest } from "../rendezvous/binary-conversation.ts";
import { type RegistryLimits, RegistryServer } from "../rendezvous/registry.ts";
import { Conversation } from "../rendezvous/request-context.ts";
import { NOTIFY_HANDSHAKES } from "../wire/beacon.ts";
import { encodeRegistryFrame, MAX_FRAME_BYTES } from "../wire/registry.ts";
import { BINARY_PREAMBLE } from "../wire/registry-binary.ts";
import { formatIp, parseIp } from "../wire/underlay-address.ts";

export interface RendezvousOptions {
  readonly registry: Endpoint;
  readonly beacon: Endpoint;
  readonly stateDir: string;
  readonly adminToken?: string;
  readonly registryLimits?: Partial<RegistryLimits>;
  readonly beaconLimits?: Partial<BeaconLimits>;
  readonly connectionLimits?: Partial<FrameServerLimits>;
  /** A problem while running, such as a full disk: requests fail until it is gone. */
  readonly onProblem?: (problem: PilotError) => void;
}

export interface Rendezvous {
  /** As bound: the port that the system chose when 0 was asked for. */
  readonly registry: Endpoint;
  readonly beacon: Endpoint;
  stats(): RendezvousStats;
  close(): Promise<void>;
}

export interface RendezvousStats {
  readonly nodes: number;
  readonly connections: number;
  readonly requests: number;
  readonly beaconNodes: number;
  readonly beacon: Readonly<BeaconCounters>;
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
  const beacon = new BeaconSocket(options.beacon, options.beaconLimits);
  await beacon.bind();
  const registry = new RegistryListener(options, store, (node) => beacon.notify(node));
  let registryEndpoint: Endpoint;
  try {
    registryEndpoint = await registry.listen();
  } catch (cause) {
    await beacon.close();
    throw cause;
  }
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    await Promise.all([registry.close(), beacon.close()]);
    store.close();
  };
  return {
    registry: registryEndpoint,
    beacon: beacon.endpoint,
    stats: () => ({
      nodes: store.nodeCount(),
      connections: registry.connectionCount,
      requests: registry.requests,
      beaconNodes: beacon.server.nodeCount,
      beacon: { ...beacon.server.counters },
    }),
    close: () => {
      closing ??= close();
      return closing;
    },
  };
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

/** The beacon's socket. A datagram that cannot be sent is lost, as any datagram may be. */
class BeaconSocket {
  readonly server: BeaconServer;
  readonly #asked: Endpoint;
  readonly #socket: Socket;

  constructor(asked: Endpoint, limits: Partial<BeaconLimits> | undefined) {
    this.#asked = asked;
    this.server = new BeaconServer(limits === undefined ? {} : { limits });
    this.#socket = createSocket({ type: isIPv6(asked.address) ? "udp6" : "udp4", lookup: noLookup });
    this.#socket.on("message", (datagram, from) => this.#received(datagram, from));
  }

  get endpoint(): Endpoint {
    return { address: this.#asked.address, port: this.#socket.address().port };
  }

  bind(): Promise<void> {
    const { address, port } = this.#asked;
    return new Promise((resolve, reject) => {
      this.#socket.once("error", (cause) => {
        this.#socket.close();
        reject(bindError("beacon", "UDP", this.#asked, cause));
      });
      this.#socket.bind({ address, port, exclusive: true }, () => {
        this.#socket.removeAllListeners("error");
        this.#socket.on("error", () => {}); // an ICMP error for a datagram of ours
        this.#enlargeBuffers();
        resolve();
      });
    });
  }

  notify(node: Parameters<BeaconServer["notify"]>[0]): void {
    const datagram = this.server.notify(node, NOTIFY_HANDSHAKES, now());
    if (datagram !== undefined) this.#send(datagram);
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#socket.close(() => resolve()));
  }

  #received(datagram: Uint8Array, from: RemoteInfo): void {
    const source = parseIp(from.address.replace(/%.*$/, ""));
    if (source === undefined) return;
    const endpoint = { address: formatIp(source)!, port: from.port };
    for (const reply of this.server.handleDatagram(datagram, endpoint, now())) this.#send(reply);
  }

  #send({ to, bytes }: BeaconDatagram): void {
    if (this.#socket.getSendQueueSize() > SOCKET_BUFFER_BYTES) return; // the way out is full
    const isMapped = isIPv6(this.#asked.address) && !to.address.includes(":");
    this.#socket.send(bytes, to.port, isMapped ? `::ffff:${to.address}` : to.address, () => {});
  }

  /** Relayed bursts are long; the system caps what it grants. */
  #enlargeBuffers(): void {
    this.#socket.setRecvBufferSize(SOCKET_BUFFER_BYTES);
    this.#socket.setSendBufferSize(SOCKET_BUFFER_BYTES);
  }
}

/** Every address here is numeric; without this each datagram sent would wait for a turn of the event loop. */
function noLookup(
  address: string,
  _options: unknown,
  callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void,
): void {
  callback(null, address, isIPv6(address) ? 6 : 4);
}

function bindError(what: string, protocol: string, endpoint: Endpoint, cause: unknown): PilotError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const where = `${formatEndpoint(endpoint)} (${protocol})`;
  if (code === "EADDRINUSE") {
    const hint = `Stop the program that uses it (ss -lptun 'sport = :${endpoint.port}'), or choose another --${what}.`;
    return new PilotError("port_taken", `The ${what}'s address ${where} is in use`, hint, cause);
  }
  if (code === "EACCES") {
    const hint = "Choose a port above 1023, or grant CAP_NET_BIND_SERVICE.";
    return new PilotError("port_forbidden", `This user may not bind the ${what}'s address ${where}`, hint, cause);
  }
  const hint = `Give --${what} an address of this machine, or 0.0.0.0 or [::] for all of them.`;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PilotError("address_unusable", `Cannot bind the ${what}'s address ${where}: ${reason}`, hint, cause);
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

const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;
