/**
 * Why a flow to or from a peer passes or not: one stage after the other, until the first that fails, with the command
 * that mends it. Only what this side knows: what the far side's rules and programs do is not guessed.
 */
import type { Instant } from "../base/instant.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { PeerIdentity } from "../control/api.ts";
import { WHY_STAGES, type WhyReply, type WhyRequest, type WhyStage, type WhyStageName } from "../control/policy-api.ts";
import type { Engine } from "../engine/engine.ts";
import { LOCKED_DOWN, NO_POLICY } from "../policy/policy.ts";
import { protocolNumber } from "../policy/rule.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { type NodeId, networkId } from "../wire/ids.ts";

export interface WhyParts {
  readonly engine: Engine;
  readonly book: TrustBook;
  input<T>(act: (at: Instant) => T): T;
  find(text: string, signal: AbortSignal): Promise<NodeId>;
  identity(node: NodeId): PeerIdentity;
}

interface Failure {
  readonly side: NonNullable<WhyReply["side"]>;
  readonly code: string;
  readonly detail: string;
  readonly fix: string;
  readonly rule?: NonNullable<WhyReply["rule"]>;
}

type Outcome = Failure | { readonly ok: string; readonly rule?: NonNullable<WhyReply["rule"]> };

export async function explain(request: WhyRequest, parts: WhyParts, signal: AbortSignal): Promise<WhyReply> {
  const found = await findPeer(request.peer, parts, signal);
  if (typeof found !== "number") return summary(null, [["name", found]]);
  const identity = parts.identity(found);
  const name = identity.hostname ?? identity.pilot;
  const outcomes: [WhyStageName, Outcome][] = [["name", { ok: `${identity.pilot}, ${identity.address}` }]];
  const checks: [WhyStageName, () => Outcome | Promise<Outcome>][] = [
    ["consent", () => consent(parts.book.stateOf(found), name)],
    ["local-rule", () => localRule(request, found, name, parts.engine)],
    ["path", () => path(found, name, parts, signal)],
  ];
  for (const [stage, look] of checks) {
    const outcome = await look();
    outcomes.push([stage, outcome]);
    if ("code" in outcome) break;
  }
  return summary(identity, outcomes);
}

async function findPeer(text: string, parts: WhyParts, signal: AbortSignal): Promise<NodeId | Failure> {
  try {
    return await parts.find(text, signal);
  } catch (error) {
    if (!(error instanceof PilotError)) throw error;
    return { side: "local", code: error.code, detail: error.message, fix: error.hint };
  }
}

function consent(state: ReturnType<TrustBook["stateOf"]>, name: string): Outcome {
  switch (state) {
    case "mutual":
      return { ok: "both sides consented" };
    case "none":
      return { side: "local", code: "not_trusted", detail: "nobody asked", fix: `pilot-tun trust ask ${name}` };
    case "pending":
      return { side: "local", code: "not_approved", detail: "it asks you", fix: `pilot-tun trust approve ${name}` };
    case "revoked":
      return { side: "local", code: "revoked", detail: "you revoked it", fix: `pilot-tun trust ask ${name}` };
    case "asked":
      return {
        side: "remote",
        code: "not_answered",
        detail: "you asked, it has not answered",
        fix: "Over there: pilot-tun trust approve",
      };
    case "lease-ended":
      return { side: "local", code: "lease_ended", detail: "its lease is over", fix: `pilot-tun trust ask ${name}` };
    case "revoked-by-peer":
      return { side: "remote", code: "revoked_by_peer", detail: "it revoked you", fix: `pilot-tun trust ask ${name}` };
  }
}

function localRule(request: WhyRequest, node: NodeId, name: string, { admission }: Engine): Outcome {
  const direction = request.direction ?? "out";
  if (request.protocol === undefined) {
    const isLocked = admission.judge(node, networkId(0), direction, 0, 0) === LOCKED_DOWN;
    return isLocked ? lockedDown() : { ok: "no flow was named: give tcp/PORT, udp/PORT or icmp" };
  }
  const verdict = admission.judge(node, networkId(0), direction, protocolNumber(request.protocol), request.port ?? 0);
  if (verdict === LOCKED_DOWN) return lockedDown();
  if (verdict === NO_POLICY) return { ok: "there is no policy: trusted peers reach every port" };
  const found = admission.policy.ruleOf(verdict);
  const rule = found && { file: found.source.file, line: found.source.line, text: found.text };
  if (rule !== undefined && admission.policy.allows(verdict)) {
    return { ok: `${rule.file}:${rule.line} ${rule.text}`, rule };
  }
  const preposition = direction === "in" ? "from" : "to";
  const what = request.protocol === "icmp" ? "icmp" : `${request.protocol} ${request.port}`;
  const line = `allow ${direction} ${what} ${preposition} ${name}`;
  if (rule === undefined) {
    const fix = `Add a line to the policy: ${line}`;
    return { side: "local", code: "policy_no_match", detail: "no rule matches", fix };
  }
  const fix = `Put before ${rule.file}:${rule.line}: ${line}`;
  return { side: "local", code: "policy_denied", detail: `${rule.file}:${rule.line} ${rule.text}`, fix, rule };
}

function lockedDown(): Failure {
  return { side: "local", code: "locked_down", detail: "a lockdown is on", fix: "pilot-tun lockdown --lift" };
}

/** A session, or one within a short time: the first packet would begin it just so. */
async function path(node: NodeId, name: string, { engine, input }: WhyParts, signal: AbortSignal): Promise<Outcome> {
  for (let waitedMs = 0; waitedMs <= PATIENCE_MS && !signal.aborted; waitedMs += POLL_MS) {
    const facts = engine.linkFacts(node);
    if (facts?.isUp === true)
      return { ok: `${facts.path}${facts.rttMs === undefined ? "" : `, ${facts.rttMs.toFixed(1)} ms`}` };
    input((at) => engine.ping(node, at)); // makes the session
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  const fix = `See pilot-tun trace ${name}, and whether the far side runs.`;
  return { side: "between", code: "no_path", detail: "no session could be made", fix };
}

function summary(peer: PeerIdentity | null, outcomes: readonly (readonly [WhyStageName, Outcome])[]): WhyReply {
  const [stage, last] = outcomes.at(-1)!;
  const failure = "code" in last ? last : undefined;
  const rule = outcomes.map(([, outcome]) => outcome.rule).find((one) => one !== undefined);
  return {
    peer,
    verdict: failure === undefined ? "allow" : "deny",
    stage: failure === undefined ? null : stage,
    side: failure?.side ?? null,
    code: failure?.code ?? "allowed",
    rule: rule ?? null,
    fix: failure?.fix ?? null,
    stages: WHY_STAGES.map((name): WhyStage => {
      const outcome = outcomes.find(([looked]) => looked === name)?.[1];
      if (outcome === undefined) return { stage: name, state: "unknown", detail: "" };
      return "ok" in outcome
        ? { stage: name, state: "ok", detail: outcome.ok }
        : { stage: name, state: "failed", detail: outcome.detail };
    }),
  };
}

const PATIENCE_MS = 3_000;
const POLL_MS = 50;
