/** What `trace` tells of the ways to one peer: the link's candidates and path as words and ages. */
import { type Endpoint, formatEndpoint, sameEndpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import type { PeerIdentity, TraceCandidate, TraceReason, TraceReply } from "../control/api.ts";
import type { Engine } from "../engine/engine.ts";
import type { Candidate } from "../tunnel/candidates.ts";
import type { Link } from "../tunnel/link.ts";
import type { NodeId } from "../wire/ids.ts";

/** `since`: when every way was tried; what came later is an answer. */
export function traceReply(engine: Engine, node: NodeId, peer: PeerIdentity, since: Instant, now: Instant): TraceReply {
  const link = engine.link(node);
  const facts = engine.linkFacts(node);
  const candidates = (link?.path.candidates.all() ?? []).map((candidate) => shown(candidate, link!, since, now));
  const reason = whyNotDirect(link, candidates);
  return {
    peer,
    path: facts?.path ?? "none",
    endpoint: facts?.isUp ? textOf(facts.endpoint) : null,
    answered: facts?.isUp === true && facts.lastReceivedAt !== undefined && facts.lastReceivedAt >= since,
    notDirect: reason === undefined ? null : { code: reason, message: MESSAGES[reason] },
    candidates,
    history: [...(link?.path.history ?? [])].reverse().map(({ at, kind, endpoint }) => ({
      agoS: agoS(at, now)!,
      path: kind,
      endpoint: textOf(endpoint),
    })),
    observed: textOf(engine.paths.observed),
    local: engine.paths.localAddresses.map(({ address }) => address),
  };
}

function shown(candidate: Candidate, link: Link, since: Instant, now: Instant): TraceCandidate {
  const { endpoint, origin, tries, triedAt, heardAt, rttMs } = candidate;
  return {
    endpoint: formatEndpoint(endpoint),
    origin,
    state: stateOf(candidate, link, since, now),
    tries,
    triedAgoS: agoS(triedAt, now),
    heardAgoS: agoS(heardAt, now),
    rttMs: rttMs ?? null,
  };
}

function stateOf(candidate: Candidate, link: Link, since: Instant, now: Instant): TraceCandidate["state"] {
  const { answeredAt, heardAt } = candidate;
  if (link.isUp && link.path.kind === "direct" && sameEndpoint(candidate.endpoint, link.path.direct)) return "chosen";
  if (answeredAt !== undefined && answeredAt >= since) return "answers";
  if (heardAt !== undefined && now - heardAt < HEARD_MS) return "heard";
  return candidate.tries === 0 ? "untried" : "silent";
}

function whyNotDirect(link: Link | undefined, candidates: readonly TraceCandidate[]): TraceReason | undefined {
  if (link === undefined || !link.isUp) return "no-session";
  if (link.path.kind === "direct") return undefined;
  if (link.path.isRelayOnly) return "relay-only";
  if (candidates.some(({ state }) => state === "answers")) return "settling";
  if (link.path.kind === "tcp") return "udp-blocked";
  if (candidates.length === 0) return "no-candidates";
  return candidates.some(({ state }) => state === "heard") ? "one-way" : "no-answer";
}

const MESSAGES: Readonly<Record<TraceReason, string>> = {
  "no-session": "no keys are agreed with the peer: it does not answer on any way",
  "relay-only": "this node was started with --relay-only",
  "udp-blocked": "UDP does not get out of this network: pilot-tun netcheck says what does",
  "no-candidates": "nobody has told an endpoint of the peer; it may be registered as reachable through the relay only",
  "no-answer": "no endpoint of the peer answers: firewalls, or two NATs that give every destination another port",
  "one-way": "frames of the peer come straight, but ours do not arrive there",
  settling: "a direct way answers and is about to be used",
};

function textOf(endpoint: Endpoint | undefined): string | null {
  return endpoint === undefined ? null : formatEndpoint(endpoint);
}

function agoS(at: Instant | undefined, now: Instant): number | null {
  return at === undefined ? null : Math.max(0, Math.round((now - at) / 1000));
}

/** A peer that looks for a direct way tries ours every 5 s. */
const HEARD_MS = 6_000;
