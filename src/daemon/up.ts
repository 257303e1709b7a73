/**
 * Brings a node up and takes it down: state, device, socket, registry, engine, interface, control socket, in this order;
 * everything that was started is ended in reverse, also when a later step fails.
 *
 * Ready means: the interface carries the node's address, so that services can bind to it. That needs no server once the
 * node has its number; only the very first start waits for a registry.
 */
import { closeSync } from "node:fs";
import { readU32, utf8 } from "../base/bytes.ts";
import { type Endpoint, formatEndpoint } from "../base/endpoint.ts";
import { PilotError } from "../base/pilot-error.ts";
import { BeaconClient, type BeaconProver } from "../beacon/client.ts";
import { startControlServer } from "../control/server.ts";
import { VERSION } from "../control/version.ts";
import { Engine } from "../engine/engine.ts";
import { HIDDEN } from "../engine/paths.ts";
import { now, wallNow } from "../io/clock.ts";
import { keepHeapTight } from "../io/heap-growth.ts";
import { localAddresses } from "../io/local-addresses.ts";
import { forbidDumps } from "../io/native.ts";
import { NativeDataPlane } from "../io/native-data-plane.ts";
import { NodeCrypto } from "../io/node-crypto.ts";
import { peerCredentials } from "../io/peer-credentials.ts";
import { RegistryConnection } from "../io/registry-connection.ts";
import { secureConnector } from "../io/registry-tls.ts";
import { resolveHost } from "../io/resolve-host.ts";
import { ServiceManager } from "../io/service-manager.ts";
import { type Identity, StateDirectory } from "../io/state-directory.ts";
import { UnderlayWatch } from "../io/underlay-watch.ts";
import { RegistryClient } from "../registry/client.ts";
import { encodeAddressBytes, formatOverlayAddress, formatPilotAddress } from "../wire/address.ts";
import { type NodeId, networkId } from "../wire/ids.ts";
import { parseEndpoint } from "../wire/underlay-address.ts";
import { createAuditLog, stopRecord } from "./audit-start.ts";
import { Backend } from "./backend.ts";
import { CompatLink, type CompatLinkParts } from "./compat-link.ts";
import { controlAccess } from "./control-access.ts";
import { Driver } from "./driver.ts";
import { FlowFile } from "./flow-file.ts";
import { Guests } from "./guests.ts";
import { settleRotation } from "./identity.ts";
import { KeptFiles } from "./kept-files.ts";
import { LiveEvents } from "./live-events.ts";
import { NodeMemory } from "./node-memory.ts";
import { OverlayInterface } from "./overlay-interface.ts";
import { OwnIdentity } from "./own-identity.ts";
import { PlainSockets } from "./plain-sockets.ts";
import { loadOf, mayPrefer, Preference } from "./preference.ts";
import { lockState } from "./state-lock.ts";
import { TrustFile } from "./trust-file.ts";
import type { Running, UpOptions } from "./up-options.ts";

export async function up(options: UpOptions): Promise<Running> {
  const undo = new Undo();
  try {
    return await bringUp(options, undo);
  } catch (error) {
    await undo.run();
    throw error;
  }
}

