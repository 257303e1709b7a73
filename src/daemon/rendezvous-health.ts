/**
 * Whether a rendezvous works, looked at when asked: its database takes a write, its registry listens, and its beacon
 * answers a discovery that is sent to it as any node would.
 */
import { type Endpoint, formatEndpoint } from "../base/endpoint.ts";
import { UdpProbe } from "../io/udp-probe.ts";
import { BEACON, encodeDiscover } from "../wire/beacon.ts";
import { nodeId } from "../wire/ids.ts";
import type { BeaconPort } from "./beacon-socket.ts";

export interface RendezvousHealth {
  /** All of it works. */
  readonly healthy: boolean;
  readonly registry: { readonly endpoint: string; readonly listening: boolean; readonly connections: number };
  readonly beacon: {
    readonly endpoint: string;
    readonly bound: boolean;
    /** A discovery sent to it from this machine was answered within a second. */
    readonly answers: boolean;
    readonly nodes: number;
    readonly provenNodes: number;
  };
  readonly store: { readonly writable: boolean; readonly nodes: number; readonly problem: string | null };
  readonly queue: { readonly bytes: number; readonly frames: number; readonly flows: number };
}

export interface HealthParts {
  readonly store: { nodeCount(): number; probe(): void };
  readonly registry: { readonly isListening: boolean; readonly connectionCount: number };
  readonly registryEndpoint: Endpoint;
  readonly beacon: Pick<BeaconPort, "endpoint" | "isBound" | "server" | "stats">;
}

export async function healthOf({ store, registry, beacon, registryEndpoint }: HealthParts): Promise<RendezvousHealth> {
  const problem = writeProblem(store);
  const bound = beacon.isBound;
  const answers = bound && (await answersDiscovery(beacon.endpoint));
  const { queuedBytes, queuedFrames, queuedFlows } = beacon.stats();
  return {
    healthy: problem === null && registry.isListening && answers,
    registry: {
      endpoint: formatEndpoint(registryEndpoint),
      listening: registry.isListening,
      connections: registry.connectionCount,
    },
    beacon: {
      endpoint: formatEndpoint(beacon.endpoint),
      bound,
      answers,
      nodes: beacon.server.nodeCount,
      provenNodes: beacon.server.provenCount,
    },
    store: { writable: problem === null, nodes: store.nodeCount(), problem },
    queue: { bytes: queuedBytes, frames: queuedFrames, flows: queuedFlows },
  };
}

function writeProblem(store: HealthParts["store"]): string | null {
  try {
    store.probe();
    return null;
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause);
  }
}

/** Number 0 is nobody's: the beacon learns nothing from it. */
async function answersDiscovery({ address, port }: Endpoint): Promise<boolean> {
  const isEveryAddress = address === "0.0.0.0" || address === "::";
  const to = { address: isEveryAddress ? "127.0.0.1" : address, port };
  const isReply = (datagram: Uint8Array): boolean => datagram[0] === BEACON.DISCOVER_REPLY;
  let probe: UdpProbe | undefined;
  try {
    probe = await UdpProbe.open(to.address.includes(":") ? "IPv6" : "IPv4");
    const question = encodeDiscover(nodeId(0), false);
    return (await probe.ask(to, question, isReply, AbortSignal.timeout(PATIENCE_MS))) !== undefined;
  } catch {
    return false; // no socket to ask with
  } finally {
    probe?.close();
  }
}

const PATIENCE_MS = 1_000;
