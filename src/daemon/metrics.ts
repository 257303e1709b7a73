/**
 * The daemon's metrics, and where Prometheus reads them: a unix socket or a loopback port, only if asked for. Labels are
 * peers (bounded by trust records) and words out of closed sets; nothing of what peers send each other.
 */

import { once } from "node:events";
import { chmodSync, unlinkSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { PilotError } from "../base/pilot-error.ts";
import type { PeerStatus, StatusReply } from "../control/api.ts";
import type { AuditReply } from "../control/audit-api.ts";
import type { EngineCounters } from "../engine/engine.ts";
import { metricsOf, type Sample } from "./prometheus-text.ts";
import type { MetricsAddress } from "./up-options.ts";

export interface Measures {
  readonly status: StatusReply;
  readonly engine: EngineCounters;
  readonly loop: Pick<ReturnType<typeof monitorEventLoopDelay>, "percentile" | "max">;
  /** Whether the thread that moves packets goes before ordinary programs just now. */
  readonly isPreferred: boolean;
  readonly nameQueries: number;
  /** Absent when no audit log is kept. */
  readonly audit?: Pick<AuditReply, "waiting" | "lost"> | undefined;
  readonly memory: { readonly rss: number; readonly heapUsed: number };
}

const { gauge, counter } = metricsOf("pilot_tun_");

export function formatDaemonMetrics({
  status,
  engine,
  loop,
  isPreferred,
  nameQueries,
  audit,
  memory,
}: Measures): string {
  const perPeer = (value: (peer: PeerStatus) => number | null): Sample[] =>
    status.peers.flatMap((peer) => {
      const measured = value(peer);
      return measured === null ? [] : [[{ node: peer.node, peer: peer.hostname ?? peer.pilot }, measured] as Sample];
    });
  const lines = [
    gauge("info", "Always 1.", [
      [{ version: status.version, node: status.node ?? "", interface: status.interface }, 1],
    ]),
    gauge("uptime_seconds", "Since the daemon started.", [[{}, status.uptimeS]]),
    gauge("registry_connected", "1 while the registry is connected.", [
      [{}, Number(status.registry.state === "connected")],
    ]),
    gauge("beacon_reachable", "1 while the beacon answers.", [
      [{ transport: status.beacon.transport }, Number(status.beacon.state === "ok")],
    ]),
    gauge(
      "peers",
      "Peers by state of trust.",
      countBy(status.peers, (peer) => peer.trust, "trust"),
    ),
    gauge(
      "peers_by_path",
      "Peers by the way they are reached.",
      countBy(status.peers, (peer) => peer.path, "path"),
    ),
    gauge(
      "peers_by_session",
      "Peers by what their session is made of.",
      countBy(status.peers, (peer) => peer.session, "session"),
    ),
    counter(
      "peer_received_bytes_total",
      "Bytes of packets from a peer.",
      perPeer((peer) => peer.rxBytes),
    ),
    counter(
      "peer_sent_bytes_total",
      "Bytes of packets to a peer.",
      perPeer((peer) => peer.txBytes),
    ),
    counter(
      "peer_received_packets_total",
      "Packets from a peer.",
      perPeer((peer) => peer.rxPackets),
    ),
    counter(
      "peer_sent_packets_total",
      "Packets to a peer.",
      perPeer((peer) => peer.txPackets),
    ),
    gauge(
      "peer_rtt_seconds",
      "Last measured round trip.",
      perPeer((peer) => peer.rttMs && peer.rttMs / 1000),
    ),
    gauge(
      "peer_handshake_age_seconds",
      "Since the keys in use were agreed.",
      perPeer((peer) => peer.lastHandshakeAgoS),
    ),
    gauge("peer_path", "1 for the way a peer is reached.", pathSamples(status.peers)),
    counter("handshakes_total", "Sessions that came up.", [[{}, engine.sessions]]),
    counter("key_agreements_total", "Keys that peers and this node agreed on inside sessions.", [
      [{}, engine.agreements],
    ]),
    counter("policy_verdicts_total", "New flows judged.", [
      [{ verdict: "allow" }, engine.allowed],
      [{ verdict: "deny" }, engine.denied],
    ]),
    gauge("flows", "Flows in the table.", [[{}, engine.flows]]),
    counter("dropped_packets_total", "Packets that went no further.", dropSamples(status)),
    gauge("queue_packets", "Packets that wait for keys.", [[{ queue: "staging" }, engine.staged]]),
    counter("name_queries_total", "Questions about names under .pilot.", [[{}, nameQueries]]),
    ...(audit === undefined
      ? []
      : [
          gauge("audit_waiting_events", "Events that the audit log has not written yet.", [[{}, audit.waiting]]),
          counter("audit_lost_events_total", "Events that it never will.", [[{}, audit.lost]]),
        ]),
    gauge("event_loop_delay_seconds", "How late the event loop turned since the last reading.", [
      [{ quantile: "0.5" }, loop.percentile(50) / 1e9],
      [{ quantile: "0.99" }, loop.percentile(99) / 1e9],
      [{ quantile: "1" }, loop.max / 1e9],
    ]),
    gauge("preferred", "1 while the thread that moves packets goes before ordinary programs.", [
      [{}, Number(isPreferred)],
    ]),
    gauge("memory_bytes", "Memory in use.", [
      [{ kind: "rss" }, memory.rss],
      [{ kind: "heap" }, memory.heapUsed],
    ]),
    gauge(
      "problems",
      "What status shows as a problem.",
      status.problems.map(({ code }) => [{ code }, 1]),
    ),
  ];
  return `${lines.flat().join("\n")}\n`;
}

function countBy(peers: readonly PeerStatus[], wordOf: (peer: PeerStatus) => string, label: string): Sample[] {
  const counts = new Map<string, number>();
  for (const peer of peers) counts.set(wordOf(peer), (counts.get(wordOf(peer)) ?? 0) + 1);
  return [...counts].map(([word, count]) => [{ [label]: word }, count]);
}

function pathSamples(peers: readonly PeerStatus[]): Sample[] {
  return peers.map(({ node, hostname, pilot, path }) => [{ node, peer: hostname ?? pilot, path }, 1]);
}

function dropSamples({ drops }: StatusReply): Sample[] {
  return Object.entries(drops).map(([reason, count]) => [{ reason }, count]);
}

export interface MetricsParts {
  status(): StatusReply | Promise<StatusReply>;
  counters(): EngineCounters;
  isPreferred(): boolean;
  nameQueries(): number;
  audit?(): AuditReply | undefined;
}

export class Metrics {
  readonly #parts: MetricsParts;
  readonly #loop = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
  #server: Server | undefined;

  constructor(parts: MetricsParts) {
    this.#parts = parts;
  }

  /** Begins to measure and, with an address, to answer there. Throws PilotError `metrics_unavailable`. */
  async start(address: MetricsAddress | undefined): Promise<void> {
    if (address === undefined) return;
    this.#loop.enable(); // wakes the process regularly: not without a reader
    const server = createServer({ maxHeaderSize: 8192, requestTimeout: 10_000 }, (request, response) => {
      const isWanted = request.method === "GET" && request.url?.split("?")[0] === "/metrics";
      response.writeHead(isWanted ? 200 : 404, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
      if (isWanted)
        void this.text().then(
          (text) => response.end(text),
          () => response.destroy(),
        );
      else response.end("Metrics are at /metrics.\n");
    });
    server.maxConnections = MAX_CONNECTIONS;
    this.#server = server;
    if (address.kind === "unix") removeSocket(address.path);
    if (address.kind === "unix") server.listen(address.path);
    else server.listen(address.port, address.host);
    try {
      await once(server, "listening");
      if (address.kind === "unix") chmodSync(address.path, 0o660);
    } catch (error) {
      const hint = "Name another --metrics: 127.0.0.1:9586, [::1]:9586 or unix:/run/pilot-tun/metrics.sock.";
      throw new PilotError("metrics_unavailable", `Metrics cannot be served: ${(error as Error).message}`, hint);
    }
  }

  close(): void {
    this.#loop.disable();
    this.#server?.close();
    this.#server?.closeAllConnections();
  }

  /** Each reading begins a new time of measuring the event loop. */
  async text(): Promise<string> {
    const text = formatDaemonMetrics({
      status: await this.#parts.status(),
      engine: this.#parts.counters(),
      loop: this.#loop,
      isPreferred: this.#parts.isPreferred(),
      nameQueries: this.#parts.nameQueries(),
      audit: this.#parts.audit?.(),
      memory: process.memoryUsage(),
    });
    this.#loop.reset();
    return text;
  }
}

/** One that a daemon before left behind. */
function removeSocket(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // There is none.
  }
}

const LOOP_RESOLUTION_MS = 20;
const MAX_CONNECTIONS = 16;