async function bringUp(options: UpOptions, undo: Undo): Promise<Running> {
  forbidDumps(); // before there is anything to keep
  const crypto = new NodeCrypto();
  const plane = new NativeDataPlane();
  const manager = new ServiceManager(process.env, process.pid);
  undo.add(() => plane.close());
  const state = new StateDirectory(options.stateDir);
  lockState(options.stateDir);
  const memory = NodeMemory.load(state);
  const credential = StateDirectory.credentialIdentity(process.env, crypto);
  if (credential === undefined) await settleRotation(state, memory.node, crypto, options);
  const identity = new OwnIdentity(credential ?? state.loadIdentity(crypto));
  const trust = new TrustFile(state);
  const { book } = trust;

  openDevice(plane, options.tun, manager);
  const listen = openUnderlay(plane, options, memory);
  memory.rememberPort(listen.port);
  const beaconEndpoint = await findBeacon(options);

  const client = new RegistryClient({
    crypto,
    identity,
    hostname: options.hostname ?? memory.hostname,
    tags: options.tags,
    listen: options.relayOnly ? HIDDEN : { port: listen.port, lan: lanEndpoints(options, listen.port) },
    isPublic: options.public,
    version: `pilot-tun ${VERSION}`,
  });
  const connection = new RegistryConnection(options.registry, client, {
    onInput: () => onRegistryInput(),
    connect: secureConnector(options.registrySecurity),
  });
  undo.add(() => connection.close());
  let onRegistryInput = () => {};
  connection.start();

  const node = memory.node ?? (await firstRegistration(client, options, manager, (wake) => (onRegistryInput = wake)));
  memory.rememberNode(node);
  const auditLog = createAuditLog(options, { node, hostname: options.hostname ?? memory.hostname, identity, crypto });
  auditLog?.start();
  undo.add(() => auditLog?.close(stopRecord()));
  const events = new LiveEvents(auditLog);
  if (book.size > MANY_PEERS) undo.add(keepHeapTight());
  const engine = new Engine(
    {
      prefix: options.prefix,
      node,
      get seed() {
        return identity.seed;
      },
      get publicKey() {
        return identity.publicKey;
      },
      mtuBytes: options.mtu,
      rekey: { everyMs: options.rekeyEveryMs },
      listenPort: listen.port,
      allowLegacyKeys: options.allowLegacyKeys,
      relayOnly: options.relayOnly,
      beaconEndpoint,
      hasBeaconTcp: options.compat !== undefined,
      endpoints: memory.endpoints(),
      kinds: memory.kinds(),
      plainOnly: options.plainOnly,
      networks: memory.networks,
      leaseNow: trust.leaseNow(),
      tags: memory.tags,
    },
    {
      crypto,
      dataPlane: plane,
      registry: client,
      beacon:
        beaconEndpoint === undefined ? undefined : new BeaconClient(node, now(), proverOf(identity, client, crypto)),
      trust: book,
      audit: events,
    },
    now(),
    wallNow(),
  );
  const flowFile = FlowFile.take(state);
  undo.add(() => {
    const flows = engine.gate.carried.take(now());
    engine.close();
    trust.save(engine.leases.time(now())); // with the bytes of leases as they were used
    flowFile.save(flows);
  });
  const files = new KeptFiles(engine.problems);
  undo.add(() => files.close());
  for (const problem of [trust.problem, memory.problem, flowFile.problem])
    if (problem) engine.problems.set(problem.code, problem);

  const compat = createCompat(options, { engine, identity, crypto, listen }, (act) => driver.input(act));
  undo.add(() => compat?.close());
  const face = new OverlayInterface(options, engine);
  const guests = new Guests({
    ...{ interfaceName: options.tun, plane },
    ownAddress: encodeAddressBytes(options.prefix, { network: networkId(0), node }),
    facts: () => ({
      ...{ interface: options.tun, prefix: options.prefix.text, mtu: options.mtu },
      addresses: face.nodeAddresses,
      dns: backend.names.status.address,
    }),
    answerName: (message) => backend.names.answer(message),
    countDrop: (reason) => engine.countDrop(reason),
    forward: (packets) => driver.handlePackets(packets),
  });
  const preference = new Preference(loadOf(plane), now(), options.prefer && mayPrefer());
  const backend: Backend = new Backend({
    face,
    ...{
      options,
      engine,
      client,
      connection,
      book,
      trust,
      memory,
      files,
      ownKey: identity,
      isKeyLent: credential !== undefined,
      crypto,
      listen,
      state,
    },
    ...{ guests, compat, beaconEndpoint, auditLog, events, preference },
  });
  const plain = new PlainSockets(engine, options.prefix, (act) => driver.input(act));
  const driver: Driver = new Driver(engine, plane, readU32(crypto.randomBytes(4), 0), {
    handleEvent: (event) => backend.handleEvent(event),
    pumpRegistry: () => connection.pump(),
    pumpPlain: () => plain.pump(),
    preference,
    guests,
  });
  backend.attach(driver);
  undo.add(() => backend.close());
  onRegistryInput = () => driver.input(() => {});
  undo.add(() => driver.stop());

  await backend.policy.start();
  engine.gate.carried.restore(flowFile.flows, now());
  undo.add(() => backend.policy.close());
  await face.apply();
  face.watch();
  undo.add(() => face.close());
  driver.start();
  plain.listen();
  undo.add(() => plain.close());
  undo.add(() => plain.end());
  await backend.metrics.start(options.metrics);
  undo.add(() => backend.metrics.close());
  if (options.dns) {
    await backend.names.start();
    undo.add(() => backend.names.close());
  }
  const watch = new UnderlayWatch(options.tun, ({ local, resumed }) => {
    if (resumed) backend.noticeSleep();
    const matters = driver.input((at) => engine.handleUnderlay(local, resumed, at));
    if (matters) connection.reconnect();
  });
  undo.add(() => watch.close());
  const control = await startControlServer(options.control, backend, {
    access: await controlAccess(),
    onInternalError: (method, error) => process.stderr.write(`bug in ${method}: ${describe(error)}\n`),
    identify: peerCredentials,
    carry: (...connection) => guests.carry(...connection),
  });
  undo.add(() => control.close());
  undo.add(() => guests.close());
  const reload = () => backend.config.reloadBySignal();
  process.on("SIGHUP", reload);
  undo.add(() => void process.off("SIGHUP", reload));

  const up = running(options, engine.node, backend, listen, undo);
  undo.add(() => manager.stopping());
  manager.ready(up.readyLine);
  return up;
}

