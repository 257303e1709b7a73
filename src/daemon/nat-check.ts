/**
 * What the NAT in front of this node does, in the words of RFC 4787: how it maps (§4.1), what it filters (§5), whether
 * it hairpins (§6). Mapping and filtering take a beacon with a second port; with others they stay unknown. A beacon whose
 * second port is on the same address cannot tell endpoint-independent from address-dependent, and that is what is said.
 */
import { networkInterfaces } from "node:os";
import { equalBytes } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import { type Endpoint, sameEndpoint } from "../base/endpoint.ts";
import type { NatBehaviour, NetcheckReply } from "../control/api.ts";
import { UdpProbe } from "../io/udp-probe.ts";
import { encodeDiscover, parseBeaconToNode } from "../wire/beacon.ts";
import { encodeProbe, PROBE_TOKEN_BYTES, type ProbeAnswer, parseProbeAnswer } from "../wire/beacon-probe.ts";
import { nodeId } from "../wire/ids.ts";

export interface NatReport {
  /** Undefined: the beacon did not answer over UDP. */
  readonly observed: Endpoint | undefined;
  readonly latencyMs: number | undefined;
  readonly nat: NetcheckReply["nat"];
}

export async function checkNat(beacon: Endpoint, crypto: Crypto, signal: AbortSignal): Promise<NatReport> {
  const family = beacon.address.includes(":") ? "IPv6" : "IPv4";
  const probes = await Promise.all([UdpProbe.open(family), UdpProbe.open(family)]);
  try {
    return await check(beacon, probes, crypto, signal);
  } finally {
    for (const probe of probes) probe.close();
  }
}

async function check(
  beacon: Endpoint,
  [probe, second]: readonly [UdpProbe, UdpProbe],
  crypto: Crypto,
  signal: AbortSignal,
): Promise<NatReport> {
  const first = await discover(probe, beacon, signal);
  if (first === undefined) return { observed: undefined, latencyMs: undefined, nat: UNKNOWN_NAT };
  const { observed, latencyMs } = first;
  if (isOwn(observed, probe.port)) return { observed, latencyMs, nat: NO_NAT };
  const token = crypto.randomBytes(PROBE_TOKEN_BYTES);
  const hairpin = await hears(second, probe, observed, token, signal);
  const other = await otherPort(probe, beacon, token, signal);
  if (other === undefined) return { observed, latencyMs, nat: { ...UNKNOWN_NAT, present: true, hairpin } };
  // In this order: asking the other port opens the NAT for its answers.
  const filtering = await checkFiltering(probe, beacon, other, crypto, signal);
  const mapping = await checkMapping(probe, beacon, other, observed, signal);
  return { observed, latencyMs, nat: { present: true, mapping, filtering, hairpin } };
}

async function discover(probe: UdpProbe, beacon: Endpoint, signal: AbortSignal) {
  const isReply = (datagram: Uint8Array, from: Endpoint): boolean =>
    sameEndpoint(from, beacon) && parseBeaconToNode(datagram)?.kind === "discover-reply";
  const heard = await probe.ask(beacon, encodeDiscover(nodeId(0), false), isReply, signal);
  const reply = heard === undefined ? undefined : parseBeaconToNode(heard.datagram);
  if (heard === undefined || reply?.kind !== "discover-reply") return undefined;
  return { observed: reply.endpoint, latencyMs: heard.latencyMs };
}

async function otherPort(
  probe: UdpProbe,
  beacon: Endpoint,
  token: Uint8Array,
  signal: AbortSignal,
): Promise<Endpoint | undefined> {
  const heard = await askProbe(probe, beacon, { fromOther: false, token }, signal);
  return heard?.other === undefined
    ? undefined
    : { address: heard.other.address ?? beacon.address, port: heard.other.port };
}

/** An answer that comes from an endpoint we never wrote to got past the filter. */
async function checkFiltering(
  probe: UdpProbe,
  beacon: Endpoint,
  other: Endpoint,
  crypto: Crypto,
  signal: AbortSignal,
): Promise<NatBehaviour> {
  const token = crypto.randomBytes(PROBE_TOKEN_BYTES);
  const passed = (await askProbe(probe, beacon, { fromOther: true, token }, signal)) !== undefined;
  if (other.address !== beacon.address) return passed ? "endpoint-independent" : "address-dependent-or-stricter";
  return passed ? "endpoint-independent-or-address-dependent" : "address-and-port-dependent";
}

async function checkMapping(
  probe: UdpProbe,
  beacon: Endpoint,
  other: Endpoint,
  observed: Endpoint,
  signal: AbortSignal,
): Promise<NatBehaviour> {
  const seen = (await discover(probe, other, signal))?.observed;
  if (seen === undefined) return "unknown";
  const isSame = sameEndpoint(seen, observed);
  if (other.address !== beacon.address) return isSame ? "endpoint-independent" : "address-dependent-or-stricter";
  return isSame ? "endpoint-independent-or-address-dependent" : "address-and-port-dependent";
}

async function askProbe(
  probe: UdpProbe,
  beacon: Endpoint,
  request: { readonly fromOther: boolean; readonly token: Uint8Array },
  signal: AbortSignal,
): Promise<ProbeAnswer | undefined> {
  const isAnswer = (datagram: Uint8Array): boolean => {
    const answer = parseProbeAnswer(datagram);
    return answer?.fromOther === request.fromOther && equalBytes(answer.token, request.token);
  };
  const heard = await probe.ask(beacon, encodeProbe(request), isAnswer, signal);
  return heard === undefined ? undefined : parseProbeAnswer(heard.datagram);
}

/** Whether what one socket sends to the other's outside endpoint comes back in. */
async function hears(
  from: UdpProbe,
  to: UdpProbe,
  outside: Endpoint,
  token: Uint8Array,
  signal: AbortSignal,
): Promise<boolean> {
  const question = encodeProbe({ fromOther: false, token });
  const timer = setInterval(() => from.send(outside, question), HAIRPIN_MS);
  from.send(outside, question);
  const heard = await to.ask(outside, new Uint8Array(0), (datagram) => equalBytes(datagram, question), signal);
  clearInterval(timer);
  return heard !== undefined;
}

function isOwn(endpoint: Endpoint, port: number): boolean {
  if (endpoint.port !== port) return false;
  return Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === endpoint.address));
}

const HAIRPIN_MS = 300;
const UNKNOWN_NAT: NetcheckReply["nat"] = { present: null, mapping: "unknown", filtering: "unknown", hairpin: null };
const NO_NAT: NetcheckReply["nat"] = { present: false, mapping: "none", filtering: "unknown", hairpin: null };
