/** What this machine's network lets through, looked at anew: the answer to "why is it slow, or not there at all". */
import { connect as tcpConnect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Crypto } from "../base/crypto.ts";
import { type Endpoint, formatEndpoint } from "../base/endpoint.ts";
import type { NetcheckReply, Reachability } from "../control/api.ts";
import { now, wallNow } from "../io/clock.ts";
import { type CompatTarget, openCompat } from "../io/compat-connection.ts";
import { opened, proxyFor } from "../io/https-proxy.ts";
import type { RegistryClient } from "../registry/client.ts";
import { compatUrl } from "./compat-link.ts";
import { checkNat } from "./nat-check.ts";
import type { HostPort } from "./up-options.ts";

export interface NetcheckParts {
  readonly crypto: Crypto;
  readonly registry: HostPort;
  readonly beacon: HostPort;
  /** Undefined: its name does not resolve. */
  readonly beaconEndpoint: Endpoint | undefined;
  readonly compat: CompatTarget | undefined;
  readonly transport: "udp" | "tcp";
  readonly client: Pick<RegistryClient, "serverTime" | "state">;
  /** Has the registry asked for its time. */
  askTime(): void;
  /** The largest datagram that reaches the beacon, in IP bytes; null when none comes back. */
  measureMtu(signal: AbortSignal): Promise<number | null>;
}

export async function netcheck(parts: NetcheckParts, caller: AbortSignal): Promise<NetcheckReply> {
  const signal = AbortSignal.any([caller, AbortSignal.timeout(CHECK_MS)]);
  const { beaconEndpoint, crypto } = parts;
  const [udp, toBeacon, registry, fallback, clockSkewMs] = await Promise.all([
    beaconEndpoint === undefined ? undefined : checkNat(beaconEndpoint, crypto, signal),
    parts.measureMtu(signal),
    checkRegistry(parts.registry, signal),
    checkFallback(parts.compat, signal),
    checkClock(parts, signal),
  ]);
  const isOut = udp?.observed !== undefined;
  const noAnswer = beaconEndpoint === undefined ? "its name does not resolve" : "no answer over UDP";
  return {
    udp: { out: isOut, endpoint: udp?.observed === undefined ? null : formatEndpoint(udp.observed) },
    nat: udp?.nat ?? { present: null, mapping: "unknown", filtering: "unknown", hairpin: null },
    mtu: { toBeacon: isOut ? toBeacon : null },
    registry,
    beacon: {
      address: written(parts.beacon),
      reachable: isOut,
      latencyMs: rounded(udp?.latencyMs),
      error: isOut ? null : noAnswer,
    },
    fallback,
    transport: parts.transport,
    clockSkewMs,
  };
}

async function checkRegistry(registry: HostPort, signal: AbortSignal): Promise<Reachability> {
  const startedAt = now();
  return await reached(written(registry), startedAt, async () => {
    const socket = await opened(tcpConnect(registry), "connect", signal);
    socket.destroy();
  });
}

async function checkFallback(
  target: CompatTarget | undefined,
  signal: AbortSignal,
): Promise<NetcheckReply["fallback"]> {
  if (target === undefined) {
    return { address: null, reachable: false, latencyMs: null, error: "switched off by --no-compat", proxy: null };
  }
  const proxy = proxyFor(target, process.env);
  const through = typeof proxy === "object" ? `${proxy.host}:${proxy.port}` : null;
  const startedAt = now();
  const found = await reached(compatUrl(target), startedAt, async () => {
    const { webSocket } = await openCompat(target, process.env, signal);
    webSocket.terminate();
  });
  return { ...found, proxy: through };
}

async function reached(address: string, startedAt: number, attempt: () => Promise<void>): Promise<Reachability> {
  try {
    await attempt();
    return { address, reachable: true, latencyMs: rounded(now() - startedAt), error: null };
  } catch (error) {
    return {
      address,
      reachable: false,
      latencyMs: null,
      error: error instanceof Error ? error.message : String(error),
    };
  }
}

/** By what the registry says now, or by what it said last if it does not answer. */
async function checkClock({ client, askTime }: NetcheckParts, signal: AbortSignal): Promise<number | null> {
  const before = client.serverTime?.at;
  const giveUpAt = now() + CLOCK_PATIENCE_MS;
  if (client.state === "ok") askTime();
  while (client.state === "ok" && client.serverTime?.at === before && now() < giveUpAt && !signal.aborted) {
    await sleep(CLOCK_POLL_MS);
  }
  return clockSkew(client);
}

/** The registry names whole seconds: half of one is added, and a skew below one second means nothing. */
function clockSkew(client: NetcheckParts["client"]): number | null {
  const heard = client.serverTime;
  if (heard?.unixS === undefined) return null;
  const ourTimeThen = wallNow() - (now() - heard.at);
  return Math.round(ourTimeThen - (heard.unixS * 1000 + 500));
}

function written({ host, port }: HostPort): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function rounded(ms: number | undefined): number | null {
  return ms === undefined ? null : Math.round(ms * 10) / 10;
}

const CHECK_MS = 12_000;
const CLOCK_PATIENCE_MS = 2_000;
const CLOCK_POLL_MS = 10;
