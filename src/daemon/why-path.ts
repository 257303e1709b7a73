/** The stages of an explanation about what lies between: a session, the way that frames take, the sizes that it carries. */
import { now } from "../io/clock.ts";
import type { WhyParts } from "./why.ts";
import { type Case, type Failure, type Outcome, ok } from "./why-case.ts";
import type { WhyFarSide } from "./why-far-side.ts";

/** A session, or one within a short time: the first packet would begin it just so. */
export async function path(asked: Case, parts: WhyParts, signal: AbortSignal): Promise<Outcome> {
  const began = now();
  while (now() < began + PATIENCE_MS && !signal.aborted) {
    // A session that is there may be with somebody who is gone: only an answer of now counts.
    if (await answered(asked, parts, signal)) return wayOf(asked, parts);
    parts.input((at) => parts.engine.beaconWay.handleSuspicion(at)); // meanwhile: does UDP get out at all?
  }
  return noPath(asked, parts);
}

/** One round trip, measured now. */
async function answered({ node }: Case, { engine, input }: WhyParts, signal: AbortSignal): Promise<boolean> {
  const heard = () => engine.linkFacts(node)?.lastReceivedAt;
  const before = heard();
  input((at) => engine.ping(node, at));
  for (const until = now() + ANSWER_MS; now() < until && !signal.aborted; ) {
    await pause(STEP_MS);
    if (engine.linkFacts(node)?.isUp === true && heard() !== before) return true;
  }
  return false;
}

function wayOf(asked: Case, { engine }: WhyParts): Outcome {
  const facts = engine.linkFacts(asked.node)!;
  const rtt = facts.rttMs === undefined ? "" : `, ${facts.rttMs.toFixed(1)} ms`;
  const { policy } = engine.admission;
  const via = policy.ruleOf(policy.judge(asked.facts))?.terms?.via;
  const isRelayed = facts.path !== "direct";
  if (via !== undefined && isRelayed !== (via === "relay")) {
    const detail = `the rule wants ${via}, and frames go ${facts.path}`;
    return { side: "between", code: "wrong_path", detail, fix: `pilot-tun trace ${asked.name}` };
  }
  return ok(`${facts.path}${rtt}`);
}

function noPath({ name, node }: Case, { engine, connection }: WhyParts): Failure {
  const weaker = engine.problems.get(`session_downgraded ${node}`);
  if (weaker !== undefined) {
    return { side: "remote", code: "session_downgraded", detail: weaker.message, fix: weaker.hint };
  }
  const beacon = engine.beaconFacts(now()).state;
  const isBlocked = engine.beaconWay.isUdpBlocked(now()) && engine.beaconWay.transport === "udp";
  if (isBlocked && connection.state === "ok") {
    const detail = "UDP does not get out of this network: the beacon does not answer";
    const fix = "Let UDP out, or give pilot-tun up a way over TLS (--compat). See pilot-tun netcheck.";
    return { side: "local", code: "udp_blocked", detail, fix };
  }
  if (connection.state !== "ok" && (isBlocked || beacon !== "ok")) {
    const detail = "this host reaches neither the registry nor the beacon";
    return { side: "local", code: "offline", detail, fix: "Mend this host's network. See pilot-tun netcheck." };
  }
  const detail = "it does not answer, neither directly nor through the relay";
  const fix = `See that pilot-tun runs over there; pilot-tun trace ${name} shows what was tried.`;
  return { side: "remote", code: "peer_silent", detail, fix };
}

/** Frames of the size in use get through, or those of the size that the path is found to carry. */
export async function mtu(
  asked: Case,
  { engine, input }: WhyParts,
  farSide: WhyFarSide,
  signal: AbortSignal,
): Promise<Outcome> {
  const facts = engine.linkFacts(asked.node);
  if (facts?.kind !== "pilot-tun") return { state: "unknowable", detail: "a plain agent answers no probes" };
  const until = now() + MTU_PATIENCE_MS;
  while (now() < until && !signal.aborted) {
    const size = engine.sizes.frameBytesFor(asked.node);
    if (size === undefined || (await farSide.carries(asked.node, size, signal))) {
      return ok(`packets of ${engine.linkFacts(asked.node)?.mtuBytes ?? "any"} bytes get through`);
    }
    input((at) => engine.sizes.check(asked.node, at)); // perhaps the path became narrow, and is being measured anew
  }
  const detail = `small frames get through, those for packets of ${facts.mtuBytes} bytes do not`;
  const fix = "Raise the MTU of the links between to 576 bytes or more; see pilot-tun peers --json, pathMtuBytes.";
  return { side: "between", code: "mtu_too_small", detail, fix };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Long enough for a new session, and to tell blocked UDP from a pause. */
const PATIENCE_MS = 4_000;
const ANSWER_MS = 1_000;
const STEP_MS = 5;
const MTU_PATIENCE_MS = 6_000;
