/**
 * What the NAT in front of this node does, in the words of RFC 4787: how it maps (§4.1), what it filters (§5), whether
 * it hairpins (§6). Mapping and filtering take a beacon with further ports, on its own address and on another, each of
 * which names the next; with only one of them less can be told, and that is what is said.
 */
import { networkInterfaces } from "node:os";
import { equalBytes, equalSecrets } from "../base/bytes.ts";
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
  const probes = await Promise.all([UdpProbe.open(family), UdpProbe.open(family), UdpProbe.open(family)]);
  try {
    return await check(beacon, probes, crypto, signal);
  } finally {
    for (const probe of probes) probe.close();
  }
}

async function check(
  beacon: Endpoint,
  [probe, caller, called]: readonly [UdpProbe, UdpProbe, UdpProbe],
  crypto: Crypto,
  signal: AbortSignal,
): Promise<NatReport> {
  const first = await discover(probe, beacon, signal);
  if (first === undefined) return { observed: undefined, latencyMs: undefined, nat: UNKNOWN_NAT };
  const { observed, latencyMs } = first;
  if (isOwn(observed, probe.port)) return { observed, latencyMs, nat: NO_NAT };
  const [found, hairpin] = await Promise.all([
    askAround(probe, beacon, observed, crypto, signal),
    hairpins(caller, called, beacon, crypto, signal),
  ]);
  const { filtering, mapping } = { filtering: behaviour(found.filtering), mapping: behaviour(found.mapping) };
  return { observed, latencyMs, nat: { present: true, mapping, filtering, hairpin } };
}

/** What was found with a port on an address that was written to before, and with one on another address. */
interface Findings {
  near?: boolean;
  far?: boolean;
}

/**
 * Goes from port to port. At each, in this order, for asking a port opens the NAT to it: does something come in from
 * there, unasked? Is the mapping towards it the same?
 */
async function askAround(
  probe: UdpProbe,
  beacon: Endpoint,
  observed: Endpoint,
  crypto: Crypto,
  signal: AbortSignal,
): Promise<{ filtering: Findings; mapping: Findings }> {
  const filtering: Findings = {};
  const mapping: Findings = {};
  let asked = beacon;
  for (let port = 0; port < MAX_PORTS; port++) {
    const next = await otherPort(probe, asked, crypto.randomBytes(PROBE_TOKEN_BYTES), signal);
    if (next === undefined) break;
    const where = next.address === beacon.address ? "near" : "far";
    const request = { fromOther: true, token: crypto.randomBytes(PROBE_TOKEN_BYTES) };
    // Who keeps out the nearer keeps out the farther.
    if (filtering.near !== false) filtering[where] = (await askProbe(probe, asked, request, signal)) !== undefined;
    const seen = (await discover(probe, next, signal))?.observed;
    if (seen === undefined) break;
    mapping[where] = sameEndpoint(seen, observed);
    asked = next;
  }
  return { filtering, mapping };
}

/** The words for it; `near` and `far` say that an endpoint there is treated like one that was written to. */
export function behaviour({ near, far }: Findings): NatBehaviour {
  if (far === true) return "endpoint-independent";
  if (near === false) return "address-and-port-dependent";
  if (near === true) return far === false ? "address-dependent" : "endpoint-independent-or-address-dependent";
  return far === false ? "address-dependent-or-stricter" : "unknown";
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

async function askProbe(
  probe: UdpProbe,
  beacon: Endpoint,
  request: { readonly fromOther: boolean; readonly token: Uint8Array },
  signal: AbortSignal,
): Promise<ProbeAnswer | undefined> {
  const isAnswer = (datagram: Uint8Array): boolean => {
    const answer = parseProbeAnswer(datagram);
    return answer?.fromOther === request.fromOther && equalSecrets(answer.token, request.token);
  };
  const heard = await probe.ask(beacon, encodeProbe(request), isAnswer, signal);
  return heard === undefined ? undefined : parseProbeAnswer(heard.datagram);
}

/** Whether what one socket sends to the other's outside endpoint comes back in; null: that endpoint is not known. */
async function hairpins(
  from: UdpProbe,
  to: UdpProbe,
  beacon: Endpoint,
  crypto: Crypto,
  signal: AbortSignal,
): Promise<boolean | null> {
  const outside = (await discover(to, beacon, signal))?.observed;
  if (outside === undefined) return null;
  const question = encodeProbe({ fromOther: false, token: crypto.randomBytes(PROBE_TOKEN_BYTES) });
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

/** One on the beacon's address, one on another. */
const MAX_PORTS = 2;
const HAIRPIN_MS = 300;
const UNKNOWN_NAT: NetcheckReply["nat"] = { present: null, mapping: "unknown", filtering: "unknown", hairpin: null };
const NO_NAT: NetcheckReply["nat"] = { present: false, mapping: "none", filtering: "unknown", hairpin: null };
