/**
 * The metrics of a rendezvous as Prometheus reads them (text exposition format 0.0.4). Every label comes from a closed
 * set, except the pairs of nodes that relay most, of which there are never more than RELAY_PAIRS.
 */
import type { HistogramSnapshot } from "../base/histogram.ts";
import type { BeaconServer } from "../rendezvous/beacon.ts";
import type { RequestCount } from "../rendezvous/request-counts.ts";
import type { BeaconSocketCounters } from "./beacon-socket.ts";
import { metricsOf, type Sample } from "./prometheus-text.ts";

export interface RendezvousMeasures {
  readonly nodes: number;
  readonly connections: number;
  readonly requests: readonly Readonly<RequestCount>[];
  readonly commitSeconds: HistogramSnapshot;
  readonly commitFailures: number;
  readonly beacon: BeaconServer;
  readonly relay: BeaconSocketCounters;
}

export function formatMetrics(measures: RendezvousMeasures): string {
  const lines = [
    gauge("nodes", "Registered nodes.", [[{}, measures.nodes]]),
    gauge("connections", "Open connections to the registry.", [[{}, measures.connections]]),
    counter(
      "requests_total",
      "Requests to the registry.",
      measures.requests.map(({ type, outcome, count }) => [{ type, outcome }, count]),
    ),
    histogram("commit_seconds", "Time to make a turn's requests durable.", measures.commitSeconds),
    counter("commit_failures_total", "Turns that the disk refused.", [[{}, measures.commitFailures]]),
    ...beaconMetrics(measures),
  ];
  return `${lines.flat().join("\n")}\n`;
}

function beaconMetrics({ beacon, relay }: RendezvousMeasures): string[] {
  const { counters } = beacon;
  const { pairs, others } = beacon.ledger.top(RELAY_PAIRS);
  const byPair = (what: "frames" | "bytes"): Sample[] => [
    ...pairs.map((pair): Sample => [{ sender: pair.sender, destination: pair.destination }, pair[what]]),
    [{ sender: "other", destination: "other" }, others[what]],
  ];
  return [
    gauge("beacon_nodes", "Nodes that the beacon can reach.", [
      [{ number: "proven" }, beacon.provenCount],
      [{ number: "claimed" }, beacon.nodeCount - beacon.provenCount],
    ]),
    gauge("beacon_sources", "Addresses that are known not to be made up.", [
      [{ shown_by: "proof" }, beacon.sources.provenCount],
      [{ shown_by: "connection" }, beacon.sources.connectedCount],
    ]),
    counter("beacon_datagrams_total", "Datagrams that came to the beacon.", [[{}, counters.received]]),
    counter("beacon_proofs_total", "Proofs of a node's number.", [
      [{ outcome: "accepted" }, counters.proofs],
      [{ outcome: "refused" }, counters.proofsRefused],
    ]),
    counter("relay_frames_total", "Frames relayed.", [[{}, counters.relayed]]),
    counter("relay_bytes_total", "Bytes relayed.", [[{}, counters.relayedBytes]]),
    counter("relay_pair_frames_total", "Frames relayed, by pair.", byPair("frames")),
    counter("relay_pair_bytes_total", "Bytes relayed, by pair.", byPair("bytes")),
    gauge("relay_pairs", "Pairs of nodes in the table.", [[{}, beacon.ledger.size]]),
    gauge("relay_queue_bytes", "What waits to be relayed.", [[{}, relay.queuedBytes]]),
    gauge("relay_queue_frames", "Frames, or runs of frames, that wait to be relayed.", [[{}, relay.queuedFrames]]),
    gauge("relay_queue_flows", "Senders of what waits.", [[{}, relay.queuedFlows]]),
    counter("beacon_drops_total", "Datagrams dropped.", [
      [{ reason: "malformed" }, counters.malformed],
      [{ reason: "limited" }, counters.limited],
      [{ reason: "unknown-target" }, counters.unknownTarget],
      [{ reason: "forged-sender" }, counters.forgedSender],
      [{ reason: "proof-missing" }, counters.proofMissing],
      [{ reason: "relay-only" }, counters.relayOnly],
      [{ reason: "queue-full" }, relay.queueFull],
      [{ reason: "socket-full" }, relay.overflowKnown],
      [{ reason: "socket-full-of-strangers" }, relay.overflowStrangers],
    ]),
    counter("beacon_limited_total", "Datagrams over a limit of their source.", [
      [{ limit: "frames" }, counters.limitedFrames],
      [{ limit: "bytes" }, counters.limitedBytes],
      [{ limit: "control" }, counters.limitedControl],
      [{ limit: "proofs" }, counters.limitedProofs],
      [{ limit: "strangers" }, counters.limitedStrangers],
    ]),
    counter("beacon_unproven_moves_total", "Claims that would have moved a proven number.", [
      [{}, counters.unprovenMove],
    ]),
    counter(
      "beacon_unregistered_claims_total",
      "Claims of unregistered numbers, refused while very many are claimed.",
      [[{}, counters.claimsFull]],
    ),
  ].flat();
}

const { gauge, counter, histogram } = metricsOf("pilot_rendezvous_");
const RELAY_PAIRS = 100;