function createCompat(
  { compat: target }: UpOptions,
  { engine, identity, crypto, listen }: { engine: Engine; identity: Identity; crypto: NodeCrypto; listen: Endpoint },
  input: CompatLinkParts["input"],
): CompatLink | undefined {
  if (target === undefined) return undefined;
  const own = {
    node: engine.node,
    get seed() {
      return identity.seed;
    },
    get publicKey() {
      return identity.publicKey;
    },
  };
  return new CompatLink({ target, identity: own, crypto, environment: process.env, tunnel: listen, engine, input });
}

function running(options: UpOptions, node: NodeId, backend: Backend, listen: Endpoint, undo: Undo): Running {
  const address = { network: networkId(0), node };
  const ready = {
    interface: options.tun,
    address: formatOverlayAddress(options.prefix, address),
    pilot: formatPilotAddress(address),
    node,
    hostname: backend.hostname ?? null,
    listen: formatEndpoint(listen),
    control: options.control,
  };
  const closed = Promise.withResolvers<void>();
  backend.onFatal = (error) => closed.reject(error);
  let closing: Promise<void> | undefined;
  return {
    ready,
    readyLine: `ready: ${ready.interface} ${ready.address} (${ready.pilot}) mtu ${options.mtu}, listening on ${ready.listen}`,
    closed: closed.promise,
    close() {
      closing ??= undo.run().then(() => closed.resolve());
      return closing;
    },
  };
}

function proverOf(identity: Identity, client: RegistryClient, crypto: NodeCrypto): BeaconProver {
  return {
    get publicKey() {
      return identity.publicKey;
    },
    rendezvous: () => client.rendezvous,
    sign: (text) => crypto.ed25519Sign(identity.seed, utf8(text)),
  };
}

/**
 * The interface of the last run if a service manager kept it, so that a restart keeps addresses, routes and established
 * connections; else a new one, for it to keep.
 */
function openDevice(plane: NativeDataPlane, name: string, manager: ServiceManager): void {
  const kept = manager.take(TUN_DESCRIPTOR);
  if (kept !== undefined) {
    if (plane.adoptTun(kept, name)) return;
    manager.forget(TUN_DESCRIPTOR);
    closeSync(kept);
  }
  plane.openTun(name);
  manager.keep(TUN_DESCRIPTOR, plane.tunDescriptor);
}

/** The port of the last run if it is free: peers look for us there, also while no registry can tell them of another. */
function openUnderlay(plane: NativeDataPlane, options: UpOptions, memory: NodeMemory): Endpoint {
  if (options.listen !== undefined) return plane.openUdp(options.listen);
  if (memory.port !== undefined) {
    try {
      return plane.openUdp({ address: "::", port: memory.port });
    } catch (error) {
      if (!(error instanceof PilotError) || error.code !== "port_taken") throw error;
    }
  }
  return plane.openUdp(EVERY_ADDRESS);
}

/** Without an earlier number there is no address to put on the interface: wait for the registry, and say so. */
function firstRegistration(
  client: RegistryClient,
  options: UpOptions,
  manager: ServiceManager,
  onWake: (wake: () => void) => void,
): Promise<NodeId> {
  const { promise, resolve, reject } = Promise.withResolvers<NodeId>();
  let told = false;
  onWake(() => {
    for (let event = client.pollEvent(); event !== undefined; event = client.pollEvent()) {
      if (event.kind === "registered") resolve(event.node);
      if (event.kind === "state" && event.state === "down" && !told) {
        told = true;
        const where = `${options.registry.host}:${options.registry.port}`;
        const reason = event.error ?? "not reachable";
        const text = `waiting for the registry at ${where} (${reason}): a first start needs it to get an address`;
        manager.status(text);
        process.stderr.write(`${text}\n`);
      }
    }
  });
  options.signal.addEventListener("abort", () => reject(new DOMException("asked to end", "AbortError")), {
    once: true,
  });
  if (options.signal.aborted) reject(new DOMException("asked to end", "AbortError"));
  return promise;
}

/** Where neighbours on the same network reach us; the engine keeps the registry informed of later ones. */
function lanEndpoints(options: UpOptions, port: number): Endpoint[] {
  return localAddresses(options.tun).map(({ address }) => ({ address, port }));
}

async function findBeacon(options: UpOptions): Promise<Endpoint | undefined> {
  const address = await resolveHost(options.beacon.host);
  if (address === undefined) return undefined;
  return parseEndpoint(formatEndpoint({ address, port: options.beacon.port }));
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** What was started, ended in reverse; each step runs even when another fails. */
class Undo {
  readonly #steps: (() => void | Promise<void>)[] = [];

  add(step: () => void | Promise<void>): void {
    this.#steps.push(step);
  }

  async run(): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step();
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        process.stderr.write(`while ending: ${reason}\n`);
      }
    }
  }
}

const TUN_DESCRIPTOR = "tun";
/** From here on what peers take is most of the heap. */
const MANY_PEERS = 1_000;
const EVERY_ADDRESS: Endpoint = { address: "::", port: 0 };
